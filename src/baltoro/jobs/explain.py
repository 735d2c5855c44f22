"""What every step of the corpus stage does to one paper, for people who want to know why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from baltoro.core.artifacts import Artifact
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.corpus.cleaning import clean_paper, explain_cleaning
from baltoro.corpus.config import SourceConfig
from baltoro.corpus.decontamination.cut import explain as explain_matches
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.dedup.keys import explain_document
from baltoro.corpus.documents import judge_paper
from baltoro.corpus.filters import (
    evidence_of,
    facts_of,
    keywords_of,
    language_of,
    measure,
    parts_of,
)
from baltoro.corpus.filters import explain as explain_rules
from baltoro.corpus.words import words_of
from baltoro.jobs.corpus import load_evaluation_sets, load_metadata
from baltoro.jobs.extend import part_chain
from baltoro.jobs.stages import Context
from baltoro.papers.reader import read_object
from baltoro.papers.renderers import render
from baltoro.papers.schema import Paper, Reject

_EXAMPLES = 3


def explain_paper(context: Context, paper_id: str) -> dict[str, Any]:
    """Return what each step does to one paper of a recipe's sources.

    Args:
        context: of the recipe.
        paper_id: ``{source}/{key}`` with ``#record`` for a file that holds several, as rejects and duplicates
            tables and the data card name it.

    Returns:
        ``read``, ``cleaning``, ``text``, ``rules``, ``evidence``, ``decontamination``, ``copies``,
        ``verdict`` and ``built``, as plain values; a paper that cannot be read has ``read`` and ``verdict``
        only.

    Raises:
        InputError: no source holds it; names what is near.
    """
    record = find_record(context, paper_id)
    if isinstance(record, Reject):
        return {
            "paper_id": paper_id,
            "read": {"uri": record.uri},
            "verdict": f"rejected while reading: {record.reason}: {record.detail}",
        }
    config = context.recipe.corpus
    source = source_of(context, paper_id)
    steps = explain_cleaning(record, config.clean, examples_per_rule=_EXAMPLES)
    items = [item for evaluation in load_evaluation_sets(context) for item in evaluation.items]
    index = ItemIndex.build(items, config.decontaminate.match) if items else None
    read = {
        "uri": record.uri,
        "format": record.format,
        "title": record.title,
        "sections": len(record.sections),
        "references": len(record.references),
        "license": record.license,
        "year": record.year,
    }
    clean_paper(record, config.clean)
    text = render(record, source.style)
    words = words_of(text)
    parts = parts_of(text, words)
    facts = facts_of(record, language_of(text, words, parts))
    keywords = keywords_of(config.filters.keywords.any_of)
    measured = measure(text, words, facts, parts=parts, keywords=keywords)
    evidence = evidence_of(measured)
    rules = explain_rules(measured.scores, facts, config.filters)
    judged = judge_paper(record, 0, source.style, config, index)
    return {
        "paper_id": paper_id,
        "read": read,
        "cleaning": [
            {"rule": step.rule, "effects": step.count, "examples": [list(pair) for pair in step.examples]}
            for step in steps
            if step.count
        ],
        "text": {"characters": len(text), "words": len(words), "language": facts.language},
        "rules": [
            {
                "setting": rule.setting,
                "value": rule.value,
                "bound": rule.bound,
                "applies": rule.applies,
                "passed": rule.passed,
            }
            for rule in rules
        ],
        "evidence": {name: list(excerpts) for name, excerpts in evidence.excerpts.items()},
        "decontamination": None if index is None else explain_matches(text, index.find(words, text)),
        "copies": explain_document(record, words, len(text), config.dedup),
        "verdict": f"rejected by the {judged.reject.stage}: {judged.reject.reason}: {judged.reject.detail}"
        if judged.reject is not None
        else "becomes a document, unless a better copy of it exists",
        **built_verdict(context, paper_id),
    }


def source_of(context: Context, paper_id: str) -> SourceConfig:
    """Return the source that a paper_id names.

    Raises:
        InputError: the recipe has no such source.
    """
    sources = {source.name: source for source in context.recipe.corpus.sources}
    name = paper_id.partition("/")[0]
    if name not in sources or "/" not in paper_id:
        raise InputError(
            f"{paper_id}: a paper is named SOURCE/FILE or SOURCE/FILE#RECORD, and the sources of this recipe "
            f"are {', '.join(sources)}; the data card and the tables of rejects and duplicates have the names"
        )
    return sources[name]


def find_record(context: Context, paper_id: str) -> Paper | Reject:
    """Read one paper of the recipe's sources.

    Raises:
        InputError: no file or record of that name is there.
    """
    source = source_of(context, paper_id)
    listing = next(entry for entry in context.whole_listings if entry.source.name == source.name)
    rest = paper_id.partition("/")[2]
    for entry in listing.objects:
        if rest != entry.key and not rest.startswith(f"{entry.key}#"):
            continue
        records = read_object(
            context.storage.read_bytes(entry.uri, etag=entry.etag),
            key=entry.key,
            uri=entry.uri,
            etag=entry.etag,
            source=source.name,
            format=source.format,
            text_column=source.text_column,
            metadata=load_metadata(context).get(source.name),
            limits=context.recipe.corpus.limits,
        )
        named = [record for record in records if record.paper_id == paper_id]
        if named:
            return named[0]
        if len(records) > 1:
            raise InputError(
                f"{paper_id}: {entry.uri} holds {len(records)} records; name one, for example "
                f"{records[0].paper_id}"
            )
    raise InputError(
        f"{paper_id}: the source {source.name} has no such file among its {len(listing.objects)}; the first "
        f"is {source.name}/{listing.objects[0].key}"
    )


def built_verdict(context: Context, paper_id: str) -> dict[str, Any]:
    """Return what became of a paper in the recipe's corpus, if that is built."""
    from baltoro.jobs.runner import plan

    artifact = plan(context, "corpus")[-1].artifact
    if artifact is None:
        return {"built": "the corpus of this recipe is not built yet"}
    # A file that changed was read by several parts; the newest knows it as it is now.
    verdicts = [
        verdict
        for part in reversed(part_chain(context.store, artifact))
        if (verdict := verdict_in(part, context.storage, paper_id)) is not None
    ]
    if not verdicts:
        return {"built": "not among the papers that were read; build the corpus again"}
    return {"built": "; as it was in an earlier part: ".join(verdicts)}


