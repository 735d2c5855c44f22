"""What every task of a build knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.core.storage import Storage, join
from baltoro.core.storage.objects import ObjectTable
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.documents import number_of
from baltoro.corpus.listing import Chunk, SourceListing, chunk_listings
from baltoro.corpus.work import WorkArea
from baltoro.papers.metadata import MetadataTable

LISTING = "listing"
"""The pass, of one file, that says which objects the build reads."""

LISTING_SCHEMA = pa.schema(
    [
        ("place", pa.int64()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("etag", pa.string()),
    ]
)
"""The rows of ``objects.parquet`` in a corpus artifact: what was read, by place in the listing."""

_ROWS_PER_GROUP = 1 << 12
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class Cut:
    """How the objects of a build are cut into chunks; one entry per chunk.

    Attributes:
        source_index: int32, which source the chunk is of.
        first: int64, place of its first object.
        count: int32, its objects.
    """

    source_index: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    count: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.first)

    def numbers_of(self, index: int) -> tuple[int, int]:
        """Return the first number of a chunk's documents, and one past the last possible one."""
        first = int(self.first[index])
        return number_of(first, 0), number_of(first + int(self.count[index]), 0)

    def chunk_of(self, place: int) -> int:
        """Return the chunk that the object at a place of the listing belongs to."""
        return int(np.searchsorted(self.first, place, side="right")) - 1


@dataclass(frozen=True)
class EarlierParts:
    """The corpus that a build extends, as far as its tasks need it.

    Attributes:
        signatures: URIs of the signature files of all its parts.
        spans: URIs of the files that name the passages of its documents, if the recipe cuts repeated ones.
        objects: how many places its listings take; those of the new objects follow.
    """

    signatures: tuple[str, ...]
    spans: tuple[str, ...]
    objects: int


@dataclass(frozen=True)
class Build:
    """What all tasks of a build share.

    Attributes:
        area: where the passes hand over.
        artifact_uri: the writer's folder, for the final files.
        config: the recipe's corpus section.
        storage: opens every URI.
        metadata: metadata table by source name.
        index: the evaluation items that must not be learned from, if any.
        canaries: those of them that are planted to measure recall.
        cut: the chunks.
        partitions: number of partitions of the keys.
        earlier: the corpus that is extended.
    """

    area: WorkArea
    artifact_uri: str
    config: CorpusConfig
    storage: Storage
    metadata: Mapping[str, MetadataTable]
    index: ItemIndex | None
    canaries: Sequence[int]
    cut: Cut
    partitions: int
    earlier: EarlierParts | None = None

    def chunk(self, index: int) -> Chunk:
        """Return a chunk with its objects."""
        first = int(self.cut.first[index])
        objects = self.objects(first, first + int(self.cut.count[index]))
        return Chunk(index, int(self.cut.source_index[index]), objects, first)

    def objects(self, first: int, end: int) -> ObjectTable:
        """Return the objects at some places of the listing."""
        return ObjectTable.from_table(self.area.read_between(LISTING, 0, "place", first, end))

    @cached_property
    def metadata_rows(self) -> dict[str, dict[str, int]]:
        """The place of each row of the metadata tables, by source and key."""
        return {
            name: {key: place for place, key in enumerate(table.rows)}
            for name, table in self.metadata.items()
        }

    def uri_for(self, filename: str) -> str:
        """Return where a final file stands."""
        return join(self.artifact_uri, filename)


def cut_listings(listings: Sequence[SourceListing], config: CorpusConfig, first_object: int) -> Cut:
    """Cut the objects into chunks; their places begin at ``first_object``."""
    rows = [
        (chunk.source_index, chunk.first_object + first_object, len(chunk.objects))
        for chunk in chunk_listings(
            listings, objects_per_task=config.objects_per_task, bytes_per_task=config.bytes_per_task
        )
    ]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return Cut(columns[0].astype(np.int32), columns[1], columns[2].astype(np.int32))


def write_listing(area: WorkArea, listings: Sequence[SourceListing], first_object: int) -> None:
    """Write down which objects are read, so that tasks need only places."""
    if area.finished(LISTING):
        return

    def pieces() -> Iterator[pa.Table]:
        place = first_object
        for listing in listings:
            for start in range(0, len(listing.objects), _ROWS_AT_ONCE):
                table = listing.objects[start : start + _ROWS_AT_ONCE].to_table()
                columns = {name: table.column(name) for name in table.column_names} | {
                    "place": pa.array(np.arange(place, place + table.num_rows)),
                    "source": pa.array([listing.source.name] * table.num_rows),
                }
                place += table.num_rows
                yield pa.table({name: columns[name] for name in LISTING_SCHEMA.names})

    area.write_pieces(LISTING, 0, pieces(), LISTING_SCHEMA, _ROWS_PER_GROUP)
