"""Names of elements and attributes, and the look-ups that several parts of an article share."""

from __future__ import annotations

import re

from lxml import etree

from baltoro.papers.readers._xml import all_text, children_of, collapse_space, element_text

XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
MATH = "{http://www.w3.org/1998/Math/MathML}math"

YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")
DOI = re.compile(r"10\.\d{4,9}/[^\s\"<>]+")

_PLAIN_NAMESPACES = ("jats.nlm.nih.gov", "dtd.nlm.nih.gov", "1999/xhtml", "oasis-exchange")


def drop_namespaces(tree: etree._Element) -> None:
    """Rename the elements of JATS, XHTML and OASIS tables in place, so that each has one name."""
    for element in tree.iter():
        namespace, _, name = element.tag.rpartition("}")
        if any(plain in namespace for plain in _PLAIN_NAMESPACES):
            element.tag = name


def child_named(element: etree._Element, tag: str) -> etree._Element | None:
    """Return the first child of a name; ``element.find`` without its path machinery."""
    for child in children_of(element):
        if child.tag == tag:
            return child
    return None


def doi_in(text: str) -> str | None:
    """Return the first DOI in a text or address, or ``None``."""
    match = DOI.search(text)
    return match.group().rstrip(".,;)") if match else None


def clean_doi(text: str) -> str | None:
    """Return the DOI in a text, or the text itself where it has none; ``None`` for an empty one."""
    return doi_in(text) or text.strip() or None


def contributor(contrib: etree._Element) -> str:
    """Return the name of an author, editor or group as printed; ``""`` where none is given."""
    for child in contrib:
        if child.tag == "name-alternatives" and len(child):
            child = child[0]  # noqa: PLW2901  (the first of several spellings of one name)
        if child.tag in {"name", "string-name"}:
            return person(child)
        if child.tag == "collab":
            # A group may list its members inside its own name.
            members = [part for part in child if part.tag == "contrib-group"]
            text = all_text(child)
            for member in members:
                text = text.replace(all_text(member), " ")
            return collapse_space(text).strip(" ,;")
        if child.tag == "anonymous":
            return "anonymous"
    return ""


def person(name: etree._Element) -> str:
    """Return ``"Given Surname Suffix"``; a name without these parts as printed."""
    surname: str | None = None
    given: str | None = None
    suffix: str | None = None
    for part in children_of(name):
        tag = part.tag
        if tag == "surname":
            surname = all_text(part) if len(part) else part.text
        elif tag == "given-names":
            given = all_text(part) if len(part) else part.text
        elif tag == "suffix":
            suffix = all_text(part)
    if surname and given and not suffix:
        full = f"{given} {surname}"
    elif surname or given:
        full = f"{given or ''} {surname or ''} {suffix or ''}"
    else:
        return element_text(name)
    return collapse_space(full).strip(" ")
