"""From the blocks of a text-like format to a paper: title, authors, abstract, sections, references.

The formats without structure of their own (Nougat, Markdown, Docling) share these rules. What is not
recognised with confidence stays where it stands as a paragraph: every word of the input is kept once,
in order, except in reference entries (which become fields) and what a reader removes on purpose.

The lines between title and abstract that are no names (affiliations, e-mail addresses, notes on who did
what) belong to neither title, abstract nor body, and a model should not learn addresses: they go, one a
line, to ``Paper.extra["front_matter"]``, as the readers of structured formats leave them out of the body.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from baltoro.papers.readers._markdown_blocks import Dialect, RawBlock, collapse, parse_inlines
from baltoro.papers.readers._references import (
    CitationIndex,
    Entry,
    highest_citation,
    is_name,
    link_notes,
    looks_like_entry,
    number_by_place,
    parse_entry,
)
from baltoro.papers.schema import Block, Inline, Paper, ReadReject, Section

_NUMBERED = re.compile(
    r"""(?P<number>
          (?:Appendix|Annex)\s+[A-Z0-9]{1,3}(?:\.\d{1,3})*(?=[.:]?\s|[.:]?$)
        | \d{1,3}(?:\.\d{1,3})+(?=\.?\s|\.?[^\W\d]|\.$)
        | \d{1,3}(?=\.?\s|\.?$)
        | [A-Za-z](?:\.\d{1,3})+(?=\.?\s|\.$)
        | (?:[IVX]{1,6}|[A-Z])(?=\.\s)
        )[.:]?\s*""",
    re.VERBOSE,
)
_REFERENCES = re.compile(
    r"(?:references?|bibliography|literature cited|works cited|references and notes|reference list)\W*$", re.I
)
_ABSTRACT = re.compile(r"(?:abstract|summary)\W*$", re.I)
_ABSTRACT_LEAD = re.compile(r"[*_]*abstract[*_]*\s*[.:—–-]+[*_]*\s*(?=\S)", re.I)
_KNOWN_HEADING = re.compile(
    r"introduction|background|related works?|preliminaries|problem (?:definition|statement)|methods?"
    r"|methodology|materials and methods|experiments|experimental setup|results(?: and discussion)?"
    r"|discussion|conclusions?|conclusion and future work|limitations|acknowledge?ments?|appendix"
    r"|appendices|references|bibliography|supplementary material|(?:limitations and )?broader impact"
    r"|ethics statement|data availability|funding|author contributions",
    re.I,
)
_CAPTION = re.compile(
    r"""[*_\s]*(?P<label>(?P<kind>(?:Supplementary\s+|Extended\s+Data\s+)?(?:Figure|Fig\.?|Table|Tab\.?|Scheme|Plate))\s*
        (?P<number>(?:[A-Z]{1,2}[.\-]?)?\d{1,3}(?:\.\d{1,3})*[a-z]?|[IVXL]{1,6}|[A-Z]))
        (?P<end>[*_]*\s*[:|]|[*_]*\s*[.–—](?=\s|$|[*_])|[*_]+)[*_\s]*""",
    re.VERBOSE | re.I,
)
_FOOTNOTE = re.compile(r"Footnote\s+(?P<mark>[\w*†‡§¶]{1,4}|\\\([^()]{1,40}\\\))\s*:\s*")
_FOOTNOTE_NOISE = re.compile(r"footnotemark:?\s*$", re.I)
_KEYWORDS = re.compile(
    r"[*_\s]*(?:key\s?-?words?(?:\s+and\s+phrases)?|index terms)[*_\s]*(?:[:—–]|-\s)[*_\s]*", re.I
)
_ACM_CONCEPTS = re.compile(r"[*_]*CCS Concepts\b")
_ACM_RIGHTS = re.compile(r"\s*(?:\b20\d\d\s+)?\b(?:acmcopyright|acmlicensed|rightsretained)\s*$")
_SUPERSCRIPT = re.compile(
    r"""\\\(\s*(?:\{\}|~)?\s*\^[^()]*\\\) | \(?\\\((?:\\boxtimes)?\\\)\)?
      | <sup>[^<>]{0,40}</sup> | \^\{?[\d*†‡§¶,\ \\]{1,20}\}?\^? | [¹²³⁰⁴-⁹]+(?:\s?,\s?[¹²³⁰⁴-⁹]+)*
      | \$\s*(?:\{\})?\^[^$]{1,40}\$ | [†‡§¶]+""",
    re.VERBOSE | re.I,
)
_AUTHOR_SPLIT = re.compile(r"\0|\s{2,}|\s*[,;&|·•]\s*|\s+and\s+|(?<=[^\W\d_])\s?\d[\d,*†‡§]*")
_AUTHOR_LEAD = re.compile(r"[*_]*(?:(?:written\s+)?by\s+|authors?\s*:[*_]*\s*)", re.I)
_AUTHOR_NOISE = " *_†‡§¶.,()[]\t\n"
_DEGREE = re.compile(r"(?:Ph\.?\s?D|M\.?\s?D|M\.?\s?Sc|B\.?\s?Sc|D\.?\s?Sc|FR\.?S|Jr|Sr|II|III)\.?$")
_ODD_NAME = re.compile(r"[^\W\d_a-z][\w.'’\- ]{1,40}$")
_INSTITUTION = re.compile(
    r"\buniv\b|universit|institut|school|depart|college|laborator|\blabs?\b|research|center|centre|academy|faculty|hospital"
    r"|compan|\binc\b|\bltd\b|corporation|technolog|scienc|engineering|polytech|ministry|group|network|systems|street"
    r"|google|microsoft|meta\b|openai|nvidia|\bAI\b|intelligence|state|national|\bUC\b|\bETH\b|\bMIT\b"
    r"|France|China|Germany|Italy|Switzerland|Netherlands|\bUSA\b|\bUK\b"
    r"|anonymous|author|affiliation|address|equal|contribut|correspond|submission|work done|email",
    re.I,
)
_TITLE_OPEN_END = re.compile(
    r"(?:[:,\-–—]|\b(?:of|for|with|and|in|on|to|by|from|via|the|a|an|using|through|under|at|as|between|towards?))$",
    re.I,
)
_TITLE_GOES_ON = re.compile(
    r"(?:of|for|with|and|in|on|to|by|from|via|using|based|through|under|is|are|as|at|between|or|without|towards?)\s",
    re.I,
)
_TITLE_WORD_INSIDE = re.compile(
    r"\w\s(?:for|with|via|using|through|from|in|on|to|of|by|without|towards?)\s\w"
)
_AMPERSAND = re.compile(r"(?:^|\s)&(?=\s?\S)")
_EMAIL = re.compile(r"\S+@\S+|\{[^{}]*\}")
_PAGE_ELEMENTS = ("figure", "table", "note")
_FEWEST_CUT_CHARACTERS = 40
_FRONT_BLOCKS = 240
_LONGEST_TITLE_CHARACTERS = 300
_LONGEST_FRONT_LINE_CHARACTERS = 400
_LONGEST_AUTHOR_LIST_CHARACTERS = 20_000
_FEWEST_SENTENCE_WORDS = 8
_FEWEST_PROSE_WORDS = 60


@dataclass(slots=True)
class Source:
    """What a reader hands over: blocks in reading order and what it already knows about the paper."""

    blocks: list[RawBlock]
    dialect: Dialect
    paper: Paper = field(default_factory=Paper)
    link_names: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    loose_lines_are_authors: bool = False
    bare_headings: bool = False


def build_paper(source: Source) -> Paper:
    """Return the paper of a sequence of blocks.

    Args:
        source: the blocks, and a paper whose filled fields (from front matter) are kept.

    Raises:
        ReadReject: ``no_text`` if there is neither title, abstract nor body text.
    """
    return _Builder(source).build()


def _is_entry(entry: Entry) -> bool:
    return any(character.isalpha() for character in entry.printed)


def _with_whole_paragraphs(blocks: list[Block]) -> Iterator[Block]:
    """Yield the blocks with a paragraph that a page's floats or notes cut in two made whole before them."""
    position = 0
    while position < len(blocks):
        block = blocks[position]
        between: list[Block] = []
        position += 1
        while block.kind == "paragraph" and position < len(blocks):
            end = position
            while end < len(blocks) and blocks[end].kind in _PAGE_ELEMENTS:
                end += 1
            if end == position or end == len(blocks) or not _goes_on(block, blocks[end]):
                break
            between += blocks[position:end]
            block.inlines += [Inline("text", " "), *blocks[end].inlines]
            position = end + 1
        yield block
        yield from between


