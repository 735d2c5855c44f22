"""Which format a record is in, told from its content first and its name second.

The rules, in order:

1. nothing but white space, a PDF, another binary signature, NUL bytes: a reject, whatever the name says;
2. XML by its root element, JSON by its keys, a service's error message by its wording;
3. text by its encoding (UTF-8, or UTF-16 with a mark), then by marks that only one parser leaves
   (Nougat's ``[MISSING_PAGE…]`` and ``\\( \\)``, Docling's ``<!-- image -->``), then by the name's suffix.

A Markdown file without any mark cannot be told from a paper and is read as ``markdown``; only files whose
*name* says that they describe a folder (``README.md``, ``SOURCES.md``, ``LICENSE`` …) and files of other
kinds (``.csv``, ``.ttl``, ``.py`` …) are refused.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from baltoro.papers.config import InputFormat
from baltoro.papers.schema import ReadReject

JSON_FORMATS: frozenset[str] = frozenset({"s2orc", "science_parse", "sciencebeam", "docling_json", "records"})
"""Formats whose reader takes a decoded JSON object (or a row of a table)."""

XML_FORMATS: frozenset[str] = frozenset({"grobid_tei", "jats"})
"""Formats whose reader takes bytes and decodes them itself, as the XML declaration says."""

JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson", ".jsonlines"})

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF-", "not_parsed", "a PDF"),
    (b"%!PS", "not_parsed", "a PostScript document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "not_parsed", "an old Office document"),
    (b"{\\rtf", "not_parsed", "an RTF document"),
    (b"AT&TFORM", "not_parsed", "a DjVu document"),
    (b"\x89PNG", "binary", "a PNG picture"),
    (b"\xff\xd8\xff", "binary", "a JPEG picture"),
    (b"GIF8", "binary", "a GIF picture"),
    (b"II*\x00", "binary", "a TIFF picture"),
    (b"MM\x00*", "binary", "a TIFF picture"),
    (b"\x7fELF", "binary", "a program"),
    (b"SQLite format 3\x00", "binary", "a SQLite database"),
    (b"BZh", "binary", "a bzip2 file; repack it as .gz or .zst"),
    (b"\xfd7zXZ\x00", "binary", "an xz file; repack it as .gz or .zst"),
    (b"7z\xbc\xaf\x27\x1c", "binary", "a 7z archive; repack it as .tar.gz"),
    (b"Rar!", "binary", "a RAR archive; repack it as .tar.gz"),
    (b"GGUF", "binary", "model weights"),
)
_OFFICE_SUFFIXES = {".docx", ".odt", ".pptx", ".xlsx", ".epub"}
_PDF_SEARCH_BYTES = 1024

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_FOLDER_NOTES = {
    "authors", "changelog", "changes", "citation", "code_of_conduct", "codeowners", "contributing",
    "contributors", "copying", "license", "licence", "manifest", "news", "notice", "readme", "requirements",
    "security", "sources", "todo",
}  # fmt: skip
_TEXT_SUFFIXES = {".txt", ".text", ""}
_MARKDOWN_SUFFIXES = {".md", ".markdown", ".mkd"}
_XML_SUFFIXES = {".xml", ".nxml", ".tei"}
# A suffix such as ".2019GL085378" belongs to a DOI in the name, not to a file type.
_FILE_TYPE_SUFFIX = re.compile(r"\.[a-z][a-z0-9_+-]{0,9}", re.IGNORECASE)
_PAPER_NAME_SUFFIXES = re.compile(
    r"\.(?:gz|zst|tar|tgz|xml|nxml|tei|grobid|jats|json|jsonl|ndjson|mmd|md|markdown|txt|text|pdf|docling"
    r"|parquet)$",
    re.IGNORECASE,
)

_GROBID_ERROR = re.compile(
    r"\[(?:BAD_INPUT_DATA|NO_BLOCKS|TIMEOUT|GENERAL|TAGGING_ERROR|PARSING_ERROR|TOO_MANY_[A-Z_]+)\]"
)
_ERROR_TEXT = re.compile(
    r"\A\s*(?:HTTP/\d|(?:HTTP (?:status|error) )?[45]\d\d\b[^\n]{0,60}"
    r"(?:error|not found|unavailable|bad gateway|forbidden|time-?out|too many requests)"
    r"|Internal Server Error|Bad Gateway|Service (?:Temporarily )?Unavailable|Gateway Time-?out"
    r"|Too Many Requests"
    r"|Traceback \(most recent call last\)|\S*(?:Exception|Error):)",
    re.IGNORECASE,
)
_LONGEST_ERROR_CHARACTERS = 4000
_ERROR_KEYS = {
    "error", "errors", "message", "msg", "detail", "details", "status", "status_code", "code", "timestamp",
    "path", "exception", "trace", "type", "title",
}  # fmt: skip

_XML_MISC = re.compile(rb"\s+|<\?.*?\?>|<!--.*?-->", re.DOTALL)
_XML_START = re.compile(rb"<(?:[A-Za-z_][\w.\-]*:)?([A-Za-z_][\w.\-]*)")
_DOCTYPE = re.compile(rb"<!DOCTYPE\s+(?:[A-Za-z_][\w.\-]*:)?([A-Za-z_][\w.\-]*)", re.IGNORECASE)

_REVIEW_TEXT = re.compile(r"\AID: .*^Original Ratings: .*^Aggregated Review:", re.DOTALL | re.MULTILINE)
_NOUGAT_MARK = re.compile(
    r"^\[MISSING_PAGE|^#{6} Abstract\s*$|\\begin\{table\}\s*\\begin\{tabular\}|^\\\[.*\\\]\s*$", re.MULTILINE
)
_DOCLING_MARK = re.compile(r"<!-- (?:image|formula-not-decoded|missing-text|rich cell) -->")
_MARKDOWN_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_MARK_SEARCH_CHARACTERS = 200_000


def detect_bytes(data: bytes, name: str) -> InputFormat:
    """Return the format of a record that is bytes (not a JSON object).

    Args:
        data: the whole record, decompressed.
        name: its file name or path; its suffix decides only what the content leaves open.

    Raises:
        ReadReject: it is none of the formats; the reason says what it is instead.
    """
    refuse_binary(data, name)
    suffix = file_type(name)
    # XML is looked at as bytes: its own declaration says how to decode it.
    root = _xml_root(data)
    if root is not None:
        return _xml_format(*root, suffix=suffix, declares_entities=b"<!ENTITY" in data)
    text = decode(data)
    if not text.strip():
        raise ReadReject("empty_file", "only white space")
    return _text_format(text, name, suffix)


def detect_object(document: Mapping[str, Any], text_column: str | None = None) -> InputFormat:
    """Return the format of a decoded JSON object, or of a row of a table.

    Args:
        document: the object.
        text_column: the column that makes an object of no known layout a general record.

    Raises:
        ReadReject: ``error_page`` or ``unknown_format``, with the keys that were found.
    """
    keys = set(document)
    if document.get("schema_name") == "DoclingDocument" or {"texts", "body", "furniture"} <= keys:
        return "docling_json"
    if isinstance(document.get("body_text"), list) or keys & {"pdf_parse", "latex_parse", "grobid_parse"}:
        return "s2orc"
    inner = document.get("metadata")
    science = inner if isinstance(inner, Mapping) else document
    if "abstractText" in science or {"sections", "references"} <= set(science):
        return "science_parse"
    if "main_content" in keys or "figure_and_table_captions" in keys:
        return "sciencebeam"
    if text_column is not None and text_column in keys:
        return "records"
    if not document:
        raise ReadReject("empty_file", "an empty JSON object")
    if keys <= _ERROR_KEYS and keys & {"error", "errors", "message", "detail", "exception"}:
        what = next(
            document[key] for key in ("error", "message", "detail", "errors", "exception") if key in keys
        )
        raise ReadReject("error_page", f"an error message: {_short(what)}")
    if isinstance(document.get("reviews"), list):
        raise ReadReject("unknown_format", "a peer-review record, not a paper; instructions read those")
    found = f"a JSON object with the keys {', '.join(sorted(map(str, keys))[:12])}"
    if text_column is not None:
        raise ReadReject(
            "unknown_format", f"{found}; no paper layout, and it lacks the text column {text_column!r}"
        )
    raise ReadReject(
        "unknown_format", f"{found}; no paper layout (for general text name its column with text_column)"
    )


def refuse_binary(data: bytes, name: str) -> None:
    """Refuse what no text reader can take.

    Raises:
        ReadReject: ``empty_file``, ``not_parsed`` (PDF and other sources of papers) or ``binary``.
    """
    if not data.strip():
        raise ReadReject("empty_file", f"{len(data)} bytes" if not data else "only white space")
    if b"%PDF-" in data[:_PDF_SEARCH_BYTES]:
        raise ReadReject("not_parsed", "a PDF; parse it first with GROBID, Nougat or Docling")
    for signature, reason, what in _SIGNATURES:
        if data.startswith(signature):
            raise ReadReject(reason, what)
    if data.startswith(b"PK\x03\x04"):
        if PurePosixPath(name).suffix.lower() in _OFFICE_SUFFIXES:
            raise ReadReject("not_parsed", "an office document; parse it first, for example with Docling")
        raise ReadReject("binary", "a ZIP archive; repack it as .tar.gz")
    if b"\0" in data and _mark_encoding(data) not in ("utf-16", "utf-32"):
        raise ReadReject("binary", f"a NUL byte at offset {data.index(0)}")


def decode(data: bytes) -> str:
    """Return UTF-8 text (with or without a mark), or UTF-16/32 text that starts with a byte order mark.

    Line ends become ``\\n``. Nothing is ever replaced.

    Raises:
        ReadReject: ``bad_encoding``, with the offset of the first bad byte.
    """
    encoding = _mark_encoding(data) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        bad = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        wanted = encoding.removesuffix("-sig").upper()
        raise ReadReject("bad_encoding", f"{bad} is not {wanted}; save the file as UTF-8") from None
    if "\0" in text:
        raise ReadReject("binary", f"a NUL character at offset {text.index(chr(0))}")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def decode_json(data: bytes | str) -> Any:
    """Return a JSON value.

    Raises:
        ReadReject: ``bad_encoding`` (also half of a surrogate pair in a ``\\u`` escape, which no text file
            can hold) or ``malformed_json`` with line and column.
    """
    text = decode(data) if isinstance(data, bytes) else data
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ReadReject(
            "malformed_json", f"{error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise ReadReject("malformed_json", "nested too deep") from None
    except ValueError:
        raise ReadReject("malformed_json", "a number of thousands of digits") from None
    if "\\u" in text and re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start : error.start + 1].encode("unicode_escape").decode()
            raise ReadReject("bad_encoding", f"half of a surrogate pair ({half})") from None
    return value


def file_type(name: str) -> str:
    """Return the suffix of a name in lower case, or ``""`` where it has none that names a file type."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if _FILE_TYPE_SUFFIX.fullmatch(suffix) else ""


