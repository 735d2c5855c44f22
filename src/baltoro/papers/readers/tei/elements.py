"""Names of elements and attributes, and what the walk through the text does with each element."""

from __future__ import annotations

from typing import Final

from lxml import etree

from baltoro.papers.fields import year_of
from baltoro.papers.schema import Inline

NS: Final = "{http://www.tei-c.org/ns/1.0}"
XML_ID: Final = "{http://www.w3.org/XML/1998/namespace}id"
XML_LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"

HEAD_TAG, LABEL, ROW, CELL, NOTE, LIST_BIBL = (
    NS + name for name in ("head", "label", "row", "cell", "note", "listBibl")
)
NAME_TAGS: Final = (NS + "forename", NS + "surname", NS + "genName")

# What the walk does with an element; one that has no entry is inline markup around text.
REFERENCE, FORMULA, PARAGRAPH, DIVISION, HEAD, FLOAT, LIST, TABLE, BREAK, APART = range(1, 11)
ROLES: Final[dict[str, int]] = {
    NS + name: role
    for role, names in {
        REFERENCE: ("ref",),
        FORMULA: ("formula",),
        PARAGRAPH: ("p", "ab", "quote", "lg", "sp"),
        DIVISION: ("div", "front", "body", "back", "abstract"),
        HEAD: ("head",),
        FLOAT: ("figure", "note"),
        LIST: ("list",),
        TABLE: ("table",),
        BREAK: ("s", "l", "lb", "pb", "cb", "label", "item", "row", "cell", "figDesc"),
        # The reference list, pictures, and funders as data, which repeat what stands in the text.
        APART: ("listBibl", "listOrg", "graphic"),
    }.items()
    for name in names
}


def year_in(date: etree._Element) -> int | None:
    """Return the year of a date element, by its attribute before its text."""
    return year_of(date.get("when")) or year_of(date.text)


def printed(inlines: list[Inline]) -> str:
    """Return the text of spans joined as printed."""
    return "".join(inline.text for inline in inlines)
