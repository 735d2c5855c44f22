"""From a folder, file or object to papers and rejects: every record becomes exactly one of the two.

:func:`read` is the small public API; :func:`read_object` is the same work on one object's bytes, as a
plain function that a pipeline maps over a listing. Nothing here raises because of a record's content.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, get_args

from baltoro.core.errors import ConfigError, InputError
from baltoro.papers.config import InputFormat, MetadataTableConfig, ReadLimits
from baltoro.papers.containers import Payload, Record, unpack
from baltoro.papers.detect import (
    JSON_FORMATS,
    XML_FORMATS,
    decode,
    detect_bytes,
    detect_object,
    refuse_binary,
)
from baltoro.papers.fields import text_of
from baltoro.papers.licenses import normalise_license
from baltoro.papers.metadata import MetadataTable
from baltoro.papers.readers.records import parse_record
from baltoro.papers.schema import Paper, ReadReject, Reject

if TYPE_CHECKING:
    from baltoro.core.storage import ObjectInfo, Storage

_DEFAULT_LIMITS = ReadLimits()


def read(
    uri: str,
    *,
    source: str = "papers",
    format: InputFormat = "auto",
    storage: Storage | None = None,
    metadata: MetadataTable | MetadataTableConfig | None = None,
    text_column: str | None = None,
    limits: ReadLimits = _DEFAULT_LIMITS,
) -> Iterator[Paper | Reject]:
    """Yield a :class:`Paper` or a :class:`Reject` for every record of a file or a folder.

    Args:
        uri: a path, ``file://`` or ``s3://`` URI of one file or of a folder, read with its sub-folders.
        source: the name that paper ids start with.
        format: the format of every record, or ``auto`` to look at each.
        storage: where to read from; the default reads local paths and S3 with the environment's settings.
        metadata: a table to join, loaded or as its settings. A table inside the folder is not a paper.
        text_column: the column with the text of general JSONL and Parquet tables.
        limits: bounds on sizes.

    Raises:
        InputError: nothing is there, the folder holds no papers (after its rejects were yielded), or
            mostly PDFs.
        ConfigError: an unknown ``format``.

    Example:
        >>> from baltoro.papers import Paper, read
        >>> for record in read("examples/papers"):  # doctest: +SKIP
        ...     print(record.title if isinstance(record, Paper) else f"{record.reason}: {record.detail}")
    """
    from baltoro.core.storage import Storage

    storage = storage or Storage()
    if isinstance(metadata, MetadataTableConfig):
        metadata = MetadataTable.load(metadata, storage)
    settings: dict[str, Any] = {
        "source": source,
        "format": format,
        "metadata": metadata,
        "text_column": text_column,
        "limits": limits,
    }
    single = storage.stat(uri) is not None
    objects = list_papers(uri, storage, metadata)
    papers = 0
    reasons: Counter[str] = Counter()
    for info in objects:
        if info.size_bytes > limits.max_object_bytes:
            outcomes: Iterable[Paper | Reject] = [
                reject_too_large(info.size_bytes, key=info.key, uri=info.uri, source=source, limits=limits)
            ]
        else:
            data = storage.read_bytes(info.uri)
            outcomes = iter_object(data, key=info.key, uri=info.uri, etag=info.etag, **settings)
        for outcome in outcomes:
            if isinstance(outcome, Paper):
                papers += 1
            else:
                reasons[outcome.reason] += 1
            yield outcome
    if not papers and not single:
        raise no_papers(uri, objects=len(objects), reasons=reasons)


def list_papers(uri: str, storage: Storage, metadata: MetadataTable | None = None) -> list[ObjectInfo]:
    """Return a file, or the files of a folder that may hold papers.

    Args:
        uri: as in :func:`read`.
        storage: lists the files.
        metadata: a table to join; inside the folder it is not a paper.

    Raises:
        InputError: nothing is there, or mostly PDFs.
    """
    from baltoro.core.storage import absolute_uri

    single = storage.stat(uri)
    if single is not None:
        return [single]
    table_uri = absolute_uri(metadata.config.uri) if metadata is not None else None
    objects = [
        info for info in storage.list(uri) if absolute_uri(info.uri) != table_uri and not is_hidden(info.key)
    ]
    if not objects:
        raise InputError(
            f"{uri}: no such file, and no folder that holds files; give a folder of parsed papers"
        )
    refuse_mostly_pdfs(uri, (info.key for info in objects))
    return objects


def read_object(
    data: bytes,
    *,
    key: str,
    uri: str,
    etag: str,
    source: str,
    format: InputFormat = "auto",
    text_column: str | None = None,
    metadata: MetadataTable | None = None,
    limits: ReadLimits = _DEFAULT_LIMITS,
) -> list[Paper | Reject]:
    """Return the papers and rejects of one stored object, at least one.

    Args:
        data: the object's bytes, as stored.
        key: its path below the source's folder; with ``source`` it makes the paper id.
        uri: where it stands, for the record.
        etag: the store's tag of this content.
        source: the source's name.
        format: as in :func:`read`.
        text_column: as in :func:`read`.
        metadata: a loaded table to join.
        limits: bounds on sizes.

    Raises:
        ConfigError: an unknown ``format``.
    """
    return list(
        iter_object(
            data,
            key=key,
            uri=uri,
            etag=etag,
            source=source,
            format=format,
            text_column=text_column,
            metadata=metadata,
            limits=limits,
        )
    )


def iter_object(
    data: bytes,
    *,
    key: str,
    uri: str,
    etag: str,
    source: str,
    format: InputFormat = "auto",
    text_column: str | None = None,
    metadata: MetadataTable | None = None,
    limits: ReadLimits = _DEFAULT_LIMITS,
) -> Iterator[Paper | Reject]:
    """Yield what :func:`read_object` returns, one record in memory at a time."""
    if format not in get_args(InputFormat):
        allowed = ", ".join(get_args(InputFormat))
        raise ConfigError(f"format: {format!r} is not allowed; it must be one of {allowed}")
    seen: set[str] = set()
    for record in _records(data, key=key, format=format, text_column=text_column, limits=limits):
        paper_id = make_paper_id(source, key, record.key)
        try:
            if paper_id in seen:
                raise ReadReject("duplicate_id", f"a second record {record.key or key!r} in the same file")
            seen.add(paper_id)
            found, paper = _parse(record, format, text_column)
            if not _has_text(paper):
                raise ReadReject("no_text", "neither title, abstract nor body text")
            paper.paper_id, paper.source, paper.uri, paper.etag, paper.format = (
                paper_id,
                source,
                uri,
                etag,
                found,
            )
            if metadata is not None:
                path = f"{key}#{record.key}" if record.key else key
                metadata.join(paper, name=record.name, path=path, record_id=_record_id(record.payload))
            # Here and nowhere else, so that every format and metadata table gives one spelling.
            paper.license = normalise_license(paper.license)
        except ReadReject as reject:
            yield Reject(paper_id, uri, "read", reject.reason, reject.detail)
        except MemoryError:
            # Too little memory is the machine's state, not the record's fault: a rerun must not differ.
            raise
        except Exception as error:  # noqa: BLE001  (one record's defect is recorded, not fatal)
            yield Reject(paper_id, uri, "read", "reader_error", describe_error(error))
        else:
            yield paper
    if not seen:
        yield Reject(make_paper_id(source, key), uri, "read", "empty_file", "a container without any record")


def _records(
    data: bytes, *, key: str, format: InputFormat, text_column: str | None, limits: ReadLimits
) -> Iterator[Record]:
    name = PurePosixPath(key).name
    try:
        yield from unpack(
            data,
            name,
            limits=limits,
            parse_json=format == "auto" or format in JSON_FORMATS,
            text_column=text_column,
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (a damaged container must not stop the others; it is recorded)
        yield Record("", name, ReadReject("reader_error", describe_error(error)))


def _parse(record: Record, format: InputFormat, text_column: str | None) -> tuple[str, Paper]:
    payload = record.payload
    if isinstance(payload, ReadReject):
        raise payload
    if isinstance(payload, dict):
        found = detect_object(payload, text_column) if format == "auto" else format
        if found == "records":
            if text_column is None:
                raise ReadReject("malformed_table", "no text column is named; set text_column")
            return found, parse_record(payload, text_column)
        if found not in JSON_FORMATS:
            raise ReadReject("unknown_format", f"a table row or JSON object where {found} was declared")
        return found, _parser(found)(payload)
    if format == "auto":
        found = detect_bytes(payload, record.name)
    else:
        found = format
        refuse_binary(payload, record.name)
    if found in JSON_FORMATS:
        raise ReadReject("malformed_json", f"no JSON object where {found} was declared")
    if found in XML_FORMATS:
        return found, _parser(found)(payload)
    text = decode(payload)
    if not text.strip():
        raise ReadReject("empty_file", "only white space")
    return found, _parser(found)(text)


def _parser(name: str) -> Callable[[Any], Paper]:
    """Return the reader of a format; imported on first use, so that importing this package stays light."""
    from importlib import import_module

    module, function = {
        "grobid_tei": ("tei", "parse_tei"),
        "jats": ("jats", "parse_jats"),
        "nougat": ("nougat", "parse_nougat"),
        "s2orc": ("s2orc", "parse_s2orc"),
        "science_parse": ("science_parse", "parse_science_parse"),
        "sciencebeam": ("sciencebeam", "parse_sciencebeam"),
        "docling_json": ("docling", "parse_docling_json"),
        "docling_markdown": ("docling", "parse_docling_markdown"),
        "markdown": ("markdown", "parse_markdown"),
        "plain_text": ("plain_text", "parse_plain_text"),
    }[name]
    parser: Callable[[Any], Paper] = getattr(import_module(f"baltoro.papers.readers.{module}"), function)
    return parser


def make_paper_id(source: str, key: str, record: str = "") -> str:
    """Return ``{source}/{key}`` with ``#{record}`` for an object that holds several papers."""
    return f"{source}/{key}#{record}" if record else f"{source}/{key}"


