"""Elements inside a paragraph, and paragraphs: marks, cross-references, links, quotes."""

from __future__ import annotations

import re

from lxml import etree

from baltoro.papers.readers._xml import all_text, children_of
from baltoro.papers.readers.jats.elements import XLINK_HREF
from baltoro.papers.readers.jats.flow import Flow
from baltoro.papers.readers.jats.marks import lowered, raised
from baltoro.papers.readers.jats.walker import Handler, Walker
from baltoro.papers.schema import InlineKind

_XREF_KINDS: dict[str | None, InlineKind] = {
    "bibr": "citation",
    "fig": "figure_ref",
    "plate": "figure_ref",
    "scheme": "figure_ref",
    "chart": "figure_ref",
    "video": "figure_ref",
    "table": "table_ref",
    "fn": "note_ref",
    "table-fn": "note_ref",
}
_CITATION_PARTS = {
    "collab",
    "source",
    "year",
    "article-title",
    "data-title",
    "volume",
    "fpage",
    "publisher-name",
}
_CITATION_SEPARATOR = re.compile(r"(\s*[,;]\s*)")


def _break(_walker: Walker, _element: etree._Element, flow: Flow) -> None:
    flow.add_break()


def _superscript(walker: Walker, element: etree._Element, flow: Flow) -> None:
    add_text = flow.add_text
    if not len(element):
        add_text(raised(element.text or "", with_dashes=True))
        return
    add_text(raised(element.text or ""))
    for child in children_of(element):
        tag = child.tag
        if tag == "xref":
            _xref(walker, child, flow, is_raised=True)
        elif tag in walker.handlers:
            walker.handlers[tag](walker, child, flow)
        else:
            add_text(raised(all_text(child)))
        add_text(raised(child.tail or ""))


def _subscript(walker: Walker, element: etree._Element, flow: Flow) -> None:
    # "CO2" is how subscripts are written in plain text, but "log102" is another number.
    if not len(element) and (element.tail or "")[:1].isdigit():
        flow.add_text(lowered(element.text or ""))
    else:
        walker.content(element, flow)


def _xref(walker: Walker, element: etree._Element, flow: Flow, *, is_raised: bool = False) -> None:
    kind = _XREF_KINDS.get(element.get("ref-type"), "text")
    target = element.get("rid")
    text = element.text or ""
    if len(element):
        raw = all_text(element)
        lead, trail = raw[:1].isspace(), raw[-1:].isspace()
        text = f"{' ' if lead else ''}{walker.string(element)}{' ' if trail else ''}"
    if flow.is_string or kind == "text":
        flow.add_text(raised(text) if is_raised else text)
        return
    if kind == "citation" and not text and target and not _is_inside_range(element):
        text = walker.reference_labels.get(target, "")
    if is_raised:
        text = raised(text)
    elif kind in {"citation", "note_ref"} and text[:1].isalnum():
        before, follows_xref = _character_before(element)
        if before.isalnum() and follows_xref:
            flow.add_break()
        elif before.isalnum():
            text = raised(text)
    if target and " " in target:
        targets = target.split()
        parts = _CITATION_SEPARATOR.split(text) if kind == "citation" else []
        if len(parts) == 2 * len(targets) - 1:
            for position, part in enumerate(parts):
                if position % 2:
                    flow.add_text(part)
                else:
                    flow.add(kind, part, targets[position // 2])
            return
        target = targets[0] if targets else None
    flow.add(kind, text, target)


def _link(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if len(element) or (element.text or "").strip():
        walker.content(element, flow)
    else:
        flow.add_text(element.get(XLINK_HREF))


def _name(walker: Walker, element: etree._Element, flow: Flow) -> None:
    for child in children_of(element):
        walker.separated(child, flow)


def _citation_part(walker: Walker, element: etree._Element, flow: Flow) -> None:
    """Read a part of a bibliographic entry inside text, set apart from a part it would run into."""
    previous = element.getprevious()
    if previous is not None and not previous.tail and previous.tag in _CITATION_PARTS:
        flow.add_break()
    walker.content(element, flow)


def _title(walker: Walker, element: etree._Element, flow: Flow) -> None:
    walker.separated(element, flow)
    if not (flow.is_flat or flow.is_joined):
        flow.flush()


def _label(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if not (flow.is_flat or flow.is_joined):
        flow.flush()
    walker.separated(element, flow)


def _paragraph(walker: Walker, element: etree._Element, flow: Flow) -> None:
    if flow.is_flat or flow.is_joined:
        walker.separated(element, flow)
        return
    flow.flush()
    if walker.marks_quotes and (
        walker.quote_depth or (walker.marks_italic_quotes and _is_in_italics(element))
    ):
        flow.add_text("> ")
    walker.content(element, flow)
    flow.flush()
    if flow.notes:
        flow.close()


def _quote(walker: Walker, element: etree._Element, flow: Flow) -> None:
    walker.quote_depth += 1
    walker.boxed(element, flow)
    walker.quote_depth -= 1


def _character_before(element: etree._Element) -> tuple[str, bool]:
    """Return the character printed before an element, and whether another cross-reference ends there."""
    previous = element.getprevious()
    if previous is None:
        parent = element.getparent()
        return ((parent.text or "") if parent is not None else "")[-1:], False
    if previous.tail:
        return previous.tail[-1:], False
    return all_text(previous)[-1:], previous.tag == "xref"


def _is_inside_range(empty: etree._Element) -> bool:
    """Whether an empty cross-reference is a member of a printed range (``3–5``), without print of its own."""
    before, after = empty.getprevious(), empty.getnext()
    follows = before is not None and before.tag == "xref" and not (before.tail or "").strip("-–— ")
    precedes = after is not None and after.tag == "xref" and not (empty.tail or "").strip("-–— ")
    return follows or precedes


def _is_in_italics(paragraph: etree._Element) -> bool:
    """Whether every word of a paragraph is in italics, as authors mark what they quote in a reply."""
    if any(map(str.isalnum, paragraph.text or "")) or not len(paragraph):
        return False
    for child in paragraph:
        inner = child
        while inner.tag == "xref" and len(inner) == 1 and not inner.text:
            inner = inner[0]
        if inner.tag != "italic" and any(map(str.isalnum, all_text(child))):
            return False
        if any(map(str.isalnum, child.tail or "")):
            return False
    return any(map(str.isalnum, all_text(paragraph)))


INLINE_HANDLERS: dict[str, Handler] = {
    "p": _paragraph,
    "xref": _xref,
    "sup": _superscript,
    "sub": _subscript,
    "ext-link": _link,
    "uri": _link,
    "name": _name,
    **dict.fromkeys(_CITATION_PARTS, _citation_part),
    "title": _title,
    "label": _label,
    "disp-quote": _quote,
    **dict.fromkeys(("break", "hr"), _break),
}
