"""From papers and knowledge to examples, shard by shard, with an account of everything left out.

One pass makes the examples of each paper (:func:`paper_examples`) and each source of knowledge
(:func:`knowledge_examples`), within what one of them may give. The tasks' weights and caps hold for the whole
set: every shard says what it has (:meth:`Selection.of`), the sums are added, and each shard keeps its share
(:func:`select`). What is kept depends on ids and seed alone, whatever the number of shards and their order.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter

from baltoro.instructions.example import Example
from baltoro.instructions.signals import floats, references, sections, tables, titles
from baltoro.instructions.signals.config import SignalsConfig
from baltoro.instructions.signals.knowledge.concepts import Knowledge
from baltoro.instructions.signals.knowledge.entities import Vocabulary, entity_recognition
from baltoro.instructions.signals.knowledge.questions import Questions, origin_of
from baltoro.instructions.signals.quality import CAP_REASONS, Finding, check_candidate, check_response
from baltoro.instructions.signals.tasks import TASKS, Candidate, TextKind
from baltoro.instructions.signals.templates import Templates, builtin_templates
from baltoro.instructions.signals.text import PaperTexts
from baltoro.instructions.splits import HoldOut
from baltoro.papers.schema import Paper, Reject

STAGE_PREFIX = "signals."
"""A reject's stage is this and its task's name."""

_WORD_BYTES = 8
_NOTHING_HELD_OUT = HoldOut()


def paper_examples(
    paper: Paper,
    config: SignalsConfig,
    *,
    templates: Templates | None = None,
    vocabulary: Vocabulary | None = None,
) -> tuple[list[Example], list[Reject]]:
    """Return the examples of one paper, and everything that could have been one with the reason why not.

    Args:
        paper: best after the corpus's cleaning; never changed.
        config: tasks, bounds and seed.
        templates: how examples are worded; the built-in ones if not given.
        vocabulary: terms to find in its sentences; without one there is no ``entity_recognition``.

    Returns:
        Examples by task in the order of :data:`~baltoro.instructions.signals.tasks.TASKS`, and rejects with
        stage ``signals.TASK`` and a reason of :data:`~baltoro.instructions.signals.quality.REASONS`. Each
        candidate is in exactly one of the two.
    """
    writer = _Writer(config, templates or builtin_templates(), "signals")
    for task, candidates in _paper_candidates(paper, config, vocabulary):
        writer.settle(task, paper.paper_id, paper.uri, candidates)
    return writer.examples, writer.rejects


def knowledge_examples(
    knowledge: Knowledge,
    config: SignalsConfig,
    *,
    templates: Templates | None = None,
    hold_out: HoldOut = _NOTHING_HELD_OUT,
) -> tuple[list[Example], list[Reject]]:
    """Return the examples of one source of knowledge, and what could have been one.

    As :func:`paper_examples` does for a paper.

    Args:
        knowledge: the whole source: what is false can only be told from all of it. Its own rejects (files
            and rows that could not be read) are not repeated.
        config: tasks, bounds and seed.
        templates: how examples are worded; the built-in ones if not given.
        hold_out: of the whole set; no question names a concept of the other side as one of its children.
    """
    writer = _Writer(config, templates or builtin_templates(), "knowledge")
    questions = Questions(knowledge, config, hold_out)
    for key, concept in knowledge.concepts.items():
        by_task: dict[str, list[Candidate]] = defaultdict(list)
        for task, candidate in questions.of(concept):
            by_task[task].append(candidate)
        for task, candidates in by_task.items():
            if config.makes(task):
                writer.settle(task, origin_of(knowledge, key), key, candidates)
    return writer.examples, writer.rejects


def _paper_candidates(
    paper: Paper, config: SignalsConfig, vocabulary: Vocabulary | None
) -> Iterator[tuple[str, Iterable[Candidate]]]:
    """Yield every task that is made, with its candidates in the order of the paper."""
    texts, makes = PaperTexts(paper), config.makes
    cited = [
        texts.flow(block)
        for block in texts.paragraphs
        if any(inline.kind == "citation" for inline in block.inlines)
    ]
    cited_titles = {reference.key: references.title_of(reference) for reference in paper.references}
    for task, candidates in {
        "title_from_abstract": titles.title_from_abstract(texts),
        "abstract_from_full_text": titles.abstract_from_full_text(
            texts, characters=config.full_text_characters
        ),
        "keywords": titles.keywords(texts),
        "one_sentence_summary": titles.one_sentence_summary(texts),
        "reference_resolution": references.reference_resolution(cited_titles, cited),
        "citation_prediction": references.citation_prediction(cited_titles, cited),
        "related_paper": references.related_paper(texts, cited_titles, cited),
    }.items():
        if makes(task):
            yield task, candidates
    kinds: tuple[floats.FloatKind, ...] = ("figure", "table")
    for kind in kinds:
        tasks = {part: f"{kind}_{part}" for part in ("caption_from_mention", "mention_from_caption")}
        if any(map(makes, tasks.values())):
            by_part: dict[str, list[Candidate]] = defaultdict(list)
            for part, candidate in floats.caption_pairs(texts, kind):
                by_part[part].append(candidate)
            for part, task in tasks.items():
                if makes(task):
                    yield task, by_part[part]
    if makes("table_content"):
        yield "table_content", tables.table_content(texts)
    if makes("section_classification"):
        yield "section_classification", sections.section_classification(texts)
    if makes("entity_recognition") and vocabulary is not None:
        flows = map(texts.flow, texts.paragraphs)
        yield "entity_recognition", entity_recognition(flows, vocabulary)


class _Writer:
    """Candidates in, examples and rejects out."""

    def __init__(self, config: SignalsConfig, templates: Templates, source: str) -> None:
        self._config = config
        self._templates = templates
        self._source = source
        self._origin: str | None = None
        self._known: dict[tuple[str, TextKind], Finding | None] = {}
        self.examples: list[Example] = []
        self.rejects: list[Reject] = []

    def settle(self, name: str, origin: str, uri: str, candidates: Iterable[Candidate]) -> None:
        """Make the examples of one task of one origin.

        Candidates are taken in the order of their draw until there are enough; checking the others would
        cost time and change nothing.
        """
        if origin != self._origin:
            self._origin = origin
            self._known.clear()
        config, task, templates = self._config, TASKS[name], self._templates[name]
        most = config.per_origin(name)
        stage = STAGE_PREFIX + name
        first = f"{origin}#{name}"
        numbered = task.per_origin > 1
        drawn: list[tuple[bytes, int, bytes, str, Candidate]] = []
        for number, candidate in enumerate(candidates):
            if candidate.reason:
                self.rejects.append(Reject(origin, uri, stage, candidate.reason, candidate.detail))
                continue
            example_id = f"{first}.{number}" if numbered or number else first
            place, word = _draw(config.seed, example_id)
            drawn.append((place, number, word, example_id, candidate))
        drawn.sort(key=itemgetter(0))
        made: list[tuple[int, Example]] = []
        for _, number, word, example_id, candidate in drawn:
            if len(made) == most:
                self.rejects.append(Reject(origin, uri, stage, "over_paper_cap", example_id))
                continue
            slots = candidate.filled()
            finding = check_candidate(task, slots, config.quality, self._known)
            if finding is None:
                choice = int.from_bytes(word, "big") % len(templates)
                turns = templates[choice].turns(slots)
                finding = check_response(turns[-1].text, config.quality)
            if finding is not None:
                self.rejects.append(Reject(origin, uri, stage, *finding))
                continue
            made.append((number, Example(example_id, name, self._source, origin, turns, choice)))
        self.examples += [example for _, example in sorted(made, key=lambda item: item[0])]


def _draw(seed: int, example_id: str) -> tuple[bytes, bytes]:
    """Return two independent numbers, big-endian: an example's place in any draw, and its template's."""
    data = f"{seed}\0{example_id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=2 * _WORD_BYTES).digest()
    return digest[:_WORD_BYTES], digest[_WORD_BYTES:]


def _place(seed: int, example_id: str) -> int:
    """Return an example's place in any draw, a number of 64 bits."""
    return int.from_bytes(_draw(seed, example_id)[0], "big")


