"""LaTeX for what MathML writes as characters and attribute values: commands, accents, alphabets."""

from __future__ import annotations

import unicodedata

_GREEK = (
    "alpha beta gamma delta zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon chi psi omega"
)
_GREEK_CAPITALS = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"


def _greek_commands() -> dict[str, str]:
    commands = {}
    for name in _GREEK.split():
        unicode_name = name.upper().replace("LAMBDA", "LAMDA")
        commands[unicodedata.lookup(f"GREEK SMALL LETTER {unicode_name}")] = f"\\{name}"
    for name in _GREEK_CAPITALS.split():
        unicode_name = name.upper().replace("LAMBDA", "LAMDA")
        commands[unicodedata.lookup(f"GREEK CAPITAL LETTER {unicode_name}")] = f"\\{name}"
    return commands


COMMANDS: dict[str, str] = {
    **_greek_commands(),
    # Unicode's lunate and straight forms are TeX's plain \epsilon and \phi.
    **{"ϵ": r"\epsilon", "ε": r"\varepsilon", "ϕ": r"\phi", "φ": r"\varphi", "ϑ": r"\vartheta"},
    **{"ϱ": r"\varrho", "ς": r"\varsigma", "ϖ": r"\varpi", "ϰ": r"\varkappa", "µ": r"\mu"},
    # Characters that LaTeX reads as syntax.
    **{"%": r"\%", "#": r"\#", "&": r"\&", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}"},
    **{"\\": r"\backslash", "~": r"\sim", "^": r"\wedge"},
    # Operators.
    **{"−": "-", "∗": "*", "⁎": "*", "×": r"\times", "÷": r"\div", "±": r"\pm", "∓": r"\mp"},
    **{"·": r"\cdot", "⋅": r"\cdot", "∙": r"\cdot", "•": r"\bullet", "∘": r"\circ", "°": r"^{\circ}"},
    **{"⊕": r"\oplus", "⊗": r"\otimes", "⊙": r"\odot", "⊖": r"\ominus", "†": r"\dagger", "⋆": r"\star"},
    **{"∑": r"\sum", "∏": r"\prod", "∐": r"\coprod", "∫": r"\int", "∬": r"\iint", "∭": r"\iiint"},
    **{"∮": r"\oint", "⋃": r"\bigcup", "⋂": r"\bigcap", "⋁": r"\bigvee", "⋀": r"\bigwedge"},
    **{"⨁": r"\bigoplus", "⨂": r"\bigotimes", "√": r"\surd", "∂": r"\partial", "∇": r"\nabla"},
    **{"∆": r"\Delta", "Ω": r"\Omega", "∞": r"\infty", "∝": r"\propto", "∅": r"\emptyset"},
    # Relations.
    **{"≤": r"\leq", "≥": r"\geq", "⩽": r"\leqslant", "⩾": r"\geqslant", "≪": r"\ll", "≫": r"\gg"},
    **{"≠": r"\neq", "≈": r"\approx", "≃": r"\simeq", "≅": r"\cong", "≡": r"\equiv", "∼": r"\sim"},
    **{"≲": r"\lesssim", "≳": r"\gtrsim", "≺": r"\prec", "≻": r"\succ", "∥": r"\parallel", "⊥": r"\perp"},
    **{"∈": r"\in", "∉": r"\notin", "∋": r"\ni", "⊂": r"\subset", "⊆": r"\subseteq", "⊃": r"\supset"},
    **{"⊇": r"\supseteq", "∪": r"\cup", "∩": r"\cap", "∖": r"\setminus", "∧": r"\wedge", "∨": r"\vee"},
    **{"¬": r"\neg", "∀": r"\forall", "∃": r"\exists", "∄": r"\nexists", "∴": r"\therefore"},
    **{"≔": ":=", "≜": r"\triangleq", "≐": r"\doteq", "∣": r"\mid", "∤": r"\nmid", "⊢": r"\vdash"},
    # Arrows.
    **{"→": r"\to", "←": r"\leftarrow", "↔": r"\leftrightarrow", "⇒": r"\Rightarrow"},
    **{"⇐": r"\Leftarrow", "⇔": r"\Leftrightarrow", "↦": r"\mapsto", "⟶": r"\longrightarrow"},
    **{"↑": r"\uparrow", "↓": r"\downarrow", "⇌": r"\rightleftharpoons", "⟵": r"\longleftarrow"},
    # Brackets, dots, primes and letters of their own.
    **{"⟨": r"\langle", "⟩": r"\rangle", "〈": r"\langle", "〉": r"\rangle", "⌊": r"\lfloor"},
    **{"⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil", "‖": r"\|", "…": r"\ldots", "⋯": r"\cdots"},
    **{"⋮": r"\vdots", "⋱": r"\ddots", "′": r"\prime", "″": r"\prime\prime", "ℏ": r"\hbar"},
    **{"ℓ": r"\ell", "ℜ": r"\Re", "ℑ": r"\Im", "ℵ": r"\aleph", "℘": r"\wp"},
    # Invisible operators (function application, times, separator, plus) and white space.
    **{"\u2061": "", "\u2062": "", "\u2063": "", "\u2064": "", "\u200b": "", "\u2060": ""},
    **{"\u00a0": r"\ ", "\u2009": r"\,", "\u200a": r"\,", "\u2002": r"\ ", "\u2003": r"\quad "},
    **{"\u2005": r"\:", "\u2004": r"\;", "\u2006": r"\,", "\u202f": r"\,", "\u205f": r"\:"},
}
_FUNCTION_NAMES = (
    "arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim liminf limsup ln"
    " log max min Pr sec sin sinh sup tan tanh"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_LIMIT_COMMANDS = (
    r"\sum \prod \coprod \int \iint \iiint \oint \bigcup \bigcap \bigvee \bigwedge \bigoplus \bigotimes"
    r" \lim \liminf \limsup \max \min \sup \inf \det \gcd \Pr"
)
LIMITS = frozenset(_LIMIT_COMMANDS.split())
ACCENTS_OVER: dict[str, tuple[str, str]] = {
    **dict.fromkeys("^ˆ\u0302", (r"\hat", r"\widehat")),
    **dict.fromkeys("~˜∼\u0303", (r"\tilde", r"\widetilde")),
    **dict.fromkeys("¯‾―_ˉ−-\u0304\u0305", (r"\bar", r"\overline")),
    **dict.fromkeys("→⃗⇀", (r"\vec", r"\overrightarrow")),
    **dict.fromkeys("˙.·\u0307", (r"\dot", r"\dot")),
    **dict.fromkeys("¨\u0308", (r"\ddot", r"\ddot")),
    **dict.fromkeys("ˇ\u030c", (r"\check", r"\check")),
    **dict.fromkeys("˘\u0306", (r"\breve", r"\breve")),
    "´": (r"\acute", r"\acute"),
    "`": (r"\grave", r"\grave"),
    "←": (r"\overleftarrow", r"\overleftarrow"),
    "⏞": (r"\overbrace", r"\overbrace"),
    "︷": (r"\overbrace", r"\overbrace"),
}
ACCENTS_UNDER: dict[str, str] = {
    **dict.fromkeys("_¯‾ˍ―\u0332", r"\underline"),
    **dict.fromkeys("⏟︸", r"\underbrace"),
}
VARIANTS: dict[str, str] = {
    "normal": r"\mathrm",
    "bold": r"\mathbf",
    "bold-italic": r"\boldsymbol",
    "double-struck": r"\mathbb",
    "script": r"\mathcal",
    "bold-script": r"\mathcal",
    "fraktur": r"\mathfrak",
    "bold-fraktur": r"\mathfrak",
    "sans-serif": r"\mathsf",
    "bold-sans-serif": r"\mathsf",
    "monospace": r"\mathtt",
    "italic": r"\mathit",
}
UPRIGHT = VARIANTS["normal"]
MATH_LETTER_STYLES: tuple[tuple[str, str], ...] = (
    ("DOUBLE-STRUCK", r"\mathbb"),
    ("SCRIPT", r"\mathcal"),
    ("FRAKTUR", r"\mathfrak"),
    ("BLACK-LETTER", r"\mathfrak"),
    ("MONOSPACE", r"\mathtt"),
    ("SANS-SERIF", r"\mathsf"),
    ("BOLD", r"\mathbf"),
)
ENCLOSURES: dict[str, str] = {
    "top": r"\overline",
    "actuarial": r"\overline",
    "bottom": r"\underline",
    "box": r"\boxed",
    "roundedbox": r"\boxed",
    "updiagonalstrike": r"\cancel",
    "downdiagonalstrike": r"\bcancel",
    "radical": r"\sqrt",
}
DELIMITERS = {"": ".", "∣": "|"}
