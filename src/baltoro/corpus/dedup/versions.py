"""Versions of one paper: a preprint and the journal's article, or several parsers' outputs of one PDF.

:func:`version_keys` gives the keys by which versions meet. Few are trusted alone, because each goes wrong in
real data: parsers take a DOI from the reference list or the template's placeholder, a column has the same
title every month, ``paper1.mmd`` stands in every folder. What a key is worth:

``METADATA``
    A column of the metadata table that the recipe names. Speaks for itself, unless more than 32 documents
    share it ("n/a"); then the texts must be similar.
``TITLE_AUTHOR``
    Letters of the title and of the first author's surname, folded, and the kind of the article: a
    correction, reply or review often has the title and authors of its paper. Speaks for itself like the
    former, so the title must be long enough and none of the generic ones ("Author response").
``DOI``
    Lower case, without address and version suffix; or the arXiv identifier. The titles must agree or the
    texts be similar.
``STEM``
    The file name without folder and suffixes. The formats must differ, and the titles agree or the texts
    be similar.
``TITLE``
    The title alone, since a Nougat parse often has no authors. The texts must be similar.

*Similar* is judged by the sketches that travel with the keys
(:func:`~baltoro.corpus.dedup.clusters.find_edges`): at least ``min_containment`` of the shorter text's word
sequences, by default 0.4. Unrelated papers share less than 0.02, two conference papers with the same printed
checklist up to 0.3; two parsers of one PDF, cleaned and truncated copies more than 0.7.

*Not found*: versions whose title, first author and DOI all changed and whose text is no near-duplicate;
translations.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from enum import IntEnum
from pathlib import PurePosixPath
from typing import NamedTuple

from baltoro.corpus.dedup.config import KeepConfig, VersionConfig
from baltoro.papers.detect import stem_of
from baltoro.papers.fields import doi_of
from baltoro.papers.metadata import ROW_KEY
from baltoro.papers.schema import Paper

NO_TITLE = 0
"""The title key of a paper whose title identifies nothing; it agrees with no title."""


class KeyKind(IntEnum):
    """What a key of the exchange is made from; smaller numbers are the stronger evidence."""

    EXACT = 0
    METADATA = 1
    TITLE_AUTHOR = 2
    DOI = 3
    STEM = 4
    TITLE = 5
    NEAR = 6


class VersionKey(NamedTuple):
    """A key by which versions of a paper meet."""

    kind: KeyKind
    key: int


def key_of(*parts: str) -> int:
    """Return a uint64 of some texts; 64 bits of BLAKE2b."""
    data = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def version_keys(paper: Paper, config: VersionConfig) -> list[VersionKey]:
    """Return the keys of a paper, in order of kind; none if versions are not looked for."""
    return [VersionKey(kind, key_of(kind.name, *parts)) for kind, parts in version_names(paper, config)]


def version_names(paper: Paper, config: VersionConfig) -> list[tuple[KeyKind, tuple[str, ...]]]:
    """Return what a paper's keys are made of, in order of kind."""
    if not config.enabled:
        return []
    found: list[tuple[KeyKind, tuple[str, ...]]] = []
    if config.metadata_key is not None and (value := paper.extra.get(config.metadata_key, "").strip()):
        # A row's name is unique in its own table only.
        scope = paper.source if config.metadata_key == ROW_KEY else ""
        found.append((KeyKind.METADATA, (scope, value)))
    title = specific_title(paper.title, config.min_title_letters)
    if config.title_and_first_author and title:
        if surname := first_surname(paper.authors):
            found.append((KeyKind.TITLE_AUTHOR, (article_class(paper), title, surname)))
        found.append((KeyKind.TITLE, (title,)))
    if config.doi:
        found += [(KeyKind.DOI, (identifier,)) for identifier in identifiers(paper)]
    if config.file_stem and (stem := paper_stem(paper.paper_id)):
        found.append((KeyKind.STEM, (stem,)))
    return sorted(found)


def title_key(paper: Paper, config: VersionConfig) -> int:
    """Return a uint64 that is equal where titles agree; :data:`NO_TITLE` where the title says nothing."""
    title = specific_title(paper.title, config.min_title_letters)
    return key_of(title) if title else NO_TITLE


