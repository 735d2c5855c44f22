"""Packing: which part of which document stands in which row.

Best-fit packing after Ding et al., "Fewer Truncations Improve Language Modeling" (ICML 2024,
arXiv:2404.10830, section 3): a document longer than a row is cut into full rows and a remainder; the rest
is placed whole, longest first, into the row with the least room that still takes it (best-fit decreasing).
Lengths are small integers, so all documents of one length and all rows of one remaining room are handled
at once; the result is exactly that of placing them one by one.

Beyond the paper: where whole documents leave more padding than allowed, the emptiest rows are dissolved and
their documents are cut to fill gaps, largest gap first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baltoro.core.errors import InputError
from baltoro.data.shards import RowBatch

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """Rows of pieces, shuffled. Piece ``i`` is ``length[i]`` tokens of ``document[i]`` from ``start[i]`` on.

    Attributes:
        sequence_length: tokens of a row.
        row_offsets: int64 [rows + 1]; row ``r`` is pieces ``row_offsets[r]`` up to ``row_offsets[r + 1]``.
        document: int64 [pieces], index into the lengths that were packed.
        start: int64 [pieces], in tokens from the document's first.
        length: int64 [pieces], in tokens, at least 1.
    """

    sequence_length: int
    row_offsets: IntArray
    document: IntArray
    start: IntArray
    length: IntArray

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.row_offsets) - 1

    @property
    def tokens(self) -> int:
        """Number of tokens in all rows, padding not counted."""
        return int(self.length.sum())

    @property
    def padding_fraction(self) -> float:
        """Share of positions that hold no token."""
        return 1.0 - self.tokens / (self.rows * self.sequence_length) if self.rows else 0.0

    @property
    def cuts(self) -> int:
        """Number of places where a document goes on in another row."""
        return len(self.document) - len(np.unique(self.document))


def plan_packing(
    lengths: npt.NDArray[np.integer], sequence_length: int, max_padding_fraction: float, seed: int
) -> PackingPlan:
    """Plan rows that hold every token of every document exactly once.

    Depends on the arguments alone: not on the NumPy version, threads or machine.

    Args:
        lengths: tokens per document, each at least 1.
        sequence_length: tokens per row.
        max_padding_fraction: documents are cut only if whole ones would leave more padding than this. The
            bound holds whenever there are at least ``1 / max_padding_fraction`` rows' worth of tokens;
            below that, rows are as few as can hold the tokens.
        seed: orders the rows.

    Raises:
        InputError: a document without tokens.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and lengths.min() < 1:
        raise InputError(f"document {int(lengths.argmin())} has no tokens; empty documents cannot be packed")

    full_pieces = lengths // sequence_length
    remainder = lengths - full_pieces * sequence_length
    full_document = np.repeat(np.arange(len(lengths)), full_pieces)
    first_piece = np.repeat(np.cumsum(full_pieces) - full_pieces, full_pieces)
    full_start = (np.arange(len(full_document)) - first_piece) * sequence_length

    rest_document = np.flatnonzero(remainder)
    rest_length = remainder[rest_document]
    rest_start = lengths[rest_document] - rest_length
    rest_row, room = _best_fit_decreasing(rest_length, sequence_length)

    tokens = int(lengths.sum())
    excess = len(full_document) + len(room) - _allowed_rows(tokens, sequence_length, max_padding_fraction)
    if excess > 0:
        rest_row, rest_piece, cut_start, rest_length, rows = _fill_gaps(rest_row, rest_length, room, excess)
        rest_document, rest_start = rest_document[rest_piece], rest_start[rest_piece] + cut_start
    else:
        rows = len(room)

    row = np.concatenate([np.arange(len(full_document)), len(full_document) + rest_row])
    rows += len(full_document)
    document = np.concatenate([full_document, rest_document])
    start = np.concatenate([full_start, rest_start])
    length = np.concatenate([np.full(len(full_document), sequence_length, dtype=np.int64), rest_length])
    rank = shuffled_rank(rows, seed)[row]
    order = np.lexsort((start, document, -length, rank))  # within a row the longest piece comes first
    return PackingPlan(
        sequence_length=sequence_length,
        row_offsets=np.concatenate([[0], np.cumsum(np.bincount(rank, minlength=rows))]).astype(np.int64),
        document=document[order],
        start=start[order],
        length=length[order],
    )


