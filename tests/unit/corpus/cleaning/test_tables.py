"""Tables of GROBID that are paragraphs."""

from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.papers.schema import Block, Inline

PROSE = (
    "The melt that rises below the ridge is in equilibrium with the mantle at the depth of its last contact. "
    "We show that this depth is a function of the spreading rate, and that the crust is thinner in slow "
    "ridges. "
)


def test_a_table_without_cells_that_is_prose_becomes_a_paragraph_with_its_spans(make_paper):
    inlines = [Inline("text", PROSE), Inline("citation", "[1]", "b1")]
    paper = make_paper(Block("table", inlines, ref_id="tab_1"))
    assert clean_paper(paper, CleanConfig()) == {"prose_tables": 1}
    (block,) = paper.blocks()
    assert (block.kind, block.inlines, block.ref_id) == ("paragraph", inlines, "tab_1")


def test_a_sentence_that_began_with_the_table_gets_its_first_words_back(make_paper, printed):
    paper = make_paper(Block("table", [Inline("text", "reports depths. " + PROSE)], label="Table 3"))
    clean_paper(paper, CleanConfig())
    assert printed(paper) == ["Table 3 reports depths. " + PROSE]


def test_cells_that_are_long_sentences_become_paragraphs_below_the_caption(make_paper):
    paper = make_paper(Block("table", [Inline("text", "Depths.")], [[PROSE], [PROSE, "x"]], label="Table 1"))
    assert clean_paper(paper, CleanConfig()) == {"prose_tables": 1}
    blocks = list(paper.blocks())
    assert [block.kind for block in blocks] == ["table", "paragraph", "paragraph", "paragraph"]
    assert blocks[0].cells == []


def test_real_tables_and_captions_stay(make_paper):
    tables = [
        Block("table", [Inline("text", PROSE)], [["a", "b"], ["1", "2"]], "Table 1"),
        Block("table", [Inline("text", "A long caption. " + PROSE)], label="Table 2"),
        Block("table", [Inline("text", "Depths in km.")]),
    ]
    paper = make_paper(*tables)
    assert clean_paper(paper, CleanConfig()) == {}
    in_jats = make_paper(Block("table", [], [[PROSE]], "Table 1"), format="jats")
    assert clean_paper(in_jats, CleanConfig()) == {}
