"""Words cut by a line or page break: ``geolog- ical`` is ``geological``, ``well- known`` is ``well-known``.

No rule about letters can tell the two apart, so the paper's own words decide. A candidate is a letter, a
hyphen (or soft hyphen), white space and a letter in lower case (or both parts in capitals). In this order:

1. Suspended hyphens stay: ``low- and middle-income``, in seven languages.
2. If the joined or the hyphenated form stands elsewhere in the paper, that form is taken; the more frequent
   one if both do, the hyphenated one if they are equally frequent.
3. Without such evidence a candidate is changed only where a break is certain or likely: at a line feed, a
   soft hyphen, the border of two paragraphs, and in formats made from page layout. It is hyphenated if both
   parts are words that the paper uses on their own, or if the left part has a hyphen already, and joined
   otherwise. In JATS and other formats that never had lines it stays as it is.

A soft hyphen inside a word is removed: that is its meaning. Only a paper with very few of them, which is a
converter's slip, has it judged like a hyphen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from baltoro.corpus.cleaning.characters import SOFT_HYPHEN
from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import (
    Survey,
    block_lists,
    change_block_texts,
    change_other_texts,
    words_in,
)
from baltoro.papers.schema import Block, Inline, Paper

LAYOUT_FORMATS: Final = frozenset(
    {"grobid_tei", "s2orc", "science_parse", "sciencebeam", "docling_json", "docling_markdown", "nougat"}
)
"""Formats whose readers get the lines of a page."""

_WORD = r"[^\W\d_]+(?:['’][^\W\d_]+)?"
_LEFT = rf"(?<![^\W_])(?<![-{SOFT_HYPHEN}])(?P<left>{_WORD}(?:[-{SOFT_HYPHEN}]{_WORD}){{0,6}})"
_GAP = re.compile(rf"[-‐{SOFT_HYPHEN}][ \t\n]+")
_PLAIN_GAP = re.compile(r"-[ \t\n]+")
_RIGHT = re.compile(_WORD)
_CUT_END = re.compile(rf"{_LEFT}[-‐{SOFT_HYPHEN}]\Z")
_LONGEST_LEFT_CHARACTERS: Final = 80
_CUT_START = re.compile(rf"\s*(?P<right>{_WORD})")
_SOFT = re.compile(rf"(?P<left>{_WORD}){SOFT_HYPHEN}(?P<right>{_WORD})")
# The parts of a cut word are no evidence that they are words.
_WORDS = re.compile(
    rf"(?<![^\W\d_{SOFT_HYPHEN}])(?<![-‐{SOFT_HYPHEN}]\s)[^\W\d_]++(?:-[^\W\d_]++)*+(?![-‐{SOFT_HYPHEN}]\s"
    rf"|{SOFT_HYPHEN})"
)
_SUSPENDERS: Final = words_in(
    """
    and or to nor but not as rather than through versus vs und oder bis sowie noch et ou à y o u a e ed i ni
    og en of till и или до да либо
    """
)
# Short words that are usually the first letters of a longer one: "in- crease", "be- cause".
_FRAGMENTS: Final = words_in(
    """
    a an as at be by can con de di do for he her his if im in is it me no of on or so the to un up us we der
    die das le la les el en se par pro per com pre re sub
    """
)
_SHORTEST_PART_CHARACTERS: Final = 3
_FEW_SOFT_HYPHENS: Final = 3
# Beyond this many, counting all words at once is quicker than looking for each.
_MOST_SEARCHES: Final = 24
_FLOATS: Final = frozenset({"figure", "table", "note"})


def rejoin_cut_words(paper: Paper, survey: Survey, effects: Effects) -> None:
    """Rejoin cut words within the texts of a paper and over the border of paragraphs (``hyphenation``)."""
    text = survey.text
    has_soft = SOFT_HYPHEN in survey.unusual
    gaps = _GAP if has_soft or "‐" in survey.unusual else _PLAIN_GAP
    judge = _Judge(text, paper.format)
    # A survey is one text: where nothing in it can be joined, nothing in its parts can.
    if has_soft or _rejoin_at_gaps(text, judge, gaps) is not text:
        few_soft = text.count(SOFT_HYPHEN) <= _FEW_SOFT_HYPHENS

        def rejoined(text: str) -> str:
            if gaps.search(text) is None and SOFT_HYPHEN not in text:
                return text
            changed = _rejoin(text, judge, gaps, few_soft)
            if changed != text:
                effects.add("hyphenation", text, changed)
            return changed

        change_block_texts(paper, rejoined)
        change_other_texts(paper, rejoined)
        if has_soft:
            change_block_texts(paper, _remover(effects), formulas=True)
    elif "-\n" not in text and "‐\n" not in text and "- \n" not in text:
        return
    for blocks in block_lists(paper):
        _rejoin_paragraphs(blocks, judge, effects)


def _remover(effects: Effects) -> Callable[[str], str]:
    def removed(text: str) -> str:
        if SOFT_HYPHEN not in text:
            return text
        cleaned = text.replace(SOFT_HYPHEN, "")
        effects.add("hyphenation", text, cleaned)
        return cleaned

    return removed


def _rejoin(text: str, judge: _Judge, gaps: re.Pattern[str], few_soft: bool) -> str:
    while True:
        before = text
        text = _rejoin_at_gaps(text, judge, gaps)
        if SOFT_HYPHEN in text:
            if few_soft:
                text = _SOFT.sub(
                    lambda match: judge.joined(match["left"], match["right"], certain=True) or match[0], text
                )
            text = text.replace(SOFT_HYPHEN, "")
        if text == before:
            return text


def _rejoin_at_gaps(text: str, judge: _Judge, gaps: re.Pattern[str]) -> str:
    pieces: list[str] = []
    done = 0
    for gap in gaps.finditer(text):
        start, end = gap.span()
        if start <= done or not text[start - 1].isalpha() or not text[end : end + 1].isalpha():
            continue
        # A hyphen has little to its left that matters, and a long text would be searched from its start.
        left = _CUT_END.search(text, max(start - _LONGEST_LEFT_CHARACTERS, done), start + 1)
        right = _RIGHT.match(text, end)
        if left is None or right is None:
            continue
        certain = "\n" in gap[0] or gap[0][0] == SOFT_HYPHEN
        joined = judge.joined(left["left"], right[0], certain=certain)
        if joined is not None:
            pieces += [text[done : left.start("left")], joined]
            done = right.end()
    return "".join([*pieces, text[done:]]) if pieces else text


class _Judge:
    """Decides about cut words from the words of one paper."""

    def __init__(self, text: str, format_name: str) -> None:
        self._words = _Words(text)
        self._layout = format_name in LAYOUT_FORMATS

    def joined(self, left: str, right: str, *, certain: bool) -> str | None:
        """Return the whole word, or ``None`` to leave the parts alone."""
        hyphen = self.hyphen(left, right, certain=certain)
        return None if hyphen is None else f"{left}{hyphen}{right}"

    def hyphen(self, left: str, right: str, *, certain: bool) -> str | None:
        """Return what stands between the parts, ``""`` or ``"-"``, or ``None`` to leave them alone."""
        left = left.replace(SOFT_HYPHEN, "")
        if not (right[0].islower() or (left.isupper() and right.isupper() and len(right) > 1)):
            return None
        if right.lower() in _SUSPENDERS:
            return None
        left, right = left.lower(), right.lower()
        joined, hyphenated = self._words.count(left + right), self._words.count(f"{left}-{right}")
        if joined or hyphenated:
            return "" if joined > hyphenated else "-"
        if not (certain or self._layout):
            return None
        if "-" in left:
            return "-"
        both_are_words = (
            min(len(left), len(right)) >= _SHORTEST_PART_CHARACTERS
            and left not in _FRAGMENTS
            and self._words.count(left) > 0
            and self._words.count(right) > 0
        )
        return "-" if both_are_words else ""


class _Words:
    """How often words occur in a text, in any case; compounds with hyphens are one word."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lowered: str | None = None
        self._searched: dict[str, int] = {}
        self._counts: Counter[str] | None = None

    def count(self, word: str) -> int:
        """Return how often a word in lower case occurs."""
        if self._counts is not None:
            return self._counts[word]
        if self._lowered is None:
            # Text by text, because ASCII is put into lower case many times faster than other text.
            self._lowered = "\n".join([line.lower() for line in self._text.split("\n")])
        if word not in self._searched:
            if len(self._searched) >= _MOST_SEARCHES:
                self._counts = Counter(_WORDS.findall(self._lowered))
                return self._counts[word]
            self._searched[word] = self._search(self._lowered, word)
        return self._searched[word]

    @staticmethod
    def _search(text: str, word: str) -> int:
        found = 0
        place = text.find(word)
        while place >= 0:
            match = _WORDS.match(text, place)
            inside = place > 1 and text[place - 1] == "-" and text[place - 2].isalpha()
            found += match is not None and match[0] == word and not inside
            place = text.find(word, place + len(word))
        return found


