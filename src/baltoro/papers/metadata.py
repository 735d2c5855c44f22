"""Metadata tables: what a source knows about its papers beside the parsed files.

A Nougat ``.mmd`` or a GROBID TEI rarely says its licence, year, venue or forum id; a table does. It is
read once, then joined to each paper while reading, by file stem, path, DOI or record id.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import InputError
from baltoro.papers.config import MetadataTableConfig, ReadLimits
from baltoro.papers.containers import unpack
from baltoro.papers.detect import decode, stem_of
from baltoro.papers.fields import doi_of, text_of
from baltoro.papers.readers.records import apply_columns
from baltoro.papers.schema import Paper, ReadReject

if TYPE_CHECKING:
    from baltoro.core.storage import Storage

ROW_KEY = "metadata_row"
"""The entry of ``Paper.extra`` that names the row a paper was joined to; absent where it has none."""


@dataclass(frozen=True, slots=True)
class MetadataCounts:
    """How well a table and a source fit each other."""

    papers_matched: int
    papers_unmatched: int
    rows_unmatched: int


@dataclass(frozen=True, slots=True)
class MetadataTable:
    """A metadata table in memory; picklable, so that every worker of a pipeline can hold it.

    ``rows`` maps the normalised key (stem without format suffixes, path, lower-case DOI, id) to the
    row's other columns.
    """

    config: MetadataTableConfig
    rows: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, config: MetadataTableConfig, storage: Storage) -> MetadataTable:
        """Read a table from storage.

        Raises:
            InputError: it is missing, no table, lacks the key column, or holds a key twice.
        """
        return cls.from_bytes(config, storage.read_bytes(config.uri))

    @classmethod
    def from_bytes(cls, config: MetadataTableConfig, data: bytes) -> MetadataTable:
        """Return the table that ``data`` holds; its format is told by the suffix of ``config.uri``.

        Raises:
            InputError: see :meth:`load`.
        """
        column = config.column or config.key
        rows: dict[str, Mapping[str, Any]] = {}
        numbers: dict[str, int] = {}
        for number, row in enumerate(_rows(config.uri, data), 1):
            if column not in row:
                raise InputError(
                    f"{config.uri}: row {number} has no column {column!r}, by which papers are found; it "
                    f"has {', '.join(row) or 'none'}. Set metadata.column to the one with the {config.key}"
                )
            key = _normalise(config.key, text_of(row[column]))
            if not key:
                raise InputError(
                    f"{config.uri}: row {number}: {row[column]!r} in the column {column!r} is no "
                    f"{config.key}; correct or remove the row"
                )
            if key in rows:
                raise InputError(
                    f"{config.uri}: rows {numbers[key]} and {number} have the same {config.key} {key!r}; "
                    "leave one row per paper"
                )
            rows[key] = {name: value for name, value in row.items() if name != column or name == "doi"}
            numbers[key] = number
        if not rows:
            raise InputError(f"{config.uri}: a metadata table without rows; fill it or remove metadata")
        return cls(config, rows)

    def join(self, paper: Paper, *, name: str, path: str, record_id: str | None = None) -> bool:
        """Fill a paper from its row, in place, and note the row in ``extra``.

        Args:
            paper: the paper as parsed.
            name: its file name.
            path: its path below the source's folder (in an archive ``archive.tar#member``).
            record_id: the id its JSON record carries, if any.

        Returns:
            Whether the table has a row for it.
        """
        value = {"stem": name, "path": path, "doi": paper.doi or "", "id": record_id or ""}[self.config.key]
        key = _normalise(self.config.key, value)
        row = self.rows.get(key) if key else None
        if row is None:
            return False
        apply_columns(paper, row, override=self.config.override)
        paper.extra[ROW_KEY] = key
        return True

    def count(self, papers: Iterable[Paper]) -> MetadataCounts:
        """Count papers with and without a row, and rows without a paper."""
        keys = [paper.extra.get(ROW_KEY) for paper in papers]
        matched = [key for key in keys if key is not None]
        return MetadataCounts(len(matched), len(keys) - len(matched), len(self.rows.keys() - set(matched)))


def _normalise(key: str, value: str) -> str:
    if key == "stem":
        return stem_of(value)
    if key == "path":
        return value.removeprefix("./").strip("/")
    if key == "doi":
        return (doi_of(value) or "").lower()
    return value


def _rows(uri: str, data: bytes) -> Iterator[Mapping[str, Any]]:
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from _csv_rows(uri, data, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".jsonl", ".ndjson"):
        for record in unpack(data, uri, limits=ReadLimits()):
            if isinstance(record.payload, dict):
                yield record.payload
            else:
                detail = record.payload.detail if isinstance(record.payload, ReadReject) else "not JSON lines"
                raise InputError(f"{uri}: cannot be read as JSON lines: {detail}")
    elif suffix == ".parquet":
        yield from _parquet_rows(uri, data)
    else:
        raise InputError(
            f"{uri}: a metadata table is a .csv, .tsv, .jsonl or .parquet file, not {suffix or 'this'}"
        )


def _csv_rows(uri: str, data: bytes, separator: str) -> Iterator[Mapping[str, Any]]:
    try:
        reader = csv.DictReader(io.StringIO(decode(data), newline=""), delimiter=separator, strict=True)
        for row in reader:
            if None in row:
                raise InputError(
                    f"{uri}: line {reader.line_num} has more fields than the header; quote fields that hold "
                    f"a {separator!r}"
                )
            yield {name.strip(): value for name, value in row.items() if name is not None}
    except csv.Error as error:
        raise InputError(f"{uri}: line {reader.line_num}: not valid CSV: {error}") from None
    except ReadReject as reject:
        raise InputError(f"{uri}: cannot be read: {reject.detail}") from None


def _parquet_rows(uri: str, data: bytes) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        for batch in file.iter_batches():
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri}: cannot be read as Parquet: {error}") from None
