"""Tables: where one stands, and its cells on a grid of equal width (XHTML and OASIS models)."""

from __future__ import annotations

from collections.abc import Callable

from lxml import etree

from baltoro.papers.readers._xml import children_of, collapse_space
from baltoro.papers.readers.jats.elements import drop_namespaces

# What stands in a file as a span may be a slip of the hand; no printed table is larger.
_MAX_COLUMNS = 500
_MAX_ROWSPAN = 5000
_CELL_TAGS = {"td", "th", "entry"}
_ROW_GROUPS = {"thead", "tbody", "tfoot", "tgroup"}


def table_of(element: etree._Element) -> etree._Element | None:
    """Return the table that an element is or, as one of several representations, holds.

    XHTML and OASIS tables may come with a namespace of their own.
    """
    if element.tag in {"table", "array"}:
        return element
    if element.tag == "alternatives" or element.tag.startswith("{"):
        for table in element.iter("{*}table"):
            if table.tag.startswith("{"):
                drop_namespaces(table)
            return table
    return None


def table_cells(table: etree._Element, cell_text: Callable[[etree._Element], str]) -> list[list[str]]:
    """Return the rows of a table on a grid of equal width; rows without any text are left out.

    Args:
        table: a ``table`` or ``array``; tables inside its cells are not part of it.
        cell_text: gives the text of a cell that holds elements.
    """
    columns = {
        name: position for position, name in enumerate(spec.get("colname") for spec in table.iter("colspec"))
    }
    rows: list[list[str]] = []
    occupied: dict[int, int] = {}
    group: etree._Element | None = None
    for row in table.iter("tr", "row"):
        parent = row.getparent()
        if parent is not group:
            if parent is None or not _is_part_of(parent, table):
                continue
            # A cell cannot reach into the next group of rows, whatever its rowspan says.
            group, occupied = parent, {}
        texts: list[str] = []
        blocked, occupied = occupied, {}
        for column, rows_left in blocked.items():
            if rows_left > 1:
                occupied[column] = rows_left - 1
        for cell in children_of(row):
            if cell.tag not in _CELL_TAGS:
                continue
            while blocked and len(texts) in blocked:
                texts.append("")
            if len(cell):
                texts.append(cell_text(cell))
            else:
                text = cell.text
                texts.append(collapse_space(text).strip(" ") if text else "")
            if not columns and cell.get("colspan", "1") == "1" and cell.get("rowspan", "1") == "1":
                continue
            column_count, row_count = _spans(cell, columns)
            start = len(texts) - 1
            texts.extend([""] * (column_count - 1))
            if row_count > 1:
                for column in range(start, start + column_count):
                    occupied[column] = row_count - 1
        if any(texts):
            rows.append(texts)
    width = max(map(len, rows), default=0)
    for texts in rows:
        texts.extend([""] * (width - len(texts)))
    return rows


def _is_part_of(row_group: etree._Element, table: etree._Element) -> bool:
    """Whether rows belong to this table and not to one inside a cell."""
    ancestor: etree._Element | None = row_group
    while ancestor is not None and ancestor.tag in _ROW_GROUPS:
        ancestor = ancestor.getparent()
    return ancestor is table


def _spans(cell: etree._Element, columns: dict[str | None, int]) -> tuple[int, int]:
    """Return how many columns and rows a cell covers, by XHTML or OASIS attributes."""
    first, last = columns.get(cell.get("namest")), columns.get(cell.get("nameend"))
    if first is not None and last is not None and columns:
        column_count = last - first + 1
    else:
        column_count = _whole_number(cell.get("colspan"), 1)
    row_count = _whole_number(cell.get("rowspan"), _whole_number(cell.get("morerows"), 0) + 1)
    return min(max(column_count, 1), _MAX_COLUMNS), min(max(row_count, 1), _MAX_ROWSPAN)


def _whole_number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else default
