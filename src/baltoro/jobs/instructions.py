"""The instructions stage: papers, knowledge, reviews and files → one set of examples, with its rejects.

The artifact holds ``examples.parquet`` (:data:`EXAMPLES_SCHEMA`), ``rejects.parquet`` and, of reviews, the
picture of their lengths. Each part of the set can be trained on alone; which format a model reads them in is
decided by the stage that trains.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage, digest_of
from baltoro.corpus.listing import chunk_listings
from baltoro.corpus.work import STAGING, Task, WorkArea, parquet_bytes
from baltoro.instructions.example import EXAMPLE_SCHEMA, Example, examples_from_table, examples_to_table
from baltoro.instructions.splits import HoldOut, vague_stems
from baltoro.jobs.corpus import load_metadata
from baltoro.jobs.instruction_lines import warnings_of
from baltoro.jobs.instruction_sets import InstructionSet, check_instructions, decide
from baltoro.jobs.paper_chunks import PaperChunks
from baltoro.jobs.recipe import InstructionsConfig, Recipe
from baltoro.jobs.reviews import LENGTHS_FILE, add_reviews
from baltoro.jobs.stages import Context, Stage, StageOutput, remove_staging
from baltoro.jobs.tokens import run_tasks
from baltoro.papers.schema import Reject, count_reasons, rejects_to_table
from baltoro.tracking.mlflow import StageRun, Tracker

if TYPE_CHECKING:
    from baltoro.instructions.signals.config import SignalsConfig
    from baltoro.instructions.signals.knowledge.concepts import Knowledge
    from baltoro.instructions.signals.knowledge.entities import Vocabulary
    from baltoro.instructions.signals.templates import Templates

EXAMPLES_FILE, REJECTS_FILE, COUNTS_FILE = "examples.parquet", "rejects.parquet", "counts.json"

EXAMPLES_SCHEMA = pa.schema([*EXAMPLE_SCHEMA, ("part", pa.string()), ("split", pa.string())])
"""Examples, the part of the recipe that made them (``signals``, ``reviews``, ``files``), and their split."""


def instructions_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a set: its settings, and everything it is made of by content.

    Raises:
        InputError: something that the recipe names is not there.
    """
    config, storage = context.recipe.instructions, context.storage

    def content(setting: str, uri: str) -> str:
        single = storage.stat(uri)
        objects = [single] if single is not None else list(storage.list(uri))
        if not objects:
            raise InputError(
                f"{setting}: {uri} is not there, or empty; give a file, a folder or an s3:// prefix"
            )
        return digest_of(objects)

    inputs = result_fields(config, "instructions.")
    if config.signals is not None:
        if context.recipe.corpus.sources:
            inputs |= result_fields(context.recipe.corpus.clean, "corpus.clean.")
            for index, listing in enumerate(context.whole_listings):
                inputs[f"corpus.sources.{index}.name"] = listing.source.name
                inputs[f"corpus.sources.{index}.listing"] = listing.digest()
        for index, source in enumerate(config.signals.knowledge):
            setting = f"instructions.signals.knowledge.{index}"
            inputs[f"{setting}.content"] = content(f"{setting}.uri", source.uri)
        if config.signals.templates is not None:
            inputs["instructions.signals.templates"] = content(
                "instructions.signals.templates", config.signals.templates
            )
    if config.reviews is not None:
        inputs |= result_fields(context.recipe.corpus.clean, "corpus.clean.")
        for name in ("papers", "reviews"):
            if (uri := getattr(config.reviews, name)) is not None:
                inputs[f"instructions.reviews.{name}"] = content(f"instructions.reviews.{name}", uri)
        if (metadata := config.reviews.papers_metadata) is not None:
            inputs["instructions.reviews.papers_metadata.content"] = content(
                "instructions.reviews.papers_metadata.uri", metadata.uri
            )
    for index, file in enumerate(config.files):
        setting = f"instructions.files.{index}"
        inputs[f"{setting}.content"] = content(f"{setting}.uri", file.uri)
    if config.decisions is not None:
        inputs["instructions.decisions"] = content("instructions.decisions", config.decisions)
    return inputs


