"""Passages that documents share are cut from all but the first; nothing is lost, nothing else is cut."""

import random
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.dedup.config import RepeatedSpanConfig
from baltoro.corpus.dedup.keys import partition_of
from baltoro.corpus.dedup.repeated_spans import (
    SPAN_SCHEMA,
    CutText,
    cut_spans,
    find_repeats,
    span_keys,
    spans_by_document,
    without_empty_headings,
)

CONFIG = RepeatedSpanConfig(enabled=True)
LONG = (
    "This work was supported by the programme for the study of glaciers and all of their moraines and lakes."
)
ZH = "本研究得到国家冰川与冻土观测计划资助，数据由野外台站提供，作者感谢全体队员的辛勤工作与支持。"


def cut_all(texts, config=CONFIG, *, partitions=3, seed=None):
    """Cut a list of texts, numbered in order; ``seed`` shuffles what is exchanged."""
    order = list(range(len(texts)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    rows = pa.concat_tables([SPAN_SCHEMA.empty_table(), *(span_keys(texts[n], n, config) for n in order)])
    parts = partition_of(rows.column("key").to_numpy(), partitions)
    spans = spans_by_document([find_repeats(rows.filter(pa.array(parts == p))) for p in range(partitions)])
    return [cut_spans(text, spans.get(n, []), config) for n, text in enumerate(texts)]


def left(texts, config=CONFIG, **options):
    return [entry.text for entry in cut_all(texts, config, **options)]


def test_a_shared_paragraph_stays_in_the_first_document_only():
    texts = [f"One\n\n{LONG}\n\nEnd of one", f"{LONG}\n\nTwo", f"Three\n\n{LONG}"]
    assert left(texts) == [texts[0], "Two", "Three"]
    cut = cut_all(texts)[1]
    assert (cut.cut, cut.cut_bytes) == (((0, len(LONG)),), len(LONG))


def test_repeats_within_one_document_stay():
    text = f"{LONG}\n\nbetween\n\n{LONG}"
    assert left([text, "other"]) == [text, "other"]
    assert left([LONG, text]) == [LONG, "between"]


def test_the_length_is_counted_in_bytes():
    assert len(LONG) > 100
    assert len(ZH) < 100 < len(ZH.encode())
    assert left([f"a\n\n{ZH}", f"{ZH}\n\nb"]) == [f"a\n\n{ZH}", "b"]
    short = "x" * 99
    assert left([short, f"{short}\n\nb"]) == [short, f"{short}\n\nb"]
    assert left([short, f"{short}\n\nb"], RepeatedSpanConfig(min_bytes=99)) == [short, "b"]


def test_short_paragraphs_count_together():
    lines = [f"Line number {n} of a printed form" for n in range(4)]
    form = "\n\n".join(lines)
    assert all(len(line) < 100 for line in lines)
    assert left([f"a\n\n{form}", f"b\n\n{form}\n\nc"]) == [f"a\n\n{form}", "b\n\nc"]
    assert left([f"a\n\n{form}", f"b\n\n{lines[0]}\n\nc"])[1] == f"b\n\n{lines[0]}\n\nc"


def test_a_passage_is_shrunk_to_whole_paragraphs():
    texts = [f"start of one {LONG}", f"start of another {LONG}"]
    assert left(texts) == texts


def test_what_remains_can_be_nothing():
    assert cut_all([LONG, LONG])[1] == CutText("", ((0, len(LONG)),), len(LONG))


def test_neighbouring_passages_and_what_little_is_between_them_go_together():
    second = LONG.replace("glaciers", "permafrost")
    texts = [LONG, second, f"a\n\n{LONG}\n\n{second}\n\nb", f"c\n\n{LONG}\n\n*\n\n{second}\n\nd"]
    cuts = cut_all(texts)
    assert cuts[2].text == "a\n\nb"
    assert len(cuts[2].cut) == 1
    assert cuts[3].text == "c\n\n*\n\nd"
    assert cut_all(texts, RepeatedSpanConfig(max_gap_bytes=5))[3].text == "c\n\nd"


def test_items_of_a_list_are_cut_where_the_recipe_says_lines():
    lines = RepeatedSpanConfig(boundary="line")
    texts = [f"Yes\n{LONG}\nNo", f"One\n{LONG}\nTwo\n\nThree", f"{LONG}\n\nFour", f"Five\n{LONG}\n\nSix"]
    assert left(texts)[1:] == [texts[1], texts[2], texts[3]]
    assert left(texts, lines)[1:] == ["One\nTwo\n\nThree", "Four", "Five\n\nSix"]


def test_spans_of_another_text_are_refused():
    with pytest.raises(
        ValueError, match=r"spans: \(3, 9\) does not start and end at a line break .* 16 characters"
    ):
        cut_spans("one two\n\nthree x", [(3, 9)], CONFIG)
    with pytest.raises(ValueError, match="cut the text that the spans were found in"):
        cut_spans("one", [(0, 9)], CONFIG)


def test_without_repeats_a_text_stays_as_it_is():
    odd = f"\n\n a \n\n\n\n{LONG}\n"
    assert left([odd, "b"]) == [odd, "b"]


paragraphs = st.lists(
    st.sampled_from(["", "a", "b", "short line of text", LONG, ZH, LONG[::-1], "x" * 60, "y" * 60]),
    max_size=8,
)


@given(st.lists(paragraphs, min_size=1, max_size=6), st.integers(0, 99), st.integers(1, 4))
@settings(max_examples=80)
def test_every_paragraph_of_the_corpus_remains_in_its_first_document(documents, seed, partitions):
    texts = ["\n\n".join(parts) for parts in documents]
    cuts = cut_all(texts, partitions=partitions, seed=seed)
    assert cuts == cut_all(texts)
    assert cuts[0].text == texts[0]
    seen = set()
    for text, cut in zip(texts, cuts, strict=True):
        own = [p for p in text.split("\n\n") if p]
        remaining = [p for p in cut.text.split("\n\n") if p]
        assert {p for p in own if p not in seen} <= set(remaining)
        # A paragraph long enough by itself stands in one document only.
        assert not any(len(p.encode()) >= 100 and p in seen for p in remaining)
        seen |= set(own)
        assert "".join(text[a:b] for a, b in cut.cut).count("x" * 60) + cut.text.count(
            "x" * 60
        ) == text.count("x" * 60)


def test_the_printed_form_of_a_conference_is_cut_from_real_papers(real_papers):
    texts = [text for paper, text in real_papers if paper.source == "nougat_openreview"]
    start = time.process_time()
    cuts = cut_all(texts, RepeatedSpanConfig(boundary="line"))
    seconds = time.process_time() - start
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    cut_share = sum(cut.cut_bytes for cut in cuts) / (megabytes * 1e6)
    print(f"\n{seconds / megabytes * 1000:.0f} ms per MB, {cut_share:.1%} cut from {len(texts)} papers")
    assert cuts[0].text == texts[0]
    assert 0.01 < cut_share < 0.1
    passages = {texts[n][a:b] for n, cut in enumerate(cuts) for a, b in cut.cut}
    assert any("Guidelines:" in passage or "NeurIPS" in passage for passage in passages)
    assert seconds / megabytes < 0.5


def test_headings_that_a_cut_left_without_text_go_and_no_others():
    text = (
        "# Title\n\n## Abstract\n\nIce.\n\n## 1 Setting\n\n## 2 Methods\n\n### 2.1 Data\n\nCores.\n\n## 3 X"
    )
    assert without_empty_headings(text) == (
        "# Title\n\n## Abstract\n\nIce.\n\n## 2 Methods\n\n### 2.1 Data\n\nCores."
    )
    assert without_empty_headings("# Title\n\n## One\n\n### Two") == ""
    assert (
        without_empty_headings("No headings here.\n\n#hash is none") == "No headings here.\n\n#hash is none"
    )
