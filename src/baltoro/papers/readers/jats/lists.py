"""Lists, footnotes and listings: what stands in blocks of its own kind."""

from __future__ import annotations

from lxml import etree

from baltoro.papers.readers._xml import all_text, children_of
from baltoro.papers.readers.jats.elements import child_named
from baltoro.papers.readers.jats.flow import Flow
from baltoro.papers.readers.jats.marks import marker, raised
from baltoro.papers.readers.jats.walker import Handler, Walker
from baltoro.papers.schema import Block, Inline


def _list(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if flow.is_flat:
        walker.separated(element, flow)
        return
    flow.close()
    list_type = element.get("list-type") or ""
    position = 0
    for child in children_of(element):
        if child.tag != "list-item":
            outer = Flow(flow.blocks)
            walker.block(child, outer)
            outer.close()
            continue
        position += 1
        label = child_named(child, "label")
        printed = walker.string(label) if label is not None else marker(list_type, position)
        item = Flow(
            flow.blocks,
            "list",
            label=printed or None,
            ref_id=child.get("id"),
            is_joined=True,
            is_label_printed=label is not None,
        )
        for part in children_of(child):
            if part.tag != "label":
                walker.block(part, item)
            item.add_text(part.tail)
        item.close()


def _definition_list(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if flow.is_flat:
        walker.separated(element, flow)
        return
    flow.close()
    for child in children_of(element):
        if child.tag != "def-item":
            outer = Flow(flow.blocks)
            walker.block(child, outer)
            outer.close()
            continue
        term = " ".join(filter(None, (walker.string(part) for part in child if part.tag == "term")))
        item = Flow(flow.blocks, "list", label=term or None, is_joined=True)
        for part in children_of(child):
            if part.tag not in {"term", "label"}:
                walker.separated(part, item)
        item.close()


def _footnote(walker: Walker, element: etree._Element, flow: Flow) -> None:
    """Read a footnote: in running text its marker stays and the note follows the paragraph."""
    label_element = child_named(element, "label")
    label = walker.string(label_element) if label_element is not None else None
    blocks: list[Block] = []
    note = Flow(blocks, "note", label=label or None, ref_id=element.get("id"))
    for child in children_of(element):
        if child.tag != "label":
            walker.block(child, note)
        note.add_text(child.tail)
    note.close()
    if flow.is_flat or not flow.is_empty:
        if label and not flow.is_string:
            flow.add("note_ref", raised(label), element.get("id"))
        flow.notes.extend(blocks)
    else:
        flow.close()
        flow.blocks.extend(blocks)


def _code(_walker: Walker, element: etree._Element, flow: Flow) -> None:
    text = all_text(element)
    if flow.is_flat or (element.tag == "code" and "\n" not in text and not flow.is_empty):
        flow.add_text(text)
        return
    flow.close()
    text = text.strip("\r\n")
    if text.strip():
        flow.blocks.append(Block("code", [Inline("text", text)], [], None, element.get("id")))


LIST_HANDLERS: dict[str, Handler] = {
    "list": _list,
    "def-list": _definition_list,
    "fn": _footnote,
    **dict.fromkeys(("preformat", "code"), _code),
}
