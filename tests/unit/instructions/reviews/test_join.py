"""Which reviews belong to which paper."""

import pytest

from baltoro.core.errors import InputError
from baltoro.instructions.reviews.config import JoinConfig
from baltoro.instructions.reviews.join import fill_empty, join, normalise_title, paper_key
from baltoro.instructions.reviews.records import ReviewedPaper
from baltoro.papers.schema import Block, Inline, Paper


def _paper(name, title="", **extra):
    return Paper(paper_id=f"s/{name}", uri=f"/data/{name}", title=title, extra=extra)


def _join(papers, reviewed, **config):
    settings = JoinConfig(**config)
    return join([paper_key(paper, settings) for paper in papers], reviewed, settings)


def test_stem_column_and_title_are_tried_in_this_order_and_counted():
    papers = [
        _paper("a.mmd", "Title of b"),
        _paper("x.tei.xml", "nothing", forum="b"),
        _paper("y.json", "A Note: on PROMPT-\nING"),
        _paper("V_9_content.json", "nothing else"),
        _paper("lonely.mmd", "Alone"),
    ]
    reviewed = [
        ReviewedPaper("a", title="Title of a"),
        ReviewedPaper("b", title="Title of b"),
        ReviewedPaper("17", title="A note: on prompting"),
        ReviewedPaper("nine", stem="V_9"),
        ReviewedPaper("z", title="Somewhere else"),
    ]
    found = _join(papers, reviewed, metadata_column="forum")
    assert {paper_id: one.key for paper_id, one in found.pairs.items()} == {
        "s/a.mmd": "a", "s/x.tei.xml": "b", "s/y.json": "17", "s/V_9_content.json": "nine"
    }  # fmt: skip
    assert found.found_by == {"stem": 2, "metadata": 1, "title": 1}
    assert [(reject.paper_id, reject.reason) for reject in found.rejects] == [
        ("s/lonely.mmd", "paper_without_reviews"), ("z", "reviews_without_paper")
    ]  # fmt: skip


def test_a_key_of_several_is_decided_by_title_and_never_guessed():
    papers = [_paper("one/304.json", "On melt"), _paper("two/304.json", "On ice"), _paper("b.json", "B")]
    reviewed = [ReviewedPaper("304", title="On ice"), ReviewedPaper("b", title="B")]
    found = _join(papers, reviewed)
    assert {paper_id: one.title for paper_id, one in found.pairs.items()} == {
        "s/two/304.json": "On ice", "s/b.json": "B"
    }  # fmt: skip
    assert [reject.reason for reject in found.rejects] == ["paper_without_reviews"]


def test_copies_share_one_set_of_reviews():
    papers = [_paper("x/a.mmd", "On melt"), _paper("y/a.mmd", "On melt")]
    found = _join(papers, [ReviewedPaper("a", title="On melt")])
    assert list(found.pairs) == ["s/x/a.mmd"]
    assert [(reject.paper_id, reject.reason) for reject in found.rejects] == [
        ("s/y/a.mmd", "another_copy_joined")
    ]


def test_the_order_of_the_input_changes_nothing():
    papers = [_paper(f"{number}.mmd", f"Title {number % 3}") for number in range(9)]
    reviewed = [ReviewedPaper(f"k{number}", title=f"Title {number}") for number in range(3)]
    one, other = _join(papers, reviewed), _join(papers[::-1], reviewed[::-1])
    assert {k: v.key for k, v in one.pairs.items()} == {k: v.key for k, v in other.pairs.items()}
    assert one.rejects == other.rejects


def test_a_pair_whose_titles_share_little_is_pointed_out():
    found = _join(
        [_paper("a.mmd", "Volcanic melt under Iceland")], [ReviewedPaper("a", title="Graph neural networks")]
    )
    assert found.titles_differ == ["s/a.mmd"]


def test_too_few_pairs_stop_with_five_examples_of_each_side():
    papers = [_paper(f"p{number}.mmd", f"Paper {number}") for number in range(7)]
    reviewed = [ReviewedPaper(f"r{number}", title=f"Review {number}") for number in range(6)]
    reviewed.append(ReviewedPaper("p0"))
    with pytest.raises(InputError) as caught:
        _join(papers, reviewed)
    message = caught.value.message
    assert "only 1 of 7 papers and reviews found their partner (14% of the smaller side)" in message
    assert all(f"p{number} ('Paper {number}')" in message for number in range(1, 6))
    assert all(f"r{number} ('Review {number}')" in message for number in range(5))
    assert "p6" not in message
    assert "metadata_column" in message
    assert len(_join(papers, reviewed, min_fraction=0.1).pairs) == 1


def test_the_fraction_is_of_the_smaller_side():
    papers = [_paper("a.mmd", "A")]
    reviewed = [ReviewedPaper(key, title=key) for key in ("a", "b", "c", "d")]
    assert len(_join(papers, reviewed).pairs) == 1
    with pytest.raises(InputError, match="nothing to join: 0 papers and 4 reviewed papers"):
        _join([], reviewed)


def test_empty_titles_and_abstracts_come_from_the_reviews():
    reviewed = ReviewedPaper("a", title="On melt", abstract="Melt rises.\n\nIt is hot.")
    paper = _paper("a.xml", "Artitle Title")
    full = fill_empty(paper, reviewed)
    assert (full.title, [block.printed() for block in full.abstract]) == (
        "On melt",
        ["Melt rises.", "It is hot."],
    )
    assert paper.title == "Artitle Title"
    own = _paper("a.xml", "My title")
    own.abstract = [Block("paragraph", [Inline("text", "My abstract")])]
    assert fill_empty(own, reviewed) is own


def test_titles_are_compared_without_accents_case_and_spaces():
    assert normalise_title("Étude—of  PROMPT-ING") == normalise_title("etude of prompting")
    assert normalise_title("Artitle Title") == ""
