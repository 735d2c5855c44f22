import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.data.collate import collate
from baltoro.data.digest import LANES, digest_rows, digest_text
from baltoro.testing.tiny import tiny_rows

WIDTH = 24
ROWS = tiny_rows(8, WIDTH, seed=3)


def digest(pieces):
    """The digest of a step that was fed in these pieces: (row numbers, rows that were really given)."""
    lanes = np.zeros(LANES, dtype=np.int64)
    for rows, given_rows in pieces:
        lanes += digest_rows(rows, collate(given_rows))
    return digest_text(lanes.tolist())


WHOLE = digest([(range(8), ROWS)])


@given(st.lists(st.integers(1, 7), max_size=7), st.randoms())
def test_a_digest_is_the_same_however_rows_were_spread(cuts, random):
    edges = sorted({0, 8, *cuts})
    pieces = [(range(a, b), ROWS.slice(a, b)) for a, b in itertools.pairwise(edges)]
    random.shuffle(pieces)
    assert digest(pieces) == WHOLE


def test_swapped_repeated_missing_and_shifted_rows_change_it():
    first, second = ROWS.slice(0, 4), ROWS.slice(4, 8)
    halves = [range(4), range(4, 8)]
    assert digest([(halves[0], second), (halves[1], first)]) != WHOLE
    assert digest([(halves[0], first), (halves[1], first)]) != WHOLE
    assert digest([(halves[0], first)]) != WHOLE
    assert digest([(range(1, 9), ROWS)]) != WHOLE


def test_one_token_one_segment_or_one_label_changes_it():
    inputs = collate(ROWS)
    for name in ("input_ids", "segment_ids", "labels"):
        changed = getattr(inputs, name).clone()
        changed[5, 7] += 1
        other = dataclasses.replace(inputs, **{name: changed})
        assert digest_text(digest_rows(range(8), other)) != WHOLE, name


def test_an_idle_piece_adds_nothing_and_a_wrong_count_is_refused():
    assert digest([(range(8), ROWS), (range(8, 8), ROWS.slice(0, 1))]) == WHOLE
    with pytest.raises(ValueError, match="3 row numbers for 8 rows"):
        digest_rows(range(3), collate(ROWS))
