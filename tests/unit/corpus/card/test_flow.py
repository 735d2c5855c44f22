"""The picture of the flow: widths follow the numbers, and nothing is too small to be seen."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.card import DataCard
from baltoro.corpus.card.flow import flow_picture
from baltoro.corpus.decontamination.canaries import CanaryCounts
from baltoro.corpus.figures import Amount, Figures, SourceFigures

SVG = "{http://www.w3.org/2000/svg}"
READ_HEIGHT = 300


def card_of(sources):
    """A card of ``{name: (kept by split, rejected by reason, copies by kind)}``."""
    figures = {
        name: SourceFigures(
            place,
            sum(kept.values()) + sum(rejected.values()) + sum(copies.values()),
            {split: Amount(n) for split, n in kept.items()},
            {("filter", reason): Amount(n) for reason, n in rejected.items()},
            {kind: Amount(n) for kind, n in copies.items()},
        )
        for place, (name, (kept, rejected, copies)) in enumerate(sources.items())
    }
    return DataCard.from_figures(
        name="demo",
        fingerprint="0",
        figures=Figures(sources=figures),
        cleaned={},
        cleaned_papers={},
        evaluation_sets=[],
        items_too_short=0,
        canaries=CanaryCounts(),
        metadata_rows={},
    )


class Drawing:
    """The shapes of a picture by what they say."""

    def __init__(self, card):
        self.root = ET.fromstring(flow_picture(card))
        self.height = float(self.root.attrib["height"])
        self.texts = ["".join(text.itertext()) for text in self.root.iter(f"{SVG}text")]
        self.labels = [
            (float(t.attrib["x"]), float(t.attrib["y"]), t.attrib["text-anchor"])
            for t in self.root.iter(f"{SVG}text")
        ]
        self.nodes = {
            rect.find(f"{SVG}title").text: float(rect.attrib["height"])
            for rect in self.root.iter(f"{SVG}rect")
            if rect.find(f"{SVG}title") is not None
        }
        self.bands = {
            path.find(f"{SVG}title").text: path.attrib["d"] for path in self.root.iter(f"{SVG}path")
        }

    def edge(self, caption):
        """Top and bottom of a band's left edge."""
        numbers = self._numbers(caption)
        return numbers[1], numbers[-1]

    def right_edge(self, caption):
        numbers = self._numbers(caption)
        return numbers[7], numbers[9]

    def _numbers(self, caption):
        return [float(number) for number in re.findall(r"-?[\d.]+", self.bands[caption])]


def test_widths_follow_the_numbers():
    drawing = Drawing(
        card_of(
            {
                "geo": ({"train": 500, "validation": 100}, {"too_short": 200}, {"near": 100}),
                "wiki": ({"train": 100}, {}, {}),
            }
        )
    )
    assert drawing.nodes == {
        "geo 900": 270,
        "wiki 100": 30,
        "kept 700": 210,
        "near copies 100": 30,
        "too short 200": 60,
        "train 600": 180,
        "validation 100": 30,
        "read 1,000": READ_HEIGHT,
    }
    assert drawing.right_edge("geo 900 read") == (44, 314)
    assert drawing.right_edge("wiki 100 read") == (314, 344)
    assert drawing.edge("kept 700") == (44, 254)
    assert drawing.right_edge("kept 700") == (44, 254)
    assert drawing.edge("near copies 100") == (254, 284)
    assert drawing.edge("too short 200") == (284, 344)
    assert drawing.texts == [
        "geo 900", "wiki 100", "read 1,000", "kept 700 (70.0 %)", "near copies 100 (10.0 %)",
        "too short 200 (20.0 %)", "train 600", "validation 100",
    ]  # fmt: skip


def test_a_single_reject_in_a_million_is_seen_and_labelled():
    drawing = Drawing(card_of({"geo": ({"train": 999_999}, {"garbled": 1}, {})}))
    assert "garbled 1 (<0.1 %)" in drawing.texts
    assert drawing.nodes["garbled 1"] == 2


counts = st.integers(1, 10**6)
names = st.text(min_size=1, max_size=60)


@given(
    st.dictionaries(
        names,
        st.tuples(
            st.dictionaries(st.sampled_from(["train", "validation", "test"]), counts),
            st.dictionaries(st.sampled_from([f"reason_{n}" for n in range(45)]), counts, max_size=45),
            st.dictionaries(st.sampled_from(["exact", "version", "near"]), counts),
        ),
        max_size=40,
    )
)
@settings(max_examples=40, deadline=None)
def test_labels_of_any_corpus_stand_apart_and_inside(sources):
    card = card_of(sources)
    drawing = Drawing(card)
    if not card.papers_read:
        assert drawing.texts == ["no records were read"]
        return
    columns = {}
    for x, y, anchor in drawing.labels:
        assert 0 < y <= drawing.height - 4
        columns.setdefault((x, anchor), []).append(y)
    for ys in columns.values():
        assert all(after - before >= 12 for before, after in itertools.pairwise(ys))
    assert all(height >= 2 for caption, height in drawing.nodes.items() if not caption.endswith(" 0"))


@pytest.mark.parametrize(("sources", "reasons"), [(24, 16), (25, 17), (60, 45)])
def test_many_sources_and_reasons_are_joined_without_loss(sources, reasons):
    rejected = {f"reason_{n:02}": n + 1 for n in range(reasons)}
    card = card_of({f"s{n:02}": ({"train": 10 + n}, rejected, {}) for n in range(sources)})
    drawing = Drawing(card)
    into = [c for c in drawing.bands if c.endswith(" read")]
    assert len(into) == min(sources, 24)
    assert (
        sum(int(c.removesuffix(" read").rsplit(" ", 1)[1].replace(",", "")) for c in into) == card.papers_read
    )
    lost = [c for c in drawing.bands if "reason" in c]
    assert len(lost) == min(reasons, 16)
    assert sum(int(c.rsplit(" ", 1)[1].replace(",", "")) for c in lost) == card.rejected
    assert any("other sources" in c for c in into) == (sources > 24)


def test_a_corpus_of_rejects_alone_keeps_nothing():
    drawing = Drawing(card_of({"geo": ({}, {"garbled": 5}, {})}))
    assert "kept 0 (0.0 %)" in drawing.texts
    assert set(drawing.bands) == {"geo 5 read", "garbled 5"}


def test_a_long_name_is_cut_and_its_number_is_not():
    drawing = Drawing(card_of({"地" * 30: ({"train": 1_234_567}, {}, {})}))
    assert drawing.texts[0].endswith("… 1,234,567")
    assert len(drawing.texts[0]) < 25
    assert "地" * 30 + " 1,234,567" in drawing.nodes
