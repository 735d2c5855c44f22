"""From a source of knowledge to its concepts: a file or a folder of files in any of the notations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from baltoro.core.errors import InputError
from baltoro.instructions.signals.config import KnowledgeSource
from baltoro.instructions.signals.knowledge.concepts import Knowledge, Statements
from baltoro.instructions.signals.knowledge.rdf import RDFLIB_FORMATS, read_rdf
from baltoro.instructions.signals.knowledge.triples import read_csv, read_json
from baltoro.papers.schema import Reject

if TYPE_CHECKING:
    from baltoro.core.storage import Storage

_BY_SUFFIX = {
    "ttl": "turtle",
    "turtle": "turtle",
    "n3": "turtle",
    "nt": "n_triples",
    "rdf": "rdf_xml",
    "xml": "rdf_xml",
    "owl": "rdf_xml",
    "skos": "turtle",
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "json",
}
_PREFIX = re.compile(rb"^\s*(?:#.*\n\s*)*@?(?:prefix|base)\b", re.IGNORECASE)


def read_knowledge(source: KnowledgeSource, storage: Storage | None = None) -> Knowledge:
    """Return the concepts of a source; files and rows that cannot be read stand in its ``rejects``.

    Args:
        source: where and in which notation.
        storage: where to read from; the default reads local paths and S3.

    Raises:
        InputError: nothing is there, or not one file could be read.
    """
    from baltoro.core.storage import Storage

    storage = storage or Storage()
    single = storage.stat(source.uri)
    if single is not None:
        files = [(single.key, single.uri)]
    else:
        files = sorted(
            (info.key, info.uri)
            for info in storage.list(source.uri)
            if _suffix(info.key) in _BY_SUFFIX and not info.key.startswith(".")
        )
    if not files:
        raise InputError(
            f"instructions.signals.knowledge: {source.uri} is no file and no folder with files ending in "
            f".{', .'.join(_BY_SUFFIX)}; give the path of an ontology or a table of triples"
        )
    return parse_knowledge(((key, storage.read_bytes(uri)) for key, uri in files), source)


def parse_knowledge(files: Iterable[tuple[str, bytes]], source: KnowledgeSource) -> Knowledge:
    """Return the concepts of some files.

    Args:
        files: name and content of each.
        source: its name, notation and language.

    Raises:
        InputError: not one of them could be read.
    """
    statements = Statements()
    read = 0
    for key, data in files:
        origin = f"{source.name}/{key}"
        format = notation_of(key, data) if source.format == "auto" else source.format
        try:
            if format in RDFLIB_FORMATS:
                read_rdf(data, format, statements, language=source.language)
            else:
                bad_rows = (read_csv if format == "csv" else read_json)(data, statements)
                for error in bad_rows:
                    statements.rejects.append(
                        Reject(origin, source.uri, "signals.knowledge", "malformed", str(error))
                    )
            read += 1
        except ValueError as error:  # what is no UTF-8 and what is no JSON are ValueErrors too
            detail = f"{key}, read as {format}: {error}"
            statements.rejects.append(Reject(origin, source.uri, "signals.knowledge", "malformed", detail))
    if not read:
        details = "; ".join(reject.detail for reject in statements.rejects[:3])
        raise InputError(
            f"instructions.signals.knowledge: no file of {source.uri} can be read: {details}. Correct the "
            "files, or set format"
        )
    return statements.build(source.name)


def notation_of(key: str, data: bytes) -> str:
    """Return the notation of a file by what it begins with, else by its name."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((b"<?xml", b"<rdf:", b"<!DOCTYPE rdf")):
        return "rdf_xml"
    if _PREFIX.match(head):
        return "turtle"
    return _BY_SUFFIX.get(_suffix(key), "turtle")


def _suffix(key: str) -> str:
    return key.rpartition(".")[2].lower()
