"""What one stored object holds: a single paper, a compressed one, an archive, or a table of many.

:func:`unpack` looks at the content (gzip, Zstandard, tar and Parquet have signatures, JSONL is one JSON
object per line) and yields one :class:`Record` per paper. Nothing is unpacked to disk and memory is
bounded by the largest single record: archives and JSONL are read as streams, and both a record and the
whole unpacked content have limits, so a decompression bomb is a reject and not an outage. What stood
before a damaged place is kept; the rest is one reject ``malformed_archive``.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeAlias, cast

from baltoro.papers.config import ReadLimits
from baltoro.papers.detect import decode, decode_json, detect_object, refuse_binary
from baltoro.papers.schema import ReadReject

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_TAR_MAGIC, _TAR_MAGIC_OFFSET, _TAR_BLOCK_BYTES = b"ustar", 257, 512
_PACKED_SUFFIXES = (".gz", ".zst", ".tgz")
_LINES_SUFFIXES = {".jsonl", ".ndjson", ".jsonlines"}
_DEEPEST_NESTING = 4
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
_BUFFER_BYTES = 1 << 20
_PARQUET_BATCH_ROWS = 64

_Stream = io.RawIOBase | io.BufferedIOBase
_Buffered: TypeAlias = "io.BufferedReader[Any]"

Payload = bytes | dict[str, Any] | ReadReject
"""A record's content: bytes (XML or text), a JSON object or table row, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One paper's worth of an object.

    ``key`` is what tells it from the other records of the object, ``""`` if it is the only one: the path in
    an archive, the line of a JSONL file, the place in a JSON list, the row of a table (all counted from
    1), joined by ``#`` where they nest. ``name`` is the innermost file name, without ``.gz`` or ``.zst``.
    """

    key: str
    name: str
    payload: Payload


@dataclass
class _Unpacking:
    limits: ReadLimits
    parse_json: bool
    text_column: str | None
    unpacked_bytes: int = field(default=0)


class _Bounded(io.RawIOBase):
    """A readable stream that counts what it gives towards the limit of the whole object."""

    def __init__(self, source: io.BufferedIOBase, state: _Unpacking) -> None:
        self._source = source
        self._state = state

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # read1, because read gathers several chunks and loses them all when the last one is damaged.
        data = self._source.read1(len(buffer))
        buffer[: len(data)] = data
        self._state.unpacked_bytes += len(data)
        if self._state.unpacked_bytes > self._state.limits.max_unpacked_bytes:
            raise ReadReject(
                "too_large",
                f"unpacks to more than {self._state.limits.max_unpacked_bytes} bytes; raise "
                "max_unpacked_bytes if that is meant",
            )
        return len(data)


def unpack(
    data: bytes,
    name: str,
    *,
    limits: ReadLimits,
    parse_json: bool = True,
    text_column: str | None = None,
) -> Iterator[Record]:
    """Yield the records of one stored object; a record that cannot be read carries its reject.

    Args:
        data: the object's bytes.
        name: its file name or key.
        limits: bounds on sizes.
        parse_json: decode JSON, JSONL and JSON lists into objects; ``False`` where the source is declared
            to be XML or text.
        text_column: the column of general text tables.
    """
    state = _Unpacking(limits, parse_json, text_column)
    yield from _guarded(io.BytesIO(data), _Item("", name, 0, data), state)


@dataclass(frozen=True, slots=True)
class _Item:
    """What is being opened: its key and name, its nesting, and its bytes where they are in memory."""

    key: str
    name: str
    depth: int
    data: bytes | None

    def unpacked(self) -> _Item:
        """Return the item inside this compressed one."""
        return _Item(self.key, _inner_name(self.name), self.depth + 1, None)


def _guarded(stream: _Stream, item: _Item, state: _Unpacking) -> Iterator[Record]:
    kept = False
    try:
        for record in _open(stream, item, state):
            yield record
            kept = kept or not isinstance(record.payload, ReadReject)
    except ReadReject as reject:
        yield Record(item.key, item.name, reject)
    except _DAMAGED as error:
        rest = "what stood before it was kept" if kept else "nothing of it could be kept"
        yield Record(item.key, item.name, ReadReject("malformed_archive", f"{error}; {rest}"))


def _open(stream: _Stream, item: _Item, state: _Unpacking) -> Iterator[Record]:
    if item.depth > _DEEPEST_NESTING:
        raise ReadReject("malformed_archive", f"containers nested more than {_DEEPEST_NESTING} deep")
    buffered: _Buffered = io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES)
    head = buffered.peek(_TAR_BLOCK_BYTES)
    bound = state.limits.max_record_bytes
    if head.startswith(_GZIP):
        yield from _open(_Bounded(gzip.GzipFile(fileobj=buffered), state), item.unpacked(), state)
    elif head.startswith(_ZSTD):
        yield from _zstandard(item.data if item.data is not None else _read(buffered, bound), item, state)
    elif head[_TAR_MAGIC_OFFSET:].startswith(_TAR_MAGIC):
        yield from _tar(buffered, item, state)
        if item.data is not None and not item.data.endswith(bytes(_TAR_BLOCK_BYTES)):
            raise ReadReject("malformed_archive", "the archive has no end mark; it was probably cut off")
    elif head.startswith(_PARQUET):
        yield from _parquet(item.data if item.data is not None else _read(buffered, bound), item, state)
    elif state.parse_json:
        yield from _json_or_single(buffered, item, state)
    else:
        yield Record(item.key, item.name, _single(_read(buffered, bound), item.name))


def _zstandard(data: bytes, item: _Item, state: _Unpacking) -> Iterator[Record]:
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        unpacked = _Bounded(cast(io.BufferedIOBase, reader), state)
        if _zstandard_is_whole(data):
            yield from _open(unpacked, item.unpacked(), state)
        else:
            # The decompressor ends a cut stream as if it were whole, so what it gives is read as a cut one.
            yield from _open(_CutStream(unpacked), item.unpacked(), state)
    except zstandard.ZstdError as error:
        raise EOFError(f"Zstandard: {error}") from None


class _CutStream(io.RawIOBase):
    """A stream whose end is not the end of its content: reading past it raises ``EOFError``."""

    def __init__(self, source: _Bounded) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto(buffer)
        if not count:
            raise EOFError("the compressed file was cut off")
        return count


def _zstandard_is_whole(data: bytes) -> bool:
    """Return whether every frame's blocks are there, by walking the frame format (RFC 8878, 3.1.1)."""
    import zstandard

    position = 0
    while position < len(data):
        magic = data[position : position + 4]
        if len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and 0x50 <= magic[0] <= 0x5F:
            position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
            continue
        try:
            header = data[position : position + 18]
            checksum = zstandard.get_frame_parameters(header).has_checksum
            position += zstandard.frame_header_size(header)
        except zstandard.ZstdError:
            return False
        last = False
        while not last:
            block = data[position : position + 3]
            if len(block) < 3:
                return False
            value = int.from_bytes(block, "little")
            last, kind, size = bool(value & 1), (value >> 1) & 3, value >> 3
            position += 3 + (1 if kind == 1 else size)
        position += 4 if checksum else 0
    return position == len(data)