def stem_of(name: str) -> str:
    """Return a file name without folder and format suffixes: ``a/N18-3011.tei.xml.gz`` is ``N18-3011``."""
    stem = PurePosixPath(name).name
    while (match := _PAPER_NAME_SUFFIXES.search(stem)) and match.start() > 0:
        stem = stem[: match.start()]
    return stem


def _mark_encoding(data: bytes) -> str | None:
    # The UTF-32 mark starts with the UTF-16 one, so it is looked for first (the order of the table).
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS if data.startswith(mark)), None)


def _xml_root(data: bytes) -> tuple[str, bytes] | None:
    """Return local name and start tag of the root element, ``("", b"")`` for XML without one, else ``None``.

    A DOCTYPE names the root itself, which spares reading through its internal subset.
    """
    if _mark_encoding(data) is not None:
        # Decoded only to find the root; a bad sequence is for the reader to report.
        data = data.decode(_mark_encoding(data) or "utf-8", errors="replace").encode()
    position, declared = 0, False
    while misc := _XML_MISC.match(data, position):
        declared = declared or misc.group().startswith(b"<?xml")
        position = misc.end()
    if match := _DOCTYPE.match(data, position) or _XML_START.match(data, position):
        end = data.find(b">", position)
        return match.group(1).decode("ascii"), data[position : end + 1 if end >= 0 else len(data)]
    return ("", b"") if declared else None


