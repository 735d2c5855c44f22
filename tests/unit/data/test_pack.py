import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import InputError
from baltoro.data.pack import assemble_rows, plan_packing


def pieces_by_row(plan):
    return [
        list(
            zip(plan.document[a:b].tolist(), plan.start[a:b].tolist(), plan.length[a:b].tolist(), strict=True)
        )
        for a, b in zip(plan.row_offsets[:-1], plan.row_offsets[1:], strict=True)
    ]


def check_covers_once(plan, lengths):
    """Every token of every document stands in exactly one row, and no row is too long or empty."""
    rows = pieces_by_row(plan)
    assert all(0 < sum(length for _, _, length in row) <= plan.sequence_length for row in rows)
    covered = [[] for _ in lengths]
    for row in rows:
        for document, start, length in row:
            covered[document].append((start, start + length))
    for parts, length in zip(covered, lengths, strict=True):
        at = 0
        for start, stop in sorted(parts):
            assert start == at
            assert stop > start
            at = stop
        assert at == length


lengths_strategy = st.lists(st.integers(1, 300), max_size=120)


@settings(max_examples=200, deadline=None)
@given(lengths_strategy, st.integers(1, 64), st.sampled_from([0.0, 0.01, 0.2, 0.9]), st.integers(0, 2**63))
def test_every_token_stands_in_exactly_one_row(lengths, sequence_length, fraction, seed):
    plan = plan_packing(np.array(lengths, dtype=np.int64), sequence_length, fraction, seed)
    check_covers_once(plan, lengths)
    assert plan.tokens == sum(lengths)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([16, 33, 64]),
    st.sampled_from(["just over half", "lognormal", "full", "mixed"]),
    st.sampled_from([0.005, 0.01, 0.1]),
)
def test_padding_keeps_its_bound_from_200_rows_on(draw, sequence_length, shape, fraction):
    rng = np.random.default_rng(draw)
    lengths = {
        "just over half": rng.integers(sequence_length // 2 + 1, sequence_length // 2 + 4, 500),
        "lognormal": rng.lognormal(np.log(sequence_length), 1, 600).astype(int) + 1,
        "full": np.full(250, sequence_length),
        "mixed": np.concatenate([np.full(300, sequence_length * 2 // 3 + 1), np.full(90, 5)]),
    }[shape]
    assert lengths.sum() >= 200 * sequence_length
    plan = plan_packing(lengths, sequence_length, fraction, 0)
    assert plan.padding_fraction <= fraction
    check_covers_once(plan, lengths)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=60))
def test_packing_is_best_fit_decreasing(lengths):
    """The grouped algorithm opens as many rows as placing the documents one by one."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fits = [index for index, left in enumerate(room) if left >= length]
        if fits:
            room[min(fits, key=lambda index: room[index])] -= length
        else:
            room.append(20 - length)
    plan = plan_packing(np.array(lengths, dtype=np.int64), 20, 0.99, 0)
    used = sorted(sum(length for _, _, length in row) for row in pieces_by_row(plan))
    assert used == sorted(20 - left for left in room)


def test_documents_that_fit_stay_whole_within_the_bound():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 65, 5000)
    plan = plan_packing(lengths, 64, 0.01, 0)
    assert plan.cuts == 0


def test_a_long_document_is_full_rows_and_a_remainder():
    plan = plan_packing(np.array([21]), 8, 0.9, 0)
    assert sorted(piece for row in pieces_by_row(plan) for piece in row) == [(0, 0, 8), (0, 8, 8), (0, 16, 5)]
    assert plan.rows == 3
    assert plan.cuts == 2


def test_as_few_documents_are_cut_as_rows_must_go():
    # 100 documents of 6 in rows of 10 fit no two to a row: 61 rows hold 600 tokens within 2 %, 39 must go.
    plan = plan_packing(np.full(100, 6), 10, 0.02, 0)
    assert plan.rows == 61
    cut = np.unique(plan.document[plan.start > 0])
    assert len(cut) == 39


def test_a_looser_bound_cuts_less():
    lengths = np.full(1000, 6)
    cuts = [plan_packing(lengths, 10, fraction, 0).cuts for fraction in (0.0, 0.1, 0.3, 0.4)]
    assert cuts == sorted(cuts, reverse=True)
    assert cuts[-1] == 0


def test_few_tokens_take_the_fewest_rows():
    assert plan_packing(np.array([6, 6, 6]), 10, 0.0, 0).rows == 2
    assert plan_packing(np.array([], dtype=np.int64), 10, 0.01, 0).rows == 0


def test_the_seed_orders_rows_and_nothing_else():
    lengths = np.random.default_rng(2).integers(1, 100, 400)
    first, again, other = (plan_packing(lengths, 64, 0.01, seed) for seed in (5, 5, 6))
    assert pieces_by_row(first) == pieces_by_row(again)
    assert pieces_by_row(first) != pieces_by_row(other)
    assert sorted(pieces_by_row(first)) == sorted(pieces_by_row(other))


def test_the_shuffle_is_fixed_for_all_time():
    """A change here would make every dataset built before unresumable."""
    plan = plan_packing(np.full(10, 8), 8, 0.0, 0)
    assert plan.document.tolist() == [2, 4, 6, 8, 5, 1, 7, 0, 9, 3]


def test_the_shuffle_mixes_neighbours():
    order = plan_packing(np.full(2000, 8), 8, 0.0, 1).document
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.1
    assert (np.abs(np.diff(order)) == 1).mean() < 0.01


def test_an_empty_document_is_refused():
    with pytest.raises(InputError, match="document 1 has no tokens"):
        plan_packing(np.array([3, 0, 2]), 8, 0.01, 0)


@settings(max_examples=80, deadline=None)
@given(lengths_strategy.filter(bool), st.integers(2, 64), st.booleans())
def test_assembled_rows_hold_the_documents_tokens(lengths, sequence_length, masked):
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(1, offsets[-1] + 1, dtype=np.int32)  # a token names its own place
    mask = (tokens % 3 == 0) if masked else None
    plan = plan_packing(lengths, sequence_length, 0.01, 0)
    batch = assemble_rows(
        plan,
        range(plan.rows),
        tokens=tokens,
        offsets=offsets,
        paper_index=np.arange(len(lengths), dtype=np.int32) * 10,
        padding_id=0,
        loss_mask=mask,
    )
    assert batch.input_ids.shape == (plan.rows, sequence_length)
    assert sorted(batch.input_ids[batch.input_ids > 0].tolist()) == tokens.tolist()
    for row, pieces in enumerate(pieces_by_row(plan)):
        begin = 0
        for (document, start, length), end, paper in zip(
            pieces, batch.segment_ends[row], batch.paper_index[row], strict=True
        ):
            source = slice(offsets[document] + start, offsets[document] + start + length)
            assert batch.input_ids[row, begin:end].tolist() == tokens[source].tolist()
            assert paper == document * 10
            if mask is not None:
                assert batch.loss_mask[row, begin:end].tolist() == mask[source].tolist()
            begin = end
        assert (batch.input_ids[row, begin:] == 0).all()
        assert mask is None or not batch.loss_mask[row, begin:].any()


def test_rows_may_be_assembled_shard_by_shard():
    lengths = np.random.default_rng(3).integers(1, 50, 300)
    plan = plan_packing(lengths, 32, 0.01, 0)
    arguments = {
        "tokens": np.arange(lengths.sum(), dtype=np.int32),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "paper_index": np.arange(300, dtype=np.int32),
        "padding_id": 0,
    }
    whole = assemble_rows(plan, range(plan.rows), **arguments)
    part = assemble_rows(plan, range(10, 25), **arguments)
    assert (part.input_ids == whole.input_ids[10:25]).all()
    assert all((a == b).all() for a, b in zip(part.segment_ends, whole.segment_ends[10:25], strict=True))
    assert len(assemble_rows(plan, range(4, 4), **arguments).segment_ends) == 0


def test_real_paper_lengths_pack_within_one_percent(sample_data):
    papers = [path.read_text(encoding="utf-8") for path in sorted(sample_data.glob("nougat/**/*.mmd"))]
    lengths = np.array([len(text.split()) for text in papers if text.strip()])
    sequence_length = int(lengths.sum()) // 250
    plan = plan_packing(lengths, sequence_length, 0.01, 0)
    assert plan.rows > 200
    assert plan.padding_fraction <= 0.01
