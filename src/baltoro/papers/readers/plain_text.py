"""Plain text: books, web pages, encyclopedia extracts.

Hard line breaks go where lines are wrapped, empty lines separate paragraphs, and every word stays.
Marks such as Gutenberg's ``_italics_`` are part of the text and are kept.
"""

from __future__ import annotations

import re
from itertools import pairwise

from baltoro.papers.schema import Block, Inline, Paper, ReadReject, Section

_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BREAK = re.compile(r"\n(?:[^\S\n]*\n)+")
_CHAPTER = re.compile(
    r"""(?:(?P<kind>chapter|book|part|volume|canto|act|scene|letter|section|appendix)\s+
            (?P<number>\d{1,4}|[IVXLCDM]{1,8}|[A-Z]|(?:the\s+)?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)
            |one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen
            |eighteen|nineteen|twenty)
            (?:\s*[.:—–-]\s*(?P<title>\S.*)?|\.)?
        |(?:preface|prologue|epilogue|introduction|foreword|afterword|contents|conclusion|appendix|dedication|glossary|index)\.?)$""",
    re.VERBOSE | re.IGNORECASE,
)
_OUTER_LEVELS = {"volume": 1, "book": 1, "part": 1}
_UNDERLINE = re.compile(r"(?:={3,}|-{3,}|\*{3,})$")
_WIKI_HEADING = re.compile(r"(={2,6})\s*([^=].*?)\s*\1$")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE_END = (".", "!", "?", ":", ";", ",", "…")
_LONGEST_HEADING_CHARACTERS = 90
_LONGEST_TITLE_CHARACTERS = 150
_FULL_LINE_FRACTION = 0.6
_WRAP_CHARACTERS = range(40, 121)
_FEWEST_WRAPPED_LINES = 3
_SIMILAR_FRACTION = 0.8
_RAGGED_CHARACTERS = 4
_HYPHEN_AT_END = re.compile(r"[^\W\d_]-$")
_SUSPENDED = re.compile(r"\s*(?:(?:and|or|to|und|et|y|e)\b|[^\Wa-z_])")


def parse_plain_text(text: str) -> Paper:
    """Return a text as a paper: a title if the first line is one, sections at chapter heads, paragraphs.

    Lines of a paragraph are joined by a space where they are wrapped at a similar width; where they are
    not (verse, addresses, lists, one paragraph a line) each line is a paragraph of its own. Nothing is
    removed.

    Args:
        text: the decoded file.

    Raises:
        ReadReject: ``empty_file`` for white space only, ``no_text`` if there is no letter in it.
    """
    text = text.lstrip("\ufeff")
    if not text or text.isspace():
        raise ReadReject("empty_file", "the text file is empty or holds only white space")
    if _LETTER.search(text) is None:
        raise ReadReject("no_text", "the text file has no letter in it")
    text = _LINE_END.sub("\n", text)
    width = _wrap_width(text)
    groups = [group for group in _BREAK.split(text) if group and not group.isspace()]
    paper = Paper()
    first = 0
    if len(groups) > 1 and _is_title(groups[0], groups[1]):
        paper.title = " ".join(groups[0].split())
        first = 1
    sections = [Section(1, "")]
    outer_seen = False
    for group in groups[first:]:
        heading = _heading(group)
        if heading is not None:
            level, words = heading
            outer_seen = outer_seen or level == 1
            sections.append(Section(level - (0 if outer_seen else 1), words))
            continue
        sections[-1].blocks.extend(
            Block("paragraph", [Inline("text", words)]) for words in _paragraphs(group, width)
        )
    paper.sections = [section for section in sections if section.heading or section.blocks]
    return paper


def _wrap_width(text: str) -> int | None:
    """Return the width in characters that the text's lines are broken at, or nothing if they are not."""
    lines = text.split("\n")
    # The last line of a paragraph ends where the words end: it says nothing about the width.
    lengths = sorted(len(line) for line, following in pairwise(lines) if line.strip() and following.strip())
    if len(lengths) < _FEWEST_WRAPPED_LINES:
        return None
    width = lengths[len(lengths) * 98 // 100]
    median = lengths[len(lengths) // 2]
    return width if width in _WRAP_CHARACTERS and median >= _SIMILAR_FRACTION * width else None


def _is_title(group: str, following: str) -> bool:
    words = group.strip()
    return (
        "\n" not in words
        and len(words) <= _LONGEST_TITLE_CHARACTERS
        and (words[0].isupper() or words[0].isdigit())
        and not words.endswith(_SENTENCE_END)
        and _LETTER.search(words) is not None
        and _heading(group) is None
        and not following.isspace()
    )


def _heading(group: str) -> tuple[int, str] | None:
    """Return level and words of a chapter head that stands alone, or nothing."""
    lines = [line.strip() for line in group.split("\n", 3)]
    if len(lines) > 1 and _UNDERLINE.match(lines[-1]):
        lines.pop()
    if len(lines) > 2 or any(len(line) > _LONGEST_HEADING_CHARACTERS for line in lines):
        return None
    if len(lines) == 1 and (wiki := _WIKI_HEADING.match(lines[0])):
        return len(wiki[1]), wiki[2]
    match = _CHAPTER.match(lines[0])
    if match is None or not lines[0][0].isupper():
        return None
    if len(lines) == 2 and (
        match["kind"] is None or not lines[1][:1].isupper() or lines[1].endswith(_SENTENCE_END[:-2])
    ):
        return None
    return _OUTER_LEVELS.get((match["kind"] or "").lower(), 2), " ".join(" ".join(lines).split())


def _paragraphs(group: str, width: int | None) -> list[str]:
    """Return the paragraphs of a run of lines without an empty line between them."""
    lines = [line.rstrip() for line in group.split("\n")]
    lines = [line for line in lines if line]
    if len(lines) == 1:
        return [" ".join(lines[0].split())]
    if width is not None:
        full = sum(_is_full(line, following, width) for line, following in pairwise(lines))
        if full >= _FULL_LINE_FRACTION * (len(lines) - 1):
            return [_join(lines)]
    paragraphs: list[list[str]] = [[lines[0]]]
    for line, following in pairwise(lines):
        goes_on = following.lstrip()[:1].islower() and not line.endswith(_SENTENCE_END[:3])
        if goes_on or (width is not None and _is_full(line, following, width)):
            paragraphs[-1].append(following)
        else:
            paragraphs.append([following])
    return [_join(paragraph) for paragraph in paragraphs]


def _is_full(line: str, following: str, width: int) -> bool:
    """Tell whether the next line's first word had no room left on a line."""
    return len(line) + 1 + len(following.split(None, 1)[0]) >= width - _RAGGED_CHARACTERS


def _join(lines: list[str]) -> str:
    words = " ".join(" ".join(lines).split())
    if len(lines) == 1 or not any(_HYPHEN_AT_END.search(line) for line in lines[:-1]):
        return words
    joined = [lines[0].strip()]
    for line, following in pairwise(lines):
        compound = _HYPHEN_AT_END.search(line) and not _SUSPENDED.match(following)
        joined += ["" if compound else " ", following.strip()]
    return " ".join("".join(joined).split())