def verdict_in(part: Artifact, storage: Storage, paper_id: str) -> str | None:
    """Return what became of a paper in one part of a corpus; ``None`` if that part did not read it."""

    def rows(name: str) -> list[dict[str, Any]]:
        with storage.open(part.uri_of(name)) as file:
            table = pq.read_table(file, filters=[("paper_id", "=", paper_id)], use_threads=False)
            found: list[dict[str, Any]] = table.to_pylist()
            return found

    if copies := rows("duplicates.parquet"):
        better = " (a build of all papers anew would keep this one)" if copies[0]["ranks_better"] else ""
        where = " of an earlier part" if copies[0]["kept_earlier"] else ""
        kept = f"{copies[0]['kept_paper_id']}{where}"
        return f"gave way to {kept} as its {copies[0]['kind']} copy{better}"
    if rejects := rows("rejects.parquet"):
        return f"rejected: {rejects[0]['reason']}: {rejects[0]['detail']}"
    source, _, key = paper_id.partition("/")
    file_keys = [key, key.rpartition("#")[0]]
    with storage.open(part.uri_of("objects.parquet")) as file:
        filters = [("source", "=", source), ("key", "in", file_keys)]
        read = pq.read_table(file, filters=filters, use_threads=False)
    return f"kept in {part.uri}{_changed_text(part, storage, paper_id)}" if read.num_rows else None


def _changed_text(part: Artifact, storage: Storage, paper_id: str) -> str:
    """Return how a kept document's text is not its own, where the build merges parses or cuts passages."""
    if not any(part.manifest.extra.get(name) for name in ("merged", "repeated_bytes_cut")):
        return ""
    columns = ["merged_from", "repeated_bytes_cut"]
    for file in part.files("documents/"):
        with storage.open(part.uri_of(file)) as stream:
            filters = [("paper_id", "=", paper_id)]
            rows = pq.read_table(stream, columns=columns, filters=filters, use_threads=False).to_pylist()
        if rows:
            merged, cut = rows[0]["merged_from"], rows[0]["repeated_bytes_cut"]
            return (f", merged from {merged}" if merged else "") + (
                f", without {cut:,} bytes of passages that stand in earlier documents" if cut else ""
            )
    return ""


def describe(explained: dict[str, Any]) -> str:
    """Return an explanation for people."""
    return "\n".join(_lines(explained))


def _lines(explained: dict[str, Any]) -> Iterator[str]:
    yield explained["paper_id"]
    yield "read"
    for name, value in explained["read"].items():
        yield f"  {name:<14}{value}"
    if "cleaning" in explained:
        yield "cleaning"
        for step in explained["cleaning"]:
            yield f"  {step['rule']}: {step['effects']}"
            for before, after in step["examples"]:
                yield f"    - {_one_line(before)}"
                yield f"    + {_one_line(after)}"
        if not explained["cleaning"]:
            yield "  nothing to repair"
        text = explained["text"]
        yield "text"
        yield f"  {text['characters']:,} characters, {text['words']:,} words, language {text['language']}"
        yield "filter rules (value against bound)"
        for rule in explained["rules"]:
            mark = ("passed" if rule["passed"] else "FAILED") if rule["applies"] else "does not apply"
            values = f"{_number(rule['value'])} against {_number(rule['bound'])}"
            yield f"  {mark:<15}{rule['setting']:<48}{values}"
        for name, excerpts in explained["evidence"].items():
            for excerpt in excerpts[:_EXAMPLES]:
                yield f"    {name}: {_one_line(excerpt)}"
        yield "evaluation items"
        found = explained["decontamination"]
        if found is None:
            yield "  none are looked for (corpus.decontaminate.sets)"
        else:
            yield from (f"  {line}" for line in found or ["none found"])
        yield "copies are looked for by"
        for name, value in explained["copies"].items():
            yield f"  {name:<24}{value}"
    yield "verdict"
    yield f"  {explained['verdict']}"
    if "built" in explained:
        yield f"  in the built corpus: {explained['built']}"


def _one_line(text: str) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= 160 else flat[:157] + "…"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
