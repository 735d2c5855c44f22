"""LaTeX that does not balance."""

import pytest

from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.corpus.cleaning.formulas import missing_at_end
from baltoro.papers.schema import Block, Inline


@pytest.mark.parametrize(
    "latex",
    [
        "x",
        r"\frac{a}{b}",
        r"\{a_{i}\}_{i=1}^{n}",
        r"\left(\frac{a}{b}\right]",
        r"\left\{x \right.",
        r"\begin{cases} a & b \\ c \end{cases}",
        r"a \leftarrow b \rightarrow \leftrightarrow c",
        r"\\{a}\\",
        r"\left\langle x \right\rangle",
    ],
)
def test_balanced_formulas_miss_nothing(latex):
    assert missing_at_end(latex) == []


@pytest.mark.parametrize(
    ("latex", "repaired"),
    [
        (r"\frac{a}{b", r"\frac{a}{b}"),
        (r"\begin{aligned} a &= b", r"\begin{aligned} a &= b\end{aligned}"),
        (r"\left(\frac{a}{b}", r"\left(\frac{a}{b}\right)"),
        (r"\left\{a", r"\left\{a\right\}"),
        (r"\left. a \middle| b", r"\left. a \middle| b\right."),
    ],
)
def test_one_missing_closing_delimiter_is_added(make_paper, printed, latex, repaired):
    paper = make_paper(Block("formula", [Inline("formula", latex, "tex")]))
    assert clean_paper(paper, CleanConfig()) == {"formulas_repaired": 1}
    assert printed(paper) == [repaired]


@pytest.mark.parametrize(
    "latex", ["a}", "{a}}{b}", r"{{a", r"\end{x}", r"\begin{a}\end{b}", r"\right)", "{a\\"]
)
def test_other_faults_are_kept_or_dropped_as_the_recipe_says(make_paper, printed, latex):
    def paper():
        return make_paper(
            Block("paragraph", [Inline("text", "so "), Inline("formula", latex, "tex")]), "End."
        )

    kept, dropped = paper(), paper()
    assert clean_paper(kept, CleanConfig()) == {}
    assert printed(kept) == [f"so {latex}", "End."]
    assert clean_paper(dropped, CleanConfig(formulas="repair_or_drop")) == {"formulas_dropped": 1}
    assert printed(dropped) == ["so ", "End."]


def test_a_dropped_display_formula_leaves_no_block(make_paper, printed):
    paper = make_paper("Text.", Block("formula", [Inline("formula", "a}", "tex")]))
    assert clean_paper(paper, CleanConfig(formulas="repair_or_drop")) == {
        "formulas_dropped": 1,
        "empty_blocks": 1,
    }
    assert printed(paper) == ["Text."]


def test_glyphs_are_not_latex_and_keep_leaves_everything(make_paper, printed):
    paper = make_paper(Block("formula", [Inline("formula", "{N i = r}}", None)]))
    assert clean_paper(paper, CleanConfig(formulas="repair_or_drop")) == {}
    paper = make_paper(Block("formula", [Inline("formula", "{a", "tex")]))
    assert clean_paper(paper, CleanConfig(formulas="keep")) == {}
