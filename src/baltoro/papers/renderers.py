"""From a :class:`~baltoro.papers.schema.Paper` to the one text that a model reads.

Four styles, each a row of :data:`_MARKUPS` (how it writes each kind of content) and a function that puts
title, abstract and sections in its order:

``k2``
    Markdown with bracket tokens, after K2 and GeoGalactica: a citation becomes the cited title, formulas,
    figures, tables and notes stand between tokens.
``galactica``
    The head and citation form of Galactica; formulas in LaTeX delimiters.
``review``
    Title, abstract, captions and content under tags in a fixed order, for reviewing a paper.
``plain``
    Every word of title, abstract and body once and in order, citations as printed, without markup.

What holds for all of them: figures and tables appear once, where their block stands; nothing empty
leaves a mark (no heading without text, no ``None`` in a table); a citation that leads to no title
keeps its printed mark; a citation or note mark never runs into the word beside it; a paragraph is one
line, paragraphs are separated by one blank line, no line ends in white space; source text that happens
to spell a special token of the style is broken with a space (``[ START_REF]``), so that tokens in the
output always are ours and come in pairs. Reviews and reference lists are never rendered.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from baltoro.core.errors import ConfigError
from baltoro.papers.schema import Block, Inline, Paper, Reference, Section


def render(paper: Paper, style: str) -> str:
    """Return the paper as text in one of :data:`STYLES`, without leading or trailing blank lines.

    Args:
        paper: any paper, also one without title, abstract or sections.
        style: a name in :data:`STYLES`.

    Raises:
        ConfigError: the style does not exist.
    """
    markup = _markup(style)
    return _join(_LAYOUTS[style](paper, markup))


def special_tokens(style: str) -> list[str]:
    """Return the strings of a style that a tokenizer should hold as single pieces, in a fixed order.

    Raises:
        ConfigError: the style does not exist.
    """
    return list(_markup(style).tokens)


def _markup(style: str) -> _Markup:
    if style in _MARKUPS:
        return _MARKUPS[style]
    nearest = difflib.get_close_matches(style, STYLES, n=1, cutoff=0.0)[0]
    raise ConfigError(
        f"style '{style}' does not exist; allowed are {', '.join(STYLES)}; did you mean '{nearest}'?"
    )


@dataclass(frozen=True)
class _Markup:
    """How one style writes each kind of content; texts come in cleaned of line breaks and foreign tokens.

    ``cite`` returns what stands for a citation with a known title, or is ``None`` where citations stay
    as printed. ``display_formula`` takes the formula and its number ("" if none), ``table`` its caption
    and cells, ``heading`` a level (1 is a top section) and the text. Where ``captions_apart`` holds, the
    layout lists the captions in a place of their own; a table's cells then stand under its label.
    """

    tokens: tuple[str, ...]
    cite: Callable[[str, Reference], str] | None
    inline_formula: Callable[[str], str]
    display_formula: Callable[[str, str], str]
    figure: Callable[[str], str]
    table: Callable[[str, list[list[str]]], str]
    note: Callable[[str], str]
    list_item: Callable[[str, str], str]
    code: Callable[[str], str]
    heading: Callable[[int, str], str]
    captions_apart: bool = False

    def verbatim(self, text: str) -> str:
        """Return source text in which no token of this style is spelled."""
        for first in self.first_characters:
            if first in text:
                return self.spelled_tokens.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    @cached_property
    def first_characters(self) -> frozenset[str]:
        """What the tokens begin with."""
        return frozenset(token[0] for token in self.tokens)

    @cached_property
    def spelled_tokens(self) -> re.Pattern[str]:
        """Any of the tokens."""
        return re.compile("|".join(map(re.escape, self.tokens)))

    def words(self, text: str | None) -> str:
        """Return source text on one line, single-spaced, in which no token of this style is spelled."""
        return self.verbatim(" ".join(text.split())) if text else ""


class _Citations(dict[str, str]):
    """What stands for a citation, by its target: "" where it stays as it is printed.

    A reference is cited many times, and its title is cleaned once.
    """

    def __init__(self, paper: Paper, markup: _Markup) -> None:
        super().__init__()
        self._references = paper.reference_by_key() if markup.cite else {}
        self._markup = markup

    def __missing__(self, target: str) -> str:
        reference = self._references.get(target)
        title = self._markup.words(reference.title) if reference else ""
        cite = self._markup.cite
        self[target] = cite(title, reference) if cite and reference and title else ""
        return self[target]


# --- the order of each style -------------------------------------------------------------------------


def _k2(paper: Paper, markup: _Markup) -> Iterable[str]:
    citations = _Citations(paper, markup)
    title = markup.words(paper.title)
    abstract = _blocks(paper.abstract, markup, citations, level=2)
    # The title takes the one top heading, so a section of level 1 is written at level 2.
    return [
        markup.heading(1, title),
        *_headed(markup.heading(2, "Abstract"), abstract),
        *_sections(paper.sections, markup, citations, shift=1),
    ]


def _galactica(paper: Paper, markup: _Markup) -> Iterable[str]:
    citations = _Citations(paper, markup)
    title = markup.words(paper.title)
    authors = ", ".join(filter(None, map(markup.words, paper.authors)))
    abstract = _blocks(paper.abstract, markup, citations, level=1)
    return [
        f"Title: {title}" if title else "",
        f"Authors: {authors}" if authors else "",
        *_headed(markup.heading(1, "Abstract"), abstract),
        *_sections(paper.sections, markup, citations),
    ]


def _review(paper: Paper, markup: _Markup) -> Iterable[str]:
    citations = _Citations(paper, markup)
    floats = [block for block in [*paper.abstract, *paper.blocks()] if block.kind in ("figure", "table")]
    parts = {
        "[TITLE]": [markup.words(paper.title)],
        "[ABSTRACT]": _blocks(paper.abstract, markup, citations, level=1),
        "[CAPTIONS]": [_caption(block, markup, citations) for block in floats],
        "[CONTENT]": _sections(paper.sections, markup, citations),
    }
    return [f"{tag}\n{text}" for tag, part in parts.items() if (text := _join(part))]


def _plain(paper: Paper, markup: _Markup) -> Iterable[str]:
    citations = _Citations(paper, markup)
    return [
        markup.words(paper.title),
        *_blocks(paper.abstract, markup, citations, level=1),
        *_sections(paper.sections, markup, citations),
    ]


def _headed(heading: str, body: list[str]) -> list[str]:
    return [heading, *body] if any(body) else []


# --- sections and blocks -----------------------------------------------------------------------------

_NUMBER = re.compile(r"[0-9A-Za-z]+(?:\.[0-9]+)+")
"""A printed number that shows its own depth: 2.1, A.3, 4.1.2."""

_BULLETS = frozenset("•-–—*·∙▪◦‣●○■□")
_MAX_HEADING_LEVEL = 6


def _sections(
    sections: Sequence[Section], markup: _Markup, citations: _Citations, shift: int = 0
) -> list[str]:
    texts = []
    for section in sections:
        number = markup.words(section.number)
        # GROBID writes a flat list of sections: there the depth stands only in the printed number.
        depth = number.count(".") + 1 if _NUMBER.fullmatch(number) else 1
        level = max(section.level, depth) + shift
        texts.append(markup.heading(level, markup.words(f"{number} {section.heading}")))
        texts += _blocks(section.blocks, markup, citations, level)
    return texts


def _blocks(blocks: Sequence[Block], markup: _Markup, citations: _Citations, level: int) -> list[str]:
    """Return one text per block; items of one list share a text. ``level`` is the enclosing heading's."""
    texts: list[str] = []
    in_list = False
    for block in blocks:
        if block.kind == "list":
            item = markup.list_item(markup.words(block.label), _flow(block.inlines, markup, citations))
            if in_list:
                texts[-1] = f"{texts[-1]}\n{item}".strip("\n")
            else:
                texts.append(item)
            in_list = True
            continue
        in_list = False
        match block.kind:
            case "paragraph":
                texts.append(markup.heading(level + 1, markup.words(block.label)))
                texts.append(_flow(block.inlines, markup, citations))
            case "formula":
                formula = markup.verbatim(_lines(block.printed()))
                texts.append(markup.display_formula(formula, markup.words(block.label)))
            case "figure":
                if not markup.captions_apart:
                    texts.append(markup.figure(_caption(block, markup, citations)))
            case "table":
                cells = [[markup.words(cell) for cell in row] for row in block.cells]
                if not markup.captions_apart:
                    texts.append(markup.table(_caption(block, markup, citations), cells))
                elif any(cells):
                    texts.append(markup.table(markup.words(block.label), cells))
            case "note":
                note = _flow(block.inlines, markup, citations)
                texts.append(markup.note(f"{markup.words(block.label)} {note}".strip()))
            case "code":
                texts.append(markup.words(block.label))
                texts.append(markup.code(markup.verbatim(_lines(block.printed(), keep_blank=True))))
    return texts