def build_instructions(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Make every part of the set, apply what people have decided, and write it.

    Raises:
        InputError: papers and reviews do not belong together, a file cannot be read, or nothing is left.
    """
    config = context.recipe.instructions
    writer.adopt_folder(f"b-{writer.fingerprint}", shared=True)
    made = InstructionSet()
    area = WorkArea(context.storage, writer.uri_for(STAGING))
    if config.signals is not None:
        add_signals(context, config.signals, area, made)
    if config.reviews is not None:
        add_reviews(context, config.reviews, parents["tokenizer"], area, made)
    if config.files:
        add_files(context, config, made)
    if config.decisions is not None:
        decide(context, config.decisions, made)
    refuse_repeated_ids(made)
    everything = [example for examples in made.examples.values() for example in examples]
    hold_out = hold_out_of(config, everything)
    tables = [with_place(examples, part, hold_out) for part, examples in made.examples.items()]
    examples = pa.concat_tables([EXAMPLES_SCHEMA.empty_table(), *tables]).combine_chunks()
    if not examples.num_rows:
        reasons = count_reasons(made.rejects).most_common(3)
        told = (
            ", ".join(f"{count} {reason}" for reason, count in reasons) or "there was nothing to make them of"
        )
        raise InputError(f"instructions: not one example is left ({told}); look at the settings of its parts")
    rejects = rejects_to_table(made.rejects)
    writer.write_file(EXAMPLES_FILE, parquet_bytes(examples), rows=examples.num_rows)
    writer.write_file(REJECTS_FILE, parquet_bytes(rejects), rows=rejects.num_rows)
    writer.write_file(COUNTS_FILE, (json.dumps(made.counts, indent=1) + "\n").encode())
    for name, picture in made.pictures.items():
        writer.write_file(name, picture)
        run.log_bytes(picture, name)
    run.log_bytes(json.dumps(made.counts, indent=1).encode(), COUNTS_FILE)
    by_task = Counter(examples.column("task").to_pylist())
    rejected = count_reasons(made.rejects)
    splits = Counter(examples.column("split").to_pylist())
    run.log_metrics({f"instructions/{split}_examples": count for split, count in splits.items()})
    by_part = {part: len(found) for part, found in made.examples.items()}
    return StageOutput(
        counts={"examples": examples.num_rows, "rejected": rejects.num_rows, **splits},
        summary={
            "examples": examples.num_rows,
            "by_task": dict(sorted(by_task.items())),
            "by_part": by_part,
            "rejected": dict(rejected.most_common()),
            "rejected_by_part": made.rejected,
            "splits": dict(sorted(splits.items())),
            "steps": made.counts,
            "warnings": warnings_of(
                by_part, made.counts, made.rejected, few_paraphrases=made.few_paraphrases
            ),
        },
        extra={"parts": sorted(made.examples)},
    )


def with_place(examples: Sequence[Example], part: str, hold_out: HoldOut) -> pa.Table:
    """Return examples in :data:`EXAMPLES_SCHEMA`, each with its split; examples of one origin share one."""
    splits = [hold_out.split_of(example.source, example.origin) for example in examples]
    table = examples_to_table(examples)
    return table.append_column("part", pa.array([part] * len(examples), pa.string())).append_column(
        "split", pa.array(splits, pa.string())
    )


def hold_out_of(config: InstructionsConfig, everything: Iterable[Example] = ()) -> HoldOut:
    """Return the one rule by which all parts of a set are split; concepts are split whatever is in it."""
    stems = vague_stems((example.source, example.origin) for example in everything)
    return HoldOut(config.seed, config.validation_fraction, stems)


def refuse_repeated_ids(made: InstructionSet) -> None:
    """Refuse two examples of one name, which decisions and rejects could not tell apart.

    Raises:
        InputError: names one.
    """
    seen: Counter[str] = Counter(
        example.example_id for examples in made.examples.values() for example in examples
    )
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        raise InputError(
            f"instructions: {len(twice)} examples share their name with another, first {twice[0]!r}; give "
            "sources and files names of their own"
        )


# --------------------------------------------------------------------------------------------------
# Signals


@dataclass(frozen=True)
class SignalsTask(Task):
    """The examples of the papers of one chunk, before caps and weights of the whole set.

    Attributes:
        area: where they are written.
        papers: which, and how they are read.
        signals: which examples are made.
        templates: how they are worded.
        vocabulary: terms that are found in papers; ``None`` without knowledge.
    """

    area: WorkArea
    papers: PaperChunks
    signals: SignalsConfig
    templates: Templates
    vocabulary: Vocabulary | None

    def run(self, index: int) -> None:
        """Make the examples of one chunk; rejects stand in the same file, below the examples."""
        from baltoro.instructions.signals.build import paper_examples

        examples: list[Example] = []
        rejects: list[Reject] = []
        for record in self.papers.read(index):
            if isinstance(record, Reject):
                rejects.append(record)
                continue
            found, refused = paper_examples(
                record, self.signals, templates=self.templates, vocabulary=self.vocabulary
            )
            examples += found
            rejects += refused
        self.area.write("signals-rejects", index, rejects_to_table(rejects))
        self.area.write("signals", index, examples_to_table(examples))


def add_signals(context: Context, config: SignalsConfig, area: WorkArea, made: InstructionSet) -> None:
    """Add the examples restructured from papers and knowledge.

    Raises:
        InputError: a knowledge or template file cannot be read.
        ConfigError: a template lacks a slot.
    """
    from baltoro.instructions.signals.build import Selection, count_tasks, knowledge_examples, select
    from baltoro.instructions.signals.knowledge.entities import Vocabulary
    from baltoro.instructions.signals.knowledge.read import read_knowledge
    from baltoro.instructions.signals.templates import few_paraphrases, load_templates

    storage, corpus = context.storage, context.recipe.corpus
    templates = load_templates(config.templates, storage)
    made.few_paraphrases = few_paraphrases(templates)
    knowledge: list[Knowledge] = [read_knowledge(source, storage) for source in config.knowledge]
    chunks = tuple(
        chunk_listings(
            context.whole_listings if corpus.sources else [],
            objects_per_task=corpus.objects_per_task,
            bytes_per_task=corpus.bytes_per_task,
        )
    )
    vocabulary = Vocabulary.of(knowledge) if knowledge else None
    papers = PaperChunks(storage, corpus, load_metadata(context), chunks)
    task = SignalsTask(area, papers, config, templates, vocabulary)
    run_tasks(area, "signals", task, len(chunks), what="making signals")

    shards = [examples_from_table(area.read("signals", chunk.index)) for chunk in chunks]
    rejects = [
        Reject(**row) for chunk in chunks for row in area.read("signals-rejects", chunk.index).to_pylist()
    ]
    for source in knowledge:
        examples, refused = knowledge_examples(
            source, config, templates=templates, hold_out=hold_out_of(context.recipe.instructions)
        )
        shards.append(examples)
        rejects += [*source.rejects, *refused]
    selection = sum(
        (Selection.of(((example.task, example.example_id) for example in shard), config) for shard in shards),
        Selection.of((), config),
    )
    kept: list[Example] = []
    for shard in shards:
        chosen, refused = select(shard, selection, config)
        kept += chosen
        rejects += refused
    counts = {
        name: {
            "candidates": counted.candidates,
            "kept": counted.kept,
            "rejected": sum(counted.rejected.values()),
            "over_cap": sum(counted.over_cap.values()),
        }
        for name, counted in sorted(count_tasks(kept, rejects).items())
    }
    made.add("signals", kept, rejects, counts)


# --------------------------------------------------------------------------------------------------
# Files


def add_files(context: Context, config: InstructionsConfig, made: InstructionSet) -> None:
    """Add the examples of instruction files.

    Raises:
        InputError: a file cannot be read.
    """
    from baltoro.instructions.files import read_examples

    examples: list[Example] = []
    rejects: list[Reject] = []
    counts: dict[str, Any] = {}
    for source in config.files:
        found, refused = read_examples(source, context.storage)
        examples += found
        rejects += refused
        counts[source.name] = {"examples": len(found), "rejected": len(refused)}
    made.add("files", examples, rejects, counts)


def finish_instructions(
    context: Context, artifact: Artifact, tracker: Tracker, run: StageRun | None
) -> dict[str, Any]:
    """Remove what the passes of the build handed to each other, and say where what it counted is."""
    del tracker, run
    remove_staging(context, artifact)
    files = {}
    for name in (COUNTS_FILE, REJECTS_FILE, LENGTHS_FILE):
        for file in artifact.files(name):
            files[name] = artifact.uri_of(file)
    return {"files": files}


def read_set(storage: Storage, artifact: Artifact, parts: Sequence[str] | None = None) -> pa.Table:
    """Return the examples of a set, or of some of its parts, in :data:`EXAMPLES_SCHEMA`.

    Args:
        storage: opens the file.
        artifact: the set.
        parts: ``signals``, ``reviews``, ``files`` or ``files.NAME``; ``None`` for all.

    Raises:
        ArtifactError: the file was altered since it was written.
    """
    import pyarrow.compute as pc

    from baltoro.corpus.work import PartFile, open_part

    (file,) = artifact.files(EXAMPLES_FILE)
    table = open_part(storage, PartFile(artifact.uri_of(file), file.sha256)).read()
    if parts is None:
        return table
    chosen = pc.is_in(table["part"], pa.array(list(parts)))
    for part in parts:
        kind, _, name = part.partition(".")
        if name:
            of_file = pc.and_(pc.equal(table["part"], kind), pc.starts_with(table["origin"], f"{name}/"))
            chosen = pc.or_(chosen, of_file)
    return table.filter(chosen)


def instructions_parents(recipe: Recipe) -> tuple[str, ...]:
    """Return what the stage reads: reviews are cut to lengths in tokens."""
    return ("tokenizer",) if recipe.instructions.reviews is not None else ()


INSTRUCTIONS = Stage(
    name="instructions",
    kind="instructions",
    version=2,
    parents=("tokenizer",),
    inputs=instructions_inputs,
    build=build_instructions,
    finish=finish_instructions,
    check=check_instructions,
)