# --- what the keys are made of -----------------------------------------------------------------------

_CLASSES = (
    ("notice", re.compile(r"correct|corrigend|errat|retract|withdraw|expression.of.concern|addend")),
    ("comment", re.compile(r"comment|reply|response|letter|rebuttal")),
    ("review-of", re.compile(r"book.review|product.review|referee|reviewer|peer.?review|decision")),
    ("supplement", re.compile(r"supplement|appendix|data.?set")),
)


def article_class(paper: Paper) -> str:
    """Return ``paper``, ``notice``, ``comment``, ``review-of`` or ``supplement``, from type and title.

    A review article is a paper; a book review is not.
    """
    term = (paper.article_type or "").lower()
    for name, pattern in _CLASSES:
        if pattern.search(term):
            return name
    heading = _TITLE_PREFIX.match(paper.title)
    if heading is None:
        return "paper"
    return next(name for name, pattern in _CLASSES if pattern.search(heading[1].lower()))


_TITLE_PREFIX = re.compile(
    r"\s*((?:author |publisher )?correction|corrigend(?:um|a)|errat(?:um|a)|retract(?:ion|ed)(?: article)?|"
    r"withdrawn|expression of concern|addendum|comment(?:ary)?|reply|response|supplement(?:ary|al)? "
    r"(?:materials?|information|data))\s*(?:[:.—–-]|on\b|to\b|for\b)",
    re.IGNORECASE,
)

# Versions of preprints: arXiv and bioRxiv v2, Research Square /v1, Preprints.org .v1, ChemRxiv -v2. F1000 and
# eLife number theirs .2. Elsewhere such an end may be part of the name.
_PREPRINT_DOI = re.compile(
    r"^10\.(?:48550|21203|26434|20944|31234|31219|31222|31223|31235|2139|22541|36227|5194/egusphere|1101/\d|"
    r"64898|35542|32942)"
)
_PREPRINT_VERSION = re.compile(r"[/.-]?v\d{1,2}$")
_NUMBERED_VERSION = re.compile(r"^(10\.(?:12688|7554)/.*\d)\.[1-9]\d?$")
_PLACEHOLDER_DOI = re.compile(r"^10\.(?:0000|1000|1234)/|[nx]{4}|1122445\.1122456|8888888|10\.475/123")
_ARXIV = re.compile(
    r"^(?:arxiv[:_-])?((?:(?:0[7-9]|[1-9]\d)(?:0[1-9]|1[0-2])\.\d{4,5})|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v\d{1,2})?$"
)


def identifiers(paper: Paper) -> list[str]:
    """Return a paper's DOI in lower case without version suffix, and its arXiv identifier as a DOI.

    The latter is taken from the parser's ``arxiv_id`` or from a file name like ``2401.00434v2.tei.xml``.
    """
    found = []
    doi = (doi_of(paper.doi) or "").lower().rstrip("/")
    if doi and not _PLACEHOLDER_DOI.search(doi):
        if _PREPRINT_DOI.match(doi):
            doi = _PREPRINT_VERSION.sub("", doi)
        elif numbered := _NUMBERED_VERSION.match(doi):
            doi = numbered[1]
        found.append(doi)
    for name in (paper.extra.get("arxiv_id", ""), stem_of(_key_in_source(paper.paper_id))):
        if match := _ARXIV.match(name.strip().lower()):
            found.append(f"10.48550/arxiv.{match[1]}")
    return sorted(set(found))