def reject_too_large(size_bytes: int, *, key: str, uri: str, source: str, limits: ReadLimits) -> Reject:
    """Return the reject of an object that is larger than it may be, without reading it."""
    detail = (
        f"{size_bytes} bytes, at most {limits.max_object_bytes} are read; split it or raise max_object_bytes"
    )
    return Reject(make_paper_id(source, key), uri, "read", "too_large", detail)


def describe_error(error: BaseException) -> str:
    """Return ``Type: message at file:line`` of where an exception was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePosixPath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}{where}"


def is_hidden(key: str) -> bool:
    """Return whether a key has a part that begins with a dot (``.DS_Store``, ``.git/…``): never a paper."""
    return any(part.startswith(".") for part in key.split("/"))


def is_pdf(key: str) -> bool:
    """Return whether a key names a PDF, also a compressed one."""
    return key.lower().removesuffix(".gz").removesuffix(".zst").endswith(".pdf")


def refuse_mostly_pdfs(uri: str, keys: Iterable[str]) -> None:
    """Stop before a source is read of which more than half are PDFs.

    Args:
        uri: the source's folder, named in the message.
        keys: the keys of its objects.

    Raises:
        InputError: with the commands that parse PDFs.
    """
    pdfs = total = 0
    for key in keys:
        total += 1
        pdfs += is_pdf(key)
    if 2 * pdfs > total:
        folder = "PDFS" if "://" in uri and not uri.startswith("file://") else uri
        raise InputError(
            f"{uri}: {pdfs} of {total} files are PDFs, which must be parsed before they can be read. Parse "
            "them with one of these, then give the folder PARSED instead:\n"
            "  GROBID (structure and references, fast, no GPU):\n"
            "    docker run --rm -d -p 8070:8070 grobid/grobid:0.8.2\n"
            "    pip install grobid-client-python\n"
            f"    grobid_client --input {folder} --output PARSED processFulltextDocument\n"
            "  Nougat (formulas as LaTeX, needs a GPU):\n"
            "    pip install nougat-ocr\n"
            f"    nougat {folder} --out PARSED\n"
            "  Docling (tables, reading order):\n"
            "    pip install docling\n"
            f"    docling {folder} --from pdf --to json --output PARSED"
        )


def no_papers(uri: str, *, objects: int, reasons: Counter[str]) -> InputError:
    """Return the error for a folder in which no record is a paper.

    Args:
        uri: the folder.
        objects: how many files were read.
        reasons: the number of rejects per reason.
    """
    found = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    files = "1 file" if objects == 1 else f"{objects} files"
    return InputError(
        f"{uri}: no paper among {files}; rejected: {found}. Give a folder of parsed papers (GROBID TEI, "
        "JATS, Nougat, S2ORC, science-parse, ScienceBeam, Docling, Markdown or plain text)"
    )


def _has_text(paper: Paper) -> bool:
    blocks = [*paper.abstract, *paper.blocks()]
    return bool(paper.title.strip()) or any(block.printed().strip() or block.cells for block in blocks)


def _record_id(payload: Payload) -> str | None:
    if not isinstance(payload, dict):
        return None
    return text_of(payload.get("paper_id")) or text_of(payload.get("id")) or None
