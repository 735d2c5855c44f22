"""Safe XML parsing and the text helpers that the XML readers (TEI, JATS) share.

A downloaded file is hostile until shown otherwise: nothing outside its bytes is ever read (no DTD, no
network), no entity of its own is ever expanded, and size, depth and the length of one text are bounded
by libxml2 itself, so that no bound depends on Python's recursion. What is well-formed but unusual
(named HTML entities, a wrong encoding declaration over valid UTF-8, blank lines before the XML
declaration) is read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from html.entities import html5
from operator import itemgetter
from typing import cast
from xml.parsers import expat
from xml.sax.saxutils import escape

from lxml import etree

from baltoro.papers.schema import Inline, InlineKind, ReadReject

MAX_XML_BYTES = 128 * 1024 * 1024
"""The largest document that is parsed; one text or attribute may hold up to 10 MB (libxml2's bound)."""

MAX_XML_DEPTH = 256
"""The deepest nesting that libxml2 parses without its ``huge_tree`` option."""


def _parser(*, collect_ids: bool) -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=collect_ids,
    )


# A repeated xml:id is an error to a parser that collects ids, and GROBID does repeat some; but switching
# that off sets a flag by which libxml2 loads the DTD after all, so it may only be off where there is none.
_PARSER_WITH_DOCTYPE = _parser(collect_ids=True)
_PARSER_WITHOUT_DOCTYPE = _parser(collect_ids=False)
_XML_SPACE = " \t\r\n"
_XML_SPACE_BYTES = _XML_SPACE.encode()
# A document that begins so has no document type: that could only stand before the root element.
_PLAIN_START = re.compile(rb"(?:<\?xml[^<?]*\?>)?[ \t\r\n]*<[A-Za-z_:]")
# One document type without declarations of its own and then the root element: nothing declares an entity.
_DOCTYPE_WITHOUT_DECLARATIONS = re.compile(
    rb"(?:<\?xml[^<?]*\?>)?[ \t\r\n]*<!DOCTYPE[ \t\r\n]+[\w:.\-]+"
    rb"(?:[ \t\r\n]+(?:SYSTEM|PUBLIC[ \t\r\n]+(?:\"[^\"<>]*\"|'[^'<>]*'))"
    rb"(?:[ \t\r\n]+(?:\"[^\"<>]*\"|'[^'<>]*'))?)?[ \t\r\n]*>[ \t\r\n]*<[A-Za-z_:]"
)
_DECLARED_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?\sencoding\s*=\s*[\"']([A-Za-z][\w.\-]*)[\"']")
_NAMED_ENTITY = re.compile(rb"&(?!(?:lt|gt|amp|quot|apos);|#)[^;&<\s]+;")
_MOST_AMPERSANDS_ONE_BY_ONE = 1000
_NAMED_ENTITY_OR_LITERAL = re.compile(
    rb"<!\[CDATA\[.*?\]\]>|<!--.*?-->|&(?!(?:lt|gt|amp|quot|apos);|#)([^;&<\s]+);", re.DOTALL
)
# The four-byte marks stand first: the UTF-32 mark begins with the UTF-16 one.
_WIDE_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY_SIGNATURES: dict[bytes, str] = {
    b"%PDF-": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"PAR1": "Parquet",
}
# Python calls these text encodings, but no document is written in them, and some decode in quadratic time.
_NOT_DOCUMENT_ENCODINGS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


def parse_xml(data: bytes) -> etree._Element:
    """Parse one XML document without trusting it and return its root element.

    Comments and processing instructions are removed and their neighbours' text is joined; named HTML
    entities (``&nbsp;``) become their characters; a DOCTYPE is accepted and its DTD is never loaded.
    The result contains elements and text only.

    Args:
        data: the bytes of one document, uncompressed.

    Raises:
        ReadReject: ``empty_file``, ``too_large``, ``binary``, ``bad_encoding``, ``unsafe_xml`` (an entity
            declaration, or more than 256 levels) or ``malformed_xml`` (with the line).
    """
    if len(data) > MAX_XML_BYTES:
        raise ReadReject("too_large", f"{len(data)} bytes of XML; the reader accepts up to {MAX_XML_BYTES}")
    text = _as_utf8(data)
    body = text.lstrip(_XML_SPACE_BYTES)
    if not body:
        raise ReadReject("empty_file", f"{len(data)} bytes without any character but white space")
    skipped_lines = text[: len(text) - len(body)].count(b"\n")
    has_doctype = _PLAIN_START.match(body) is None and b"<!DOCTYPE" in body
    if has_doctype and not _DOCTYPE_WITHOUT_DECLARATIONS.match(body) and b"<!ENTITY" in body:
        _refuse_entity_declarations(body)
    if _has_named_entity(body):
        body = _replace_named_entities(body)
    parser = _PARSER_WITH_DOCTYPE if has_doctype else _PARSER_WITHOUT_DOCTYPE
    try:
        return etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise _reject_of(error, skipped_lines) from None


