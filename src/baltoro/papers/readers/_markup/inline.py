"""Spans inside a block: formulas apart, links, emphasis and code down to their words."""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from dataclasses import dataclass

from baltoro.papers.readers._markup.blocks import Dialect
from baltoro.papers.readers._markup.latex import TEX_CHARACTERS, formula_block
from baltoro.papers.readers._text import collapse
from baltoro.papers.schema import Inline

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
# What can be markup. Nougat writes no link definitions, entities or code: there a bracket counts only before
# the address of a link. A few searches for one character are faster than one for a set of them.
_MARKUP: dict[Dialect, tuple[str, ...]] = {
    "plain": (),
    "nougat": ("\\", "$", "*", "_", "]("),
    "markdown": ("\\", "$", "`", "[", "<", "*", "_", "&"),
}
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
    if _may_hold_markup(text, dialect):
        return _InlineParser(text, dialect, link_names).parse()
    words = collapse(text)
    return [Inline("text", words)] if words else []


def without_markup(text: str, dialect: Dialect) -> str:
    """Return the text of a block's spans, see :func:`parse_inlines`."""
    if _may_hold_markup(text, dialect):
        return "".join([inline.text for inline in _InlineParser(text, dialect, frozenset()).parse()])
    return collapse(text)


def _may_hold_markup(text: str, dialect: Dialect) -> bool:
    for mark in _MARKUP[dialect]:  # noqa: SIM110  (a generator would cost as much as the searches)
        if mark in text:
            return True
    return False


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
        if opener == "\\[" and not self._nougat and not TEX_CHARACTERS.search(source):
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
