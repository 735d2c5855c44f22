"""The reference list: one entry per cited work, from mixed, element and NLM citations alike."""

from __future__ import annotations

from lxml import etree

from baltoro.papers.readers._xml import all_text, children_of, collapse_space, element_text
from baltoro.papers.readers.jats.elements import XLINK_HREF, YEAR, clean_doi, doi_in, person
from baltoro.papers.readers.jats.handlers import HANDLERS
from baltoro.papers.readers.jats.walker import Walker
from baltoro.papers.schema import Reference

_CITATIONS = {"mixed-citation", "element-citation", "nlm-citation", "citation"}
_TITLE_TAGS = ("article-title", "chapter-title", "part-title", "data-title", "source")
# What a part of a citation is for; of one that has no entry nothing is used.
_PERSON, _GROUP, _YEAR, _TITLE, _COLLABORATION, _LINK, _IDENTIFIER = range(7)
_PART_ROLES = {
    **dict.fromkeys(("name", "string-name"), _PERSON),
    "person-group": _GROUP,
    "year": _YEAR,
    **dict.fromkeys(_TITLE_TAGS, _TITLE),
    "collab": _COLLABORATION,
    **dict.fromkeys(("ext-link", "uri", "comment"), _LINK),
    **dict.fromkeys(("pub-id", "object-id"), _IDENTIFIER),
}
_AUTHOR_GROUPS = {None, "author"}
_TITLE_WALKER = Walker(HANDLERS, {})


def read_reference(ref: etree._Element, references: list[Reference], labels: dict[str, str]) -> None:
    """Append the entry of a ``ref``; each of several works under one number is an entry of its own.

    Args:
        ref: the element.
        references: gets the entries.
        labels: gets the printed number of the ``ref``, by its id.
    """
    key = ref.get("id") or ""
    citations: list[etree._Element] = []
    for child in children_of(ref):
        tag = child.tag
        if tag in _CITATIONS:
            citations.append(child)
        elif tag == "citation-alternatives":
            # The element form has its parts tagged most completely.
            parts = sorted((part for part in child if part.tag in _CITATIONS), key=lambda part: part.tag)
            citations.extend(parts[:1])
        elif tag == "label":
            labels[key] = element_text(child)
    if not citations:
        note = " ".join(filter(None, (element_text(child) for child in ref if child.tag != "label")))
        if key or note:
            references.append(Reference(key, note))
        return
    for position, citation in enumerate(citations):
        own_key = key if position == 0 else citation.get("id") or ""
        if position and not own_key:
            continue
        references.append(_reference(citation, own_key))


def _reference(citation: etree._Element, key: str) -> Reference:
    authors: list[str] = []
    titles: dict[str, etree._Element] = {}
    links: list[etree._Element] = []
    year: int | None = None
    doi: str | None = None
    for child in children_of(citation):
        role = _PART_ROLES.get(child.tag)
        if role is None:
            continue
        if role == _PERSON:
            authors.append(person(child))
        elif role == _GROUP:
            if child.get("person-group-type") in _AUTHOR_GROUPS:
                for member in children_of(child):
                    member_role = _PART_ROLES.get(member.tag)
                    if member_role == _PERSON:
                        authors.append(person(member))
                    elif member_role == _COLLABORATION:
                        authors.append(element_text(member))
        elif role == _YEAR:
            match = YEAR.search(child.text or "") if year is None else None
            if match:
                year = int(match.group())
        elif role == _TITLE:
            titles.setdefault(child.tag, child)
        elif role == _COLLABORATION:
            authors.append(element_text(child))
        elif role == _LINK:
            links.append(child)
        elif doi is None and child.get("pub-id-type") == "doi":
            doi = clean_doi(element_text(child))
    title = ""
    for tag in _TITLE_TAGS:
        if tag in titles and (title := _TITLE_WALKER.string(titles[tag])):
            break
    return Reference(key, title or _citation_text(citation), authors, year, doi or _linked_doi(links))


def _linked_doi(links: list[etree._Element]) -> str | None:
    """Return the first DOI in addresses and comments, which name other things too."""
    for link in links:
        doi = doi_in(link.get(XLINK_HREF) or "") or doi_in(all_text(link))
        if doi is not None:
            return doi
    return None


def _citation_text(citation: etree._Element) -> str:
    """Return a citation's words as printed; the parts of an element citation are set apart."""
    if citation.tag in {"mixed-citation", "citation"}:
        return element_text(citation)
    return collapse_space(" ".join(map(str, citation.itertext()))).strip(" ")
