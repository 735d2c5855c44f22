r"""LaTeX that does not balance: braces, ``\begin`` and ``\end``, ``\left`` and ``\right``.

A decoder that stops early leaves a formula open; one closing delimiter at the end makes it LaTeX again. Other
faults (a closing brace too many, an environment that another one ends) are garbled text and cannot be
repaired; a recipe keeps or drops such formulas. GeoGalactica cleans "malformed formulas" by rule as well (Lin
et al. 2024, section 4.1). Formulas given as glyphs are no LaTeX and are not looked at.
"""

from __future__ import annotations

import re

from baltoro.corpus.cleaning.config import FormulaChoice
from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import all_blocks
from baltoro.papers.schema import Paper

_TOKEN = re.compile(
    r"\\(begin|end)\s*\{([^{}]*)\}|\\(left|right)(?![a-zA-Z])\s*(\\?[^\sa-zA-Z]|\\[a-zA-Z]+)?|\\.|[{}]", re.S
)
_NOT_BRACES = re.compile(r"[^{}]+")
_NEEDS_A_PARSE = ("\\begin", "\\end", "\\left", "\\right", "\\{", "\\}", "\\\\")
_CLOSING = {
    "(": ")", "[": "]", r"\{": r"\}", "|": "|", r"\|": r"\|", "/": "/", ".": ".", r"\langle": r"\rangle",
    r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\vert": r"\vert", r"\Vert": r"\Vert",
    r"\lvert": r"\rvert",
    r"\lVert": r"\rVert", r"\lbrace": r"\rbrace", r"\lbrack": r"\rbrack",
}  # fmt: skip


def missing_at_end(latex: str) -> list[str] | None:
    r"""Return the delimiters that would close a formula, in order, or ``None`` if it is wrong before its end.

    >>> missing_at_end(r"\frac{a}{b")
    ['}']
    >>> missing_at_end(r"a}")
    """
    if "{" not in latex and "}" not in latex and "\\" not in latex:
        return []
    for word in _NEEDS_A_PARSE:
        if word in latex:
            return _missing_at_end(latex)
    # Only braces that group are left: pairs are taken away from the inside out.
    braces = _NOT_BRACES.sub("", latex)
    while "{}" in braces:
        braces = braces.replace("{}", "")
    return [] if not braces else _missing_at_end(latex)


def _missing_at_end(latex: str) -> list[str] | None:
    opened: list[str] = []
    for match in _TOKEN.finditer(latex):
        token = match[0]
        if token == "{":
            opened.append("}")
        elif token == "}":
            if not opened or opened.pop() != "}":
                return None
        elif match[1] == "begin":
            opened.append(f"\\end{{{match[2]}}}")
        elif match[1] == "end":
            if not opened or opened.pop() != f"\\end{{{match[2]}}}":
                return None
        elif match[3] == "left":
            opened.append(f"\\right{_CLOSING.get(match[4] or '.', '.')}")
        elif match[3] == "right" and (not opened or not opened.pop().startswith("\\right")):
            return None
    return opened[::-1]


def balance_formulas(paper: Paper, choice: FormulaChoice, effects: Effects) -> None:
    """Repair or drop formulas that do not balance (``formulas_repaired``, ``formulas_dropped``)."""
    known: dict[str, list[str] | None] = {}
    for block in all_blocks(paper):
        dropped = False
        for inline in block.inlines:
            if inline.kind != "formula" or inline.target != "tex":
                continue
            if inline.text not in known:
                known[inline.text] = missing_at_end(inline.text)
            missing = known[inline.text]
            if missing == []:
                continue
            # A backslash at the very end would swallow what is appended.
            if missing is not None and len(missing) == 1 and not inline.text.endswith("\\"):
                repaired = inline.text.rstrip() + missing[0]
                if missing_at_end(repaired) == []:
                    effects.add("formulas_repaired", inline.text, repaired)
                    inline.text = repaired
                    continue
            if choice == "repair_or_drop":
                effects.add("formulas_dropped", inline.text, "")
                inline.text = ""
                dropped = True
        if dropped:
            block.inlines = [inline for inline in block.inlines if inline.text]
