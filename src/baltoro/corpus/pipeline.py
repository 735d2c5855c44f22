"""The corpus stage on a cluster: Ray Data spreads the tasks of each pass, files hand over between passes.

What the passes do stands in :mod:`baltoro.corpus.passes`. No process holds the corpus, nor all keys, nor its
records; the driver holds the listing (some 100 bytes per object) and the sum of the figures. What a task has
finished stays finished when a build is killed. Chunks, rows and choices depend only on listing and recipe, so
a repeated build writes the same bytes, and the cut into chunks changes neither documents nor their order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
from tqdm import tqdm

from baltoro.core.artifacts import ArtifactWriter
from baltoro.core.storage import Storage, join
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.decontamination.canaries import choose_canaries
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.listing import SourceListing
from baltoro.corpus.passes.build import Build, EarlierParts, cut_listings, write_listing
from baltoro.corpus.passes.copies import DecideTask, EdgeTask, NewKeysTask, SettledTask
from baltoro.corpus.passes.read import ReadTask
from baltoro.corpus.passes.spans import GatherTask, KeepTask, NewSpansTask, RepeatTask, SettledSpansTask
from baltoro.corpus.passes.tables import TablesTask, Totals, read_totals
from baltoro.corpus.passes.write import WriteTask
from baltoro.corpus.work import STAGING, Task, WorkArea
from baltoro.papers.metadata import MetadataTable

_PARTITION_BYTES = 32_000_000
_MOST_PARTITIONS = 1024
_BLOCKS_PER_CPU = 16
_MOST_TASKS_PER_BLOCK = 64


def run_chunks(task: Task, indices: Sequence[int], *, what: str) -> Iterator[pa.Table]:
    """Do some tasks of a pass, streaming; yields tables of their numbers (``index``) as they are done.

    Args:
        task: does them.
        indices: their numbers.
        what: shown beside the progress bar.
    """
    if not indices:
        return
    keep_console_clean()
    # A range is read where it is mapped; of tables in hand Ray would ask each size in a task of its own.
    dataset = ray.data.range(len(indices), override_num_blocks=blocks_for(len(indices)))
    numbered = _ByPlace(task, np.array(indices))
    mapped = dataset.map_batches(numbered, batch_size=None, batch_format="pyarrow")
    with tqdm(total=len(indices), desc=what, unit="task", leave=False) as bar:
        for reference in mapped.iter_internal_ref_bundles():
            for block_ref in reference.block_refs:
                block = ray.get(block_ref)
                bar.update(block.num_rows)
                yield block


def blocks_for(tasks: int) -> int:
    """Return how many of Ray's tasks do some of ours.

    Between two of its tasks a CPU waits for about a tenth of a second, so short ones of ours share one; but
    each CPU gets enough of them that none works alone for long in the end.
    """
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return min(tasks, max(_BLOCKS_PER_CPU * cpus, -(-tasks // _MOST_TASKS_PER_BLOCK)))


@dataclass(frozen=True, eq=False)
class _ByPlace:
    """Does the tasks whose places among ``indices`` Ray hands out."""

    task: Task
    indices: npt.NDArray[np.int64]

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.task(pa.table({"index": self.indices[batch.column("id").to_numpy()]}))


def keep_console_clean() -> None:
    """Leave Ray Data's bars to ours and its messages to its log file; with ``-v`` these are shown, too.

    Importing Ray Data gives its logger a console handler of its own, whatever its level was before.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # What a task raises must reach the command line as it is, not as the text of a wrapper.
    context.raise_original_map_exception = True
    if logging.getLogger().isEnabledFor(logging.INFO):
        return
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Pass:
    name: str
    task: Task
    tasks: int
    what: str


def passes_of(build: Build) -> list[_Pass]:
    """Return the passes of a build, in order."""
    chunks, partitions, earlier = len(build.cut), build.partitions, build.earlier
    passes = [_Pass("records", ReadTask(build), chunks, "reading papers")]
    if earlier is not None and earlier.signatures:
        passes += [
            _Pass("new-keys", NewKeysTask(build), 1, "collecting keys"),
            _Pass("settled", SettledTask(build), len(earlier.signatures), "meeting earlier papers"),
        ]
    passes += [
        _Pass("edges", EdgeTask(build), partitions, "finding copies"),
        _Pass("decisions", DecideTask(build), 1, "choosing among copies"),
    ]
    if build.config.dedup.repeated_spans.enabled:
        passes.append(_Pass("kept", KeepTask(build), chunks, "collecting passages"))
        if earlier is not None and earlier.spans:
            passes += [
                _Pass("new-spans", NewSpansTask(build), 1, "collecting keys of passages"),
                _Pass("settled-spans", SettledSpansTask(build), len(earlier.spans), "meeting earlier ones"),
            ]
        passes += [
            _Pass("repeats", RepeatTask(build), partitions, "finding repeated passages"),
            _Pass("cuts", GatherTask(build), 1, "sorting repeated passages"),
        ]
    return [
        *passes,
        _Pass("written", WriteTask(build), chunks, "writing documents"),
        _Pass("tables", TablesTask(build), 1, "summing up"),
    ]


def work_folder(config: CorpusConfig) -> str:
    """Return the name of the folder that builds of one corpus share: one cut, one version of Baltoro."""
    cut = f"{config.objects_per_task}-{config.bytes_per_task}-{version('baltoro')}"
    return f"b-{hashlib.sha256(cut.encode()).hexdigest()[:16]}"


def build_documents(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    config: CorpusConfig,
    listings: Sequence[SourceListing],
    storage: Storage,
    metadata: Mapping[str, MetadataTable],
    index: ItemIndex | None,
    writer: ArtifactWriter,
    earlier: EarlierParts | None = None,
) -> Totals:
    """Run all passes, as far as they are not finished, and name the written files in the artifact's writer.

    Args:
        config: the recipe's corpus section.
        listings: the objects to read: all, or those that the corpus which is extended does not have.
        storage: opens every URI.
        metadata: metadata table by source name.
        index: the evaluation items that must not be learned from, if any.
        writer: of the artifact; its folder is that of :func:`work_folder`.
        earlier: the corpus that is extended.

    Raises:
        ArtifactError: the accounting does not balance (read = kept + rejected + duplicates).
    """
    first_object = earlier.objects if earlier is not None else 0
    area = WorkArea(storage, writer.uri_for(STAGING))
    write_listing(area, listings, first_object)
    size_bytes = sum(listing.size_bytes for listing in listings)
    build = Build(
        area=area,
        artifact_uri=join(writer.artifact_uri, writer.folder),
        config=config,
        storage=storage,
        metadata=metadata,
        index=index,
        canaries=choose_canaries(index, config.decontaminate.canaries) if index is not None else (),
        cut=cut_listings(listings, config, first_object),
        partitions=min(_MOST_PARTITIONS, 1 + size_bytes // _PARTITION_BYTES),
        earlier=earlier,
    )
    for step in passes_of(build):
        run_pass(area, step.name, step.task, step.tasks, what=step.what)
    totals = read_totals(build)
    totals.figures.balance()
    for file in totals.files:
        writer.add_file(file["name"], rows=file["rows"], size_bytes=file["size_bytes"], sha256=file["sha256"])
    return totals


def run_pass(area: WorkArea, name: str, task: Task, tasks: int, *, what: str) -> None:
    """Run those of a pass's tasks whose file is not there yet."""
    finished = area.finished(name)
    for _ in run_chunks(task, [index for index in range(tasks) if index not in finished], what=what):
        pass