@lru_cache(maxsize=1024)
def _weight_bound(weight: float) -> int:
    return int(weight * 2**64)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which draws a set of examples keeps of each capped task; sums of parts are the whole's.

    Attributes:
        draws: task → its smallest draws, as many as its cap, rising.
        caps: task → cap.
    """

    draws: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: Iterable[tuple[str, str]], config: SignalsConfig) -> Selection:
        """Return the selection of one part.

        Args:
            examples: task and example id of each.
            config: weights, caps and seed.
        """
        caps = {name: task.cap for name, task in config.tasks.items() if task.cap is not None}
        found: dict[str, list[int]] = defaultdict(list)
        for task, example_id in examples:
            if task in caps:
                draw = _place(config.seed, example_id)
                if draw < _weight_bound(config.weight(task)):
                    found[task].append(draw)
        return cls({task: tuple(sorted(found[task])[: caps[task]]) for task in sorted(found)}, caps)

    def __add__(self, other: Selection) -> Selection:
        caps = {**self.caps, **other.caps}
        draws = {
            task: tuple(sorted(self.draws.get(task, ()) + other.draws.get(task, ()))[: caps[task]])
            for task in sorted({*self.draws, *other.draws})
        }
        return Selection(draws, caps)

    def limit(self, task: str) -> int | None:
        """Return the largest draw that is kept of a task, ``None`` where all are."""
        kept = self.draws.get(task, ())
        return kept[-1] if len(kept) == self.caps.get(task) else None


def select(
    examples: Iterable[Example], selection: Selection, config: SignalsConfig
) -> tuple[list[Example], list[Reject]]:
    """Return the examples of one part that the whole set keeps, in their order, and rejects for the others.

    Args:
        examples: the part.
        selection: the sum over all parts.
        config: weights, caps and seed.
    """
    limits = {task: selection.limit(task) for task in selection.draws}
    kept: list[Example] = []
    rejects: list[Reject] = []
    for example in examples:
        weight = config.weight(example.task)
        limit = limits.get(example.task)
        reason = ""
        if weight < 1 or limit is not None:
            draw = _place(config.seed, example.example_id)
            if draw >= _weight_bound(weight):
                reason = "not_drawn"
            elif limit is not None and draw > limit:
                reason = "over_cap"
        if reason:
            stage = STAGE_PREFIX + example.task
            rejects.append(Reject(example.origin, "", stage, reason, example.example_id))
        else:
            kept.append(example)
    return kept, rejects


@dataclass(slots=True)
class TaskCounts:
    """What became of the candidates of one task: ``candidates`` = ``kept`` + ``rejected`` + ``over_cap``."""

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    over_cap: Counter[str] = field(default_factory=Counter)

    @property
    def candidates(self) -> int:
        """All that could have been an example."""
        return self.kept + self.rejected.total() + self.over_cap.total()


def count_tasks(examples: Iterable[Example], rejects: Iterable[Reject]) -> dict[str, TaskCounts]:
    """Return the counts of each task that had a candidate, in the order of the tasks.

    Args:
        examples: those that are kept.
        rejects: those of all passes; stages that are no task's are left to others.
    """
    counts: dict[str, TaskCounts] = defaultdict(TaskCounts)
    for example in examples:
        counts[example.task].kept += 1
    for reject in rejects:
        task = reject.stage.removeprefix(STAGE_PREFIX)
        if task in TASKS:
            counter = counts[task].over_cap if reject.reason in CAP_REASONS else counts[task].rejected
            counter[reject.reason] += 1
    return {task: counts[task] for task in TASKS if task in counts}
