"""Reference entries as printed, and the citations and mentions in running text that point to them.

Nothing here guesses: a field that cannot be told apart stays empty, a citation that fits no entry or more
than one stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from baltoro.papers.readers._markdown_blocks import collapse, parse_inlines
from baltoro.papers.schema import Block, Inline, InlineKind, Reference

_LABEL = re.compile(
    r"""\s*(?:\*\s*)?(?:
        \[(?P<bracket>\d{1,4}[a-z]?)\]\.?\s*
      | \((?P<round>\d{1,4})\)\s*
      | (?P<dotted>\d{1,3})\.\s+(?=[^\W\d])
      | (?P<name>(?=[^\W\d_])[^\[\]()\d]{1,80}?)\s*[\[(](?P<year>(?:1[89]|20)\d\d)(?P<suffix>[a-z]?)[\])]\s*
    )""",
    re.VERBOSE,
)
_YEAR = re.compile(r"(?<![\d.:/\-–_])((?:1[6-9]|20)\d\d)(?P<suffix>[a-z]?)(?![\d/\-–_:]|\.\d)")
_ROUND_YEAR = re.compile(r"\(((?:1[6-9]|20)\d\d)(?P<suffix>[a-z]?)(?:,[^()]{0,20})?\)")
_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"<>\[\]{}|\\^`]+", re.I)
_CITED_BY = re.compile(r"Cited by:.*$", re.S)
_URL = re.compile(r"(?:URL\s+)?https?://\S+", re.I)
_INVERTED_NAME = re.compile(
    r"""(?P<surname>[^\W\d_][^\W\d_'’.\-]*(?:[ '’\-][^\W\d_][^\W\d_'’\-]*){0,3}),\s+
        (?P<given>(?:[^\W\d_]\.(?:\s?-\s?)?\s?){1,4}|[A-Z]{1,3}(?=[,;.]|\s+(?:and\b|&|[(\d])))\s*
        (?P<joint>,\s*(?:and|&)\s+|,\s*|;\s*|(?:and|&)\s+)?""",
    re.VERBOSE,
)
_NAME_WORD = re.compile(
    r"(?:[^\W\d_]\.(?:-?[^\W\d_]\.)*|(?:de|da|di|du|del|della|der|den|van|von|vom|zu|la|le|el|al|bin|ibn|ter|ten|dos|st|fai|ben|abu|af|av|do|e|y)"
    r"|[A-Z][^\W\d_]*(?:['’\-.][^\W\d_]+)*\.?|[Oo]['’][A-Z][^\W\d_]+|d['’][A-Z][^\W\d_]+|[^\W\d_a-zA-Z][^\W\d_]*(?:['’\-][^\W\d_]+)*)$"
)
_SENTENCE_END = re.compile(r"[.?!][\"”'’]?(?=\s)")
_LONGEST_ABBREVIATION_CHARACTERS = 12
_ABBREVIATION = re.compile(
    r"vols?|nos?|pp|eds?|proc|conf|int|intl|[js]r|st|dr|vs|cf|fig|eq|dept|univ|inst|trans", re.I
)
_NAME_JOINT = re.compile(r"\s*(?:,\s*(?:and|&)\s+|\s+(?:and|&)\s+|;\s*|,\s*)")
_OTHERS = re.compile(r"(?:^|,?\s+)(?:et\.?\s+al\.?|and others)$", re.I)
_TITLE_START_YEAR = re.compile(r"[\s.,:]*[\[(]?(?:1[89]|20)\d\d[a-z]?[\])]?(?:,\s+\w+)?[.,:]*\s*")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_TITLE_TAIL = re.compile(
    rf"""(?:,\s+{_MONTH}\.?)?[,.]?\s*(?:(?:1[89]|20)\d\d[a-z]?|[\[(](?:1[89]|20)\d\d[a-z]?[\])])[.,]?
        (?:\s+\(also\b[^()]*\)?)?$ | ,\s+{_MONTH}\.?$""",
    re.VERBOSE | re.I,
)
_CONTAINER = re.compile(r"(?:,|\.)?\s+_|\.\s+In[ :]\s*|,\s+(?:volume|vol\.|pages|pp\.)\s")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(slots=True)
class Entry:
    """A parsed reference entry with what citations can name it by."""

    reference: Reference
    number: str | None = None
    surnames: tuple[str, ...] = ()
    has_others: bool = False
    year: str = ""
    printed: str = ""


def looks_like_entry(text: str) -> bool:
    """Tell whether a paragraph could be an entry of a reference list."""
    label = _LABEL.match(text)
    if label and (label["bracket"] or label["round"] or label["name"]):
        return bool(_YEAR.search(text, label.end())) or bool(label["name"])
    return len(text) < 1500 and _INVERTED_NAME.match(text) is not None and bool(_YEAR.search(text))


def parse_entry(source: str) -> Entry:
    """Return the entry of a reference list item.

    Understands ``[12] A. Name and B. Name. Title. _Venue_, 2020.``, ``Name et al. (2020) Name, A., …
    Title.``, ``A. Name and B. Name (2020) Title. In Venue.`` and the variants in between. The title is
    never empty if the entry has words: where no title can be told apart it is the whole entry.

    Args:
        source: the item's text, emphasis and links still marked.

    Returns:
        The entry; its key is empty until the whole list is known.
    """
    text = collapse(_CITED_BY.sub("", source))
    printed = _plain(text)
    label = _LABEL.match(text)
    body = text[label.end() :] if label else text
    number = None
    short_name = year = ""
    if label:
        number = label["bracket"] or label["round"] or label["dotted"]
        if label["name"]:
            short_name, year = collapse(label["name"]), label["year"] + label["suffix"]
    doi_match = _DOI.search(body)
    doi = doi_match[0].rstrip(".,;)'") if doi_match else None
    if label and short_name and not _repeats_names(body, short_name):
        # "A. Name and B. Name (2020) Title": what looked like a short label is the author list itself.
        authors, rest = _split_names(short_name), body
    else:
        authors, rest = _leading_authors(body)
    if not year:
        year = _printed_year(body)
    title = _title_of(rest) or _title_of(body)
    if not _LETTER.search(title):
        title = printed
    reference = Reference(
        key="",
        title=title,
        authors=authors,
        year=int(year[:4]) if year else None,
        doi=doi,
    )
    surnames, has_others = _surnames(short_name, authors)
    return Entry(reference, number, surnames, has_others, year, printed)


def _plain(text: str) -> str:
    return "".join(inline.text for inline in parse_inlines(text, "nougat"))


def _repeats_names(body: str, short_name: str) -> bool:
    """Tell whether the body gives the authors again after a label like ``Name et al. (2020)``."""
    if _OTHERS.search(short_name):
        return short_name.count(",") < 2
    first = short_name.split(" and ", maxsplit=1)[0].split(" & ", maxsplit=1)[0].strip().rpartition(" ")[2]
    return bool(first) and first in body[: len(short_name) + 60]


def _printed_year(body: str) -> str:
    rounded = _ROUND_YEAR.search(body)
    if rounded:
        return rounded[1] + rounded["suffix"]
    years = list(_YEAR.finditer(_URL.sub(" ", body)))
    return years[-1][1] + years[-1]["suffix"] if years else ""


def _leading_authors(body: str) -> tuple[list[str], str]:
    """Return the authors at the start of an entry and the text after them."""
    authors: list[str] = []
    position = 0
    while match := _INVERTED_NAME.match(body, position):
        given = collapse(match["given"])
        authors.append(f"{given} {match['surname']}")
        position = match.end()
        if body.startswith("et al", position):
            position = body.find(".", position) + 1 or len(body)
            break
        if not match["joint"]:
            break
    if authors and (
        len(authors) > 1
        or body[position - 1 : position] in (".", " ")
        or body[position : position + 1] == "("
    ):
        return authors, body[position:].lstrip(" .,:")
    head, rest = _first_sentence(body)
    rounded = _ROUND_YEAR.search(head[:600])
    if rounded:
        head, rest = head[: rounded.start()], body[rounded.end() :]
    authors = _split_names(head)
    if not authors and rest and head and " " not in head and _LETTER.search(head):
        authors = [head]  # a user or organisation name such as "gradient.ai"
    return (authors, rest) if authors else ([], body)


def _first_sentence(text: str) -> tuple[str, str]:
    """Split after the first full stop that ends neither an initial nor an abbreviation."""
    for match in _SENTENCE_END.finditer(text):
        stop = match.start()
        if text[stop] == ".":
            before = text[max(0, stop - _LONGEST_ABBREVIATION_CHARACTERS) : stop]
            word = before.replace(".", " ").rpartition(" ")[2]
            if len(word.rpartition("-")[2]) <= 1 or _ABBREVIATION.fullmatch(word):
                continue
            return text[:stop], text[match.end() :].lstrip()
        return text[: match.end()], text[match.end() :].lstrip()
    return text.rstrip(" ."), ""


def _split_names(head: str) -> list[str]:
    """Return the names of an author list, or nothing if any part does not look like a name."""
    head = _plain(head)
    head = _OTHERS.sub("", head.strip(" ,."))
    names = [part.strip(" *") for part in _NAME_JOINT.split(head)]
    names = [_OTHERS.sub("", name) for name in names if name]
    strange = [name for name in names if not is_name(name)]
    # One misread name among several is still a name; a lone phrase is a title.
    if (
        not names
        or len(strange) > (len(names) > 2)
        or any(len(name.split()) > 5 or "." in name[3:] for name in strange)
    ):
        return []
    return [name for name in names if name.lower() != "et al"]


def is_name(text: str) -> bool:
    """Tell whether a few words have the shape of a person's (or short organisation's) name."""
    words = text.split()
    return (
        1 <= len(words) <= 5
        and all(_NAME_WORD.match(word) for word in words)
        and any(w[:1].isupper() for w in words)
    )


def _title_of(rest: str) -> str:
    """Return the title that starts here: up to its full stop, the venue in italics or a year."""
    start = _TITLE_START_YEAR.match(rest)
    rest = rest[start.end() :] if start else rest
    rest = rest.lstrip(" .,:")
    if rest.startswith("_"):
        end = rest.find("_", 1)
        if end > 0 and (len(rest) == end + 1 or not rest[end + 1].isalnum()):
            return _clean_title(rest[1:end])
    container = _CONTAINER.search(rest)
    sentence, _ = _first_sentence(rest)
    if container and container.start() < len(sentence):
        sentence = rest[: container.start()]
    return _clean_title(sentence)


def _clean_title(text: str) -> str:
    plain = _URL.sub("", _plain(text))
    plain = _TITLE_TAIL.sub("", plain.strip()).strip(" .,;:*_")
    bare = plain.strip(' .,;:“”"')
    # Quotes around the title go, not the one that opens or closes a quotation inside it.
    return plain if bare.count('"') % 2 or bare.count("“") != bare.count("”") else bare


def _surnames(short_name: str, authors: list[str]) -> tuple[tuple[str, ...], bool]:
    if short_name:
        has_others = bool(_OTHERS.search(short_name))
        names = re.split(r",\s*|\s+(?:and|&)\s+", _OTHERS.sub("", short_name).strip())
        if not (authors and len(authors) > len(names)):
            return tuple(_surname(name) for name in names if name), has_others
    return tuple(_surname(author) for author in authors), False


def _surname(name: str) -> str:
    return name.strip(" .").rpartition(" ")[2].lower()


def number_by_place(slots: Sequence[Entry], highest_cited: int) -> None:
    """Give entries whose printed number was lost the number of their place, where that is certain.

    A parser may print the numbers of some pages of a list only. Between two numbered entries the place
    is certain if the count fits; before the first if it starts at 1; after the last, or with no number at
    all, if the list so ends with the highest number that the text cites.

    Args:
        slots: every item of the list in order, also those too broken to be references.
        highest_cited: the highest number in square brackets in the text, 0 if none.
    """
    known = [(-1, 0)]
    known += [(at, int(e.number)) for at, e in enumerate(slots) if e.number and e.number.isdigit()]
    if highest_cited:
        known.append((len(slots), highest_cited + 1))
    for (left_at, left), (right_at, right) in pairwise(known):
        if right_at - left_at == right - left:
            for at in range(left_at + 1, right_at):
                slots[at].number = str(left + at - left_at)


def highest_citation(texts: Iterable[str]) -> int:
    """Return the highest number in square brackets, as in ``[3, 12]``; 0 if there are fewer than three."""
    numbers = [
        int(number[0])
        for text in texts
        if "[" in text
        for group in _NUMBER_GROUP.finditer(text)
        for number in _WHOLE_NUMBER.finditer(group[1])
    ]
    return max(numbers) if len(numbers) >= _FEWEST_CITATIONS else 0


_NUMBER_GROUP = re.compile(r"\[\s*(\d{1,4}[a-z]?(?:\s*[,;–\-]\s*\d{1,4}[a-z]?)*)\s*\]")
_NUMBER = re.compile(r"\d{1,4}[a-z]?")
_WHOLE_NUMBER = re.compile(r"\d{1,4}")
_FEWEST_CITATIONS = 3
_WORD = r"[^\W\d_](?:[^\W\d_]|['’\-](?=[^\W\d_]))*"
_CITED_YEAR = re.compile(r"(?:1[89]|20)\d\d[a-z]?(?![\w])")
_NAME_BEFORE_YEAR = re.compile(
    rf"""(?P<first>\b{_WORD})
        (?:\s+(?P<others>et\s+al\.?,?)|\s+(?:and|&)\s+(?P<second>{_WORD}))?,?\s*(?P<bracket>[\[(])?$""",
    re.VERBOSE,
)
_LONGEST_NAME_CHARACTERS = 80
_MORE_YEARS = re.compile(r",\s*((?:1[89]|20)\d\d[a-z]?)(?![\w])")
_MENTION = re.compile(
    r"\b(?P<kind>Fig(?:ure|s\.?|ures|\.)?|Tab(?:le|les|\.))\s?(?P<number>[A-Z]?\.?\d+(?:\.\d+)*|[A-Z](?![\w]))",
    re.I,
)


@dataclass(slots=True)
class _Mark:
    start: int
    end: int
    target: str
    kind: InlineKind


@dataclass(slots=True)
class CitationIndex:
    """What the citations and mentions of one paper may point to."""

    by_number: dict[str, str] = field(default_factory=dict)
    by_name: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    blocks: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry], blocks: Iterable[Block]) -> CitationIndex:
        """Index reference entries, and the labelled figures and tables."""
        index = cls()
        ambiguous: set[str] = set()
        for entry in entries:
            if entry.number is not None:
                if entry.number in index.by_number:
                    ambiguous.add(entry.number)
                index.by_number.setdefault(entry.number, entry.reference.key)
            if entry.surnames and entry.year:
                index.by_name.setdefault((entry.surnames[0], entry.year), []).append(entry)
        for number in ambiguous:
            del index.by_number[number]
        for block in blocks:
            if block.kind in ("figure", "table") and block.ref_id:
                kind, _, number = block.ref_id.partition("-")
                index.blocks.setdefault((kind, number), block.ref_id)
        return index

    def link(self, inlines: list[Inline]) -> list[Inline]:
        """Return the spans with citations and mentions of figures and tables as spans of their own."""
        if not (self.by_number or self.by_name or self.blocks):
            return inlines
        linked: list[Inline] = []
        for inline in inlines:
            if inline.kind == "text":
                linked.extend(self._link_text(inline.text))
            else:
                linked.append(inline)
        return linked

    def _link_text(self, text: str) -> Iterable[Inline]:
        marks = self._number_marks(text) if self.by_number and "[" in text else []
        if self.by_name and ("1" in text or "2" in text):
            marks += self._name_marks(text)
        if self.blocks:
            marks += self._mention_marks(text)
        if not marks:
            return [Inline("text", text)]
        marks.sort(key=lambda mark: mark.start)
        spans: list[Inline] = []
        position = 0
        for mark in marks:
            if mark.start < position:
                continue
            if mark.start > position:
                spans.append(Inline("text", text[position : mark.start]))
            spans.append(Inline(mark.kind, text[mark.start : mark.end], mark.target))
            position = mark.end
        if position < len(text):
            spans.append(Inline("text", text[position:]))
        return spans

    def _number_marks(self, text: str) -> list[_Mark]:
        marks: list[_Mark] = []
        for group in _NUMBER_GROUP.finditer(text):
            numbers = list(_NUMBER.finditer(text, group.start(1), group.end(1)))
            if not all(number[0] in self.by_number for number in numbers):
                continue
            found = [_Mark(n.start(), n.end(), self.by_number[n[0]], "citation") for n in numbers]
            found[0].start, found[-1].end = group.span()
            marks += found
        return marks

    def _name_marks(self, text: str) -> list[_Mark]:
        marks: list[_Mark] = []
        position = 0
        while year_found := _CITED_YEAR.search(text, position):
            start, end = year_found.span()
            position = end
            match = _NAME_BEFORE_YEAR.search(text, max(0, start - _LONGEST_NAME_CHARACTERS), start)
            target = self._named(match, year_found[0]) if match else None
            if match is None or target is None:
                continue
            more: list[_Mark] = []
            while year := _MORE_YEARS.match(text, more[-1].end if more else end):
                further = self._named(match, year[1])
                if further is None:
                    break
                more.append(_Mark(year.start(1), year.end(1), further, "citation"))
            mark = _Mark(match.start(), end, target, "citation")
            last = more[-1] if more else mark
            closing = {"(": ")", "[": "]"}.get(match["bracket"] or "")
            if closing and text[last.end : last.end + 1] == closing:
                last.end += 1
            elif closing is None and text[mark.start - 1 : mark.start] + text[last.end : last.end + 1] in (
                "()",
                "[]",
            ):
                mark.start -= 1
                last.end += 1
            marks += [mark, *more]
            position = last.end
        return marks

    def _named(self, match: re.Match[str], year: str) -> str | None:
        """Return the one entry that ``Name (et al. | and Name) year`` can mean."""
        candidates = self.by_name.get((match["first"].lower(), year), [])
        second = match["second"]
        if second:
            candidates = [e for e in candidates if len(e.surnames) > 1 and e.surnames[1] == second.lower()]
        elif match["others"]:
            candidates = [e for e in candidates if e.has_others or len(e.surnames) != 1]
        elif len(candidates) > 1:
            candidates = [e for e in candidates if len(e.surnames) == 1 and not e.has_others]
        return candidates[0].reference.key if len(candidates) == 1 else None

    def _mention_marks(self, text: str) -> list[_Mark]:
        marks: list[_Mark] = []
        for match in _MENTION.finditer(text):
            is_figure = match["kind"][0] in "fF"
            kind = "figure" if is_figure else "table"
            target = self.blocks.get((kind, match["number"].lower()))
            if target:
                marks.append(
                    _Mark(match.start(), match.end(), target, "figure_ref" if is_figure else "table_ref")
                )
        return marks


_NOTE_DIGITS = re.compile(r"\d{1,2}")
_SUPERSCRIPT_NUMBER = re.compile(r"(?:\{\}|~)?\s*\^\{?\s*(\d{1,2})\s*\}?")
_BLOCKS_BEFORE_NOTE = 4


def link_notes(blocks: Iterable[Block]) -> None:
    """Make ``note_ref`` spans of the marks that a parser leaves glued to the word before them.

    A note with a number follows the page's text: its mark (``layer.3``, ``layer3`` or a superscript) is
    looked for in the few blocks before it, nearest first, and taken only where it is the only one.
    """
    before: list[Block] = []
    for block in blocks:
        if block.kind in ("paragraph", "list"):
            before.append(block)
        elif block.kind == "note" and block.ref_id and _NOTE_DIGITS.fullmatch(block.label or ""):
            for candidate in reversed(before[-_BLOCKS_BEFORE_NOTE:]):
                if _link_note(candidate, block.label or "", block.ref_id):
                    break


def _link_note(block: Block, number: str, target: str) -> bool:
    """Link the one mark with a note's number in a block; false if there is none or more than one."""
    mark = re.compile(
        rf"(?:(?<=[a-z][a-z])|(?<=[a-z][.,;:)\]!?”\"'])|(?<=[)\]”][.,;:]))(?<![a-z]\.[a-z]\.){number}(?=[\s,.;:)]|$)"
    )
    found: list[tuple[int, int, int]] = []
    for index, span in enumerate(block.inlines):
        if span.kind == "text":
            found += [(index, *match.span()) for match in mark.finditer(span.text)]
        elif span.kind == "formula":
            superscript = _SUPERSCRIPT_NUMBER.fullmatch(span.text)
            if superscript and superscript[1] == number:
                found.append((index, 0, len(span.text)))
    if len(found) != 1:
        return False
    index, start, end = found[0]
    words = block.inlines[index].text
    around = [Inline("text", words[:start]), Inline("note_ref", number, target), Inline("text", words[end:])]
    block.inlines[index : index + 1] = [span for span in around if span.text]
    return True