def _xml_format(name: str, tag: bytes, *, suffix: str, declares_entities: bool) -> InputFormat:
    if name in ("TEI", "teiCorpus"):
        return "grobid_tei"
    if name == "article" and b"docbook" not in tag:
        return "jats"
    if not name:
        raise ReadReject("malformed_xml", "XML without a root element")
    if name.lower() == "html":
        if suffix in (".html", ".htm", ".xhtml"):
            raise ReadReject("unknown_format", "a web page; save its text, or parse it with Docling")
        raise ReadReject("error_page", "an HTML page in place of a parsed paper")
    if declares_entities:
        raise ReadReject("unsafe_xml", f"declares entities of its own (root element <{name}>)")
    if name.lower() in ("error", "exception", "errors", "fault"):
        raise ReadReject("error_page", f"an XML message <{name}> in place of a parsed paper")
    if suffix in _MARKDOWN_SUFFIXES | {".mmd"}:
        return "nougat" if suffix == ".mmd" else "markdown"
    raise ReadReject(
        "unknown_format", f"XML with the root element <{name}>; known are TEI and article (JATS)"
    )


def _text_format(text: str, name: str, suffix: str) -> InputFormat:
    path = PurePosixPath(name)
    if len(text) <= _LONGEST_ERROR_CHARACTERS and (
        _GROBID_ERROR.match(text.lstrip()) or _ERROR_TEXT.match(text)
    ):
        raise ReadReject("error_page", f"an error message: {_short(text)}")
    if suffix in _XML_SUFFIXES:
        raise ReadReject(
            "malformed_xml", f"named {suffix} but has no root element; it starts with {_short(text)}"
        )
    if suffix in JSON_SUFFIXES:
        raise ReadReject(
            "malformed_json", f"named {suffix} but holds no JSON object; it starts with {_short(text)}"
        )
    if path.name.split(".")[0].lower() in _FOLDER_NOTES and suffix in _TEXT_SUFFIXES | _MARKDOWN_SUFFIXES | {
        ".rst"
    }:
        raise ReadReject("unknown_format", f"a note about the folder, by its name {path.name}")
    if re.match(r"\s*@prefix ", text):
        raise ReadReject("unknown_format", "a Turtle ontology")
    if re.match(r"\s*(?:%[^\n]*\n\s*)*\\documentclass", text):
        raise ReadReject(
            "not_parsed", "a LaTeX source; parse it first (S2ORC doc2json, or its PDF with Nougat)"
        )
    if _REVIEW_TEXT.match(text[:_LONGEST_ERROR_CHARACTERS]):
        raise ReadReject("unknown_format", "an aggregated peer review, not a paper; instructions read those")
    sample = text[:_MARK_SEARCH_CHARACTERS]
    if suffix == ".mmd":
        return "nougat"
    if suffix in _TEXT_SUFFIXES | _MARKDOWN_SUFFIXES:
        if _DOCLING_MARK.search(sample):
            return "docling_markdown"
        if _MARKDOWN_HEADING.search(sample):
            return "nougat" if _NOUGAT_MARK.search(sample) else "markdown"
        return "markdown" if suffix in _MARKDOWN_SUFFIXES else "plain_text"
    if suffix in (".gz", ".zst", ".tgz", ".tar"):
        raise ReadReject("unknown_format", f"is named {suffix} but is no such container; rename it")
    raise ReadReject(
        "unknown_format", f"a {suffix} file; known are TEI, JATS, Nougat, JSON, Markdown and text files"
    )


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 80 else text[:77] + "…")
