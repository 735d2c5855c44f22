"""Repairs of single characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.corpus.cleaning.characters import expand_ligatures, remove_invisible, repair_encoding
from baltoro.papers.schema import Block, Inline, Reference


@pytest.mark.parametrize(
    ("broken", "right"),
    [
        ("a likely 2.0Â°C target", "a likely 2.0°C target"),
        ("MÃ¼ller et al.", "Müller et al."),
        ("itâ€™s the crustâ€”mantle boundary", "it’s the crust—mantle boundary"),
        ("Ð“ÐµÐ¾Ð»Ð¾Ð³Ð¸Ñ\x8f", "Геология"),
        ("cafe\u0301 and A\u030a", "café and Å"),
    ],
)
def test_wrong_encodings_are_undone(broken, right):
    assert repair_encoding(broken) == right


@pytest.mark.parametrize(
    "text",
    [
        "10 e/Å², 3 Å³ and (2 Å–5 Å) in “Å”",
        "R Â Cunha and Ã Silva",
        "δ¹⁸O, σ₁₂, 5 × 10⁻³ m² s⁻¹, ≤ 3 ‰, «Geologie», naïve façade, Ærø",
        "α–β, ΔΔG°, ±2σ, µm², Ω·m, ½, §3, ¶",
        "地质学报，第3卷。Геология и разведка. 日本語、テスト。",
        "Ünal Öğüş, Şengör, Çağatay, Łódź, Ňufr, Nguyễn Văn Ân",
    ],
)
def test_real_scientific_text_is_left_alone(text):
    assert repair_encoding(text) == text


def test_ligatures_become_letters():
    assert (
        expand_ligatures("coeﬃcient of ﬂow, oﬀ, ﬁne, baﬄe, ﬅ, ﬆ")
        == "coefficient of flow, off, fine, baffle, st, st"
    )


def test_invisible_characters_vanish_and_line_separators_stay_breaks():
    assert remove_invisible("a\u200bb\u00adc\x00d\u2028e\tf\ng") == "abcd\ne\tf\ng"


def test_joiners_stay_where_they_shape_letters():
    persian, plain = "می\u200cشود", "ba\u200csalt"
    assert remove_invisible(persian) == persian
    assert remove_invisible(plain) == "basalt"


@given(st.text())
def test_removal_of_invisible_characters_is_idempotent_and_keeps_every_visible_character(text):
    once = remove_invisible(text)
    assert remove_invisible(once) == once
    assert [c for c in once if c.isalnum()] == [c for c in text if c.isalnum()]


def test_every_text_of_a_paper_is_repaired_and_formulas_are_not_reread(make_paper):
    paper = make_paper(
        Block("paragraph", [Inline("text", "inﬂow "), Inline("formula", "Ã©\u200b", "tex")], label="ﬁrst"),
        Block("table", [Inline("text", "ﬂux")], [["ﬁ"], ["a\x02b"]]),
        title="MÃ¼nchen",
        authors=["J. MÃ¼ller"],
        references=[Reference("b1", "Ice ﬂow", ["Ãsa Ek"])],
    )
    counts = clean_paper(paper, CleanConfig())
    assert (paper.title, paper.authors) == ("München", ["J. Müller"])
    assert paper.references[0].title == "Ice flow"
    first, second = paper.blocks()
    assert [i.text for i in first.inlines] == ["inflow ", "Ã©"]
    assert (first.label, second.cells) == ("first", [["fi"], ["ab"]])
    assert counts == {"unicode_repair": 2, "ligatures": 5, "control_characters": 2}


def test_nothing_is_repaired_where_the_rules_are_off(make_paper, printed):
    paper = make_paper("inﬂow \u200bin MÃ¼nchen")
    config = CleanConfig(unicode_repair=False, ligatures=False, control_characters=False)
    assert clean_paper(paper, config) == {}
    assert printed(paper) == ["inﬂow \u200bin MÃ¼nchen"]
