"""The measuring collections hold the copies that they claim, whatever their size."""

import json

import pytest

from baltoro.corpus.words import ngram_hashes, words_of
from baltoro.papers import Paper, read
from baltoro.testing.collections import Plan, copy_of, make_text, write_collection, write_truth

PLAN = Plan(papers=120, words=300, exact_fraction=0.1, edited_fraction=0.1, reordered_fraction=0.1, seed=4)


def shingles(paper):
    text = " ".join(paragraph for _, paragraphs in paper.sections for paragraph in paragraphs)
    return set(ngram_hashes(words_of(text).hashes, 5).tolist())


def similarity(one, other):
    return len(one & other) / len(one | other)


def test_a_longer_collection_starts_with_the_shorter_one():
    longer = Plan(
        papers=10_000, words=300, exact_fraction=0.1, edited_fraction=0.1, reordered_fraction=0.1, seed=4
    )
    assert all(make_text(PLAN, index) == make_text(longer, index) for index in range(40))


def test_copies_are_what_they_are_called_and_unrelated_papers_share_nothing():
    papers = [make_text(PLAN, index) for index in range(PLAN.papers)]
    sets = [shingles(paper) for paper in papers]
    kinds = {"original": 0, "exact": 0, "edited": 0, "reordered": 0}
    for index in range(PLAN.papers):
        kind, original = copy_of(PLAN, index)
        kinds[kind] += 1
        if kind == "exact":
            assert papers[index] == papers[original]
        elif kind == "edited":
            assert 0.5 < similarity(sets[index], sets[original]) < 1
        elif kind == "reordered":
            assert similarity(sets[index], sets[original]) > 0.9
    assert min(kinds.values()) >= 5
    unrelated = [(i, j) for i in range(30) for j in range(i) if copy_of(PLAN, i)[1] != copy_of(PLAN, j)[1]]
    assert max(similarity(sets[i], sets[j]) for i, j in unrelated) < 0.02


@pytest.mark.parametrize(("format", "files"), [("s2orc", 3), ("jats", 120), ("markdown", 120)])
def test_a_written_collection_is_read_whole(tmp_path, format, files):
    written = write_collection(tmp_path / "papers", PLAN, format=format, papers_per_file=50)
    assert written.files == files
    found = {paper.paper_id: paper for paper in read(str(tmp_path / "papers"), source="s")}
    assert len(found) == PLAN.papers
    assert all(isinstance(paper, Paper) for paper in found.values())
    for key, (kind, original) in written.copies.items():
        if kind == "exact":
            assert found[f"s/{key}"].sections == found[f"s/{original}"].sections
    write_truth(tmp_path / "truth.json", written)
    assert json.loads((tmp_path / "truth.json").read_text()).keys() == written.copies.keys()


def test_chinese_papers_are_chinese():
    plan = Plan(papers=20, words=200, chinese_fraction=1.0, edited_fraction=0.3)
    for index in range(plan.papers):
        words = words_of(make_text(plan, index).sections[0][1][0])
        assert words.single.mean() > 0.95


def test_the_shortest_edited_paper_is_edited():
    plan = Plan(papers=60, words=20, edited_fraction=0.9, edit_share=0.001)
    edited = [index for index in range(plan.papers) if copy_of(plan, index)[0] == "edited"]
    assert len(edited) > 40
    assert all(make_text(plan, index) != make_text(plan, copy_of(plan, index)[1]) for index in edited)


def test_new_words_keep_coming_as_in_papers():
    plan = Plan(papers=40, words=3000)
    seen, sizes, words = set(), [], 0
    for index in range(plan.papers):
        for _, paragraphs in make_text(plan, index).sections:
            found = words_of(" ".join(paragraphs)).hashes.tolist()
            words += len(found)
            seen.update(found)
        sizes.append((words, len(seen)))
    at_50_000 = min(distinct for count, distinct in sizes if count >= 50_000)
    # Heaps' law of open-access papers: about 8,000 distinct words of 50,000, and a growth with the root.
    assert 6_000 < at_50_000 < 11_000
    assert 1.2 < sizes[-1][1] / at_50_000 < 1.8
