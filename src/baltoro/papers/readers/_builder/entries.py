"""Reference entries as printed: their authors, title, year and identifier.

Nothing here guesses: a field that cannot be told apart stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from baltoro.papers.readers._markup.inline import without_markup
from baltoro.papers.readers._text import collapse
from baltoro.papers.schema import Reference

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
_CENTURY = re.compile(r"1[6-9]|20")
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
_MOST_NAME_WORDS = 5
_NAME_WORD = re.compile(
    r"(?:[^\W\d_]\.(?:-?[^\W\d_]\.)*|(?:de|da|di|du|del|della|der|den|van|von|vom|zu|la|le|el|al|bin|ibn|ter|ten|dos|st|fai|ben|abu|af|av|do|e|y)"
    r"|[A-Z][^\W\d_]*(?:['’\-.][^\W\d_]+)*\.?|[Oo]['’][A-Z][^\W\d_]+|d['’][A-Z][^\W\d_]+|[^\W\d_a-zA-Z][^\W\d_]*(?:['’\-][^\W\d_]+)*)$"
)
_SENTENCE_END = re.compile(r"[.?!][\"”'’]?(?=\s)")
_LONGEST_BEFORE_STOP_CHARACTERS = 12
_LONGEST_ABBREVIATION_CHARACTERS = 5
_ABBREVIATION = re.compile(
    r"vols?|nos?|pp|eds?|proc|conf|int|intl|[js]r|st|dr|vs|cf|fig|eq|dept|univ|inst|trans", re.I
)
_NAME_JOINT = re.compile(r"\s*(?:,\s*(?:and|&)\s+|\s+(?:and|&)\s+|;\s*|,\s*)")
_LONGEST_OTHERS_CHARACTERS = 8
_OTHERS = re.compile(r"(?:^|,?\s+)(?:et\.?\s+al\.?|and others)$", re.I)
_TITLE_START_YEAR = re.compile(r"[\s.,:]*[\[(]?(?:1[89]|20)\d\d[a-z]?[\])]?(?:,\s+\w+)?[.,:]*\s*")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_MONTH_ENDS = (
    *("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
    *("uary", "march", "april", "june", "july", "august", "ember", "october"),
)
_CENTURIES = ("18", "19", "20")
_TITLE_TAIL = re.compile(
    rf"""(?:,\s+{_MONTH}\.?)?[,.]?\s*(?:(?:1[89]|20)\d\d[a-z]?|[\[(](?:1[89]|20)\d\d[a-z]?[\])])[.,]?
        (?:\s+\(also\b[^()]*\)?)?$ | ,\s+{_MONTH}\.?$""",
    re.VERBOSE | re.I,
)
_CONTAINER = re.compile(r"(?:,|\.)?\s+_|\.\s+In[ :]\s*|,\s+(?:volume|vol\.|pages|pp\.)\s")
# One of these is in every container, and a search for an expression with many beginnings is slow.
_CONTAINER_MARKS = ("_", "In", "vol", "pages", "pp.")
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
    text = collapse(_CITED_BY.sub("", source) if "Cited by:" in source else source)
    printed = without_markup(text, "nougat")
    label = _LABEL.match(text)
    body = text[label.end() :] if label else text
    number = None
    short_name = year = ""
    if label:
        number = label["bracket"] or label["round"] or label["dotted"]
        if label["name"]:
            short_name, year = collapse(label["name"]), label["year"] + label["suffix"]
    doi_match = _DOI.search(body) if "10." in body else None
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
    text = _without_urls(body, " ")
    for start in reversed([century.start() for century in _CENTURY.finditer(text)]):
        year = _YEAR.match(text, start)
        if year:
            return year[1] + year["suffix"]
    return ""


def _without_urls(text: str, replacement: str) -> str:
    # Looking for a few characters is much faster than for an expression that ignores case.
    return _URL.sub(replacement, text) if "://" in text else text


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
            before = text[max(0, stop - _LONGEST_BEFORE_STOP_CHARACTERS) : stop]
            word = before.replace(".", " ").rpartition(" ")[2]
            if len(word.rpartition("-")[2]) <= 1 or (
                len(word) <= _LONGEST_ABBREVIATION_CHARACTERS and _ABBREVIATION.fullmatch(word)
            ):
                continue
            return text[:stop], text[match.end() :].lstrip()
        return text[: match.end()], text[match.end() :].lstrip()
    return text.rstrip(" ."), ""


def _split_names(head: str) -> list[str]:
    """Return the names of an author list, or nothing if any part does not look like a name."""
    head = without_markup(head, "nougat")
    head = _without_others(head.strip(" ,."))
    has_other_joints = "and" in head or "&" in head or ";" in head
    names = [part.strip(" *") for part in (_NAME_JOINT.split(head) if has_other_joints else head.split(","))]
    names = [_without_others(name) for name in names if name]
    strange = [name for name in names if not is_name(name)]
    # One misread name among several is still a name; a lone phrase is a title.
    if (
        not names
        or len(strange) > (len(names) > 2)
        or any(len(name.split()) > 5 or "." in name[3:] for name in strange)
    ):
        return []
    return [name for name in names if name.lower() != "et al"]


def _without_others(names: str) -> str:
    """Return an author list without the "et al." or "and others" at its end."""
    end = names[-_LONGEST_OTHERS_CHARACTERS:].casefold()
    return _OTHERS.sub("", names) if "al" in end or "others" in end else names


def is_name(text: str) -> bool:
    """Tell whether a few words have the shape of a person's (or short organisation's) name."""
    words = text.split()
    if not 1 <= len(words) <= _MOST_NAME_WORDS:
        return False
    for word in words:
        # The usual word needs no expression: letters, the first one a capital.
        if not ((word.isalpha() and "A" <= word[0] <= "Z") or _NAME_WORD.match(word)):
            return False
    return any(word[0].isupper() for word in words)


def _title_of(rest: str) -> str:
    """Return the title that starts here: up to its full stop, the venue in italics or a year."""
    start = _TITLE_START_YEAR.match(rest)
    rest = rest[start.end() :] if start else rest
    rest = rest.lstrip(" .,:")
    if rest.startswith("_"):
        end = rest.find("_", 1)
        if end > 0 and (len(rest) == end + 1 or not rest[end + 1].isalnum()):
            return _clean_title(rest[1:end])
    container = _CONTAINER.search(rest) if any(map(rest.__contains__, _CONTAINER_MARKS)) else None
    sentence, _ = _first_sentence(rest)
    if container and container.start() < len(sentence):
        sentence = rest[: container.start()]
    return _clean_title(sentence)


def _clean_title(text: str) -> str:
    plain = _without_urls(without_markup(text, "nougat"), "")
    plain = _without_date(plain.strip()).strip(" .,;:*_")
    bare = plain.strip(' .,;:“”"')
    # Quotes around the title go, not the one that opens or closes a quotation inside it.
    return plain if bare.count('"') % 2 or bare.count("“") != bare.count("”") else bare


def _without_date(title: str) -> str:
    """Return a title without the year or month behind it."""
    if any(map(title.__contains__, _CENTURIES)) or title.rstrip(".").casefold().endswith(_MONTH_ENDS):
        return _TITLE_TAIL.sub("", title)
    return title


def _surnames(short_name: str, authors: list[str]) -> tuple[tuple[str, ...], bool]:
    if short_name:
        has_others = bool(_OTHERS.search(short_name))
        names = re.split(r",\s*|\s+(?:and|&)\s+", _without_others(short_name).strip())
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