def _goes_on(block: Block, following: Block) -> bool:
    """Tell whether a paragraph breaks off in the middle of a sentence that another one ends."""
    words = block.printed()
    return (
        following.kind == "paragraph"
        and len(words) >= _FEWEST_CUT_CHARACTERS
        and (words[-1].isalnum() or words[-1] == ",")
        and following.printed()[:1].islower()
    )


def _require_text(paper: Paper) -> Paper:
    if (
        any(map(str.isalnum, paper.title))
        or paper.abstract
        or any(section.heading or section.blocks for section in paper.sections)
    ):
        return paper
    raise ReadReject("no_text", "no title, abstract or body text was found in the document")


class _Builder:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._blocks = source.blocks
        self._paper = source.paper
        self._counts = source.counts
        self._nougat = source.dialect == "nougat"
        self._slots: list[Entry] = []
        self._labels: Counter[str] = Counter()
        self._sections: list[Section] = [Section(1, "")]
        self._front_lines: list[str] = []
        self._last_level = 0

    def build(self) -> Paper:
        if self._source.bare_headings:
            self._promote_bare_headings()
        first = self._front_matter()
        self._body(first)
        paper = self._paper
        if self._source.loose_lines_are_authors:
            for section in self._sections:
                section.blocks = list(_with_whole_paragraphs(section.blocks))
        paper.sections = [
            section for section in self._sections if section.heading or section.number or section.blocks
        ]
        running = [
            block for block in [*paper.abstract, *paper.blocks()] if block.kind not in ("formula", "code")
        ]
        texts = (span.text for block in running for span in block.inlines if span.kind == "text")
        number_by_place(self._slots, highest_citation(texts))
        entries = [entry for entry in self._slots if _is_entry(entry)]
        for ordinal, entry in enumerate(entries, start=1):
            entry.reference.key = f"b{ordinal}"
        paper.references = [entry.reference for entry in entries]
        index = CitationIndex.of(entries, paper.blocks())
        for block in running:
            block.inlines = index.link(block.inlines)
        link_notes(paper.blocks())
        if self._front_lines:
            paper.extra["front_matter"] = "\n".join(self._front_lines)
        paper.extra.update({name: str(count) for name, count in self._counts.items() if count})
        return _require_text(paper)

    def _promote_bare_headings(self) -> None:
        """Make headings of the paragraphs that are only a usual section name (their mark was lost)."""
        for block in self._blocks:
            if block.kind == "paragraph" and len(block.text) < 60 and "\n" not in block.text:
                words = block.text.strip()
                number = _NUMBERED.match(words)
                name = words[number.end() :] if number else words
                if _KNOWN_HEADING.fullmatch(name.strip(" .:*")):
                    block.kind = "heading"
                    block.level = 2
                    block.text = words.strip("*")

    # Title, authors, abstract

    def _front_matter(self) -> int:
        """Take the title and, where they are loose lines, the authors; return the first body block."""
        blocks = self._blocks
        position = 0
        title_at = self._title_index()
        paper = self._paper
        if title_at is not None:
            position = title_at + 1
            heading = collapse(self._printed(blocks[title_at]))
            lines = self._continued_title(position) if self._nougat else []
            position += len(lines)
            title = " ".join([heading, *lines])
            if not paper.title:
                paper.title = title
            elif collapse(paper.title).casefold() != title.casefold():
                position = title_at
            for index in range(title_at):
                self._add(blocks[index])
        end, before_abstract = self._front_end(position)
        if self._source.loose_lines_are_authors or before_abstract:
            self._authors(blocks[position:end], before_abstract)
            return end
        return position + self._take_byline(position)

    def _front_end(self, position: int) -> tuple[int, bool]:
        """Return the block at which the lines under a title end, and whether the abstract starts there."""
        for index, block in enumerate(self._blocks[position : position + _FRONT_BLOCKS], position):
            text = block.text.strip("*_ ")
            if block.kind == "heading":
                abstract = _ABSTRACT.match(text) is not None
                # Outside parsed papers a summary is any section: what stands before it is text.
                return index, abstract and (self._source.loose_lines_are_authors or text[0] in "aA")
            if block.kind == "paragraph" and _ABSTRACT_LEAD.match(block.text):
                return index, True
        return position, False

    def _take_byline(self, position: int) -> int:
        """Take an author line under the title of a text that has no abstract; return its blocks, 0 or 1."""
        if position == 0 or position >= len(self._blocks) or self._blocks[position].kind != "paragraph":
            return 0
        text = self._blocks[position].text.strip()
        lead = _AUTHOR_LEAD.match(text)
        names = self._names(text) if len(text) <= _LONGEST_FRONT_LINE_CHARACTERS else []
        # A line of two names may be any text ("Great Britain, New Zealand"): type or a mark tells.
        marked = len(names) > 1 and (text[0] in "*_" or bool(_SUPERSCRIPT.search(text)))
        if not names or not (lead or marked):
            return 0
        self._take_authors(names)
        return 1

    def _title_index(self) -> int | None:
        blocks = self._blocks
        first_heading = next((i for i, block in enumerate(blocks) if block.kind == "heading"), None)
        if first_heading is not None and self._is_title(blocks[first_heading], first_heading):
            return first_heading
        if (
            self._nougat
            and blocks
            and blocks[0].kind == "paragraph"
            and first_heading is not None
            and len(blocks[0].text) <= _LONGEST_TITLE_CHARACTERS
            and not blocks[0].text.rstrip().endswith((".", ","))
            and not _EMAIL.search(blocks[0].text)
            and _CAPTION.match(blocks[0].text) is None
            and blocks[0].text.lstrip()[:1].isupper()
        ):
            return 0
        return None

    def _is_title(self, block: RawBlock, index: int) -> bool:
        text = block.text.strip()
        name = text.strip("*_ .:").lower()
        if (
            not text
            or _KNOWN_HEADING.fullmatch(name)
            or _ABSTRACT.match(text)
            or len(text) > _LONGEST_TITLE_CHARACTERS
        ):
            return False
        if block.level == 1:
            return True
        # Docling gives the title the depth of a section: it comes first, or right before the abstract.
        others = [other for other in self._blocks[index + 1 :] if other.kind == "heading"]
        if block.level != 2 or _NUMBERED.match(text) or any(other.level == 1 for other in others):
            return False
        following = others[0].text.strip("*_ .:") if others else ""
        number = _NUMBERED.match(following)
        name = following[number.end() :] if number else following
        return index == 0 or _ABSTRACT.match(name) is not None or _KNOWN_HEADING.fullmatch(name) is not None

    def _continued_title(self, position: int) -> list[str]:
        """Return the lines after a title heading that are the rest of it."""
        title = self._blocks[position - 1].text.strip()
        lines: list[str] = []
        while position < len(self._blocks) and self._blocks[position].kind == "paragraph" and len(lines) < 2:
            raw = self._blocks[position].text
            line = raw.strip()
            if len(line) > 150 or "\\(" in line or "@" in line or line.startswith("&"):
                break
            goes_on = _TITLE_GOES_ON.match(line) or _TITLE_OPEN_END.search(title)
            if not goes_on and (
                raw.startswith(" ") or _INSTITUTION.search(line) or not _TITLE_WORD_INSIDE.search(line)
            ):
                break
            lines.append(collapse(self._printed(self._blocks[position])))
            title = line
            position += 1
        return lines

    def _authors(self, front: list[RawBlock], before_abstract: bool) -> None:
        """Take the names out of the loose lines under a title, and addresses and notes out of the body."""
        lines = self._front_parts(front, before_abstract)
        previous = "title"
        for index, (block, part) in enumerate(lines):
            following = [text for _, text in lines[index + 1 :]]
            if block.kind != "paragraph" or _CAPTION.match(part):
                self._add(block)
                previous = "text"
            elif _FOOTNOTE.match(part) and not self._is_front_line(part, before_abstract):
                self._add(block)
            elif names := self._accepted_names(part, previous, following):
                self._take_authors(names)
                previous = "names"
            elif self._is_front_line(part, before_abstract):
                printed = collapse("".join(span.text for span in self._inlines(part)))
                if _FOOTNOTE_NOISE.search(part):
                    self._counts["footnote_marks_removed"] += 1
                elif printed:
                    self._front_lines.append(printed)
                previous = "mail" if "@" in part else "address" if self._is_address(part) else "text"
            else:
                self._add(RawBlock("paragraph", part))
                previous = "text"

    def _front_parts(self, front: list[RawBlock], before_abstract: bool) -> list[tuple[RawBlock, str]]:
        """Return the lines under a title, parted at ``&`` and, where a break sets off a name, at breaks."""
        parts: list[tuple[RawBlock, str]] = []
        for block in front:
            if block.kind != "paragraph" or len(block.text) > _LONGEST_AUTHOR_LIST_CHARACTERS:
                parts.append((block, block.text))
                continue
            lines = block.text.split("\n")
            stacked = before_abstract and len(lines) > 1 and not self._names(block.text)
            if not (stacked and any(map(self._names, lines))):
                lines = [block.text]
            for line in lines:
                for nth, part in enumerate(_AMPERSAND.split(line)):
                    if part.strip():
                        parts.append((block, f"&{part.strip()}" if nth else part.strip()))
        return parts

    def _accepted_names(self, part: str, previous: str, following: list[str]) -> list[str]:
        """Return the names of a line that its place tells to be authors'; a lone one may be a company."""
        names = self._names(part)
        if (
            len(names) > 1
            or part.startswith("&")
            or previous in ("title", "mail")
            or _SUPERSCRIPT.search(part)
            or (names and self._has_mail_of(part, next((text for text in following[:3] if "@" in text), "")))
        ):
            return names
        if previous == "names":
            after = next((text for text in following if len(self._names(text)) != 1), "")
            return names if not after or (self._is_address(after) and "@" not in after) else []
        return names if previous == "address" and following and self._is_address(following[0]) else []

    @staticmethod
    def _is_address(text: str) -> bool:
        """Tell whether a line under a title names a place of work, an e-mail address or a contribution."""
        return (
            "@" in text
            or _SUPERSCRIPT.match(text.strip()) is not None
            or _INSTITUTION.search(text) is not None
        )

    def _is_front_line(self, text: str, before_abstract: bool) -> bool:
        """Tell whether a line under a title that is no name belongs to the title page, not to the body."""
        words = len(text.split())
        ends = text.rstrip("*_ \n").endswith((".", "!", "?"))
        if _SUPERSCRIPT.match(text.strip()):
            return True
        if (ends and words >= _FEWEST_PROSE_WORDS) or len(text) > _LONGEST_FRONT_LINE_CHARACTERS:
            return False
        sentence = ends and words >= _FEWEST_SENTENCE_WORDS
        if self._is_address(text):
            return before_abstract or not sentence
        return before_abstract and not sentence

    def _take_authors(self, names: list[str]) -> None:
        known = {collapse(name).casefold() for name in self._paper.authors}
        self._paper.authors += [name for name in names if name.casefold() not in known]

    @staticmethod
    def _has_mail_of(part: str, mail: str) -> bool:
        """Tell whether the next e-mail address has the start of one of this line's words before its ``@``."""
        user = mail.partition("@")[0].lower()
        return any(word[:5].lower() in user for word in re.findall(r"[^\W\d_]{3,}", part))

    def _names(self, line: str) -> list[str]:
        """Return the persons of a line, or nothing if any part of it is not surely a person's name."""
        line = line.strip(" &\n")
        lead = _AUTHOR_LEAD.match(line)
        marked = line[lead.end() :] if lead else line
        marked = _SUPERSCRIPT.sub("\0", marked.strip("*_ "))
        if marked.startswith("\0") or "@" in marked or _INSTITUTION.search(marked):
            return []
        for line_break in ("\0", " "):
            joined = marked.replace("\n", line_break).replace("**", "\0")
            if not self._nougat:
                joined = "".join(span.text for span in self._inlines(joined))
            parts = [part.strip(_AUTHOR_NOISE) for part in _AUTHOR_SPLIT.split(joined)]
            names = [part for part in parts if part and not _DEGREE.match(part)]
            strange = [name for name in names if not (2 <= len(name.split()) <= 5 and is_name(name))]
            # One odd name in a long list is still a name.
            if names and 3 * len(strange) < len(names) and all(map(_ODD_NAME.match, strange)):
                return [collapse(name) for name in names]
        return []

    # Sections

    def _body(self, position: int) -> None:
        blocks = self._blocks
        depths = [block.level for block in blocks[position:] if block.kind == "heading" and block.level < 6]
        # Nougat's depths are wrong too often to let one heading shift all others.
        base = 2 if self._nougat else min(depths, default=1)
        in_abstract = in_references = list_open = False
        while position < len(blocks):
            block = blocks[position]
            position += 1
            if block.kind == "heading":
                text = collapse(block.text).strip("*_ ")
                in_abstract = (
                    bool(_ABSTRACT.match(text)) and not self._paper.abstract and len(self._sections) <= 2
                )
                numbered = _NUMBERED.match(text)
                in_references = bool(_REFERENCES.match(text[numbered.end() :] if numbered else text))
                list_open = in_references
                if in_references:
                    self._sections.append(Section(1, ""))
                elif not in_abstract:
                    self._open_section(block, base)
                continue
            if in_abstract and self._take_abstract(block):
                continue
            if in_references:
                taken, list_open = self._take_reference(block, list_open)
                if taken:
                    continue
            position = self._add(block, position)

    def _open_section(self, block: RawBlock, base: int) -> None:
        spans = self._spans(block)
        heading = collapse("".join(span.text for span in spans))
        if not heading:
            return
        numbered = _NUMBERED.match(heading)
        number = None
        level = max(1, block.level - base + 1)
        if numbered:
            number = collapse(numbered["number"])
            rest = heading[numbered.end() :].strip()
            if rest and rest[0].islower() and number.isdigit() and int(number) > 40:
                number, numbered = None, None  # "80 percent of …" is a sentence
            else:
                heading = rest
                if number[0].isdigit() or "." in number:
                    level = number.count(".") + 1
                elif number.lower().startswith(("appendix", "annex")):
                    level = 1
        if number is None:
            level = min(level, self._last_level + 1)
        self._last_level = level
        self._sections.append(Section(min(level, 9), heading, number))

    def _take_abstract(self, block: RawBlock) -> bool:
        if block.kind not in ("paragraph", "item", "formula"):
            return False
        keywords = _KEYWORDS.match(block.text) if block.kind == "paragraph" else None
        if keywords:
            return self._take_keywords(block, keywords.end())
        if _SUPERSCRIPT.match(block.text.strip()) and self._is_address(block.text):
            self._front_lines.append(collapse(self._printed(block)))  # affiliations set under the abstract
            return True
        if _ACM_CONCEPTS.match(block.text):
            self._front_lines.append(collapse(self._printed(block)))
            return True
        rights = _ACM_RIGHTS.search(block.text)
        if rights and self._paper.abstract:  # what the template sets after its keywords
            block.text = block.text[: rights.start()]
            return self._take_keywords(block, 0)
        if _CAPTION.match(block.text) or _FOOTNOTE.match(block.text):
            return False
        built = self._block(block)
        if built is not None:
            self._paper.abstract.append(built)
        return True

    def _take_keywords(self, block: RawBlock, start: int) -> bool:
        words = collapse("".join(span.text for span in self._inlines(block.text[start:])))
        self._paper.keywords.extend(w.strip(" .") for w in re.split(r"[;,·•]", words) if w.strip(" ."))
        return True

    def _take_reference(self, block: RawBlock, list_open: bool) -> tuple[bool, bool]:
        """Return whether the block became an entry, and whether the list may go on after it."""
        text = (
            block.text.lstrip("* ")
            if block.kind == "paragraph" and block.text.startswith("**")
            else block.text
        )
        if block.kind == "item":
            number = (block.marker or "").strip("()[].")
            if not list_open and (number.isdigit() or not looks_like_entry(text)):
                return False, list_open
            if number.isdigit():
                text = f"[{number}] {text}"
        elif block.kind == "paragraph":
            if not looks_like_entry(text):
                return False, list_open and _CAPTION.match(text) is not None
        elif block.kind == "note":
            return False, list_open
        else:
            return False, list_open and block.kind in ("table", "figure")
        self._slots.append(parse_entry(text))
        return True, list_open

    # Blocks

    def _add(self, block: RawBlock, position: int | None = None) -> int:
        """Add a block to the open section; a table takes the caption that follows it."""
        if block.kind == "paragraph" and len(self._sections) == 1 and not self._paper.abstract:
            lead = _ABSTRACT_LEAD.match(block.text)
            if lead:
                spans = self._inlines(block.text[lead.end() :])
                self._paper.abstract.append(Block("paragraph", spans))
                return position if position is not None else 0
        built = self._block(block)
        before = self._sections[-1].blocks[-1] if self._sections[-1].blocks else None
        if (
            not self._nougat
            and built is not None
            and built.kind == "table"
            and not built.label
            and before is not None
            and before.kind == "table"
            and before.label
            and not before.cells
        ):
            before.cells = built.cells
            before.inlines += built.inlines
            return position if position is not None else 0
        if (
            built is not None
            and built.kind == "table"
            and not built.label
            and position is not None
            and position < len(self._blocks)
        ):
            following = self._blocks[position]
            caption = _CAPTION.match(following.text) if following.kind == "paragraph" else None
            if caption and caption["kind"].lower().endswith(("table", "tab", "tab.")):
                beside = built.inlines
                self._caption(built, following, caption)
                if beside:
                    built.inlines += [Inline("text", " "), *beside] if built.inlines else beside
                position += 1
        if built is not None:
            self._sections[-1].blocks.append(built)
        return position if position is not None else 0

    def _block(self, block: RawBlock) -> Block | None:
        match block.kind:
            case "paragraph":
                return self._paragraph(block)
            case "item":
                spans = self._spans(block)
                return Block("list", spans, label=block.marker) if spans or block.marker else None
            case "formula":
                glyphs = block.inlines
                spans = (
                    glyphs
                    if glyphs is not None
                    else [Inline("formula", block.text, "tex")]
                    if block.text
                    else []
                )
                return Block("formula", spans, label=block.marker) if spans else None
            case "code":
                return Block("code", [Inline("text", block.text)]) if block.text.strip() else None
            case "note":
                mark = block.marker
                return Block("note", self._spans(block), label=mark, ref_id=f"note-{mark}" if mark else None)
            case "table" | "figure":
                built = Block(block.kind, cells=block.cells)
                caption = _CAPTION.match(block.text)
                if caption:
                    self._caption(built, block, caption)
                else:
                    built.inlines = self._spans(block)
                if built.cells or built.inlines or built.label:
                    return built
                self._counts["images" if block.kind == "figure" else "empty_tables"] += 1
                return None
            case _:
                return None

    def _paragraph(self, block: RawBlock) -> Block | None:
        caption = _CAPTION.match(block.text)
        if caption and self._is_caption(block.text, caption):
            is_table = caption["kind"].lower().endswith(("table", "tab", "tab."))
            built = Block("table" if is_table else "figure")
            self._caption(built, block, caption)
            return built
        note = _FOOTNOTE.match(block.text)
        if note:
            if _FOOTNOTE_NOISE.match(block.text, note.end()):
                self._counts["footnote_marks_removed"] += 1
                return None
            mark = note["mark"].strip("\\() ")
            spans = self._inlines(block.text[note.end() :])
            return Block("note", spans, label=mark, ref_id=self._unique(f"note-{mark}")) if spans else None
        spans = self._spans(block)
        return Block("paragraph", spans) if spans else None

    @staticmethod
    def _is_caption(text: str, caption: re.Match[str]) -> bool:
        """Tell a caption from a sentence that starts with a mention ("Figure 4 shows", "Table 2. Then")."""
        number = caption["number"]
        end = caption["end"].strip("*_ ")
        if end in (":", "|"):
            return True
        if not number[-1].isdigit() and end != ".":
            return False
        following = text[caption.end() : caption.end() + 1]
        return not following or not following.islower()

    def _caption(self, built: Block, block: RawBlock, caption: re.Match[str]) -> None:
        built.label = collapse(caption["label"].strip("*_ "))
        rest = block.text[caption.end() :]
        # The marks before and after the label belong to it; what they leave open is dropped with it.
        lead = "**" if block.text.lstrip().startswith("**") and "**" not in caption["end"] else ""
        built.inlines = self._inlines(lead + rest)
        kind = "table" if built.kind == "table" else "figure"
        built.ref_id = self._unique(f"{kind}-{caption['number'].lower()}")

    def _unique(self, identifier: str) -> str:
        self._labels[identifier] += 1
        count = self._labels[identifier]
        return identifier if count == 1 else f"{identifier}-again-{count}"

    def _spans(self, block: RawBlock) -> list[Inline]:
        if block.inlines is not None:
            return block.inlines
        return self._inlines(block.text)

    def _inlines(self, text: str) -> list[Inline]:
        return parse_inlines(text, self._source.dialect, self._source.link_names)

    def _printed(self, block: RawBlock) -> str:
        return "".join(span.text for span in self._spans(block))