def _caption(block: Block, markup: _Markup, citations: _Citations) -> str:
    """Return label and caption of a figure or table: ``Figure 2. Melt paths.``."""
    label = markup.words(block.label)
    caption = _flow(block.inlines, markup, citations)
    if label and caption:
        return f"{label} {caption}" if label[-1] in ".:|" else f"{label}. {caption}"
    return label or caption


def _lines(text: str, keep_blank: bool = False) -> str:
    """Return text with its line breaks, without trailing white space and outer (or all) blank lines."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(lines if keep_blank else filter(None, lines)).strip("\n")


def _join(texts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, texts))


# --- spans within a block ----------------------------------------------------------------------------


_Piece = tuple[str, str]
"""A span on its way into a line: its kind and its text.

The kind is ``text``, ``mark`` (printed as it is), ``citation`` and ``formula`` (already in the form of the
style) or ``bracket`` (one that a replaced mark leaves to its sentence). A text is never empty.
"""

_OPENING = {"(": ")", "[": "]", "{": "}"}
_BETWEEN_CITATIONS = re.compile(r"[\s,;&–—-]*")
_BRACKETS = re.compile(r"[()\[\]{}]")
_SET_APART = frozenset(("citation", "mark"))
_NO_SPACE_AFTER = frozenset("([{“‘\"'-–—/")


def _flow(inlines: Sequence[Inline], markup: _Markup, citations: _Citations) -> str:
    """Return the spans of a block as one line of text."""
    pieces: list[_Piece] = []
    texts: list[str] = []
    cited = bracketed = False
    for inline in inlines:
        kind, text = inline.kind, inline.text
        if kind == "citation":
            if citation := citations[inline.target or ""]:
                # GROBID splits "(Ek, 2010; Holm, 2012)" into "(Ek, 2010;" and "Holm, 2012)": a bracket that
                # the mark opens without closing belongs to the sentence, not to the mark.
                opening, closing = _unpaired_brackets(text)
                added = [("bracket", bracket) for bracket in opening]
                added.append(("citation", citation))
                added += [("bracket", bracket) for bracket in closing]
                cited, bracketed = True, bracketed or len(added) > 1
            else:
                added = [("mark", text)]
        elif kind == "note_ref":
            added = [("mark", text)]
        elif kind == "formula":
            formula = markup.words(text)
            added = [("formula", markup.inline_formula(formula) if formula else "")]
        else:
            texts.append(text)
            continue
        if added[0][1]:
            if run := "".join(texts):
                pieces.append(("text", run))
            texts = []
            pieces += added
    if run := "".join(texts):
        pieces.append(("text", run))
    if bracketed:
        pieces = _merged(_without_lonely_brackets(pieces))
    if cited:
        pieces = _without_citation_brackets(pieces)
    return _spaced(pieces, markup)


@lru_cache(maxsize=4096)
def _unpaired_brackets(mark: str) -> tuple[str, str]:
    """Return the opening and the closing brackets of a mark that have no partner in it."""
    expected: list[str] = []
    closing = ""
    for character in mark:
        if character in _OPENING:
            expected.append(character)
        elif character in _OPENING.values():
            if expected and _OPENING[expected[-1]] == character:
                expected.pop()
            else:
                closing += character
    return "".join(expected), closing


def _without_lonely_brackets(pieces: list[_Piece]) -> list[_Piece]:
    """Turn brackets left by marks into text where they find a partner in the block; drop the others.

    GROBID expands the range "[18–21]" to the marks "[18,", "[19]", "[20]" and "[21]".
    """
    unclosed: list[tuple[str, int]] = []
    lonely: set[int] = set()
    for index, (kind, text) in enumerate(pieces):
        for character in "" if kind in ("citation", "formula") else _BRACKETS.findall(text):
            if character in _OPENING:
                unclosed.append((_OPENING[character], index))
            elif unclosed and unclosed[-1][0] == character:
                unclosed.pop()
            elif kind == "bracket":
                lonely.add(index)
    lonely.update(index for _, index in unclosed)
    return [
        ("text", text) if kind == "bracket" else (kind, text)
        for index, (kind, text) in enumerate(pieces)
        if kind != "bracket" or index not in lonely
    ]


def _merged(pieces: Iterable[_Piece]) -> list[_Piece]:
    merged: list[_Piece] = []
    for kind, text in pieces:
        if merged and kind == merged[-1][0] == "text":
            merged[-1] = ("text", merged[-1][1] + text)
        else:
            merged.append((kind, text))
    return merged


def _without_citation_brackets(pieces: list[_Piece]) -> list[_Piece]:
    """Drop a bracket pair that holds nothing but resolved citations: their tokens delimit them."""
    for first in range(len(pieces) - 2):
        kind, before = pieces[first]
        if kind != "text" or pieces[first + 1][0] != "citation" or before[-1:] not in _OPENING:
            continue
        last = first + 2
        while last < len(pieces) and (
            pieces[last][0] == "citation"
            or (pieces[last][0] == "text" and _BETWEEN_CITATIONS.fullmatch(pieces[last][1]))
        ):
            last += 1
        if last < len(pieces) and pieces[last][0] == "text":
            after = pieces[last][1].lstrip()
            if after.startswith(_OPENING[before[-1]]):
                pieces[first] = ("text", before[:-1])
                pieces[last] = ("text", after[1:])
    return [piece for piece in pieces if piece[1]]


def _spaced(pieces: Sequence[_Piece], markup: _Markup) -> str:
    """Join pieces on one line: nothing glued to a citation or mark, foreign tokens broken."""
    texts: list[str] = []
    run = ""  # source text since the last token of ours; checked as a whole, whatever spans it came in
    previous = ("text", " ")
    for piece in pieces:
        kind, text = piece
        if (kind in _SET_APART or previous[0] in _SET_APART) and _needs_space(previous, piece):
            gap = " "
        else:
            gap = ""
        if kind in ("citation", "formula"):
            texts += (markup.verbatim(run), gap, text)
            run = ""
        else:
            run += gap + text
        previous = piece
    texts.append(markup.verbatim(run))
    return " ".join("".join(texts).split())


def _needs_space(left: _Piece, right: _Piece) -> bool:
    """Tell whether two pieces, of which one is a citation or a mark, would run into each other."""
    (left_kind, before), (right_kind, after) = left, right
    end, start = before[-1:], after[:1]
    if end.isspace() or start.isspace():
        return False
    if right_kind == "citation":
        return end not in _NO_SPACE_AFTER
    if left_kind == "citation":
        return right_kind != "text" or start.isalnum() or start in _OPENING
    return end.isalnum() and start.isalnum()


# --- what the styles write ---------------------------------------------------------------------------

_PARTICLES = frozenset(
    ("al", "bin", "da", "de", "del", "della", "den", "der", "des", "di", "do", "dos", "du", "el", "la", "le")
    + ("ten", "ter", "van", "von", "zu")
)
_NAME_SUFFIXES = frozenset(("jr", "sr", "ii", "iii", "iv"))


def _surname(author: str) -> str:
    """Return the family name of ``Given Surname`` or ``Surname, Given``, with its particles."""
    if "," in author and author.partition(",")[2].strip(" .").lower() not in _NAME_SUFFIXES:
        return author.partition(",")[0].strip()
    names = author.replace(",", " ").split()
    while len(names) > 1 and names[-1].strip(".").lower() in _NAME_SUFFIXES:
        names.pop()
    start = len(names) - 1
    while start > 1 and names[start - 1] in _PARTICLES:
        start -= 1
    return " ".join(names[max(start, 0) :])


def _galactica_citation(title: str, reference: Reference) -> str:
    # "Title, FirstAuthorSurname" after a space: the Galactica paper, section 3.1.
    surname = _surname(reference.authors[0]) if reference.authors else ""
    surname = _MARKUPS["galactica"].words(surname)
    return f"[START_REF] {title}, {surname}[END_REF]" if surname else f"[START_REF] {title}[END_REF]"


def _wrapped(before: str, after: str) -> Callable[[str], str]:
    return lambda text: f"{before}{text}{after}" if text else ""


def _latex_display(formula: str, label: str) -> str:
    if not formula:
        return label
    number = label.strip("()")
    if number and "\\tag" not in formula:
        formula = f"{formula} \\tag{{{number}}}"
    return f"\\[{formula}\\]"


def _k2_display(formula: str, label: str) -> str:
    return f"[START_FORMULA]{formula}[END_FORMULA] {label}".rstrip() if formula else label


def _as_printed_display(formula: str, label: str) -> str:
    return f"{formula} {label}".strip()


def _pipe_table(caption: str, cells: list[list[str]]) -> str:
    """Return a Markdown table under its caption: first row as header, ragged rows filled up."""
    columns = max(map(len, cells), default=0)
    if not columns:
        return caption
    rows = [[cell.replace("|", "\\|") for cell in row] + [""] * (columns - len(row)) for row in cells]
    lines = ["|" + "|".join(row) + "|" for row in rows]
    lines.insert(1, "|" + "-|" * columns)
    return _join([caption, "\n".join(lines)])


def _k2_table(caption: str, cells: list[list[str]]) -> str:
    table = _pipe_table(caption, cells)
    # A line break after the last row keeps the end token out of the table.
    end = "\n" if any(cells) else ""
    return f"[START_TABLE]\n{table}{end}[END_TABLE]" if table else ""


def _tab_table(caption: str, cells: list[list[str]]) -> str:
    rows = ["\t".join(row).rstrip() for row in cells]
    return _join([caption, "\n".join(filter(None, rows))])


def _markdown_item(label: str, text: str) -> str:
    marker = "-" if not label or label in _BULLETS else label
    return f"{marker} {text}" if text else ""


def _printed_item(label: str, text: str) -> str:
    return f"{label} {text}".strip()


def _fenced(code: str) -> str:
    if not code:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{code}\n{fence}"


def _markdown_heading(level: int, text: str) -> str:
    return f"{'#' * min(level, _MAX_HEADING_LEVEL)} {text}" if text else ""


def _as_is(text: str) -> str:
    return text


_MARKUPS: dict[str, _Markup] = {
    "k2": _Markup(
        tokens=tuple(
            f"[{end}_{kind}]"
            for kind in ("REF", "FORMULA", "FIGURE", "TABLE", "NOTE")
            for end in ("START", "END")
        ),
        cite=lambda title, _: f"[START_REF]{title}[END_REF]",
        inline_formula=_wrapped("[START_FORMULA]", "[END_FORMULA]"),
        display_formula=_k2_display,
        figure=_wrapped("[START_FIGURE]\n", "[END_FIGURE]"),
        table=_k2_table,
        note=_wrapped("[START_NOTE]", "[END_NOTE]"),
        list_item=_markdown_item,
        code=_fenced,
        heading=_markdown_heading,
    ),
    "galactica": _Markup(
        tokens=(
            *("[START_REF]", "[END_REF]", "<work>", "</work>", "[START_SMILES]", "[END_SMILES]"),
            *("[START_I_SMILES]", "[END_I_SMILES]", "[START_AMINO]", "[END_AMINO]"),
            *("[START_DNA]", "[END_DNA]"),
        ),
        cite=_galactica_citation,
        inline_formula=_wrapped("\\(", "\\)"),
        display_formula=_latex_display,
        figure=_as_is,
        table=_pipe_table,
        note=_as_is,
        list_item=_markdown_item,
        code=_fenced,
        heading=_markdown_heading,
    ),
    "review": _Markup(
        tokens=("[TITLE]", "[ABSTRACT]", "[CAPTIONS]", "[CONTENT]"),
        cite=None,
        inline_formula=_wrapped("\\(", "\\)"),
        display_formula=_latex_display,
        figure=_as_is,
        table=_pipe_table,
        note=_as_is,
        list_item=_markdown_item,
        code=_fenced,
        heading=_markdown_heading,
        captions_apart=True,
    ),
    "plain": _Markup(
        tokens=(),
        cite=None,
        inline_formula=_as_is,
        display_formula=_as_printed_display,
        figure=_as_is,
        table=_tab_table,
        note=_as_is,
        list_item=_printed_item,
        code=_as_is,
        heading=lambda _, text: text,
    ),
}

_LAYOUTS: dict[str, Callable[[Paper, _Markup], Iterable[str]]] = {
    "k2": _k2,
    "galactica": _galactica,
    "review": _review,
    "plain": _plain,
}

STYLES: tuple[str, ...] = tuple(_LAYOUTS)
"""The styles that :func:`render` knows; a recipe's ``corpus.sources[].style`` is one of them."""
