"""Presentation MathML to LaTeX.

Journals publish formulas as MathML, language models read LaTeX. The conversion follows the presentation
elements of MathML 3 (W3C Recommendation, chapter 3) one by one and works for any prefix or none. It
keeps every visible character: an element that is not known here contributes its text, a character
without a LaTeX command stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import zip_longest

from lxml import etree

from baltoro.papers.readers._latex_symbols import (
    ACCENTS_OVER,
    ACCENTS_UNDER,
    COMMANDS,
    DELIMITERS,
    ENCLOSURES,
    FUNCTIONS,
    LIMITS,
    MATH_LETTER_STYLES,
    UPRIGHT,
    VARIANTS,
)
from baltoro.papers.readers._xml import all_text, children_of, collapse_space

_Handler = Callable[[etree._Element], str]

_DOCUMENT_BEGIN = re.compile(r"\\begin\s*\{document\}")
_DOCUMENT_END = re.compile(r"\\end\s*\{document\}")
_DELIMITED = re.compile(
    r"\$\$(?P<a>.*)\$\$|\$(?P<b>(?:\\.|[^$\\])*)\$|\\\[(?P<c>.*)\\\]|\\\((?P<d>.*)\\\)"
    r"|\\begin\{(?P<env>equation\*?|displaymath|math)\}(?P<e>.*)\\end\{(?P=env)\}",
    re.DOTALL,
)
_ATOM = re.compile(r"[^\\]|\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\\[A-Za-z]+(?:\{[^{}]*\})+")
_COMMAND = re.compile(r"\\[A-Za-z]+(?=\{)")
_LEADING_SPACING = re.compile(r"^(?:\\[,:;! ]|\\q?quad(?![A-Za-z])| )+")
_TRAILING_SPACING = re.compile(r"(?:(?<!\\)\\[,:;! ]|\\q?quad(?![A-Za-z])|(?<!\\) )+$")
_LENGTH = re.compile(r"\s*(-?(?:\d+\.?\d*|\.\d+))\s*(em|ex|pt|px)")
_EM_PER_UNIT = {"em": 1.0, "ex": 0.5, "pt": 0.1, "px": 0.1}
_ENDS_IN_COMMAND = re.compile(r"\\[A-Za-z]+$")


def mathml_to_latex(element: etree._Element) -> str:
    r"""Return the LaTeX of a MathML element, without delimiters, on one line.

    A TeX annotation inside ``semantics`` is preferred to the conversion of the presentation tree. Spacing at
    either end of the formula becomes one plain space: it separates the formula from the words beside it.

    >>> from lxml import etree
    >>> formula = etree.fromstring("<math><msup><mi>x</mi><mn>2</mn></msup><mo>≤</mo><mi>α</mi></math>")
    >>> mathml_to_latex(formula)
    'x^{2}\\leq\\alpha'
    """
    return edge_spacing_as_spaces(collapse_space(_latex(element)))


def edge_spacing_as_spaces(latex: str) -> str:
    r"""Return LaTeX with the spacing commands at either end replaced by one plain space.

    >>> edge_spacing_as_spaces(r"x\,\quad ")
    'x '
    """
    if latex and latex[0] in "\\ ":
        latex = _LEADING_SPACING.sub(" ", latex)
    if latex and latex[-1] in ",:;! d":
        latex = _TRAILING_SPACING.sub(" ", latex)
    return latex


def strip_tex_wrapping(tex: str) -> str:
    r"""Return the formula of a TeX source without document preamble and outer maths delimiters.

    >>> strip_tex_wrapping(r"\documentclass{minimal}\begin{document}$$E=mc^2$$\end{document}")
    'E=mc^2'
    """
    if "\\begin" in tex:
        begin = _DOCUMENT_BEGIN.search(tex)
        if begin:
            end = _DOCUMENT_END.search(tex, begin.end())
            tex = tex[begin.end() : end.start() if end else len(tex)]
    tex = tex.strip()
    match = _DELIMITED.fullmatch(tex)
    if match:
        inner = next(match.group(name) for name in "abcde" if match.group(name) is not None).strip()
        # "$a$ and $b$" begins and ends with a delimiter, but not with the same pair.
        if "$" not in inner.replace("\\$", ""):
            tex = inner
    return tex


def _latex(element: etree._Element) -> str:
    tag = element.tag
    return (_HANDLERS.get(tag) or _handler(tag))(element)


def _handler(tag: str) -> _Handler:
    """Return what converts an element of any namespace, or takes it for a row."""
    return _HANDLERS.get(tag.rpartition("}")[2], _row)


def _local_name(element: etree._Element) -> str:
    return element.tag.rpartition("}")[2]


def _join(parts: Sequence[str]) -> str:
    """Concatenate, with a space only where a command would swallow the letter after it."""
    joined: list[str] = []
    previous = ""
    for part in parts:
        if not part:
            continue
        if (
            previous[-1:].isalpha()
            and part[0].isascii()
            and part[0].isalpha()
            and _ENDS_IN_COMMAND.search(previous)
        ):
            joined.append(" ")
        joined.append(part)
        previous = part
    return "".join(joined)


def _row(element: etree._Element) -> str:
    """Convert the children in a row; the row's own text, where a source has any, is kept."""
    parts: list[str] = []
    text = element.text
    if text and (text := text.strip()):
        parts.append(_escape(text))
    children = children_of(element)
    for position, child in enumerate(children, 1):
        tag = child.tag
        handler = _HANDLERS.get(tag) or _handler(tag)
        if handler is _table and position == len(children) and parts and parts[-1] == r"\{":
            parts[-1] = _table(child, "cases")
        else:
            parts.append(handler(child))
        tail = child.tail
        if tail and (tail := tail.strip()):
            parts.append(_escape(tail))
    return parts[0] if len(parts) == 1 else _join(parts)


