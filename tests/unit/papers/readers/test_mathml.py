"""Presentation MathML becomes the LaTeX an author would write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from baltoro.papers.readers.mathml import edge_spacing_as_spaces, mathml_to_latex, strip_tex_wrapping

NAMESPACE = "http://www.w3.org/1998/Math/MathML"


def latex(inner: str) -> str:
    return mathml_to_latex(etree.fromstring(f'<m:math xmlns:m="{NAMESPACE}">{inner}</m:math>'))


def test_prefix_and_namespace_do_not_matter():
    bare = mathml_to_latex(etree.fromstring("<math><msub><mi>v</mi><mi>p</mi></msub></math>"))
    default = mathml_to_latex(
        etree.fromstring(f'<math xmlns="{NAMESPACE}"><msub><mi>v</mi><mi>p</mi></msub></math>')
    )
    assert bare == default == latex("<m:msub><m:mi>v</m:mi><m:mi>p</m:mi></m:msub>") == "v_{p}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<m:mi>α</m:mi><m:mo>≤</m:mo><m:mi>Ω</m:mi>", r"\alpha\leq\Omega"),
        ("<m:mo>Δ</m:mo><m:mi>T</m:mi>", r"\Delta T"),
        ("<m:mi>sin</m:mi><m:mi>x</m:mi>", r"\sin x"),
        ("<m:mi>Nu</m:mi>", r"\mathrm{Nu}"),
        ('<m:mi mathvariant="normal">N</m:mi>', r"\mathrm{N}"),
        ('<m:mi mathvariant="bold">u</m:mi>', r"\mathbf{u}"),
        ('<m:mi mathvariant="script">L</m:mi>', r"\mathcal{L}"),
        ("<m:mi>𝑥</m:mi><m:mi>ℝ</m:mi><m:mi>𝐁</m:mi>", r"x\mathbb{R}\mathbf{B}"),
        ("<m:mn>40</m:mn><m:mo>%</m:mo>", r"40\%"),
        ("<m:mi>a</m:mi><m:mo>\u2062</m:mo><m:mi>b</m:mi>", "ab"),
        ("<m:ms>id</m:ms>", r'\text{"id"}'),
        ("<m:mtext>if dry</m:mtext>", r"\text{if dry}"),
        ("<m:mtext>β</m:mtext>", r"\beta"),
        ("<m:mtext>50% &amp; up</m:mtext>", r"\text{50\% \& up}"),
        ('<m:mi>a</m:mi><m:mspace width="2em"/><m:mi>b</m:mi>', r"a\quad b"),
        ('<m:mi>a</m:mi><m:mspace width="4.pt"/><m:mi>b</m:mi>', r"a\,b"),
        ('<m:mi>a</m:mi><m:mspace width="0"/><m:mi>b</m:mi>', "ab"),
        ("<m:msup><m:mi>x</m:mi><m:mn>2</m:mn></m:msup>", "x^{2}"),
        ("<m:msup><m:mi>f</m:mi><m:mo>′</m:mo></m:msup>", "f'"),
        ("<m:msup><m:mrow><m:mi>a</m:mi><m:mi>b</m:mi></m:mrow><m:mn>2</m:mn></m:msup>", "{ab}^{2}"),
        ("<m:msup><m:msup><m:mi>e</m:mi><m:mi>x</m:mi></m:msup><m:mn>2</m:mn></m:msup>", "{e^{x}}^{2}"),
        (
            "<m:msup><m:mrow><m:mo>(</m:mo><m:mi>a</m:mi><m:mo>)</m:mo></m:mrow><m:mn>2</m:mn></m:msup>",
            "(a)^{2}",
        ),
        ("<m:msup><m:mn>20</m:mn><m:mo>°</m:mo></m:msup>", r"20^{\circ}"),
        ("<m:msubsup><m:mi>σ</m:mi><m:mi>i</m:mi><m:mn>2</m:mn></m:msubsup>", r"\sigma_{i}^{2}"),
        (
            "<m:mfrac><m:mi>a</m:mi><m:mrow><m:mi>b</m:mi><m:mo>+</m:mo><m:mi>c</m:mi></m:mrow></m:mfrac>",
            r"\frac{a}{b+c}",
        ),
        ('<m:mfrac linethickness="0"><m:mi>n</m:mi><m:mi>k</m:mi></m:mfrac>', r"\genfrac{}{}{0pt}{}{n}{k}"),
        ('<m:mfrac bevelled="true"><m:mi>a</m:mi><m:mi>b</m:mi></m:mfrac>', "a/b"),
        ("<m:msqrt><m:mi>a</m:mi><m:mo>+</m:mo><m:mi>b</m:mi></m:msqrt>", r"\sqrt{a+b}"),
        ("<m:mroot><m:mi>x</m:mi><m:mn>3</m:mn></m:mroot>", r"\sqrt[3]{x}"),
        ("<m:munder><m:mi>lim</m:mi><m:mi>n</m:mi></m:munder>", r"\lim_{n}"),
        ("<m:munder><m:mi>A</m:mi><m:mo>*</m:mo></m:munder>", r"\underset{*}{A}"),
        ("<m:mover><m:mi>v</m:mi><m:mo>→</m:mo></m:mover>", r"\vec{v}"),
        ("<m:mover><m:mrow><m:mi>A</m:mi><m:mi>B</m:mi></m:mrow><m:mo>¯</m:mo></m:mover>", r"\overline{AB}"),
        ("<m:mover><m:mo>→</m:mo><m:mi>λ</m:mi></m:mover>", r"\overset{\lambda}{\to}"),
        ("<m:mover><m:mi>S</m:mi><m:mrow/></m:mover>", "S"),
        (
            "<m:munder><m:munder><m:mi>q</m:mi><m:mo>⏟</m:mo></m:munder><m:mtext>dry</m:mtext></m:munder>",
            r"\underbrace{q}_{\text{dry}}",
        ),
        (
            "<m:munderover><m:mo>∑</m:mo><m:mrow><m:mi>i</m:mi><m:mo>=</m:mo><m:mn>1</m:mn></m:mrow>"
            "<m:mi>n</m:mi></m:munderover><m:mi>x</m:mi>",
            r"\sum_{i=1}^{n}x",
        ),
        (
            "<m:mmultiscripts><m:mi>C</m:mi><m:none/><m:mo>+</m:mo><m:mprescripts/><m:mn>6</m:mn><m:mn>14</m:mn>"
            "</m:mmultiscripts>",
            "{}_{6}^{14}C^{+}",
        ),
        ("<m:mfenced><m:mi>a</m:mi><m:mi>b</m:mi></m:mfenced>", r"\left(a,b\right)"),
        ('<m:mfenced open="|" close="|" separators=""><m:mi>a</m:mi></m:mfenced>', r"\left|a\right|"),
        ('<m:mfenced open="[" close=""><m:mi>a</m:mi></m:mfenced>', r"\left[a\right."),
        ('<m:menclose notation="box"><m:mi>a</m:mi></m:menclose>', r"\boxed{a}"),
        ('<m:menclose notation="longdiv"><m:mi>a</m:mi></m:menclose>', "a"),
        ("<m:mstyle><m:mpadded><m:mi>a</m:mi></m:mpadded></m:mstyle>", "a"),
        ("<m:mphantom><m:mi>a</m:mi></m:mphantom><m:mi>b</m:mi>", r"\phantom{a}b"),
        ("<m:ghost>k<m:mi>a</m:mi></m:ghost>", "ka"),
    ],
)
def test_element_becomes_its_latex(source, expected):
    assert latex(source) == expected


def table(rows: str, attributes: str = "") -> str:
    return f"<m:mtable{attributes}>{rows}</m:mtable>"


ROW = "<m:mtr><m:mtd><m:mi>{}</m:mi></m:mtd><m:mtd><m:mi>{}</m:mi></m:mtd></m:mtr>"


def test_tables_become_the_environment_their_place_asks_for():
    rows = ROW.format("a", "b") + ROW.format("c", "d")
    assert latex(table(rows)) == r"\begin{matrix}a & b \\ c & d\end{matrix}"
    assert latex(table(rows, ' displaystyle="true"')) == r"\begin{aligned}a & b \\ c & d\end{aligned}"
    assert latex(f"<m:mo>{{</m:mo>{table(rows)}") == r"\begin{cases}a & b \\ c & d\end{cases}"
    assert latex(table(ROW.format("a", "b"))) == "ab", "one row is a line, not a matrix"


def test_tex_annotation_is_preferred_and_other_annotations_are_not_printed_twice():
    source = (
        "<m:semantics><m:mi>x</m:mi><m:annotation encoding='{}'>{}</m:annotation>"
        "<m:annotation-xml encoding='MathML-Content'><m:ci>x</m:ci></m:annotation-xml></m:semantics>"
    )
    assert latex(source.format("application/x-tex", "$E_k$")) == "E_k"
    assert latex(source.format("StarMath 5.0", "x")) == "x"


def test_spacing_at_the_ends_becomes_a_space_outside_the_formula():
    assert latex('<m:mi>a</m:mi><m:mspace width="0.3em"/>') == "a "
    assert latex("<m:mtext>\u00a0</m:mtext><m:mi>a</m:mi>") == " a"
    assert edge_spacing_as_spaces(r"a\\") == r"a\\", "a line break is not spacing"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"\documentclass[12pt]{minimal}\usepackage{amsmath}\begin{document}$$a^2$$\end{document}", "a^2"),
        ("\\begin {document}\n $\\Delta $\\end{document}", r"\Delta"),
        (r"\[ x \]", "x"),
        (r"\( x \)", "x"),
        (r"\begin{equation*}x=1\end{equation*}", "x=1"),
        (r"\begin{aligned}a&=b\end{aligned}", r"\begin{aligned}a&=b\end{aligned}"),
        (r"$a$ and $b$", r"$a$ and $b$"),
        (r"$\$5$", r"\$5"),
        (r"\documentclass{minimal}\begin{document}\end{document}", ""),
    ],
)
def test_tex_preamble_and_delimiters_are_stripped(source, expected):
    assert strip_tex_wrapping(source) == expected


LETTERS = st.sampled_from("abcdefghkmnpqrsuvwxyz")
ARITIES = {
    "mrow": 3,
    "msup": 2,
    "msub": 2,
    "mfrac": 2,
    "msqrt": 1,
    "mover": 2,
    "munder": 2,
    "mstyle": 1,
    "msubsup": 3,
}


@st.composite
def formulas(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        letter = draw(LETTERS)
        return f"<mi>{letter}</mi>", [letter]
    name = draw(st.sampled_from(sorted(ARITIES)))
    parts = [draw(formulas(depth=depth - 1)) for _ in range(ARITIES[name])]
    return f"<{name}>{''.join(source for source, _ in parts)}</{name}>", [
        x for _, letters in parts for x in letters
    ]


@given(formulas())
def test_every_letter_stays_and_braces_balance(formula):
    source, letters = formula
    result = mathml_to_latex(etree.fromstring(f"<math>{source}</math>"))
    without_commands = result
    for command in (r"\overset", r"\underset", r"\frac", r"\sqrt"):
        without_commands = without_commands.replace(command, "")
    assert sorted(c for c in without_commands if c.isalpha()) == sorted(letters)
    assert result.count("{") == result.count("}")


def test_nesting_up_to_the_parser_bound_is_converted():
    depth = 250
    assert mathml_to_latex(etree.fromstring("<mrow>" * depth + "<mi>x</mi>" + "</mrow>" * depth)) == "x"


def test_real_formulas_convert_without_leftovers(sample_data):
    seen = 0
    for path in sorted((sample_data / "jats").glob("*/*")):
        for formula in etree.parse(path, etree.XMLParser(resolve_entities=False, load_dtd=False)).iter(
            f"{{{NAMESPACE}}}math"
        ):
            result = mathml_to_latex(formula)
            bare = result.replace(r"\{", "").replace(r"\}", "")
            assert bare.count("{") == bare.count("}"), result
            assert "\n" not in result
            seen += 1
    assert seen > 300
