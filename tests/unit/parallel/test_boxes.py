import copy
import math
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, load, save
from torch.distributed.checkpoint.api import CheckpointException

from baltoro.parallel.boxes import Box, Boxes, boxes_of_range

SHAPES = st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple)


@st.composite
def ranges(draw):
    shape = draw(SHAPES)
    start = draw(st.integers(0, math.prod(shape)))
    return shape, start, draw(st.integers(start, math.prod(shape)))


def indices(shape, box):
    whole = torch.arange(math.prod(shape)).view(shape)
    return (
        whole[tuple(slice(o, o + s) for o, s in zip(box.offsets, box.sizes, strict=True))].flatten().tolist()
    )


@given(ranges())
def test_boxes_are_the_range_in_order_without_gap_or_overlap(drawn):
    shape, start, stop = drawn
    boxes = boxes_of_range(shape, start, stop)
    # Each box's elements are neighbours in memory, and the boxes follow each other.
    assert [index for box in boxes for index in indices(shape, box)] == list(range(start, stop))
    assert [box.start for box in boxes] == [indices(shape, box)[0] for box in boxes]
    assert len(boxes) <= max(2 * len(shape) - 1, 1)


def test_a_range_inside_a_matrix_is_a_row_s_end_whole_rows_and_a_row_s_beginning():
    assert boxes_of_range((4, 10), 7, 35) == [
        Box((0, 7), (1, 3), 7),
        Box((1, 0), (2, 10), 10),
        Box((3, 0), (1, 5), 30),
    ]
    assert boxes_of_range((4, 10), 0, 40) == [Box((0, 0), (4, 10), 0)]
    assert boxes_of_range((4, 10), 12, 12) == []
    assert boxes_of_range((4, 0), 0, 0) == []
    assert boxes_of_range((), 0, 1) == [Box((), (), 0)]


def test_a_range_beyond_the_tensor_is_refused():
    with pytest.raises(ValueError, match=r"elements \[3, 9\) are not within the 8 of shape \(2, 4\)"):
        boxes_of_range((2, 4), 3, 9)


@settings(max_examples=25, deadline=None)
@given(drawn=ranges(), data=st.data())
def test_what_one_cutting_saved_is_read_by_any_other_cutting(drawn, data):
    shape, start, stop = drawn
    other_start = data.draw(st.integers(start, stop))
    other_stop = data.draw(st.integers(other_start, stop))
    whole = torch.arange(math.prod(shape), dtype=torch.float32)
    flat = torch.full((other_stop - other_start,), -1.0)
    with tempfile.TemporaryDirectory() as folder:
        saved = Boxes(whole[start:stop].clone(), shape, start)
        # Without a number in it, an empty range leaves the name out.
        save({"a": saved, "b": torch.zeros(1)}, storage_writer=FileSystemWriter(folder), no_dist=True)
        if flat.numel():
            state = {"a": Boxes(flat, shape, other_start)}
            load(state, storage_reader=FileSystemReader(folder), no_dist=True)
    assert torch.equal(flat, whole[other_start:other_stop])


def test_a_plain_tensor_s_checkpoint_fills_a_range_in_place_and_in_nested_dicts(tmp_path):
    whole = torch.randn(5, 7)
    save({"a": {"b": whole}}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    flat = torch.zeros(11)
    state = {"a": {"b": Boxes(flat, (5, 7), 9)}}
    boxes = state["a"]["b"]
    load(state, storage_reader=FileSystemReader(tmp_path), no_dist=True)
    assert state["a"]["b"] is boxes
    assert torch.equal(flat, whole.flatten()[9:20])


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    save({"a": torch.zeros(5, 7)}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    with pytest.raises(CheckpointException, match="Size mismatch"):
        load({"a": Boxes(torch.zeros(3), (7, 5), 0)}, storage_reader=FileSystemReader(tmp_path), no_dist=True)


def test_copies_hold_the_range_only_and_do_not_share_memory():
    flat = torch.arange(6.0)
    boxes = Boxes(flat, (3, 1000), 500)
    assert (tuple(boxes.shape), boxes.dtype, boxes.device.type) == ((3, 1000), torch.float32, "cpu")
    for made in (boxes.clone(), copy.deepcopy(boxes), boxes.to(torch.float64), torch.zeros_like(boxes)):
        assert isinstance(made, Boxes)
        assert made.boxes == boxes.boxes
        assert made.flat.numel() == 6
        made.flat.fill_(-1)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5]
    assert boxes.detach().flat.data_ptr() == flat.data_ptr()
    target = torch.empty_like(boxes)
    target.copy_(boxes)
    assert torch.equal(target.flat, flat)


def test_torch_s_stager_copies_a_range_into_reused_buffers():
    from torch.distributed.checkpoint._state_dict_stager import StateDictStager

    flat = torch.arange(10.0)
    boxes = Boxes(flat[2:8], (4, 3), 5)
    stager = StateDictStager()
    staged = stager.stage({"a": boxes})["a"]
    flat.fill_(-1)
    assert isinstance(staged, Boxes)
    assert staged.boxes == boxes.boxes
    assert staged.flat.tolist() == [2, 3, 4, 5, 6, 7]


def test_arithmetic_and_other_ranges_are_refused():
    boxes = Boxes(torch.zeros(3), (3, 3), 1)
    with pytest.raises(TypeError, match="not defined for a range of a tensor"):
        torch.add(boxes, 1)
    with pytest.raises(TypeError, match="takes a copy of the same range only"):
        boxes.copy_(Boxes(torch.zeros(3), (3, 3), 2))
    with pytest.raises(ValueError, match="the range has 3 elements"):
        boxes.like(torch.zeros(4))