# Titles that many papers carry, compared as folded letters without digits: "Part 2" is no way around.
_GENERIC_TITLE_LINES = """
abbreviations
abstracts of oral presentations
abstracts of poster presentations
acknowledgement of reviewers
acknowledgement to reviewers
acknowledgment of reviewers
acknowledgments of reviewers
annual report of the editors
announcements and call for papers
author correction
author response
authors reply to the editor
book reviews and notices
conference abstracts
conference proceedings
contents of this volume
correction to this article
decision letter
editor in chief s note
editorial introduction
expression of concern
from the editor in chief
from the editors desk
guest editors introduction
highlights from this issue
highlights of this issue
in this issue of the journal
instructions for authors
introduction to the special issue
introduction to the special section
introduction to this special issue
letter to the editor
letters to the editor
list of contributors
list of publications
message from the editor in chief
message from the general chair
message from the program chairs
news and announcements
notes on contributors
online supplementary material
original research article
preface to the special issue
proceedings of the conference
publishers correction
referee report
research highlights of the month
response to reviewers comments
response to the reviewers
reviewer acknowledgement
supplementary appendix
supplementary information
supplementary material
supplementary materials
supporting information
table of contents
thanks to our reviewers
submitted manuscript version
"""
_GENERIC_TITLES = frozenset(re.sub(r"[^a-z]", "", line) for line in _GENERIC_TITLE_LINES.splitlines())

# A page's running head or a file's name where the parser looked for the title.
_NO_TITLE = re.compile(
    r"^\s*(?:microsoft\s+word|untitled|https?:|doi\b|arxiv:|under review as|(?:published|accepted) as a |"
    r"submitted to |contents lists available|proceedings of the )|\.(?:docx?|pdf|tex|indd|dvi)\s*$",
    re.IGNORECASE,
)


def specific_title(title: str, min_letters: int) -> str:
    """Return a title's folded letters and digits without spaces, or ``""`` if it names no single paper.

    Spaces go because parsers split words ("PROMPT-ING"); digits stay, since "Part 1" is not "Part 2".
    Refused are titles shorter than ``min_letters`` letters (ideographs, kana and Hangul count twice), of
    fewer than three words, generic ones, running heads and names of files.
    """
    if _NO_TITLE.search(title):
        return ""
    folded = folded_letters(title)
    letters = [c for c in folded if not c.isdigit()]
    wide = sum(c >= "\u1100" for c in letters)
    if len(letters) + wide < min_letters or (not wide and len(title.split()) < 3):
        return ""
    if "".join(letters) in _GENERIC_TITLES:
        return ""
    return folded


_SUFFIXES = frozenset(("jr", "jnr", "sr", "snr", "ii", "iii", "iv", "phd", "md", "msc", "dr", "prof"))


def first_surname(authors: list[str]) -> str:
    """Return the folded surname of the first author, ``""`` without authors.

    Names are "Given Surname"; "Surname, Given" and "Surname AB" are understood, too.
    """
    name = next((author for author in authors if folded_letters(author)), "")
    if "," in name:
        before, after = name.split(",", 1)
        if folded_letters(after) not in _SUFFIXES:
            name = before
        else:
            name = f"{before} {after}"
    parts = [(part, folded_letters(part)) for part in name.split()]
    parts = [(part, letters) for part, letters in parts if letters]
    while len(parts) > 1 and parts[-1][1] in _SUFFIXES:
        parts.pop()
    # "Smith AB": the surname stands before the initials. In capitals ("JING WU") they cannot be told apart.
    if not name.isupper() and len(parts) > 1 and len(parts[0][1]) > 2:
        while len(parts) > 1 and len(parts[-1][1]) <= 2 and parts[-1][0].replace(".", "").isupper():
            parts.pop()
    return parts[-1][1] if parts else ""


def folded_letters(text: str) -> str:
    """Return the letters and digits of a text, without case, accents, ligatures, spaces and punctuation."""
    decomposed = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in decomposed if c.isalnum())
    return unicodedata.normalize("NFC", kept.casefold())


_GENERIC_STEMS = re.compile(
    r"article|body|content|doc(?:ument)?|file|full[-_]?(?:text)?|grobid|index|main|manuscript|nougat|out(?:put)?|"
    r"page|paper|parsed|pdf|result|source|tei|text",
    re.IGNORECASE,
)


def paper_stem(paper_id: str) -> str:
    """Return what a file name says about the paper: its stem, or its folder's name where all are ``main``.

    Records of a container (``file.jsonl#7``) have none: the file's name is not theirs.
    """
    path = _key_in_source(paper_id)
    if "#" in path:
        return ""
    for part in [stem_of(path), *reversed(PurePosixPath(path).parent.parts)]:
        if not _GENERIC_STEMS.fullmatch(part):
            return part
    return ""