def assemble_rows(
    plan: PackingPlan,
    rows: range | IntArray,
    *,
    tokens: npt.NDArray[np.integer],
    offsets: IntArray,
    paper_index: npt.NDArray[np.int32],
    padding_id: int,
    loss_mask: npt.NDArray[np.bool_] | None = None,
) -> RowBatch:
    """Return rows of a plan, filled with tokens; beside them it takes no memory that grows with the tokens.

    Args:
        plan: as made by :func:`plan_packing` for the documents' lengths.
        rows: which rows, in the order wanted.
        tokens: all documents' tokens in one array (a memory map will do).
        offsets: int64 [documents + 1]; document ``d`` is ``tokens[offsets[d]:offsets[d + 1]]``.
        paper_index: per document, its number among the papers of the dataset.
        padding_id: the token after the last segment.
        loss_mask: per token, whether it is a target; ``None`` where all are.
    """
    width = plan.sequence_length
    chosen = np.asarray(rows, dtype=np.int64)
    pieces_of_row = np.diff(plan.row_offsets)[chosen]
    piece_offsets = np.concatenate([[0], np.cumsum(pieces_of_row)]).astype(np.int64)
    row = np.repeat(np.arange(len(chosen)), pieces_of_row)
    pieces = np.arange(piece_offsets[-1]) + (plan.row_offsets[chosen] - piece_offsets[:-1])[row]
    document, length = plan.document[pieces], plan.length[pieces]
    ends_overall = np.cumsum(length)
    tokens_before_row = np.concatenate([[0], ends_overall])[piece_offsets[:-1]]
    ends = ends_overall - tokens_before_row[row]

    input_ids = np.full((len(chosen), width), padding_id, dtype=np.int32)
    flat = input_ids.reshape(-1)
    mask = None if loss_mask is None else np.zeros((len(chosen), width), dtype=np.bool_)
    sources = (offsets[document] + plan.start[pieces]).tolist()
    targets = (row * width + ends - length).tolist()
    for source, target, count in zip(sources, targets, length.tolist(), strict=True):
        flat[target : target + count] = tokens[source : source + count]
        if mask is not None and loss_mask is not None:
            mask.reshape(-1)[target : target + count] = loss_mask[source : source + count]
    return RowBatch(
        input_ids=input_ids,
        segment_ends=np.split(ends.astype(np.int32), piece_offsets[1:-1])[: len(chosen)],
        paper_index=np.split(np.asarray(paper_index, dtype=np.int32)[document], piece_offsets[1:-1])[
            : len(chosen)
        ],
        loss_mask=mask,
    )


