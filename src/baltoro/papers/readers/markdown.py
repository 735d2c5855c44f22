"""Plain Markdown (CommonMark with GitHub tables and TeX formulas), with optional YAML front matter."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from typing import Any

import yaml

from baltoro.papers.readers._builder.build import build_paper
from baltoro.papers.readers._builder.draft import Source
from baltoro.papers.readers._markup.scanner import scan_blocks
from baltoro.papers.readers._text import collapse
from baltoro.papers.schema import Block, Inline, Paper, ReadReject

_FRONT_MATTER = re.compile(r"---[ \t]*\n")
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_LONGEST_FRONT_MATTER_CHARACTERS = 65_536
_LONGEST_EXTRA_CHARACTERS = 2_000
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_LIST_SEPARATOR = re.compile(r"\s*[;,]\s*")
_AUTHOR_SEPARATOR = re.compile(r"\s*;\s*|\s+and\s+|\s*,\s*")
_KNOWN_KEYS = {
    "title": "title",
    "author": "authors",
    "authors": "authors",
    "date": "year",
    "year": "year",
    "published": "year",
    "doi": "doi",
    "license": "license",
    "licence": "license",
    "keywords": "keywords",
    "tags": "keywords",
    "lang": "language",
    "language": "language",
    "journal": "venue",
    "venue": "venue",
    "abstract": "abstract",
}


def normalise_line_ends(text: str) -> str:
    """Return the text with ``\\n`` line ends and without a byte order mark."""
    text = text.lstrip("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def parse_markdown(text: str) -> Paper:
    """Return the paper of a Markdown file.

    Front matter fills title, authors, year, doi, license, keywords, language, venue and abstract; its
    other scalar keys go to ``extra``. Without a title there, a first heading is the title. Names between
    the title and an abstract are the authors, and addresses there go to ``extra["front_matter"]``; in a
    text without abstract only a marked author line under the title (``By A B``, ``*A B*, *C D*``) is one.
    HTML comments are removed and counted in ``extra["comments_removed"]``.

    Args:
        text: the decoded file.

    Raises:
        ReadReject: ``empty_file`` for white space only, ``no_text`` if there is no text beside markup.
    """
    text = normalise_line_ends(text)
    if not text or text.isspace():
        raise ReadReject("empty_file", "the Markdown file is empty or holds only white space")
    paper = Paper()
    body = text
    front = _front_matter(text)
    if front is not None:
        metadata, end = front
        _fill(paper, metadata)
        body = text[end:]
    scanned = scan_blocks(body, "markdown")
    counts: Counter[str] = Counter({"comments_removed": scanned.comments.total()})
    return build_paper(Source(scanned.blocks, "markdown", paper, scanned.link_names, counts))


def _front_matter(text: str) -> tuple[dict[Any, Any], int] | None:
    """Return the YAML mapping at the start of the text and where the text goes on, or nothing."""
    start = _FRONT_MATTER.match(text)
    if start is None:
        return None
    end = _FRONT_MATTER_END.search(text, start.end(), start.end() + _LONGEST_FRONT_MATTER_CHARACTERS)
    if end is None:
        return None
    try:
        metadata = yaml.safe_load(text[start.end() : end.start()])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # a ruler and text, not front matter: it is read as Markdown
    return (metadata, end.end()) if isinstance(metadata, dict) else None


def _fill(paper: Paper, metadata: dict[Any, Any]) -> None:
    for key, value in metadata.items():
        name = str(key).strip().lower()
        match _KNOWN_KEYS.get(name):
            case "title":
                paper.title = _scalar(value)
            case "authors":
                paper.authors = _authors(value)
            case "year":
                year = _YEAR.search(_scalar(value))
                paper.year = int(year[0]) if year else paper.year
            case "doi":
                doi = _DOI.search(_scalar(value))
                paper.doi = doi[0] if doi else None
            case "license":
                paper.license = _scalar(value) or paper.license
            case "keywords":
                paper.keywords += _words(value)
            case "language":
                paper.language = _scalar(value) or None
            case "venue":
                paper.venue = _scalar(value) or None
            case "abstract":
                abstract = _scalar(value)
                paper.abstract = [Block("paragraph", [Inline("text", abstract)])] if abstract else []
            case _:
                words = _scalar(value)
                if words:
                    paper.extra[name] = words[:_LONGEST_EXTRA_CHARACTERS]


def _scalar(value: Any) -> str:
    """Return a YAML scalar as text; a list or mapping gives nothing."""
    if isinstance(value, str | int | float | datetime.date):
        return collapse(str(value))
    return ""


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [word for item in value if (word := _scalar(item))]
    return [word for word in _LIST_SEPARATOR.split(_scalar(value)) if word]


def _authors(value: Any) -> list[str]:
    """Return names from ``A and B``, a list of names, or a list of mappings with a name in them."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return [name for name in _AUTHOR_SEPARATOR.split(_scalar(value)) if name]
    names = []
    for item in value:
        if isinstance(item, dict):
            given = _scalar(item.get("given") or item.get("first_name") or item.get("given-names"))
            family = _scalar(item.get("family") or item.get("last_name") or item.get("family-names"))
            names.append(_scalar(item.get("name")) or collapse(f"{given} {family}"))
        else:
            names.append(_scalar(item))
    return [name for name in names if name]
