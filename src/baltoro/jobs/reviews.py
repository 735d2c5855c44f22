"""The reviews of an instruction set: papers and peer reviews → one example per paper, spread over a cluster.

Papers are read twice: once for their heads, by which the driver joins them with their reviews, and once to
write the examples. So no process holds more of their text than one task's.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from baltoro.core.artifacts import Artifact
from baltoro.core.storage import ObjectTable, join
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.listing import SourceListing, chunk_listings
from baltoro.corpus.work import Task, WorkArea
from baltoro.jobs.instruction_sets import InstructionSet
from baltoro.jobs.paper_chunks import PaperChunks
from baltoro.jobs.stages import Context
from baltoro.jobs.tokens import run_tasks
from baltoro.papers.metadata import MetadataTable
from baltoro.papers.reader import list_papers, no_papers
from baltoro.papers.schema import Paper, Reject, count_reasons

if TYPE_CHECKING:
    from baltoro.instructions.reviews.build import Pairs
    from baltoro.instructions.reviews.config import ReviewsConfig

ANSWERS_FOLDER = "review-answers"
"""Under the storage root: what endpoints were paid for, kept for every later build."""

LENGTHS_FILE = "review_lengths.png"

_SOURCE = "papers"
_HEADS, _PAIRS, _EXAMPLES = "review-heads", "review-pairs", "review-examples"


@dataclass(frozen=True)
class HeadsTask(Task):
    """The heads of the papers of one chunk: all that joining looks at.

    Attributes:
        area: where they are written.
        papers: which, and how they are read.
    """

    area: WorkArea
    papers: PaperChunks

    def run(self, index: int) -> None:
        """Write them, rejects among them."""
        from baltoro.instructions.reviews.build import light

        heads = [light(one) if isinstance(one, Paper) else one for one in self.papers.read(index)]
        self.area.write(_HEADS, index, _packed(heads))


@dataclass(frozen=True)
class ReviewExamplesTask(Task):
    """The examples of the pairs of one chunk.

    Attributes:
        area: where pairs are, and examples go.
        papers: as for their heads.
        config: the settings.
        tokenizer: counts tokens.
        state: of the merged reviews; part of the files' names.
    """

    area: WorkArea
    papers: PaperChunks
    config: ReviewsConfig
    tokenizer: Artifact
    state: str

    def run(self, index: int) -> None:
        """Write by ``paper_id`` what became of each pair."""
        from baltoro.instructions.reviews.build import example_of, merged_by_rules
        from baltoro.instructions.reviews.service import token_counter
        from baltoro.jobs.token_passes import tokenizer_of

        (asked,) = _unpacked(self.area.read(f"{_PAIRS}-{self.state}", index))
        outcomes = {}
        if asked:
            count_tokens = token_counter(tokenizer_of(self.papers.storage, self.tokenizer))
            for record in self.papers.read(index):
                if record.paper_id not in asked or isinstance(record, Reject):
                    continue
                head, reviews, outcome = asked[record.paper_id]
                whole = replace(record, title=head.title, abstract=head.abstract)
                if outcome is None:
                    outcome = merged_by_rules(reviews, self.config)
                outcomes[record.paper_id] = example_of(whole, outcome, self.config, count_tokens)
        self.area.write(f"{_EXAMPLES}-{self.state}", index, _packed([outcomes]))


def add_reviews(
    context: Context, config: ReviewsConfig, tokenizer: Artifact, area: WorkArea, made: InstructionSet
) -> None:
    """Add one example per reviewed paper.

    Raises:
        InputError: papers and reviews do not belong together, or cannot be read.
        EndpointError: the endpoint is down or refuses; what was paid for is saved.
    """
    from baltoro.instructions.figures import lengths_picture
    from baltoro.instructions.reviews.build import collect, pair_up
    from baltoro.instructions.reviews.readers import read_reviews

    storage = context.storage
    reviews = None
    if config.reviews is not None:
        reviews = read_reviews(
            config.reviews, storage=storage, layout=config.reviews_format, limits=config.limits
        )
    papers = reviewed_papers(context, config)
    numbers = range(len(papers.chunks))
    run_tasks(area, _HEADS, HeadsTask(area, papers), len(numbers), what="reading reviewed papers")
    chunk_of: dict[str, int] = {}
    heads: list[Paper | Reject] = []
    for number in numbers:
        for record in _unpacked(area.read(_HEADS, number)):
            heads.append(record)
            chunk_of[record.paper_id] = number
    if not any(isinstance(record, Paper) for record in heads):
        raise no_papers(config.papers, objects=len(heads), reasons=count_reasons(heads))
    pairs = pair_up(heads, reviews, config)
    merged, told = ({}, {}) if config.merger == "extractive" else merge_by_endpoint(context, config, pairs)
    asked: list[dict[str, Any]] = [{} for _ in numbers]
    for pair in pairs.pairs:
        paper_id = pair.paper.paper_id
        asked[chunk_of[paper_id]][paper_id] = (pair.paper, pair.reviews, merged.get(paper_id))
    # An endpoint may answer now what it did not when an earlier build was killed.
    state = hashlib.sha256(repr(sorted(merged.items())).encode()).hexdigest()[:16]
    for number in numbers:
        area.write(f"{_PAIRS}-{state}", number, _packed([asked[number]]))
    task = ReviewExamplesTask(area, papers, config, tokenizer, state)
    run_tasks(area, f"{_EXAMPLES}-{state}", task, len(numbers), what="writing review examples")
    outcomes: dict[str, Any] = {}
    for number in numbers:
        (found_here,) = _unpacked(area.read(f"{_EXAMPLES}-{state}", number))
        outcomes |= found_here
    found = collect(pairs, outcomes, config)
    made.pictures[LENGTHS_FILE] = lengths_picture(
        found.histograms,
        title=f"{context.recipe.name}: reviews, tokens",
        cutoffs_tokens=[config.cutoff_tokens],
    )
    made.add("reviews", found.examples, found.rejects, {**found.counts, **told})


def reviewed_papers(context: Context, config: ReviewsConfig) -> PaperChunks:
    """List the papers' files and cut them into tasks.

    Raises:
        InputError: nothing is there, or mostly PDFs.
    """
    recipe, storage = context.recipe.corpus, context.storage
    metadata = None if config.papers_metadata is None else MetadataTable.load(config.papers_metadata, storage)
    source = SourceConfig(
        name=_SOURCE, uri=config.papers, format=config.papers_format, metadata=config.papers_metadata
    )
    listing = SourceListing(source, ObjectTable.collect(list_papers(config.papers, storage, metadata)))
    chunks = chunk_listings(
        [listing], objects_per_task=recipe.objects_per_task, bytes_per_task=recipe.bytes_per_task
    )
    return PaperChunks(
        storage,
        CorpusConfig(sources=(source,), limits=config.limits, clean=recipe.clean),
        {} if metadata is None else {_SOURCE: metadata},
        tuple(chunks),
    )


def merge_by_endpoint(
    context: Context, config: ReviewsConfig, pairs: Pairs
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the merged review of every pair by an endpoint, and what that took.

    Raises:
        EndpointError: the endpoint is down or refuses; what was paid for is saved.
    """
    from baltoro.corpus.pipeline import keep_console_clean
    from baltoro.instructions.pipeline import merge_on_ray
    from baltoro.instructions.reviews.build import reviews_text
    from baltoro.instructions.reviews.endpoint import four_characters_a_token
    from baltoro.instructions.reviews.outcomes import MergeRequest

    keep_console_clean()
    requests = [
        MergeRequest(
            pair.paper.paper_id, pair.paper.title, reviews_text(pair, config, four_characters_a_token)
        )
        for pair in pairs.pairs
    ]
    answers_uri = join(context.recipe.storage.root, ANSWERS_FOLDER)
    run = merge_on_ray(requests, config.endpoint, context.storage, answers_uri, environment=os.environ)
    merged = {
        one.paper_id: one.review if one.review is not None else (one.reason, one.detail)
        for one in run.outcomes
    }
    return merged, {
        "endpoint": {
            "requests_sent": run.spent.requests,
            "answers_paid": run.spent.answers,
            "answers_reused": run.answers_reused,
            "papers_asked_again": run.asked_again,
            "failures": dict(run.spent.failures),
            "cost": run.cost,
            "cost_of_set": run.cost_of_set,
            "possibly_charged_lost": run.possibly_charged_lost,
        }
    }


def _packed(records: Sequence[Any]) -> pa.Table:
    """Return records as they are; the files live as long as one build, and nothing else writes them."""
    return pa.table({"record": pa.array([pickle.dumps(record) for record in records], pa.large_binary())})


def _unpacked(table: pa.Table) -> Iterator[Any]:
    for record in table["record"]:
        yield pickle.loads(record.as_buffer())
