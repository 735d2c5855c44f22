"""Blocks of a text, in one pass over its lines."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from baltoro.papers.readers._markup.blocks import Dialect, RawBlock, RawKind
from baltoro.papers.readers._markup.latex import TEX_CHARACTERS, environment_end, formula_block
from baltoro.papers.readers._markup.latex_tables import parse_latex_table
from baltoro.papers.readers._markup.lines import Lines
from baltoro.papers.readers._markup.tables import html_cells, pipe_cells
from baltoro.papers.readers._text import collapse

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
_ENVIRONMENT_MARK = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}")
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
_LONGEST_UNDERLINED_HEADING_CHARACTERS = 200


@dataclass(slots=True)
class Scanned:
    """The blocks of a text, with the targets of its link definitions and counts of its HTML comments."""

    blocks: list[RawBlock]
    link_names: frozenset[str]
    comments: Counter[str]


def scan_blocks(text: str, dialect: Dialect) -> Scanned:
    """Return the blocks of a text in reading order.

    Args:
        text: a whole document with ``\\n`` line ends, without front matter.
        dialect: ``"nougat"`` or ``"markdown"``.
    """
    return _BlockScanner(text, dialect).scan()


class _BlockScanner:
    """One pass over the lines; a construct that is not closed is looked for once and then is text."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        self._lines = Lines(text)
        self._nougat = dialect == "nougat"
        self._position = 0
        self._paragraph: list[str] = []
        self._item: RawBlock | None = None
        self._item_lines: list[str] = []
        self._after_blank = True
        self._blocks: list[RawBlock] = []
        self._link_names: set[str] = set()
        self._comments: Counter[str] = Counter()

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

    def _comment(self, line: str) -> bool:
        start = line.index("<!--")
        end = line.find("-->", start + 4)
        if end >= 0:
            body, last = line[start + 4 : end], self._position
        else:
            found = self._lines.next_with("-->", self._position + 1)
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
        last = self._lines.next_with("```", first + 1)
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
        end = environment_end(self._lines, self._position, name, match.end())
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
        if not self._nougat and opener == "\\[" and not any(map(TEX_CHARACTERS.search, body)):
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
        rows = [pipe_cells(line)]
        index = following + 1
        while index < len(self._lines) and "|" in self._lines[index]:
            rows.append(pipe_cells(self._lines[index]))
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
            if (end := self._lines.next_with(tag, self._position)) is not None
        ]
        if not ends:
            return False
        index = min(ends)
        last = self._lines[index]
        close = last.lower().index("</table>") + len("</table>")
        source = "\n".join([*self._lines[self._position : index], last[:close]])
        rest = last[close:]
        cells, caption = html_cells(source)
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