def _argument(element: etree._Element, position: int) -> str:
    return _latex(element[position]) if position < len(element) else ""


@lru_cache(maxsize=4096)
def _character(character: str) -> str:
    command = COMMANDS.get(character)
    if command is not None:
        return command
    if ord(character) < 0x2100:
        return character
    name = unicodedata.name(character, "")
    plain = unicodedata.normalize("NFKC", character)
    is_letter_style = 0x1D400 <= ord(character) <= 0x1D7FF or (ord(character) < 0x2150 and len(plain) == 1)
    if not is_letter_style or plain == character:
        return character
    letter = COMMANDS.get(plain, plain)
    for style, command in MATH_LETTER_STYLES:
        if style in name:
            return f"{command}{{{letter}}}"
    return letter


def _escape(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text
    if len(text) == 1:
        return _character(text)
    return _join([_character(character) for character in text])


def _text(element: etree._Element) -> str:
    if not len(element):
        return (element.text or "").strip(" \t\r\n")
    glyphs = [node.get("alt") or "" for node in element if _local_name(node) == "mglyph"]
    return "".join([all_text(element), *glyphs]).strip(" \t\r\n")


def _identifier(element: etree._Element) -> str:
    text = _text(element)
    variant = element.get("mathvariant")
    if len(text) > 1:
        if text in FUNCTIONS:
            return f"\\{text}"
        latex = _escape(text)
        if not text.isascii() and not any(character.isascii() and character.isalpha() for character in text):
            return latex
        return f"{VARIANTS.get(variant or 'normal', UPRIGHT)}{{{latex}}}"
    latex = _character(text) if text else ""
    # TeX has no upright Greek without packages, and single letters are italic anyway.
    upright_symbol = variant == "normal" and not text.isascii()
    if variant in VARIANTS and variant != "italic" and text.isalpha() and not upright_symbol:
        return f"{VARIANTS[variant]}{{{latex}}}"
    return latex


def _operator(element: etree._Element) -> str:
    text = _text(element)
    if text in FUNCTIONS:
        return f"\\{text}"
    if len(text) > 1 and text.isascii() and text.isalpha():
        return f"\\operatorname{{{text}}}"
    return _escape(text)


def _number(element: etree._Element) -> str:
    return _escape(_text(element))


def _words(element: etree._Element) -> str:
    raw = all_text(element)
    text = " ".join(raw.replace("\u00a0", " ").split())
    if not text:
        return r"\ " if raw else ""
    if len(text) == 1 and not (text.isascii() and text.isalpha()):
        return _character(text)
    if text.replace(".", "", 1).isdigit():
        return text
    left = " " if raw[0].isspace() else ""
    right = " " if raw[-1].isspace() else ""
    # In text mode only the characters of TeX's own syntax need a backslash; symbols stay as they are.
    escaped = re.sub(r"([%#&_${}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    return f"\\text{{{left}{escaped}{right}}}"


def _string_literal(element: etree._Element) -> str:
    left, right = element.get("lquote") or '"', element.get("rquote") or '"'
    return f"\\text{{{left}{_text(element)}{right}}}"


def _space(element: etree._Element) -> str:
    if element.get("linebreak") == "newline":
        return r"\\ "
    match = _LENGTH.match(element.get("width") or "")
    width_em = float(match.group(1)) * _EM_PER_UNIT[match.group(2)] if match else 0.0
    if width_em >= 0.9:
        return r"\quad "
    return r"\," if width_em > 0 else ""


def _base(latex: str) -> str:
    """Return a base of scripts, in braces unless it is one atom or already bracketed."""
    if not latex:
        return "{}"
    if _ATOM.fullmatch(latex) or (latex[0] in "([" and latex[-1] in ")]") or latex.startswith(r"\left"):
        return latex
    return latex if _is_one_command(latex) else f"{{{latex}}}"


def _is_one_command(latex: str) -> bool:
    r"""Whether the text is one command with its arguments (``\frac{a}{b}``) and nothing after them."""
    command = _COMMAND.match(latex)
    if command is None:
        return False
    depth = 0
    for position in range(command.end(), len(latex)):
        character = latex[position]
        if latex[position - 1] != "\\":
            depth += (character == "{") - (character == "}")
        if depth == 0 and character != "}":
            return False
    return depth == 0


def _scripts(base: str, below: str, above: str) -> str:
    if not below and not above:
        return base
    result = _base(base)
    if below:
        result += f"_{{{below}}}"
    if above and set(above.replace(r"\prime", "'")) == {"'"}:
        result += above.replace(r"\prime", "'") if not below else f"^{{{above}}}"
    elif above:
        # A degree sign is a superscript of its own in TeX.
        result += f"^{{{above.removeprefix('^{').removesuffix('}') if above == COMMANDS['°'] else above}}}"
    return result


def _sub(element: etree._Element) -> str:
    return _scripts(_argument(element, 0), _argument(element, 1), "")


def _sup(element: etree._Element) -> str:
    return _scripts(_argument(element, 0), "", _argument(element, 1))


def _subsup(element: etree._Element) -> str:
    return _scripts(_argument(element, 0), _argument(element, 1), _argument(element, 2))


def _fraction(element: etree._Element) -> str:
    above, below = _argument(element, 0), _argument(element, 1)
    thickness = element.get("linethickness") or ""
    if re.fullmatch(r"0(\.0*)?[a-z%]*", thickness):
        return f"\\genfrac{{}}{{}}{{0pt}}{{}}{{{above}}}{{{below}}}"
    if element.get("bevelled") == "true":
        return f"{_base(above)}/{_base(below)}"
    return f"\\frac{{{above}}}{{{below}}}"


def _square_root(element: etree._Element) -> str:
    return f"\\sqrt{{{_row(element)}}}"


def _root(element: etree._Element) -> str:
    return f"\\sqrt[{_argument(element, 1)}]{{{_argument(element, 0)}}}"


def _mark(element: etree._Element, position: int) -> str:
    """Return the raw text of an accent or brace; ``""`` for an absent or empty one."""
    if position >= len(element):
        return ""
    return all_text(element[position]).strip()


def _has_limits(base: str) -> bool:
    return base in LIMITS or base.startswith((r"\operatorname", r"\overbrace", r"\underbrace"))


def _over(element: etree._Element) -> str:
    base, above = _argument(element, 0), _argument(element, 1)
    if not above:
        return base
    accent = ACCENTS_OVER.get(_mark(element, 1))
    if accent is not None and base and not _has_limits(base):
        narrow, wide = accent
        return f"{narrow if _ATOM.fullmatch(base) else wide}{{{base}}}"
    if _has_limits(base):
        return _scripts(base, "", above)
    return f"\\overset{{{above}}}{{{base}}}" if base else _scripts(base, "", above)


def _under(element: etree._Element) -> str:
    base, below = _argument(element, 0), _argument(element, 1)
    if not below:
        return base
    accent = ACCENTS_UNDER.get(_mark(element, 1))
    if accent is not None and base:
        return f"{accent}{{{base}}}"
    if _has_limits(base):
        return _scripts(base, below, "")
    return f"\\underset{{{below}}}{{{base}}}" if base else _scripts(base, below, "")


def _under_over(element: etree._Element) -> str:
    base, below, above = (_argument(element, position) for position in range(3))
    if _has_limits(base):
        return _scripts(base, below, above)
    result = f"\\underset{{{below}}}{{{base}}}" if below else base
    return f"\\overset{{{above}}}{{{result}}}" if above else result


def _multiscripts(element: etree._Element) -> str:
    """Convert base, pairs of post-scripts and, after ``mprescripts``, pairs of pre-scripts."""
    children = list(element)
    names = [_local_name(child) for child in children]
    split = names.index("mprescripts") if "mprescripts" in names else len(children)
    after = [_latex(child) for child in children[1:split]]
    before = [_latex(child) for child in children[split + 1 :]]
    result = ""
    for below, above in zip_longest(before[::2], before[1::2], fillvalue=""):
        result += _scripts("", below, above)
    base = _latex(children[0]) if children else ""
    for below, above in zip_longest(after[::2], after[1::2], fillvalue=""):
        base = _scripts(base, below, above)
    return _join([result, base])


def _table(element: etree._Element, environment: str = "") -> str:
    rows = []
    aligned = element.get("displaystyle") == "true"
    for row in element:
        if _local_name(row) not in {"mtr", "mlabeledtr"}:
            rows.append([_latex(row)])
            continue
        cells = [_latex(cell) for cell in row]
        if _local_name(row) == "mlabeledtr" and cells:
            cells = [*cells[1:], f"\\quad {cells[0]}"]
        rows.append(cells)
    if len(rows) == 1 and not environment:
        return _join(rows[0])
    environment = environment or ("aligned" if aligned else "matrix")
    body = r" \\ ".join(" & ".join(cells) for cells in rows)
    return f"\\begin{{{environment}}}{body}\\end{{{environment}}}"


def _fenced(element: etree._Element) -> str:
    opening = element.get("open", "(").strip()
    closing = element.get("close", ")").strip()
    separators = element.get("separators", ",").replace(" ", "")
    parts: list[str] = []
    children = list(element)
    for position, child in enumerate(children):
        if position and separators:
            parts.append(_character(separators[min(position - 1, len(separators) - 1)]))
        parts.append(_latex(child))
    inner = _join(parts)
    if not opening and not closing:
        return inner
    if opening == "{" and not closing and len(children) == 1 and _local_name(children[0]) == "mtable":
        return _table(children[0], "cases")
    left = DELIMITERS.get(opening) or _escape(opening)
    right = DELIMITERS.get(closing) or _escape(closing)
    return _join([f"\\left{left}", inner, f"\\right{right}"])


def _enclosed(element: etree._Element) -> str:
    inner = _row(element)
    for notation in (element.get("notation") or "").split():
        if notation in ENCLOSURES:
            inner = f"{ENCLOSURES[notation]}{{{inner}}}"
    return inner


def _phantom(element: etree._Element) -> str:
    return f"\\phantom{{{_row(element)}}}"


def _semantics(element: etree._Element) -> str:
    for child in element:
        if _local_name(child) == "annotation" and "tex" in (child.get("encoding") or "").lower():
            tex = strip_tex_wrapping(_text(child))
            if tex:
                return tex
    presentation = [child for child in element if _local_name(child) not in {"annotation", "annotation-xml"}]
    return _join([_latex(child) for child in presentation])


def _first_child(element: etree._Element) -> str:
    return _argument(element, 0)


def _nothing(element: etree._Element) -> str:  # noqa: ARG001  (one signature for all handlers)
    return ""


_HANDLERS_BY_NAME: dict[str, _Handler] = {
    "mi": _identifier,
    "mn": _number,
    "mo": _operator,
    "ms": _string_literal,
    "mtext": _words,
    "mspace": _space,
    "msub": _sub,
    "msup": _sup,
    "msubsup": _subsup,
    "mfrac": _fraction,
    "msqrt": _square_root,
    "mroot": _root,
    "munder": _under,
    "mover": _over,
    "munderover": _under_over,
    "mmultiscripts": _multiscripts,
    "mtable": _table,
    "mfenced": _fenced,
    "menclose": _enclosed,
    "mphantom": _phantom,
    "semantics": _semantics,
    "maction": _first_child,
    "none": _nothing,
    "annotation": _nothing,
    "annotation-xml": _nothing,
    "maligngroup": _nothing,
    "malignmark": _nothing,
}
_HANDLERS: dict[str, _Handler] = {
    **_HANDLERS_BY_NAME,
    **{
        f"{{http://www.w3.org/1998/Math/MathML}}{name}": handler
        for name, handler in _HANDLERS_BY_NAME.items()
    },
}
