"""Running heads and page numbers."""

from baltoro.corpus.cleaning import CleanConfig, clean_paper

PAGE = "Basalt cools slowly under the ice sheet and cracks. " * 20


def cleaned(make_paper, *blocks, **fields):
    paper = make_paper(*blocks, **fields)
    counts = clean_paper(paper, CleanConfig())
    return [block.printed() for block in paper.blocks()], counts


def test_the_title_repeated_at_page_distance_goes(make_paper):
    texts, counts = cleaned(
        make_paper, *[PAGE, "COLD BASALT ON ICE"] * 3, PAGE, title="Cold basalt on ice sheets"
    )
    assert texts == [PAGE] * 4
    assert counts == {"running_heads": 3}


def test_author_heads_go_with_their_page_numbers(make_paper):
    heads = ["212 EK AND HOLM", "214 EK AND HOLM", "216 EK AND HOLM"]
    blocks = [text for head in heads for text in (PAGE, head)]
    texts, _ = cleaned(make_paper, *blocks, PAGE, authors=["Anna Ek", "Bo Holm"])
    assert texts == [PAGE] * 4


def test_heads_with_growing_page_numbers_go(make_paper):
    blocks = [text for n in (3, 5, 7) for text in (PAGE, f"Geology of the far north | {n}")]
    assert cleaned(make_paper, *blocks, PAGE)[0] == [PAGE] * 4


def test_a_head_in_the_middle_of_sentences_goes_and_they_are_joined(make_paper):
    first, last = PAGE + "The melt then", "rises to the surface. " + PAGE
    blocks = [text for _ in range(3) for text in (first, "Letters from the field", last)]
    texts, counts = cleaned(make_paper, *blocks)
    assert texts == [f"{first} {last}"] * 3
    assert counts == {"running_heads": 3, "sentences_joined": 3}


def test_words_that_introduce_formulas_and_repeated_questions_stay(make_paper):
    blocks = [PAGE, "For this forecaster, we have", PAGE, "Any other comments?"] * 5
    assert cleaned(make_paper, *blocks) == (blocks, {})


def test_short_distances_are_lists_not_pages(make_paper):
    blocks = [PAGE, *["Cold basalt on ice"] * 5]
    assert cleaned(make_paper, *blocks, title="Cold basalt on ice")[0] == blocks


def test_page_numbers_go_and_other_lone_numbers_stay(make_paper):
    blocks = [PAGE, "3", PAGE, "– 4 –", PAGE, "5", PAGE, "Page 6 of 12", PAGE, "第 7 页 共 12 页", PAGE]
    texts, counts = cleaned(make_paper, *blocks)
    assert texts == [PAGE] * 6
    assert counts == {"page_numbers": 5}
    table = [PAGE, "1", "2", "3", PAGE, "17", PAGE, "4", PAGE]
    assert cleaned(make_paper, *table) == (table, {})


def test_the_rule_can_be_switched_off(make_paper):
    paper = make_paper(PAGE, "Page 6 of 12", PAGE)
    assert clean_paper(paper, CleanConfig(running_heads=False)) == {}
