"""Formulas in TeX, MathML or glyphs, in a line and displayed, and the choice between representations."""

from __future__ import annotations

import re

from lxml import etree

from baltoro.papers.readers._xml import all_text, children_of
from baltoro.papers.readers.jats.elements import MATH, child_named
from baltoro.papers.readers.jats.flow import Flow
from baltoro.papers.readers.jats.walker import Handler, Walker, skip
from baltoro.papers.readers.mathml import edge_spacing_as_spaces, mathml_to_latex, strip_tex_wrapping
from baltoro.papers.schema import Block, Inline

_TEX_SYNTAX = re.compile(r"[\\^_{}]")


def _add_formula(flow: Flow, text: str, target: str | None) -> None:
    if not flow.is_string:
        flow.add("formula", text, target)
    elif target == "tex" and _TEX_SYNTAX.search(text):
        core = text.strip(" ")
        flow.add_text(text.replace(core, f"${core}$", 1))
    else:
        flow.add_text(text)


def _tex(_walker: Walker, element: etree._Element, flow: Flow) -> None:
    tex = strip_tex_wrapping(all_text(element))
    _add_formula(flow, edge_spacing_as_spaces(tex), "tex")


def _math(_walker: Walker, element: etree._Element, flow: Flow) -> None:
    latex = mathml_to_latex(element)
    if latex.strip(" "):
        _add_formula(flow, latex, "tex")
    else:
        _add_formula(flow, element.get("alttext") or "", None)


def _alternatives(walker: Walker, element: etree._Element, flow: Flow) -> None:
    """Read one of the representations of the same thing: TeX, MathML, a table, then text."""
    chosen = _chosen_alternative(walker, element)
    if chosen is not None:
        walker.block(chosen, flow)


def _formula_content(walker: Walker, element: etree._Element, flow: Flow) -> None:
    """Read a formula element: its TeX or MathML with the words around it, or its glyphs."""
    formulas = list(element.iter("tex-math", MATH))
    if not formulas:
        glyphs = _glyphs(walker, element)
        if glyphs:
            _add_formula(flow, glyphs, None)
        else:
            walker.counts["formulas_without_text"] += 1
        return
    flow.add_text(element.text)
    siblings = [child for child in element if child.tag == "tex-math"]
    for child in children_of(element):
        # TeX beside MathML without <alternatives> around them is the same formula twice.
        is_twin = bool(siblings) and child.tag == MATH
        if child.tag != "label" and not is_twin:
            handler = walker.handlers.get(child.tag)
            if handler is not None:
                handler(walker, child, flow)
            else:
                walker.content(child, flow)
        flow.add_text(child.tail)


def _glyphs(walker: Walker, element: etree._Element) -> str:
    flow = Flow([], is_flat=True, is_string=True)
    flow.add_text(element.text)
    for child in children_of(element):
        if child.tag == "textual-form" or child.tag not in walker.handlers:
            walker.content(child, flow)
        elif child.tag != "label":
            walker.handlers[child.tag](walker, child, flow)
        flow.add_text(child.tail)
    return flow.printed()


def _display_formula(walker: Walker, element: etree._Element, flow: Flow) -> None:
    label = child_named(element, "label")
    number = walker.string(label) if label is not None else None
    if flow.is_flat:
        flow.add_break()
        _formula_content(walker, element, flow)
        if number:
            flow.add_break()
            flow.add_text(number)
        flow.add_break()
        return
    flow.close()
    inner = Flow([], is_flat=True)
    _formula_content(walker, element, inner)
    spans = inner.build()
    if spans or number:
        flow.blocks.append(Block("formula", _one_formula(spans), [], number, element.get("id")))


def _chosen_alternative(walker: Walker, element: etree._Element) -> etree._Element | None:
    children = list(element)
    for tag in ("tex-math", MATH, "table", "textual-form"):
        for child in children:
            if child.tag == tag and (tag != "tex-math" or strip_tex_wrapping(all_text(child))):
                return child
    return next((child for child in children if walker.handlers.get(child.tag) is not skip), None)


def _one_formula(spans: list[Inline]) -> list[Inline]:
    r"""Join the spans of a displayed formula into one; words beside LaTeX become ``\text{…}``."""
    if len(spans) <= 1 and all(span.kind == "formula" for span in spans):
        return spans
    if not any(span.target == "tex" for span in spans):
        return [Inline("formula", "".join(span.text for span in spans))]
    parts = [
        span.text if span.target == "tex" or not span.text.strip() else f"\\text{{{span.text}}}"
        for span in spans
    ]
    return [Inline("formula", "".join(parts).strip(), "tex")]


FORMULA_HANDLERS: dict[str, Handler] = {
    "inline-formula": _formula_content,
    "chem-formula": _formula_content,
    "disp-formula": _display_formula,
    "alternatives": _alternatives,
    "tex-math": _tex,
    MATH: _math,
}