def _as_utf8(data: bytes) -> bytes:
    """Return a document as UTF-8 without byte order mark; valid UTF-8 wins over what the file declares."""
    for mark, encoding in _WIDE_MARKS:
        if data.startswith(mark):
            return _recode(data, encoding, is_declared=False)
    for signature, kind in _BINARY_SIGNATURES.items():
        if data.startswith(signature):
            raise ReadReject("binary", f"starts with the signature of a {kind} file")
    first_nul = data.find(b"\0")
    if first_nul >= 0:
        raise ReadReject("binary", f"NUL byte at offset {first_nul}")
    data = data.removeprefix(codecs.BOM_UTF8)
    match = _DECLARED_ENCODING.search(data, 0, 512)
    declared = match.group(1).decode("ascii") if match else None
    # ASCII bytes are valid UTF-8 whatever they mean, and the stateful ISO-2022 encodings use only those.
    stateful = declared is not None and declared.lower().startswith(("iso-2022", "hz"))
    if not stateful:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            if declared is None or declared.lower() in {"utf-8", "utf8"}:
                raise ReadReject(
                    "bad_encoding",
                    f"byte 0x{data[error.start]:02x} at offset {error.start} is not valid UTF-8"
                    + ("" if declared else " and no other encoding is declared"),
                ) from None
        else:
            return data
    return _recode(data, cast("str", declared), is_declared=True)


def _recode(data: bytes, encoding: str, *, is_declared: bool) -> bytes:
    """Return a document in another encoding as UTF-8; a declaration read as ASCII must fit its encoding."""
    origin = "declares" if is_declared else "starts with the byte order mark of"
    try:
        name = codecs.lookup(encoding).name
        if name in _NOT_DOCUMENT_ENCODINGS or (is_declared and "<?xml".encode(name) != b"<?xml"):
            raise LookupError(encoding)
        return data.decode(name).encode()
    except LookupError:
        raise ReadReject(
            "bad_encoding", f"not UTF-8, and {origin} {encoding!r}, which cannot be its encoding"
        ) from None
    except UnicodeError as error:
        raise ReadReject("bad_encoding", f"not UTF-8, and {origin} {encoding!r}, but: {error}") from None


