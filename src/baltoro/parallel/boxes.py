"""A run of a tensor's elements in row-major order, as ``torch.distributed.checkpoint`` saves and loads it.

ZeRO cuts flattened parameters anywhere, so a rank's share of an N-dimensional tensor is a range of its
row-major order. Such a range is at most 2N - 1 rectangular boxes, each of them one run of memory, and boxes
are what a distributed checkpoint is made of. So the stored tensor has the shape that every other strategy
stores, and any layout reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangular part of a tensor whose elements are neighbours in row-major order.

    Attributes:
        offsets: index of its first element, per dimension.
        sizes: its extent, per dimension; never 0.
        start: position of its first element in the tensor's row-major order.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    start: int

    @property
    def elements(self) -> int:
        """How many elements it holds."""
        return math.prod(self.sizes)


def boxes_of_range(shape: Sequence[int], start: int, stop: int) -> list[Box]:
    """Cut elements ``[start, stop)`` of a tensor's row-major order into the fewest boxes.

    Args:
        shape: of the whole tensor; ``()`` is a single number.
        start: first element.
        stop: one after the last; an empty range gives no box.

    Returns:
        At most ``2 * len(shape) - 1`` boxes (one for a single number), in order, without gap or overlap.
    """
    total = math.prod(shape)
    if not 0 <= start <= stop <= total:
        raise ValueError(f"elements [{start}, {stop}) are not within the {total} of shape {tuple(shape)}")
    strides = [math.prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    boxes = []
    while start < stop:
        # The largest box from here: rows of the outermost dimension that begins here and ends before stop.
        for dimension, stride in enumerate(strides):
            if start % stride == 0 and start + stride <= stop:
                row = start // stride
                # Rows of the dimensions outside of this one are not left: a box is one run of memory.
                length = min((stop - start) // stride, shape[dimension] - row % shape[dimension])
                break
        else:
            # Only a single number has no dimension to cut along.
            dimension, stride, length = -1, 1, 1
        boxes.append(
            Box(
                offsets=tuple(start // step % size for step, size in zip(strides, shape, strict=True)),
                sizes=tuple(
                    1 if index < dimension else length if index == dimension else size
                    for index, size in enumerate(shape)
                ),
                start=start,
            )
        )
        start += length * stride
    return boxes


class Boxes(torch.Tensor):
    """This rank's range of a tensor: looks like the whole one, holds the range only.

    ``torch.distributed.checkpoint`` writes and fills the boxes of the range through its ``_Checkpointable``
    protocol, without a copy: loading changes :attr:`flat` in place. It is a tensor subclass because DCP looks
    for pieces in tensors only. It can be copied (``clone``, ``detach``, ``to``, ``copy_``, ``empty_like``,
    ``copy.deepcopy``) and nothing else: there is no arithmetic on it.

    Args:
        flat: one dimension; the elements of the range, on any device.
        shape: of the whole tensor.
        start: position of the first element in the whole tensor's row-major order.

    Attributes:
        flat: as given; what a checkpoint reads and writes.
        start: as given.
        boxes: the range, cut.
    """

    flat: torch.Tensor
    start: int
    boxes: list[Box]

    @staticmethod
    def __new__(cls: type[Boxes], flat: torch.Tensor, shape: Sequence[int], start: int) -> Boxes:
        """Wrap a range; see the class."""
        made: Boxes = torch.Tensor._make_wrapper_subclass(
            cls, torch.Size(shape), dtype=flat.dtype, device=flat.device
        )
        made.flat = flat
        made.start = start
        made.boxes = boxes_of_range(shape, start, start + flat.numel())
        return made

    def like(self, flat: torch.Tensor) -> Boxes:
        """Return the same range of the same shape over other memory (a copy on the host, for example)."""
        if flat.shape != self.flat.shape:
            raise ValueError(f"the range has {self.flat.numel()} elements, not {tuple(flat.shape)}")
        return Boxes(flat, self.shape, self.start)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Copy ranges; anything else is a mistake."""
        handler = _HANDLERS.get(func)
        if handler is None or not isinstance(args[0], Boxes):
            raise TypeError(f"{func} is not defined for a range of a tensor; use its attribute flat")
        return handler(args[0], func, args[1:], dict(kwargs or {}))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """Name the range; its values are not shown."""
        stop = self.start + self.flat.numel()
        return f"Boxes([{self.start}, {stop}) of {tuple(self.shape)}, {self.flat.dtype}, {self.flat.device})"

    def __create_write_items__(self, fqn: str, obj: object) -> list[WriteItem]:
        """Return one item to write per box (DCP's protocol)."""
        return [
            WriteItem(
                index=MetadataIndex(fqn, torch.Size(box.offsets)),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=_chunk(box),
                    properties=TensorProperties.create_from_tensor(self.flat),
                    size=self.shape,
                ),
            )
            for box in self.boxes
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        """Return the boxes that are to be filled (DCP's protocol)."""
        return [_chunk(box) for box in self.boxes]

    def __get_tensor_shard__(self, index: MetadataIndex) -> torch.Tensor:
        """Return a box as an N-dimensional view of :attr:`flat` (DCP's protocol)."""
        for box in self.boxes:
            if torch.Size(box.offsets) == index.offset:
                return self.flat.narrow(0, box.start - self.start, box.elements).view(box.sizes)
        raise ValueError(f"{index.fqn}: no box of this rank begins at {index.offset}")


def _chunk(box: Box) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(offsets=torch.Size(box.offsets), sizes=torch.Size(box.sizes))


def _elementwise(boxes: Boxes, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Boxes:
    # A channels-last format is one of N dimensions, which the range in memory has not.
    kwargs.pop("memory_format", None)
    return boxes.like(func(boxes.flat, *args, **kwargs))


def _copy_into(boxes: Boxes, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Boxes:
    source, *rest = args
    if not isinstance(source, Boxes) or (source.shape, source.start) != (boxes.shape, boxes.start):
        raise TypeError(f"{boxes!r} takes a copy of the same range only, not {source!r}")
    func(boxes.flat, source.flat, *rest, **kwargs)
    return boxes


def _new_empty(boxes: Boxes, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Boxes:
    size, *rest = args
    if torch.Size(size) != boxes.shape:
        raise TypeError(f"{boxes!r} cannot give a tensor of shape {tuple(size)}")
    return boxes.like(func(boxes.flat, boxes.flat.shape, *rest, **kwargs))


_HANDLERS: dict[Any, Callable[[Boxes, Any, Sequence[Any], dict[str, Any]], Boxes]] = {
    _aten.detach.default: _elementwise,
    _aten.alias.default: _elementwise,
    _aten.clone.default: _elementwise,
    _aten._to_copy.default: _elementwise,
    _aten._pin_memory.default: _elementwise,
    _aten.empty_like.default: _elementwise,
    _aten.zeros_like.default: _elementwise,
    _aten.copy_.default: _copy_into,
    _aten.new_empty.default: _new_empty,
}
