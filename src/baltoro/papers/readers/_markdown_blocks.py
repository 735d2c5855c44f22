"""Markdown in two dialects, split into typed blocks and inline spans, in linear time.

A Markdown library does not fit these texts: it takes the backslash of ``\\(`` for an escape and the
underscores of TeX for emphasis, knows neither LaTeX tables nor display formulas over several lines, and
swallows the rest of a paper after one unbalanced fence. This module covers what parsed papers contain:
headings, paragraphs, lists, fences, pipe, HTML and LaTeX tables, display and inline formulas, links,
emphasis, code, footnotes and comments. Markup that cannot be understood stays in the text as it is.

Dialects: ``"nougat"`` (Mathpix Markdown as the Nougat decoder writes it), ``"markdown"`` (CommonMark with
GitHub tables and TeX formulas) and ``"plain"`` (no inline markup at all).
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from baltoro.papers.readers._latex_tables import parse_latex_table
from baltoro.papers.schema import Inline

Dialect = Literal["nougat", "markdown", "plain"]
RawKind = Literal["heading", "paragraph", "item", "code", "formula", "table", "figure", "note"]


@dataclass(slots=True)
class RawBlock:
    """A block as the text has it, before captions, references and sections are told apart.

    ``level`` is the heading's depth (1 to 6) or the item's nesting (from 0); ``marker`` the printed list
    marker, equation number or note mark; ``inlines`` are set where the source already separates spans.
    """

    kind: RawKind
    text: str = ""
    level: int = 0
    marker: str | None = None
    cells: list[list[str]] = field(default_factory=list)
    inlines: list[Inline] | None = None


@dataclass(slots=True)
class Scanned:
    """The blocks of a text, with the targets of its link definitions and counts of its HTML comments."""

    blocks: list[RawBlock]
    link_names: frozenset[str]
    comments: Counter[str]


_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_DEEPER_HEADING = re.compile(r"#{2,6} ")
_ITEM = re.compile(r"([ \t]*)([*+\-•◦▪·]|\(?\d{1,3}[.)])[ \t]+(?=\S)")
_INNER_BULLET = re.compile(r"(?<=[.?!:_\])])[ \n]\*[ ](?=[\"“(_*\\[]*[A-Z])")
_EMPTY_ITEM = re.compile(r"[ \t]*[*+\-][ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*(.*)$")
_ENVIRONMENT = re.compile(
    r"[ \t]*\\begin\{((?:sideways|wrap|long)?(?:table|tabular[xy]?)"
    r"|equation|align|gather|multline|eqnarray|displaymath)(\*?)\}"
)
_LONG_LINE_CHARACTERS = 20_000
_CONSTRUCT_END = re.compile(r"\\\]|\\end\{[a-z]+\*?\}|-->|```|</table>|\$\$", re.I)
_ENVIRONMENT_MARK = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}")
_TAG = re.compile(r"\\tag\s?\*?\s?\{([^{}]{1,40})\}")
_TRAILING_NUMBER = re.compile(
    r"[ \t]*(\([\w.*†‡′'-]{1,12}\))(?:[ \t]*$|(?=[ \t]*\\\[)|(?<=\d\))(?=[^\W\d_]))"
)
_HTML_TABLE_START = re.compile(r"[ \t]*<table\b", re.IGNORECASE)
_LINK_DEFINITION = re.compile(
    r" {0,3}\[([^\]^\[][^\]\[]{0,200})\]:[ \t]*<?(?:[a-z][a-z0-9+.-]{1,20}:|/|\.|#)\S*(?:[ \t]+[\"'(].*)?$",
    re.I,
)
_NOTE_DEFINITION = re.compile(r" {0,3}\[\^([^\]\s]{1,60})\]:[ \t]*(.*)$")
_IMAGE_ONLY = re.compile(r"!\[([^\[\]]*)\]\([^()\s]*(?:[ \t]+\"[^\"]*\")?\)[ \t]*$")
_QUOTE = re.compile(r"(?: {0,3}>[ \t]?)+")


def collapse(text: str) -> str:
    """Return the text with every run of white space as one space, none at the ends."""
    return " ".join(text.split())


def scan_blocks(text: str, dialect: Dialect) -> Scanned:
    """Return the blocks of a text in reading order.

    Args:
        text: a whole document with ``\\n`` line ends, without front matter.
        dialect: ``"nougat"`` or ``"markdown"``.
    """
    return _BlockScanner(text, dialect).scan()


def _split_lines(text: str) -> list[str]:
    """Return the lines, very long ones broken after each construct that a line may go on behind.

    Going on behind a construct means to copy the rest of the line; on a line of megabytes that would
    cost quadratic time.
    """
    lines = text.split("\n")
    if len(text) <= _LONG_LINE_CHARACTERS or max(map(len, lines)) <= _LONG_LINE_CHARACTERS:
        return lines
    broken: list[str] = []
    for line in lines:
        broken.extend(
            _CONSTRUCT_END.sub("\\g<0>\n", line).split("\n") if len(line) > _LONG_LINE_CHARACTERS else [line]
        )
    return broken


class _BlockScanner:
    """One pass over the lines; a construct that is not closed is looked for once and then is text."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        self._lines = _split_lines(text)
        self._nougat = dialect == "nougat"
        self._position = 0
        self._paragraph: list[str] = []
        self._item: RawBlock | None = None
        self._item_lines: list[str] = []
        self._after_blank = True
        self._blocks: list[RawBlock] = []
        self._link_names: set[str] = set()
        self._comments: Counter[str] = Counter()
        self._closers: dict[str, list[int]] = {}

    def scan(self) -> Scanned:
        lines = self._lines
        while self._position < len(lines):
            line = lines[self._position]
            if "<!--" in line and self._comment(line):
                continue
            if not self._nougat and ">" in line and (quote := _QUOTE.match(line)):
                line = lines[self._position] = line[quote.end() :]
            if not line or line.isspace():
                self._blank()
            elif not self._structure(line):
                self._text(line)
        self._flush()
        if self._nougat:
            self._blocks = [part for block in self._blocks for part in _unfolded(block)]
        return Scanned(self._blocks, frozenset(self._link_names), self._comments)

    def _structure(self, line: str) -> bool:
        """Take a line that starts something other than running text; false if it does not."""
        first = line.lstrip()[0]
        if first == "#":
            return self._heading(line)
        if first in "`~":
            return self._fence(line)
        if first == "\\":
            return self._environment(line) or self._display(line, "\\[", "\\]")
        if first == "$" and line.lstrip().startswith("$$"):
            return self._display(line, "$$", "$$")
        if self._paragraph and first in "=-" and not self._nougat and self._setext(line):
            return True
        if first in "*-_+" and self._rule(line):
            return True
        if not self._nougat and self._indented_code(line):
            return True
        if (first in "*+-•◦▪·(" or first.isdigit()) and self._list_item(line):
            return True
        if "|" in line and self._pipe_table(line):
            return True
        if first == "<":
            return self._html_table(line)
        if first == "[" and not self._nougat:
            return self._definition(line)
        if first == "!" and not self._nougat and not self._paragraph:
            return self._image(line)
        return False

    def _blank(self) -> None:
        self._flush(keep_item=True)
        self._after_blank = True
        self._position += 1

    def _text(self, line: str) -> None:
        if self._after_blank and self._item is not None and not line.startswith((" ", "\t")):
            self._close_item()
        if self._item is not None and not self._after_blank:
            self._item_lines.append(line)
        else:
            self._paragraph.append(line)
        self._after_blank = False
        self._position += 1

    def _emit(self, block: RawBlock) -> None:
        self._flush()
        self._blocks.append(block)
        self._after_blank = False

    def _flush(self, *, keep_item: bool = False) -> None:
        if self._paragraph:
            self._blocks.append(RawBlock("paragraph", "\n".join(self._paragraph)))
            self._paragraph = []
        if not keep_item:
            self._close_item()

    def _open_item(self, block: RawBlock) -> None:
        """Emit an item or note that the following lines may go on."""
        self._flush()
        self._blocks.append(block)
        self._item = block
        self._item_lines = [block.text]
        self._after_blank = False
        self._position += 1

    def _close_item(self) -> None:
        if self._item is not None:
            self._item.text = "\n".join(self._item_lines)
            self._item = None

    def _put_back(self, rest: str) -> None:
        """Go on with what follows a construct on its last line."""
        if rest and not rest.isspace():
            self._lines[self._position] = rest
        else:
            self._position += 1

    def _line_with(self, needle: str, start: int) -> int | None:
        """Return the index of the first line from ``start`` on that contains ``needle`` (indexed once)."""
        closers = self._closers.get(needle)
        if closers is None:
            closers = [index for index, line in enumerate(self._lines) if needle in line]
            self._closers[needle] = closers
        found = bisect_left(closers, start)
        return closers[found] if found < len(closers) else None

    def _comment(self, line: str) -> bool:
        start = line.index("<!--")
        end = line.find("-->", start + 4)
        if end >= 0:
            body, last = line[start + 4 : end], self._position
        else:
            found = self._line_with("-->", self._position + 1)
            if found is None:
                return False
            last = found
            end = self._lines[last].index("-->")
            body = "\n".join(
                [line[start + 4 :], *self._lines[self._position + 1 : last], self._lines[last][:end]]
            )
        self._comments[collapse(body)] += 1
        before, after = line[:start].rstrip(), self._lines[last][end + 3 :].lstrip()
        self._position = last
        if not before and not after:
            # A comment on a line of its own is a break like an empty line.
            self._lines[last] = ""
        else:
            self._lines[last] = f"{before} {after}" if before and after else before or after
        return True

    def _heading(self, line: str) -> bool:
        match = _HEADING.match(line)
        if match is None:
            return False
        title = (match[2] or "").strip()
        if title.endswith("#"):
            title = _CLOSING_HASHES.sub("", title)
        self._position += 1
        self._emit(RawBlock("heading", title, level=len(match[1])))
        return True

    def _setext(self, line: str) -> bool:
        mark = line.strip()
        if len(mark) < 2 or set(mark) not in ({"="}, {"-"}):
            return False
        if sum(map(len, self._paragraph)) > _LONGEST_UNDERLINED_HEADING_CHARACTERS:
            return False
        heading = "\n".join(self._paragraph)
        self._paragraph = []
        self._position += 1
        self._emit(RawBlock("heading", heading, level=1 if mark[0] == "=" else 2))
        return True

    def _rule(self, line: str) -> bool:
        marks = line.replace(" ", "").replace("\t", "")
        if len(marks) < 3 or len(set(marks)) != 1 or marks[0] == "+":
            return False
        self._flush()
        self._after_blank = True
        self._position += 1
        return True

    def _fence(self, line: str) -> bool:
        match = _FENCE.match(line)
        if match is None:
            return False
        if self._nougat:
            return match[1][0] == "`" and self._loose_fence(line)
        mark = match[1]
        if mark[0] == "`" and "`" in match[2]:
            return False
        body: list[str] = []
        index = self._position + 1
        while index < len(self._lines):
            text = self._lines[index]
            index += 1
            stripped = text.strip()
            if stripped.startswith(mark) and not stripped.strip(mark[0]):
                break
            body.append(text)
        self._position = index
        kind: RawKind = "formula" if match[2].strip().lower() in ("math", "latex-math") else "code"
        self._emit(RawBlock(kind, "\n".join(body)))
        return True

    def _loose_fence(self, line: str) -> bool:
        """Take a Nougat fence: it may close anywhere in a line, or be cut off by the end of a page."""
        content_start = line.index("```") + 3
        close = line.find("```", content_start)
        if close >= 0:
            self._emit(RawBlock("code", line[content_start:close].strip()))
            self._put_back(line[close + 3 :].lstrip("` "))
            return True
        first = self._position
        last = self._line_with("```", first + 1)
        if (
            last is None
            or self._opens_fence(last)
            or any(map(_DEEPER_HEADING.match, self._lines[first + 1 : last]))
        ):
            last = first + 1
            while last < len(self._lines) and self._lines[last].strip():
                last += 1
            body, rest = self._lines[first + 1 : last], ""
            last -= 1
        else:
            close = self._lines[last].index("```")
            body = [*self._lines[first + 1 : last], self._lines[last][:close]]
            rest = self._lines[last][close + 3 :]
        self._emit(RawBlock("code", "\n".join([line[content_start:], *body]).strip("\n")))
        self._position = last
        self._put_back(rest)
        return True

    def _opens_fence(self, index: int) -> bool:
        """Tell whether the fence in a line is an opening one: on its own, after an empty line."""
        following = self._lines[index + 1] if index + 1 < len(self._lines) else ""
        return (
            self._lines[index].strip() == "```"
            and not self._lines[index - 1].strip()
            and bool(following.strip())
        )

    def _indented_code(self, line: str) -> bool:
        if not (self._after_blank and self._item is None and line.startswith(("    ", "\t"))):
            return False
        body: list[str] = []
        index = self._position
        last = index
        while index < len(self._lines):
            text = self._lines[index]
            if text.startswith(("    ", "\t")):
                last = index
            elif text.strip():
                break
            body.append(text[4:] if text.startswith("    ") else text.removeprefix("\t"))
            index += 1
        self._emit(RawBlock("code", "\n".join(body[: last + 1 - self._position])))
        self._position = last + 1
        return True

    def _environment(self, line: str) -> bool:
        match = _ENVIRONMENT.match(line)
        if match is None:
            return False
        name = match[1] + match[2]
        closer = f"\\end{{{name}}}"
        end = self._environment_end(name, closer, match.end())
        if end is None:
            return False
        last, close = end
        source_lines = [*self._lines[self._position : last], self._lines[last][:close]]
        source = "\n".join(source_lines)
        if "tab" in name and not self._lines[last].startswith(closer, close) and source.count("&") < 2:
            # The decoder went over from the table's preamble into running text.
            self._emit(RawBlock("paragraph", _ENVIRONMENT_MARK.sub(" ", source)))
        elif "tab" in name:
            cells, outside = parse_latex_table(source + closer)
            self._emit(RawBlock("table", outside, cells=cells))
        else:
            self._emit(formula_block(source[match.end() :]))
        rest = self._lines[last][close:]
        self._position = last
        self._put_back(rest.removeprefix(closer))
        return True

    def _environment_end(self, name: str, closer: str, content_start: int) -> tuple[int, int] | None:
        """Return line and column where an environment ends, nothing for a formula that never does.

        The decoder may stop inside a table: one that is not closed before the next one of its kind or a
        heading ends with its paragraph.
        """
        first = self._position
        found = self._line_with(closer, first)
        if found is not None:
            again = self._line_with(f"\\begin{{{name}}}", first + 1)
            if again is None or again >= found:
                between = range(first + 1, found)
                if not any(self._lines[index].startswith("##") for index in between):
                    return found, self._lines[found].index(closer, content_start if found == first else 0)
        if "tab" not in name:
            return None
        last = first
        while last + 1 < len(self._lines) and self._lines[last + 1].strip():
            last += 1
        return last, len(self._lines[last])

    def _display(self, line: str, opener: str, closer: str) -> bool:
        start = line.find(opener)
        if start < 0 or line[:start].strip():
            return False
        start += len(opener)
        body: list[str] = []
        index = self._position
        text = line[start:]
        while True:
            close = text.find(closer)
            if close >= 0:
                break
            body.append(text)
            index += 1
            if index >= len(self._lines):
                return False
            text = self._lines[index]
            if not text.strip() or text.lstrip().startswith("\\["):
                return False
        body.append(text[:close])
        if not self._nougat and opener == "\\[" and not any(map(_TEX_CHARACTERS.search, body)):
            return False
        block = formula_block("\n".join(body))
        rest = text[close + len(closer) :]
        number = _TRAILING_NUMBER.match(rest)
        if number and block.marker is None:
            block.marker = number[1]
            rest = rest[number.end() :]
        elif rest[:1] in (".", ",", ";") and not rest[1:].strip():
            block.text += rest.strip()
            rest = ""
        self._emit(block)
        self._position = index
        self._put_back(rest)
        return True

    def _list_item(self, line: str) -> bool:
        match = _ITEM.match(line)
        if match is None:
            if not self._paragraph and _EMPTY_ITEM.match(line):
                self._position += 1
                return True
            return False
        marker = match[2]
        interrupts = self._nougat or (
            not marker[-1].isdigit() and (marker[0] in "*+-•◦▪·" or marker.strip("().") == "1")
        )
        if self._paragraph and not interrupts:
            return False
        indent = len(match[1].expandtabs(4))
        self._open_item(RawBlock("item", line[match.end() :], level=min(indent // 2, 8), marker=marker))
        return True

    def _pipe_table(self, line: str) -> bool:
        following = self._position + 1
        if following >= len(self._lines):
            return False
        delimiter = self._lines[following].strip()
        if not ("-" in delimiter and "|" in delimiter and set(delimiter) <= set("|-: \t")):
            return False
        rows = [_pipe_cells(line)]
        index = following + 1
        while index < len(self._lines) and "|" in self._lines[index]:
            rows.append(_pipe_cells(self._lines[index]))
            index += 1
        self._emit(RawBlock("table", cells=rows))
        self._position = index
        return True

    def _html_table(self, line: str) -> bool:
        if _HTML_TABLE_START.match(line) is None:
            return False
        ends = [
            end
            for tag in ("</table>", "</TABLE>")
            if (end := self._line_with(tag, self._position)) is not None
        ]
        if not ends:
            return False
        index = min(ends)
        last = self._lines[index]
        close = last.lower().index("</table>") + len("</table>")
        source = "\n".join([*self._lines[self._position : index], last[:close]])
        rest = last[close:]
        cells, caption = _html_cells(source)
        self._emit(RawBlock("table", caption, cells=cells))
        self._position = index
        self._put_back(rest)
        return True

    def _definition(self, line: str) -> bool:
        note = _NOTE_DEFINITION.match(line)
        if note:
            self._open_item(RawBlock("note", note[2], marker=note[1]))
            return True
        definition = None if self._paragraph else _LINK_DEFINITION.match(line)
        if definition is None:
            return False
        self._link_names.add(collapse(definition[1]).lower())
        self._position += 1
        return True

    def _image(self, line: str) -> bool:
        match = _IMAGE_ONLY.match(line.strip())
        if match is None:
            return False
        self._position += 1
        self._emit(RawBlock("figure", match[1]))
        return True


def _unfolded(item: RawBlock) -> list[RawBlock]:
    """Return an item and the inner list that Nougat printed on its line: ``1. Reasons: * One. * Two.``"""
    if item.kind != "item" or " * " not in item.text:
        return [item]
    item.text, *inner = _INNER_BULLET.split(item.text)
    return [item, *(RawBlock("item", text, level=item.level + 1, marker="*") for text in inner)]


def formula_block(source: str) -> RawBlock:
    r"""Return a formula block of TeX, the number of its ``\tag`` apart."""
    tag = _TAG.search(source)
    if tag is None:
        return RawBlock("formula", collapse(source))
    label = tag[1].strip()
    return RawBlock(
        "formula",
        collapse(source[: tag.start()] + " " + source[tag.end() :]),
        marker=label if label.startswith("(") else f"({label})",
    )


def _pipe_cells(line: str) -> list[str]:
    row = line.strip().removeprefix("|")
    if row.endswith("|") and not row.endswith("\\|"):
        row = row[:-1]
    if "\\|" in row:
        parts = [part.replace("\0", "|") for part in row.replace("\\|", "\0").split("|")]
    else:
        parts = row.split("|")
    return ["".join(inline.text for inline in parse_inlines(part, "markdown")) for part in parts]


def _html_cells(source: str) -> tuple[list[list[str]], str]:
    """Return the rows of an HTML table (of its outermost one) and its caption."""
    from lxml import html as lxml_html

    table = lxml_html.fromstring(source)
    caption = " ".join(collapse("".join(map(str, element.itertext()))) for element in table.iter("caption"))
    for line_break in table.iter("br", "p", "li"):
        line_break.tail = " " + (line_break.tail or "")
    rows = []
    for row in table.iter("tr"):
        if next(row.iterancestors("td", "th"), None) is not None:
            continue
        cells: list[str] = []
        for cell in row.iterchildren("td", "th"):
            cells.append(collapse("".join(map(str, cell.itertext()))))
            span = cell.get("colspan", "1")
            cells.extend([""] * (min(int(span), 100) - 1 if span.isdecimal() else 0))
        rows.append(cells)
    return rows, caption


_TOKEN = re.compile(
    r"""(?P<math>\\\(|\\\[)
      | (?P<escape>\\[!-/:-@\[-`{-~])
      | (?P<dollar>\$\$?)
      | (?P<code>`+)
      | (?P<open>!?\[)
      | (?P<close>\])
      | (?P<angle><[^<>\n]{1,500}>)
      | (?P<emphasis>\*+|_+)
      | (?P<entity>&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)
    """,
    re.VERBOSE,
)
_MARKUP = re.compile(r"[\\$`\[<*_&]")
_TOKEN_START = re.compile(r"[\\$`!\[\]<*_&]")
_DESTINATION = re.compile(
    r"\([ \t\n]*(?:<[^<>\n]{0,2000}>|[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)"
    r"(?:[ \t\n]+[\"'][^\"'\n]{0,500}[\"'])?[ \t\n]*\)"
)
_REFERENCE_LABEL = re.compile(r"\[([^\[\]]{0,200})\]")
_AUTOLINK = re.compile(r"<((?:https?|ftp|mailto|doi):[^\s<>]+|[\w.+-]+@[\w.-]+)>", re.I)
_HTML_TAG = re.compile(
    r"<(/?)(a|abbr|b|big|br|center|cite|code|del|details|div|em|figcaption|figure|font|h[1-6]|hr|i|img|ins|kbd|li|mark"
    r"|ol|p|pre|q|s|samp|section|small|span|strike|strong|sub|summary|sup|tbody|td|tfoot|th|thead|tr|tt|u|ul|var)"
    r"(?=[\s/>])[^<>]*>",
    re.I,
)
_BREAKING_TAG = re.compile(r"br|div|h[1-6]|hr|li|ol|p|pre|section|tbody|td|tfoot|th|thead|tr|ul", re.I)
_LONGEST_LABEL_CHARACTERS = 2000
_TEX_CHARACTERS = re.compile(r"[\\^_=+<>]")
_LONGEST_UNDERLINED_HEADING_CHARACTERS = 200
_PROSE_AMOUNT = re.compile(r"[\d.,]+\s+[A-Za-z]{2,}\s")


@dataclass(slots=True)
class _Delimiter:
    """A run of emphasis marks whose meaning is open until its partner is found."""

    mark: str
    count: int
    before: str
    after: str
    dropped: int = 0


_Node = str | Inline | _Delimiter


def parse_inlines(text: str, dialect: Dialect, link_names: frozenset[str] = frozenset()) -> list[Inline]:
    """Return the spans of a block's text: formulas apart, links and emphasis down to their words.

    Formulas become ``formula`` spans (target ``"tex"``), ``[^n]`` a ``note_ref`` to ``note-n``;
    everything else is one ``text`` span between them, with white space collapsed. Marks that match no
    partner are text.

    Args:
        text: the source of one block.
        dialect: which markup counts.
        link_names: names of link definitions, for ``[text][name]``.
    """
    if dialect == "plain" or _MARKUP.search(text) is None:
        words = collapse(text)
        return [Inline("text", words)] if words else []
    return _InlineParser(text, dialect, link_names).parse()


class _InlineParser:
    def __init__(self, text: str, dialect: Dialect, link_names: frozenset[str]) -> None:
        self._text = text
        self._nougat = dialect == "nougat"
        self._link_names = link_names
        self._nodes: list[_Node] = []
        self._brackets: list[tuple[int, int]] = []
        self._openers: dict[str, list[_Delimiter]] = {"*": [], "_": []}
        self._next: dict[str, int] = {}
        self._backticks: dict[int, list[int]] | None = None

    def parse(self) -> list[Inline]:
        text = self._text
        nodes = self._nodes
        position = 0
        searched = 0
        while candidate := _TOKEN_START.search(text, searched):
            start = candidate.start()
            match = _TOKEN.match(text, start)
            if match is None:
                searched = start + 1
                continue
            if start > position:
                nodes.append(text[position:start])
            position = match.end()
            match match.lastgroup:
                case "math":
                    position = self._math(match[0], position)
                case "escape":
                    # In Nougat's output these are spaces and bars of a formula that was not closed.
                    is_tex = self._nougat and match[0][1] in "!,:;|{}"
                    nodes.append(match[0] if is_tex else match[0][1])
                case "dollar":
                    position = self._dollar(match[0], position)
                case "code":
                    position = self._code(match[0], position)
                case "open":
                    self._brackets.append((len(nodes), position))
                    nodes.append(match[0])
                case "close":
                    position = self._close_bracket(start, position)
                case "angle":
                    position = self._angle(match[0], start, position)
                case "emphasis":
                    self._emphasis(match[0], start, position)
                case _:
                    nodes.append(match[0] if self._nougat else html.unescape(match[0]))
            searched = position
        nodes.append(text[position:])
        return self._spans()

    def _find(self, needle: str, start: int) -> int:
        """Return where ``needle`` comes next (the text's length if nowhere), scanning each part once."""
        known = self._next.get(needle, -1)
        if known < start:
            found = self._text.find(needle, start)
            known = self._next[needle] = found if found >= 0 else len(self._text)
        return known

    def _math(self, opener: str, position: int) -> int:
        closer = "\\)" if opener == "\\(" else "\\]"
        close = self._find(closer, position)
        if close == len(self._text) or self._find(opener, position) < close:
            self._nodes.append(opener if self._nougat else opener[1])
            return position
        source = self._text[position:close]
        if opener == "\\[" and not self._nougat and not _TEX_CHARACTERS.search(source):
            self._nodes.append("[")  # an escaped bracket around a citation, not a formula
            return position
        block = formula_block(source)
        if block.text:
            self._nodes.append(Inline("formula", block.text, "tex"))
        if block.marker:
            self._nodes.append(f" {block.marker}")
        return close + 2

    def _dollar(self, opener: str, position: int) -> int:
        text = self._text
        close = self._find(opener, position)
        source = text[position:close]
        display = opener == "$$"
        if (
            close == len(text)
            or not source.strip()
            or (not display and (source[0].isspace() or source[-1].isspace() or source[-1] == "\\"))
            or (not display and text[close + 1 : close + 2].isdigit())
            or (not display and _PROSE_AMOUNT.match(source))
        ):
            self._nodes.append(opener)
            return position
        block = formula_block(source)
        self._nodes.append(Inline("formula", block.text, "tex"))
        if block.marker:
            self._nodes.append(f" {block.marker}")
        return close + len(opener)

    def _code(self, opener: str, position: int) -> int:
        if self._nougat:
            self._nodes.append(opener)
            return position
        if self._backticks is None:
            self._backticks = {}
            for run in re.finditer("`+", self._text):
                self._backticks.setdefault(len(run[0]), []).append(run.start())
        starts = self._backticks.get(len(opener), [])
        found = bisect_left(starts, position)
        if found == len(starts):
            self._nodes.append(opener)
            return position
        self._nodes.append(self._text[position : starts[found]].strip())
        return starts[found] + len(opener)

    def _close_bracket(self, start: int, position: int) -> int:
        nodes = self._nodes
        if not self._brackets:
            nodes.append("]")
            return position
        index, label_start = self._brackets.pop()
        label = self._text[label_start:start] if start - label_start <= _LONGEST_LABEL_CHARACTERS else ""
        if (
            label.startswith("^")
            and not self._nougat
            and nodes[index] == "["
            and label[1:].strip()
            and " " not in label
        ):
            nodes[index:] = [Inline("note_ref", label[1:], f"note-{label[1:]}")]
            return position
        destination = _DESTINATION.match(self._text, position)
        if destination is None:
            reference = _REFERENCE_LABEL.match(self._text, position) if self._link_names else None
            name = collapse((reference[1] if reference else "") or label).lower()
            if name not in self._link_names:
                nodes.append("]")
                return position
            end = reference.end() if reference else position
        else:
            end = destination.end()
        if "://" in label:
            nodes[index:] = [label.replace("\\_", "_")]
        else:
            nodes[index] = ""
        return end

    def _angle(self, source: str, start: int, position: int) -> int:
        if self._nougat:
            self._nodes.append("<")
            return start + 1
        link = _AUTOLINK.fullmatch(source)
        tag = None if link else _HTML_TAG.fullmatch(source)
        if link:
            self._nodes.append(link[1])
        elif tag is None:
            self._nodes.append("<")
            return start + 1
        elif _BREAKING_TAG.fullmatch(tag[2]):
            self._nodes.append(" ")
        elif tag[2].lower() in ("sup", "sub"):
            # Without a mark the number of a note or a power would be glued to the word before it.
            self._nodes.append("" if tag[1] else "^" if tag[2].lower() == "sup" else "_")
        return position

    def _emphasis(self, run: str, start: int, position: int) -> None:
        before = self._text[start - 1] if start else " "
        after = self._text[position] if position < len(self._text) else " "
        left = not after.isspace() and (_is_word(after) or before.isspace() or not _is_word(before))
        right = not before.isspace() and (_is_word(before) or after.isspace() or not _is_word(after))
        # In Nougat's output an underscore before a brace is TeX, whose formula was not closed.
        inside_word = _is_word(before) and (_is_word(after) or (self._nougat and after == "{"))
        if inside_word and (run[0] == "_" or len(run) == 1):
            self._nodes.append(run)
            return
        delimiter = _Delimiter(run[0], len(run), before, after)
        self._nodes.append(delimiter)
        openers = self._openers[run[0]]
        if right:
            while openers and delimiter.count:
                opener = openers[-1]
                pairs = min(opener.count, delimiter.count)
                for end in (opener, delimiter):
                    end.count -= pairs
                    end.dropped += pairs
                if not opener.count:
                    openers.pop()
        if left and delimiter.count:
            openers.append(delimiter)

    def _spans(self) -> list[Inline]:
        spans: list[Inline] = []
        pending: list[str] = []

        def flush() -> None:
            source = "".join(pending)
            pending.clear()
            if source:
                lead = " " if source[0].isspace() else ""
                words = " ".join(source.split())
                trail = " " if words and source[-1].isspace() else ""
                spans.append(Inline("text", f"{lead}{words}{trail}"))

        for node in self._nodes:
            if isinstance(node, str):
                pending.append(node)
            elif isinstance(node, _Delimiter):
                pending.append(self._printed(node))
            else:
                flush()
                spans.append(node)
        flush()
        if spans and spans[0].kind == "text":
            spans[0].text = spans[0].text.lstrip()
        if spans and spans[-1].kind == "text":
            spans[-1].text = spans[-1].text.rstrip()
        return [span for span in spans if span.text]

    def _printed(self, delimiter: _Delimiter) -> str:
        left_over = delimiter.count
        inside_word = _is_word(delimiter.before) and _is_word(delimiter.after)
        if (
            self._nougat
            and not inside_word
            and (left_over >= 2 or delimiter.mark == "_" or delimiter.dropped)
        ):
            # Type left open or closed by half: Nougat carries it over a break, and prints no mark.
            left_over = 0
        if left_over:
            return delimiter.mark * left_over
        if inside_word:
            return " "
        # Nougat leaves out the space between words in italics and a formula.
        return " " if self._nougat and delimiter.after == "\\" and _is_word(delimiter.before) else ""


def _is_word(character: str) -> bool:
    return character.isalnum()
