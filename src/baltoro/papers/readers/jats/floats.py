"""Figures, tables and supporting information: label, caption, cells, and what stands below."""

from __future__ import annotations

from lxml import etree

from baltoro.papers.readers._xml import children_of
from baltoro.papers.readers.jats.elements import child_named
from baltoro.papers.readers.jats.flow import Flow
from baltoro.papers.readers.jats.tables import table_cells, table_of
from baltoro.papers.readers.jats.walker import Handler, Walker
from baltoro.papers.schema import Block, BlockKind

_SKIPPED_IN_FLOATS = {
    *("graphic", "inline-graphic", "object-id", "alt-text", "long-desc", "permissions", "kwd-group"),
    *("email", "ext-link", "uri", "subj-group", "fn-meta"),
}


def _caption(walker: Walker, element: etree._Element, flow: Flow, kind: BlockKind) -> list[etree._Element]:
    """Add a float's block (label and caption); return the children that stand below it."""
    caption = Flow([], is_flat=True)
    label = None
    below: list[etree._Element] = []
    for child in children_of(element):
        tag = child.tag
        if tag == "label":
            label = _without_colon(walker.string(child))
        elif tag in {"caption", "attrib"} or (tag == "p" and kind == "figure"):
            walker.separated(child, caption)
        elif tag not in _SKIPPED_IN_FLOATS:
            below.append(child)
    spans = caption.build()
    cells: list[list[str]] = []
    if kind == "table":
        # Only the first table belongs to the caption; more of them follow as blocks of their own.
        for position, child in enumerate(below):
            table = table_of(child)
            if table is not None:
                cells = _cells(walker, table, caption.notes)
                del below[position]
                break
    if spans or label or cells:
        flow.blocks.append(Block(kind, spans, cells, label, element.get("id")))
    flow.blocks.extend(caption.notes)
    return below


def _float(walker: Walker, element: etree._Element, flow: Flow, kind: BlockKind) -> None:
    if flow.is_flat:
        walker.separated(element, flow)
        return
    flow.close()
    for child in _caption(walker, element, flow, kind):
        walker.block(child, flow)
    flow.close()


def _figure(walker: Walker, element: etree._Element, flow: Flow) -> None:
    _float(walker, element, flow, "figure")


def _table_wrap(walker: Walker, element: etree._Element, flow: Flow) -> None:
    _float(walker, element, flow, "table")


def _media(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if len(element):
        _float(walker, element, flow, "figure")


def _supplement(walker: Walker, element: etree._Element, flow: Flow) -> None:
    """Read the label and caption of supporting information as a paragraph with a label."""
    if flow.is_flat:
        walker.separated(element, flow)
        return
    flow.close()
    label = child_named(element, "label")
    text = _without_colon(walker.string(label)) if label is not None else None
    inner = Flow(flow.blocks, label=text or None, ref_id=element.get("id"), is_joined=True)
    for child in children_of(element):
        if child.tag == "media":
            walker.separated(child, inner)
        elif child.tag != "label":
            walker.block(child, inner)
        inner.add_text(child.tail)
    inner.close()


def _table_foot(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if flow.is_flat:
        walker.separated(element, flow)
        return
    flow.close()
    notes = Flow(flow.blocks, "note")
    for child in children_of(element):
        walker.block(child, notes)
    notes.close()


def _bare_table(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if flow.is_flat:
        walker.separated(element, flow)
        return
    flow.close()
    notes: list[Block] = []
    cells = _cells(walker, element, notes)
    if cells:
        flow.blocks.append(Block("table", [], cells, None, element.get("id")))
    flow.blocks.extend(notes)


def _cells(walker: Walker, table: etree._Element, notes: list[Block]) -> list[list[str]]:
    return table_cells(table, lambda cell: walker.string(cell, notes))


def _without_colon(label: str) -> str:
    return label.rstrip(".: ")


FLOAT_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("fig", "fig-group"), _figure),
    **dict.fromkeys(("table-wrap", "table-wrap-group"), _table_wrap),
    "table-wrap-foot": _table_foot,
    **dict.fromkeys(("table", "array"), _bare_table),
    "media": _media,
    "supplementary-material": _supplement,
}