def _tar(stream: _Buffered, item: _Item, state: _Unpacking) -> Iterator[Record]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            member_key = _join(item.key, member.name)
            if member.isdir():
                continue
            if not member.isreg():
                reject = ReadReject("unknown_format", "a link or device inside the archive, not a file")
                yield Record(member_key, member.name, reject)
                continue
            file = cast(_Buffered, archive.extractfile(member))
            if member.size > state.limits.max_record_bytes:
                # A table or an archive inside may be larger than one record: it is read as a stream.
                yield from _guarded(file, _Item(member_key, member.name, item.depth + 1, None), state)
                continue
            # Read outside the guard, so that a cut archive is one reject and not one per layer.
            data = file.read()
            inner = _Item(member_key, member.name, item.depth + 1, data)
            yield from _guarded(io.BytesIO(data), inner, state)


def _parquet(data: bytes, item: _Item, state: _Unpacking) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = ", ".join(file.schema_arrow.names) or "no column at all"
        if state.text_column is None:
            raise ReadReject(
                "malformed_table", f"no text column is named; name one with text_column (it has {columns})"
            )
        if state.text_column not in file.schema_arrow.names:
            raise ReadReject(
                "malformed_table", f"lacks the text column {state.text_column!r}; it has {columns}"
            )
        row_number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
            state.unpacked_bytes += batch.nbytes
            if state.unpacked_bytes > state.limits.max_unpacked_bytes:
                raise ReadReject("too_large", f"unpacks to more than {state.limits.max_unpacked_bytes} bytes")
            for row in batch.to_pylist():
                row_number += 1
                yield Record(_join(item.key, str(row_number)), item.name, row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ReadReject("malformed_table", f"Parquet: {_first_line(error)}") from None


def _json_or_single(stream: _Buffered, item: _Item, state: _Unpacking) -> Iterator[Record]:
    key, name = item.key, item.name
    bound = state.limits.max_record_bytes
    first = stream.readline(bound + 1)
    by_name = PurePosixPath(name).suffix.lower() in _LINES_SUFFIXES
    wide = first.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide and (
        by_name or (first.endswith(b"\n") and _follows_object(stream) and _is_object_line(first))
    ):
        yield from _lines(first, stream, item, state)
        return
    data = first + _read(stream, bound - len(first)) if len(first) <= bound else first
    if len(data) > bound:
        raise _too_large(bound)
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    named_json = PurePosixPath(name).suffix.lower() in _LINES_SUFFIXES | {".json"}
    if wide and named_json:
        start = decode(data).lstrip()[:1].encode()
    if start not in (b"{", b"[") or not (named_json or start == b"{" or _is_list(data)):
        yield Record(key, name, _single(data, name))
        return
    if by_name:  # UTF-16 lines
        for number, line in enumerate(decode(data).split("\n"), 1):
            if line.strip():
                yield Record(_join(key, str(number)), name, _object(line, f"line {number}"))
        return
    try:
        refuse_binary(data, name)
        value = decode_json(data)
    except ReadReject as reject:
        if reject.reason == "malformed_json" and not named_json:
            # Text may start with a brace; only the name says that this one should have been JSON.
            yield Record(key, name, _single(data, name))
            return
        raise
    if isinstance(value, list):
        yield from _items(value, item, state)
    elif isinstance(value, dict):
        yield Record(key, name, value)
    else:
        raise ReadReject("malformed_json", f"holds {_kind(value)}, not an object")


def _lines(first: bytes, stream: _Buffered, item: _Item, state: _Unpacking) -> Iterator[Record]:
    bound = state.limits.max_record_bytes
    number, line = 0, first.removeprefix(b"\xef\xbb\xbf")
    found = False
    while line:
        number += 1
        payload: Payload | None = None
        if len(line) > bound and not line.endswith(b"\n"):
            payload = _too_large(bound)
            while line and not line.endswith(b"\n"):
                line = stream.readline(_BUFFER_BYTES)
        elif line.strip():
            payload = _object(line, f"line {number}")
        if payload is not None:
            found = True
            yield Record(_join(item.key, str(number)), item.name, payload)
        line = stream.readline(bound + 1)
    if not found:
        raise ReadReject("empty_file", "no lines")


def _object(line: bytes | str, where: str) -> Payload:
    try:
        if isinstance(line, bytes):
            refuse_binary(line, "")
        value = decode_json(line)
    except ReadReject as reject:
        return ReadReject(reject.reason, f"{where}: {reject.detail}")
    if not isinstance(value, dict):
        return ReadReject("malformed_json", f"{where}: holds {_kind(value)}, not an object")
    return value


def _items(values: list[Any], item: _Item, state: _Unpacking) -> Iterator[Record]:
    if not values:
        raise ReadReject("empty_file", "an empty JSON list")
    if not any(isinstance(value, dict) and _is_known(value, state.text_column) for value in values):
        sample = values[0]
        what = f"{len(values)} values"
        if isinstance(sample, dict):
            what = f"{len(values)} objects with the keys {', '.join(sorted(map(str, sample))[:12])}"
        raise ReadReject("unknown_format", f"a JSON list of {what}; none has a paper layout")
    for number, value in enumerate(values, 1):
        payload: Payload = value
        if not isinstance(value, dict):
            payload = ReadReject("malformed_json", f"item {number}: holds {_kind(value)}, not an object")
        yield Record(_join(item.key, str(number)), item.name, payload)


def _is_known(value: dict[str, Any], text_column: str | None) -> bool:
    try:
        detect_object(value, text_column)
    except ReadReject:
        return False
    return True


def _is_object_line(line: bytes) -> bool:
    if not line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return False
    try:
        return isinstance(decode_json(line), dict)
    except ReadReject:
        return False


def _follows_object(stream: _Buffered) -> bool:
    return stream.peek(1).lstrip()[:1] == b"{"


def _is_list(data: bytes) -> bool:
    """Tell a JSON list from text in brackets (``[MISSING_PAGE…]``) in a file not named as JSON."""
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[1:].lstrip()[:1] in (b"{", b"]")


def _single(data: bytes, name: str) -> Payload:
    if name.lower().endswith((*_PACKED_SUFFIXES, ".tar")):
        try:
            refuse_binary(data, name)
            decode(data)
        except ReadReject as reject:
            if reject.reason in ("binary", "bad_encoding"):
                return ReadReject("malformed_archive", "named as an archive, but the content is none")
            return reject
    return data


def _read(stream: _Buffered, bound: int) -> bytes:
    data: bytes = stream.read(bound + 1)
    if len(data) > bound:
        raise _too_large(bound)
    return data


def _too_large(bound: int) -> ReadReject:
    detail = f"more than {bound} bytes in one record; raise max_record_bytes if that is meant"
    return ReadReject("too_large", detail)


def _inner_name(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".tgz"):
        return name[:-4] + ".tar"
    return name[: name.rindex(".")] if lower.endswith((".gz", ".zst")) else name


def _join(key: str, part: str) -> str:
    return f"{key}#{part}" if key else part


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