def _rejoin_paragraphs(blocks: list[Block], judge: _Judge, effects: Effects) -> None:
    """Join a paragraph that ends in half a word with the next one, over figures, tables and notes between."""
    position = 0
    while position < len(blocks):
        following = _other_half(blocks, position, judge)
        if following is None:
            position += 1
            continue
        place, hyphen = following
        first, second = blocks[position], blocks[place]
        before = f"{first.printed()}\n{second.printed()}"
        ending = first.inlines[-1].text.rstrip()
        first.inlines[-1].text = ending[:-1] + hyphen
        opening = second.inlines[0]
        first.inlines.append(Inline("text", opening.text.lstrip(), opening.target))
        first.inlines += second.inlines[1:]
        del blocks[place]
        effects.add("hyphenation", before, first.printed())


def _other_half(blocks: list[Block], position: int, judge: _Judge) -> tuple[int, str] | None:
    block = blocks[position]
    if block.kind != "paragraph" or not block.inlines or block.inlines[-1].kind != "text":
        return None
    ending = block.inlines[-1].text
    if ending.rstrip()[-1:] not in ("-", "‐", SOFT_HYPHEN):
        return None
    ending = ending.rstrip()
    cut = _CUT_END.search(ending, max(len(ending) - _LONGEST_LEFT_CHARACTERS, 0))
    place = position + 1
    while place < len(blocks) and (blocks[place].kind in _FLOATS or not blocks[place].printed().strip()):
        place += 1
    if cut is None or place == len(blocks):
        return None
    following = blocks[place]
    if following.kind != "paragraph" or following.label or following.inlines[0].kind != "text":
        return None
    start = _CUT_START.match(following.inlines[0].text)
    if start is None:
        return None
    hyphen = judge.hyphen(cut["left"], start["right"], certain=True)
    return None if hyphen is None else (place, hyphen)