def shuffled_rank(rows: int, seed: int) -> IntArray:
    """Return each row's place, a permutation of ``range(rows)``: ordered by what SplitMix64 draws for it.

    The generator is written out since NumPy may change what its own draw for a seed (NEP 19), and an order
    that changes with a library version could not be resumed.
    """
    stream = _mix(np.array([seed % 2**64], dtype=np.uint64))
    draws = _mix(stream + np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    rank = np.empty(rows, dtype=np.int64)
    rank[np.argsort(draws, kind="stable")] = np.arange(rows)
    return rank


def _allowed_rows(tokens: int, sequence_length: int, max_padding_fraction: float) -> int:
    """Return the most rows whose padding stays within the bound, at least as many as the tokens need."""
    rows = int(tokens / (sequence_length * (1.0 - max_padding_fraction))) + 1
    while rows * sequence_length - tokens > max_padding_fraction * rows * sequence_length:
        rows -= 1
    return max(rows, -(-tokens // sequence_length))


def _best_fit_decreasing(lengths: IntArray, sequence_length: int) -> tuple[IntArray, IntArray]:
    """Return the row of each piece and the room left in each row; every length is below a row's."""
    rows_by_room = _RowsByRoom()
    row_of = np.empty(len(lengths), dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    values, first = np.unique(-lengths[order], return_index=True)
    bounds = [*first.tolist(), len(lengths)]
    rows = 0
    for index, negative in enumerate(values.tolist()):
        length = -negative
        pieces = order[bounds[index] : bounds[index + 1]]
        done = 0
        while done < len(pieces):
            room = rows_by_room.tightest(length)
            left = len(pieces) - done
            # Best fit goes on with the row it has just used while that still takes a piece of this length.
            if room is None:
                room = sequence_length
                per_row = room // length
                chosen = np.arange(rows, rows + -(-left // per_row))
                rows += len(chosen)
            else:
                per_row = room // length
                chosen = rows_by_room.take(room, -(-left // per_row))
            placed = min(left, len(chosen) * per_row)
            row_of[pieces[done : done + placed]] = np.repeat(chosen, per_row)[:placed]
            done += placed
            whole = placed // per_row
            rows_by_room.put(room - per_row * length, chosen[:whole])
            rows_by_room.put(room - (placed - whole * per_row) * length, chosen[whole:])
    return row_of, rows_by_room.rooms(rows)


def _fill_gaps(
    row_of: IntArray, lengths: IntArray, room: IntArray, excess: int
) -> tuple[IntArray, IntArray, IntArray, IntArray, int]:
    """Dissolve the ``excess`` emptiest rows and spread their pieces over the gaps of the others.

    Returns:
        Per new piece its row, the old piece it is of, its start therein and its length; and the number of
        rows.
    """
    emptiest = np.argsort(-room, kind="stable")[:excess]
    dissolved = np.zeros(len(room), dtype=np.bool_)
    dissolved[emptiest] = True
    new_row = np.cumsum(~dissolved) - 1
    stays = np.flatnonzero(~dissolved[row_of])
    moves = np.flatnonzero(dissolved[row_of])
    moves = moves[np.argsort(-lengths[moves], kind="stable")]

    rows_by_room = _RowsByRoom()
    kept_room = room[~dissolved]
    by_room = np.argsort(kept_room, kind="stable")
    values, first = np.unique(kept_room[by_room], return_index=True)
    for value, rows in zip(values.tolist(), np.split(by_room, first[1:]), strict=True):
        rows_by_room.put(value, rows)
    placed: list[tuple[int, int, int, int]] = []
    for piece, whole_length in zip(moves.tolist(), lengths[moves].tolist(), strict=True):
        start, length = 0, whole_length
        while length:
            fit = rows_by_room.tightest(length)
            gap = rows_by_room.largest() if fit is None else fit
            row = int(rows_by_room.take(gap, 1)[0])
            part = min(gap, length)
            placed.append((row, piece, start, part))
            rows_by_room.put(gap - part, np.array([row]))
            start, length = start + part, length - part
    moved = np.array(placed, dtype=np.int64).reshape(-1, 4)
    return (
        np.concatenate([new_row[row_of[stays]], moved[:, 0]]),
        np.concatenate([stays, moved[:, 1]]),
        np.concatenate([np.zeros(len(stays), dtype=np.int64), moved[:, 2]]),
        np.concatenate([lengths[stays], moved[:, 3]]),
        len(kept_room),
    )


class _RowsByRoom:
    """Rows grouped by the room they have left; finds the tightest or loosest group in a few machine words."""

    def __init__(self) -> None:
        self._chunks: dict[int, list[IntArray]] = {}
        self._present = 0  # bit r is set where some row has room r

    def put(self, room: int, rows: IntArray) -> None:
        if len(rows):
            self._chunks.setdefault(room, []).append(rows)
            self._present |= 1 << room

    def take(self, room: int, count: int) -> IntArray:
        """Remove and return up to ``count`` rows with exactly this room."""
        chunks = self._chunks[room]
        taken: list[IntArray] = []
        while chunks and count:
            chunk = chunks.pop()
            if len(chunk) > count:
                chunks.append(chunk[count:])
                chunk = chunk[:count]
            taken.append(chunk)
            count -= len(chunk)
        if not chunks:
            del self._chunks[room]
            self._present ^= 1 << room
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def tightest(self, length: int) -> int | None:
        """Return the smallest room of at least ``length``, or ``None``."""
        candidates = self._present >> length
        return length + (candidates & -candidates).bit_length() - 1 if candidates else None

    def largest(self) -> int:
        """Return the largest room; 0 where nothing is left."""
        return self._present.bit_length() - 1

    def rooms(self, rows: int) -> IntArray:
        """Return the room of each of ``rows`` rows."""
        room_of = np.zeros(rows, dtype=np.int64)
        for room, chunks in self._chunks.items():
            room_of[np.concatenate(chunks)] = room
        return room_of


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection on 64 bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
