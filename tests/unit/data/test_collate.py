import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.data.collate import IGNORED_LABEL, collate
from baltoro.data.shards import RowBatch


def batch_of(ids, ends, mask=None):
    return RowBatch(
        np.array(ids, dtype=np.int32),
        [np.array(row, dtype=np.int32) for row in ends],
        [np.zeros(len(row), dtype=np.int32) for row in ends],
        None if mask is None else np.array(mask, dtype=np.bool_),
    )


def test_two_segments_and_padding():
    inputs = collate(batch_of([[11, 12, 13, 21, 22, 0, 0], [31, 32, 33, 34, 35, 36, 37]], [[3, 5], [7]]))
    assert inputs.segment_ids.tolist() == [[1, 1, 1, 2, 2, 0, 0], [1] * 7]
    assert inputs.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6]]
    assert inputs.labels.tolist() == [
        [12, 13, -100, 22, -100, -100, -100],
        [32, 33, 34, 35, 36, 37, -100],
    ]
    assert inputs.valid_tokens == 9
    assert inputs.tokens == 12
    assert inputs.input_ids.dtype == inputs.position_ids.dtype == inputs.labels.dtype == torch.int64
    assert inputs.segment_ids.dtype == torch.int32


def test_the_loss_mask_says_which_tokens_are_targets():
    inputs = collate(batch_of([[11, 12, 13, 14]], [[4]], [[True, False, True, True]]))
    assert inputs.labels.tolist() == [[-100, 13, 14, -100]]
    assert inputs.valid_tokens == 2


def test_segments_of_one_token_have_no_target():
    inputs = collate(batch_of([[11, 12, 13]], [[1, 2, 3]]))
    assert inputs.segment_ids.tolist() == [[1, 2, 3]]
    assert inputs.position_ids.tolist() == [[0, 0, 0]]
    assert inputs.valid_tokens == 0


def test_moving_to_a_device_keeps_everything():
    inputs = collate(batch_of([[11, 12, 13]], [[3]]))
    moved = inputs.to(torch.device("meta"))
    assert {
        tensor.device.type
        for tensor in (moved.input_ids, moved.segment_ids, moved.position_ids, moved.labels)
    } == {"meta"}
    assert (moved.valid_tokens, moved.tokens) == (2, 3)


@st.composite
def rows(draw):
    width = draw(st.integers(1, 24))
    count = draw(st.integers(1, 4))
    ends = [sorted(draw(st.sets(st.integers(1, width), min_size=1, max_size=5))) for _ in range(count)]
    ids = [[100 * (row + 1) + column for column in range(width)] for row in range(count)]
    masked = draw(st.booleans())
    mask = [[draw(st.booleans()) for _ in range(width)] for _ in range(count)] if masked else None
    return ids, ends, mask


@settings(max_examples=150, deadline=None)
@given(rows())
def test_a_label_never_leaves_its_segment(case):
    ids, ends, mask = case
    inputs = collate(batch_of(ids, ends, mask))
    valid = 0
    for row, row_ends in enumerate(ends):
        begin = 0
        for number, end in enumerate(row_ends, start=1):
            assert inputs.segment_ids[row, begin:end].tolist() == [number] * (end - begin)
            assert inputs.position_ids[row, begin:end].tolist() == list(range(end - begin))
            for at in range(begin, end):
                is_target = at + 1 < end and (mask is None or mask[row][at + 1])
                assert inputs.labels[row, at] == (ids[row][at + 1] if is_target else IGNORED_LABEL)
                valid += is_target
            begin = end
        assert inputs.segment_ids[row, begin:].tolist() == [0] * (len(ids[row]) - begin)
        assert (inputs.labels[row, begin:] == IGNORED_LABEL).all()
    assert inputs.valid_tokens == valid
    assert inputs.tokens == sum(row_ends[-1] for row_ends in ends)