def _refuse_entity_declarations(data: bytes) -> None:
    """Raise on the first entity declaration.

    Expat only walks the prolog: it stops at the root element, so the same characters in a comment or in a
    CDATA section of the text are left alone. Declarations that it does not report (after a reference to an
    unknown parameter entity) cannot be used, because every entity reference is replaced or refused.
    """

    class _RootReached(Exception):  # noqa: N818  (ends the walk, nothing is wrong)
        pass

    def declaration(name: str, *_: object) -> None:
        raise ReadReject("unsafe_xml", f"declares the entity {name!r} at line {parser.CurrentLineNumber}")

    def root(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate("utf-8")
    parser.EntityDeclHandler = declaration
    parser.StartElementHandler = root
    try:
        parser.Parse(data, True)
    except _RootReached:
        return
    except expat.ExpatError as error:
        raise ReadReject("malformed_xml", f"line {error.lineno}: {expat.ErrorString(error.code)}") from None


def _has_named_entity(data: bytes) -> bool:
    """Whether the characters of a reference to a named entity occur anywhere, be it in CDATA or a comment."""
    position = -1
    # Documents have few ampersands, and looking for a byte is much faster than for an expression; one that
    # is full of them is searched the other way, which is faster per ampersand.
    for _ in range(_MOST_AMPERSANDS_ONE_BY_ONE):
        position = data.find(b"&", position + 1)
        if position < 0:
            return False
        if _NAMED_ENTITY.match(data, position):
            return True
    return _NAMED_ENTITY.search(data, position) is not None


def _replace_named_entities(data: bytes) -> bytes:
    """Return the document with named HTML entities as characters; CDATA and comments stay as they are."""

    def replace(match: re.Match[bytes]) -> bytes:
        if match.group(1) is None:
            return match.group()
        name = match.group(1).decode("utf-8", "replace")
        character = html5.get(name + ";")
        if character is None:
            line = data.count(b"\n", 0, match.start()) + 1
            raise ReadReject("malformed_xml", f"line {line}: the entity &{name}; is not defined")
        return escape(character, {'"': "&quot;", "'": "&apos;"}).encode()

    return _NAMED_ENTITY_OR_LITERAL.sub(replace, data)


def _reject_of(error: etree.XMLSyntaxError, skipped_lines: int) -> ReadReject:
    message = " ".join((error.msg or "not well-formed").split())
    line = (error.lineno or 1) + skipped_lines
    if "depth" in message:
        return ReadReject("unsafe_xml", f"line {line}: nested more than {MAX_XML_DEPTH} levels deep")
    if getattr(error, "code", None) == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
        return ReadReject("too_large", f"line {line}: one text or attribute of more than 10 MB")
    # libxml2 repeats the position at the end of its message.
    message = re.sub(r",? line \d+, column \d+$", "", message)
    return ReadReject("malformed_xml", f"line {line}: {message}")


def collapse_space(text: str) -> str:
    """Return text with each run of XML white space (space, tab, CR, LF) as one space; ends are kept.

    No-break and thin spaces are characters of the text, not layout, and stay.
    """
    if "\n" in text:
        text = text.replace("\n", " ")
    if "\t" in text:
        text = text.replace("\t", " ")
    if "\r" in text:
        text = text.replace("\r", " ")
    # Each turn halves the longest run.
    while "  " in text:
        text = text.replace("  ", " ")
    return text


children_of: Callable[[etree._Element], list[etree._Element]] = itemgetter(slice(None))
"""Return the child elements of an element: one call into libxml2, where iterating costs one per child."""


def all_text(element: etree._Element) -> str:
    """Return all text inside an element as it stands in the source, that of its descendants included."""
    if len(element):
        # Serialising as text stays inside libxml2; ``itertext`` makes a Python object of every descendant.
        return etree.tostring(element, method="text", encoding="unicode", with_tail=False)
    return element.text or ""


def element_text(element: etree._Element) -> str:
    """Return all text inside an element on one line, for flat fields such as a name or a title.

    Children are joined as they stand: for elements with block children use :class:`InlineBuilder` and
    :meth:`InlineBuilder.add_break`.
    """
    return collapse_space(all_text(element)).strip(" ")


class InlineBuilder:
    """Collects the spans of one block and normalises white space across their borders.

    A run of white space becomes one space even where it is spread over several pieces of text; the ends of
    the block are stripped; neighbouring ``text`` spans are joined; white space at the edges of any other
    span moves into the text beside it (so that a renderer may replace the span without glueing words). No
    space is added except by :meth:`add_break`.

    Attributes:
        pieces: the source's text since the last span that is not text. Walkers that visit every element
            append to it directly: white space is normalised once, where the run of text ends. The list is
            the builder's own for its whole life, so its ``append`` may be kept in a variable.
        spans: the spans before those pieces.

    >>> builder = InlineBuilder()
    >>> builder.add_text("Melt\\n  rises ")
    >>> builder.add("citation", " [3] ", "b2")
    >>> builder.add_text(" here ")
    >>> [(inline.kind, inline.text) for inline in builder.build()]
    [('text', 'Melt rises '), ('citation', '[3]'), ('text', ' here')]
    """

    __slots__ = ("pieces", "spans")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.spans: list[Inline] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing but white space was added since the last :meth:`build`."""
        return not self.spans and not any(piece.strip(_XML_SPACE) for piece in self.pieces)

    def add_text(self, text: str | None) -> None:
        """Add plain text as it stands in the source; ``None`` and ``""`` add nothing."""
        if text:
            self.pieces.append(text)

    def add(self, kind: InlineKind, text: str, target: str | None = None) -> None:
        """Add a span of any kind; one without visible text adds only its white space."""
        core = collapse_space(text).strip(" ")
        pieces = self.pieces
        if kind == "text" or not core:
            if text:
                pieces.append(text)
            return
        is_stripped = core is text
        if not is_stripped and text[0] in _XML_SPACE:
            pieces.append(" ")
        spans = self.spans
        if pieces:
            run = collapse_space(pieces[0] if len(pieces) == 1 else "".join(pieces))
            pieces.clear()
            if not spans:
                run = run.lstrip(" ")
            if run:
                spans.append(Inline("text", run, None))
        spans.append(Inline(kind, core, target))
        if not is_stripped and text[-1] in _XML_SPACE:
            pieces.append(" ")

    def add_break(self) -> None:
        """Separate what comes by a space: where the layout separates what the source does not."""
        self.pieces.append(" ")

    def add_break_between_words(self, following: str) -> None:
        """Add a space if ``following`` would otherwise be glued to a word or number already there.

        For marks that the layout sets apart by type and the source by markup only: a superscript note or
        citation number, a displayed formula inside a sentence. Call it before adding ``following``.
        """
        if not following[:1].isalnum():
            return
        pieces = self.pieces
        last = pieces[-1] if pieces else self.spans[-1].text if self.spans else ""
        if last[-1:].isalnum():
            pieces.append(" ")

    def build(self) -> list[Inline]:
        """Return the spans collected so far, with both ends stripped, and start anew."""
        spans = self.spans
        pieces = self.pieces
        if pieces:
            run = collapse_space(pieces[0] if len(pieces) == 1 else "".join(pieces))
            pieces.clear()
            run = run.rstrip(" ") if spans else run.strip(" ")
            if run:
                spans.append(Inline("text", run, None))
        self.spans = []
        return spans
