"""Instruction sets that are read from JSONL, JSON and Parquet files."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.instructions.example import Example
from baltoro.instructions.formats.dialogue import ExampleReject
from baltoro.instructions.formats_config import FilesSource
from baltoro.instructions.layouts import example_of
from baltoro.papers.detect import decode_json
from baltoro.papers.reader import is_hidden
from baltoro.papers.schema import ReadReject, Reject

STAGE = "files"
"""The stage of every reject of this module."""

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
_PACKED_SUFFIXES = (".gz", ".zst")
_LINES_SUFFIXES = (".jsonl", ".ndjson")


def read_examples(source: FilesSource, storage: Storage | None = None) -> tuple[list[Example], list[Reject]]:
    """Return the examples of a file or folder, in the order of keys and records, and what is none.

    Names of an example are ``{source}/{key}#{record}`` with records counted from 1 (lines of JSONL, items of
    a JSON list, rows of Parquet), unless the record brings its own.

    Raises:
        InputError: nothing is there, or nothing of it is an example.
    """
    storage = storage or Storage()
    single = storage.stat(source.uri)
    objects = [single] if single else [info for info in storage.list(source.uri) if not is_hidden(info.key)]
    if not objects:
        raise InputError(
            f"{source.uri}: no such file, and no folder that holds files; give JSONL, JSON or Parquet files"
        )
    examples: dict[str, Example] = {}
    rejects: list[Reject] = []
    for info in objects:
        file_key = info.uri.rstrip("/").rpartition("/")[2] if single else info.key
        records: Iterator[tuple[str, Any]]
        if _without_packing(info.uri.lower()).endswith(_SUFFIXES):
            records = _records(storage.read_bytes(info.uri), _without_packing(info.uri.lower()))
        else:
            detail = f"not one of {', '.join(_SUFFIXES)}, packed or not"
            records = iter([("", ReadReject("unknown_format", detail))])
        for place, record in records:
            key = f"{file_key}#{place.rpartition(' ')[2]}" if place else file_key
            try:
                if isinstance(record, ReadReject):
                    raise record
                if not isinstance(record, Mapping):
                    raise ExampleReject("malformed_record", "not a JSON object")
                example = example_of(record, source.format, name=source.name, key=key)
                if example.example_id in examples:
                    raise ExampleReject("duplicate_id", f"{example.example_id} stands twice")
            except (ReadReject, ExampleReject) as reject:
                detail = f"{place}: {reject.detail}" if place else reject.detail
                rejects.append(Reject(f"{source.name}/{key}", info.uri, STAGE, reject.reason, detail))
                continue
            examples[example.example_id] = example
    if not examples:
        found = ", ".join(
            f"{count} {reason}" for reason, count in Counter(reject.reason for reject in rejects).items()
        )
        raise InputError(
            f"{source.uri}: no example among {len(objects)} files ({found or 'no record'}); the first: "
            f"{rejects[0].detail if rejects else 'nothing there'}. Give records in the layouts alpaca, "
            "messages, sharegpt, react or baltoro"
        )
    return list(examples.values()), rejects


def _without_packing(name: str) -> str:
    for suffix in _PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _records(data: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the place of each record of a file (``line 3``) and the record or why it cannot be read."""
    try:
        data = _unpacked(data)
        if data.startswith(_PARQUET):
            yield from _rows(data)
        elif name.endswith(_LINES_SUFFIXES) or _begins_with_object(data):
            yield from _lines(data)
        elif not data.strip():
            raise ReadReject("empty_file", "zero bytes, or only white space")
        else:
            value = decode_json(data)
            if isinstance(value, list):
                yield from ((f"item {number}", item) for number, item in enumerate(value, 1))
            else:
                yield "", value
    except ReadReject as reject:
        yield "", reject


def _unpacked(data: bytes) -> bytes:
    try:
        if data.startswith(_GZIP):
            return gzip.decompress(data)
        if data.startswith(_ZSTD):
            import zstandard

            try:
                return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
            except zstandard.ZstdError as error:
                raise EOFError(f"Zstandard: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReadReject("malformed_archive", f"{error}; unpack it and try again") from None
    return data


def _begins_with_object(data: bytes) -> bool:
    """Return whether the first of several lines is an object of its own, whatever the file is called."""
    first, _, rest = data.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not first.startswith(b"{") or not rest.strip():
        return False
    try:
        return isinstance(decode_json(first), dict)
    except ReadReject:
        return False


def _lines(data: bytes) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), 1):
        if line.strip():
            try:
                yield f"line {number}", decode_json(line)
            except ReadReject as reject:
                yield f"line {number}", reject


def _rows(data: bytes) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise ReadReject("malformed_table", f"Parquet: {str(error).splitlines()[0]}") from None