def _key_in_source(paper_id: str) -> str:
    return paper_id.partition("/")[2]


# --- which copy stays --------------------------------------------------------------------------------

_PREPRINT_VENUE = re.compile(
    r"arxiv|biorxiv|medrxiv|chemrxiv|eartharxiv|psyarxiv|socarxiv|essoar|\bssrn\b|preprint|research square|"
    r"techrxiv|openreview|authorea|\bosf\b",
    re.IGNORECASE,
)

SETTLED_RANK = 0
"""A rank better than any of :func:`keep_rank`: for a document that an earlier part of the corpus holds."""

_BITS = {"full_text": 1, "published": 1, "structure": 4, "format": 5, "length": 32, "newest": 12}


class KeepRank(NamedTuple):
    """How much a document deserves to stay among its copies; in every field the smaller is the better.

    Attributes:
        full_text: 1 if the document is shorter than a full text.
        published: 0 with a journal, a conference or its DOI; 1 for a preprint, or if nothing is known
            (another parse of the same PDF may just lack the metadata).
        structure: how many of title, abstract, authors, three headings, references, linked citations,
            formulas in LaTeX or as blocks, table cells and captions the parse lacks.
        format: place in the order of preferred formats.
        length: 2^32 − 1 less the characters of the document.
        newest: 4095 less the year, 4095 if unknown.
    """

    full_text: int
    published: int
    structure: int
    format: int
    length: int
    newest: int

    def packed(self, config: KeepConfig) -> int:
        """Return the rank as one uint64 from 1 to 2^63 that sorts by ``config.order``."""
        value = 0
        for name in config.order:
            value = value << _BITS[name] | int(getattr(self, name))
        return value + 1


def keep_rank(paper: Paper, characters: int, config: KeepConfig) -> KeepRank:
    """Return the rank by which one of several copies is kept, whatever they were found by.

    The smallest rank stays; copies equal in it are told apart by the smallest paper_id, so the order is total
    and depends on nothing but the documents. By default the rule reads: a full text before an abstract; the
    published version before a preprint; the parse with more of its structure; the preferred format (JATS,
    TEI, S2ORC, Nougat …); the longer text.

    Args:
        paper: the cleaned paper.
        characters: length of its rendered text.
        config: the order of the criteria.
    """
    formats = config.formats
    return KeepRank(
        full_text=int(characters < config.full_text_characters),
        published=int(not is_published(paper)),
        structure=len(missing_structure(paper)),
        format=formats.index(paper.format) if paper.format in formats else len(formats),
        length=max(0, 2**32 - 1 - characters),
        newest=4095 - min(max(paper.year or 0, 0), 4095),
    )


def is_published(paper: Paper) -> bool:
    """Return whether venue, DOI and type are those of a journal or conference, not of a preprint server."""
    doi = (doi_of(paper.doi) or "").lower()
    venue = paper.venue or ""
    if "preprint" in (paper.article_type or "").lower():
        return False
    return not _PREPRINT_VENUE.search(venue) and not _PREPRINT_DOI.match(doi) and bool(venue or doi)


def missing_structure(paper: Paper) -> list[str]:
    """Return which of nine kinds of structure a parse lacks, by name."""
    kinds = {"linked citations": False, "formulas": False, "table cells": False, "captions": False}
    for block in paper.blocks():
        kinds["formulas"] |= block.kind == "formula"
        kinds["table cells"] |= bool(block.cells)
        kinds["captions"] |= block.kind in ("figure", "table") and bool(block.inlines)
        for inline in block.inlines:
            if inline.kind == "citation":
                kinds["linked citations"] |= inline.target is not None
            elif inline.kind == "formula":
                kinds["formulas"] |= inline.target == "tex"
    has = {
        "title": bool(paper.title.strip()),
        "abstract": bool(paper.abstract),
        "authors": bool(paper.authors),
        "headings": sum(bool(section.heading.strip()) for section in paper.sections) >= 3,
        "references": bool(paper.references),
        **kinds,
    }
    return [name for name, present in has.items() if not present]
