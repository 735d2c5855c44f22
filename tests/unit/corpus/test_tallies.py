"""Counts add up the same in any order and from any cut, and stay small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.tallies import QUANTILE_ERROR_FRACTION, Lengths, Tally, clip_bytes, length_edges

occurrences = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 3)), max_size=30)


def tally_of(occurrences, bound):
    total = Tally(bound)
    for name, draw in occurrences:
        total += Tally.of({name: (1, draw)}, bound=bound)
    return total


@given(occurrences, st.randoms(use_true_random=False), st.integers(0, 30), st.integers(1, 12))
def test_a_tally_depends_neither_on_order_nor_on_the_cut(occurrences, random, cut, bound):
    other = random.sample(occurrences, len(occurrences))
    whole = tally_of(occurrences, bound)
    assert tally_of(other[:cut], bound) + tally_of(other[cut:], bound) == whole
    assert tally_of(other[cut:], bound) + tally_of(other[:cut], bound) == whole


@given(occurrences, st.integers(1, 12))
def test_a_tally_loses_no_paper_and_is_exact_up_to_its_bound(occurrences, bound):
    names = [name for name, _ in occurrences]
    tally = tally_of(occurrences, bound)
    assert tally.total == len(names)
    assert len(tally.entries) <= bound
    assert tally.grouped == (len(set(names)) > bound)
    if not tally.grouped:
        assert tally.most_frequent(99) == {name: names.count(name) for name in tally.most_frequent(99)}
        assert set(tally.entries) == set(names)


def test_beyond_its_bound_the_frequent_names_keep_their_place_and_about_their_count():
    rng = np.random.default_rng(0)
    total = Tally(256)
    counts = {"Tellus": 4000, "Lithos": 2500, "地质学报": 1200, **{f"rare {n}": 1 for n in range(3000)}}
    drawn = [(name, (count, int(rng.integers(0, 1 << 32, count).min()))) for name, count in counts.items()]
    for start in range(0, len(drawn), 200):
        total += Tally.of(dict(drawn[start : start + 200]), bound=256)
    assert total.grouped
    top = total.most_frequent(3)
    assert list(top) == ["Tellus", "Lithos", "地质学报"]
    for name, count in top.items():
        assert counts[name] <= count <= counts[name] + 40  # 3,003 names in 256 groups: some 12 each
    assert total.total == sum(counts.values())


def test_names_that_are_missing_or_long_are_counted():
    tally = Tally.of({None: (2, 1), "": (1, 1), "x" * 500: (1, 1), "é" * 500: (1, 1)}, bound=9)
    assert tally.missing == 3
    assert sorted(len(name.encode()) for name in tally.entries) == [119, 120]
    assert all(name.endswith("…") for name in tally.entries)


def test_tallies_of_different_bounds_do_not_add_up():
    with pytest.raises(ValueError, match="tallies of 3 and 4 names do not add up"):
        Tally(3) + Tally(4)


@pytest.mark.parametrize("text", ["short", "地质" * 9, "é" * 12, ""])
def test_a_clipped_text_is_whole_or_ends_in_dots(text):
    clipped = clip_bytes(text, 12)
    assert len(clipped.encode()) <= 12
    assert clipped == text or (clipped.endswith("…") and text.startswith(clipped[:-1]))


lengths = st.lists(st.integers(0, 5_000_000), min_size=1, max_size=60)


@given(lengths, st.floats(0, 1))
@settings(deadline=None)
def test_a_quantile_is_off_by_at_most_the_stated_error(lengths, fraction):
    exact = float(np.quantile(lengths, fraction))
    found = Lengths.of(np.array(lengths)).quantile(fraction)
    assert abs(found - exact) <= QUANTILE_ERROR_FRACTION * exact + 1e-6


@given(lengths, lengths, lengths)
@settings(max_examples=30)
def test_lengths_add_up_in_any_order(first, second, third):
    a, b, c = (Lengths.of(np.array(part)) for part in (first, second, third))
    assert (a + b) + c == a + (b + c) == Lengths.of(np.array(third + first + second))
    assert a + Lengths() == Lengths() + a == a
    everything = first + second + third
    whole = a + b + c
    assert (whole.count, whole.total) == (len(everything), sum(everything))
    assert (whole.smallest, whole.largest) == (min(everything), max(everything))


def test_bins_are_narrow_and_few():
    edges = length_edges()
    assert np.all(np.diff(edges) >= 1)
    assert np.all((edges[1:] - 1 - edges[:-1]) <= 0.02 * edges[:-1])
    assert len(edges) < 1300
    assert Lengths.of(np.array([1 << 50])).quantile(0.5) == 1 << 50


def test_nothing_has_no_quantile():
    with pytest.raises(ValueError, match="a quantile of no lengths"):
        Lengths().quantile(0.5)
