"""Examples to token ids with a loss mask, and to packed rows of whole examples.

The pieces of an example are encoded apart: what is learned begins at the token where, at inference, the
prompt has ended. All pieces of a batch are encoded together (:func:`baltoro.data.encode.encode_texts`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.core.errors import ConfigError
from baltoro.data.config import DataConfig
from baltoro.data.encode import encode_texts
from baltoro.data.pack import assemble_rows
from baltoro.data.plan import plan_group
from baltoro.data.shards import RowBatch
from baltoro.data.tokenizer import text_only
from baltoro.instructions.example import Example, Turn, examples_from_table
from baltoro.instructions.formats import ExampleReject, Piece, Writer
from baltoro.instructions.formats_config import FormatConfig
from baltoro.papers.schema import Reject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)

STAGE = "format"
"""The stage of every reject of this module."""

_ANCHOR = "\n"
_ANCHOR_PROBES = ("a", " a", "\na", "1", ".")
_CUT_TRIES = 8


@dataclass(frozen=True, slots=True, eq=False)
class EncodedExample:
    """One example.

    Attributes:
        input_ids: int32 [tokens].
        loss_mask: bool [tokens], whether a token is a target.
    """

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedExamples:
    """Many examples, one after the other.

    Attributes:
        input_ids: int32 [tokens].
        loss_mask: bool [tokens], whether a token is a target.
        offsets: int64 [examples + 1]; example ``i`` is tokens ``offsets[i]`` up to ``offsets[i + 1]``.
        example_index: int32 [examples], the number of each among those that were given.
        rejects: those that cannot be learned from.
        inputs_cut: examples whose input was cut to fit a row.
    """

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    example_index: npt.NDArray[np.int32]
    rejects: tuple[Reject, ...] = ()
    inputs_cut: int = 0

    def __len__(self) -> int:
        return len(self.example_index)

    def __getitem__(self, number: int) -> EncodedExample:
        start, end = self.offsets[number], self.offsets[number + 1]
        return EncodedExample(self.input_ids[start:end], self.loss_mask[start:end])


def encode_example(
    example: Example,
    config: FormatConfig,
    tokenizer: PreTrainedTokenizerFast,
    *,
    sequence_length: int | None = None,
) -> EncodedExample | Reject:
    """Return the tokens of one example, or why there are none; see :func:`encode_examples`."""
    encoded = encode_examples([example], config, tokenizer, sequence_length=sequence_length)
    return encoded.rejects[0] if encoded.rejects else encoded[0]


def encode_examples(
    examples: pa.Table | Sequence[Example],
    config: FormatConfig,
    tokenizer: PreTrainedTokenizerFast,
    *,
    sequence_length: int | None = None,
) -> EncodedExamples:
    """Return the tokens of examples with what of them is learned.

    Control tokens printed in what a turn says are read as text. What the tokenizer itself puts before a text
    stands once, at the beginning, and is learned with ``learn: everything`` only.

    Args:
        examples: a table in ``EXAMPLE_SCHEMA`` or the records.
        config: how they are written.
        tokenizer: as returned by :mod:`baltoro.data.tokenizer`.
        sequence_length: tokens of a row; a longer example is rejected or its input cut, as
            ``config.overlong`` says. ``None`` is no bound.

    Raises:
        ConfigError: the format does not work with this tokenizer.
    """
    records = examples_from_table(examples) if isinstance(examples, pa.Table) else list(examples)
    encoder = _Encoder(config, tokenizer)
    written: list[list[Piece]] = []
    index: list[int] = []
    rejects: list[Reject] = []
    for number, example in enumerate(records):
        try:
            written.append(encoder.writer.pieces(example))
            index.append(number)
        except ExampleReject as reject:
            rejects.append(_rejected(example, reject))
    ids, mask, offsets = encoder.encode(written)
    lengths = np.diff(offsets)
    too_long = np.zeros(len(lengths), np.bool_) if sequence_length is None else lengths > sequence_length
    # The first token of a segment is never a target, so it alone is nothing to learn.
    targets = np.concatenate([[0], np.cumsum(mask)])
    learned = targets[offsets[1:]] - targets[np.minimum(offsets[:-1] + 1, offsets[1:])]

    parts: list[EncodedExample] = []
    kept: list[int] = []
    inputs_cut = 0
    for place, number in enumerate(index):
        example = records[number]
        part = EncodedExample(
            ids[offsets[place] : offsets[place + 1]], mask[offsets[place] : offsets[place + 1]]
        )
        try:
            if not learned[place]:
                raise ExampleReject("nothing_learned", "no token is a target")
            if sequence_length is not None and too_long[place]:
                part = encoder.shortened(example, len(part.input_ids), sequence_length)
                inputs_cut += 1
        except ExampleReject as reject:
            rejects.append(_rejected(example, reject))
            continue
        parts.append(part)
        kept.append(number)
    if len(parts) < len(index) or inputs_cut:
        ids = np.concatenate([np.empty(0, np.int32), *(part.input_ids for part in parts)])
        mask = np.concatenate([np.empty(0, np.bool_), *(part.loss_mask for part in parts)])
        offsets = np.concatenate([[0], np.cumsum([len(part.input_ids) for part in parts])]).astype(np.int64)
    return EncodedExamples(ids, mask, offsets, np.array(kept, np.int32), tuple(rejects), inputs_cut)


def prompt_ids(
    example: Example, config: FormatConfig, tokenizer: PreTrainedTokenizerFast
) -> npt.NDArray[np.int32]:
    """Return the ids a model is shown at generation time: the very ones its training examples begin with.

    Args:
        example: without its response: it ends with what is asked, or with an observation.
        config: as in training.
        tokenizer: as in training.

    Raises:
        ConfigError: the format does not work with this tokenizer.
        ExampleReject: the example ends with a response, or the format cannot write it.
    """
    encoder = _Encoder(config, tokenizer)
    ids, _, _ = encoder.encode([encoder.writer.prompt(example)])
    return ids


def pack_examples(encoded: EncodedExamples, sequence_length: int, *, seed: int, padding_id: int) -> RowBatch:
    """Return rows of whole examples, each a segment of its own; no example is cut.

    Args:
        encoded: examples of at most ``sequence_length`` tokens, each with a target.
        sequence_length: tokens of a row.
        seed: orders the rows, and what shares a row.
        padding_id: the token after the last segment.

    Returns:
        Rows with ``paper_index`` = ``encoded.example_index`` and a loss mask.

    Raises:
        ValueError: an example is longer than a row.
    """
    lengths = np.diff(encoded.offsets)
    if len(lengths) and lengths.max() > sequence_length:
        raise ValueError(
            f"an example of {lengths.max()} tokens is longer than a row of {sequence_length}; "
            "encode with this sequence_length"
        )
    plan = plan_group(
        lengths,
        DataConfig(
            sequence_length=sequence_length, max_padding_fraction=padding_without_cuts(sequence_length)
        ),
        seed,
    )
    return assemble_rows(
        plan,
        range(plan.rows),
        tokens=encoded.input_ids,
        offsets=encoded.offsets,
        paper_index=encoded.example_index,
        padding_id=padding_id,
        loss_mask=encoded.loss_mask,
    )


def padding_without_cuts(sequence_length: int) -> float:
    """Return a ``max_padding_fraction`` with which :func:`baltoro.data.pack.plan_packing` cuts no segment.

    With it two rows are allowed for each token, which is more than the rows of one segment each.
    """
    return 1.0 - 0.5 / sequence_length


class _Encoder:
    """Writes and encodes with one format and tokenizer."""

    def __init__(self, config: FormatConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.writer = Writer(config, tokenizer)
        self._before = np.empty(0, np.int32) if self.writer.begins_itself else self._put_before()
        self._anchor = self._anchor_ids()
        self._anchor_after_control = bool(len(self._anchor)) and not self._prefixed_after_control()
        self._controls: dict[str, int] = {}

    def encode(
        self, written: Sequence[Sequence[Piece]]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return ids and mask of all examples, and where each starts and the last ends."""
        pieces = [piece for example in written for piece in example]
        control = np.fromiter((piece.control for piece in pieces), np.bool_, len(pieces))
        learned = np.fromiter((piece.learned for piece in pieces), np.bool_, len(pieces))
        counts = np.fromiter((len(example) for example in written), np.int64, len(written))
        first_piece = np.concatenate([[0], np.cumsum(counts)])
        texts, text_lengths = self._encode_texts(pieces, control, first_piece)

        lengths = np.ones(len(pieces), np.int64)
        lengths[~control] = text_lengths
        body_ends = np.concatenate([[0], np.cumsum(lengths)])
        body = np.empty(body_ends[-1], np.int32)
        is_control = np.repeat(control, lengths)
        body[is_control] = [self._control_id(piece.text) for piece in pieces if piece.control]
        body[~is_control] = texts
        mask = np.repeat(learned, lengths)
        offsets = body_ends[first_piece]

        before = len(self._before)
        if before:
            starts = np.repeat(offsets[:-1], before)
            body = np.insert(body, starts, np.tile(self._before, len(written)))
            mask = np.insert(mask, starts, self.config.learn == "everything")
            offsets = offsets + before * np.arange(len(offsets))
        return body, mask, offsets

    def shortened(self, example: Example, tokens: int, sequence_length: int) -> EncodedExample:
        """Return an example with the end of its longest input cut so that it fits.

        Raises:
            ExampleReject: it may not be cut, or it is too long without any input.
        """
        detail = f"{tokens} tokens, a row has {sequence_length}"
        inputs = [number for number, turn in enumerate(example.turns) if turn.role == "input"]
        if self.config.overlong == "reject" or not inputs:
            raise ExampleReject("longer_than_row", detail)
        place = max(inputs, key=lambda number: (len(example.turns[number].text), -number))
        text = example.turns[place].text
        with text_only(self.tokenizer) as backend:
            ends = [end for _, end in backend.encode(text, add_special_tokens=False).offsets]
        excess = tokens - sequence_length
        for _ in range(_CUT_TRIES):
            if excess >= len(ends):
                break
            kept = _before_space(text, ends[len(ends) - 1 - excess])
            if not kept:
                break
            turns = [*example.turns[:place], Turn("input", kept), *example.turns[place + 1 :]]
            ids, mask, _ = self.encode([self.writer.pieces(replace(example, turns=turns))])
            if len(ids) <= sequence_length:
                return EncodedExample(ids, mask)
            excess += len(ids) - sequence_length
        raise ExampleReject("longer_than_row", f"{detail}, and without its input it has no room either")

    def _encode_texts(
        self, pieces: Sequence[Piece], control: npt.NDArray[np.bool_], first_piece: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids of the pieces that are text, and the number of each one's."""
        anchored = np.zeros(len(pieces), np.bool_)
        if len(self._anchor) and len(pieces):
            after_control = np.concatenate([[False], control[:-1]])
            anchored = ~after_control | self._anchor_after_control
            # What the tokenizer itself puts at a text's beginning belongs there once.
            anchored[first_piece[:-1][first_piece[:-1] < len(pieces)]] = False
        anchored = anchored[~control]
        texts = [piece.text for piece in pieces if not piece.control]
        if anchored.any():
            texts = [
                _ANCHOR + text if lean else text for text, lean in zip(texts, anchored.tolist(), strict=True)
            ]
        ids, offsets = encode_texts(self.tokenizer, pa.array(texts, pa.large_string()), framed=False)
        lengths = np.diff(offsets)
        if anchored.any():
            dropped = (offsets[:-1][anchored][:, None] + np.arange(len(self._anchor))).reshape(-1)
            if not np.array_equal(
                ids[dropped].reshape(-1, len(self._anchor)), np.tile(self._anchor, (anchored.sum(), 1))
            ):
                raise RuntimeError("a line break before a text changes its first token; this is a bug")
            ids = np.delete(ids, dropped)
            lengths = lengths - len(self._anchor) * anchored
        return ids, lengths

    def _control_id(self, token: str) -> int:
        if token not in self._controls:
            token_id = self.tokenizer.convert_tokens_to_ids(token)
            if not isinstance(token_id, int):
                raise ConfigError(
                    f"the tokenizer names the control token {token!r} and has no id for it; correct its "
                    "special_tokens_map.json or tokenizer_config.json"
                )
            self._controls[token] = token_id
        return self._controls[token]

    def _ids(self, text: str) -> list[int]:
        with text_only(self.tokenizer) as backend:
            return list(backend.encode(text, add_special_tokens=False).ids)

    def _put_before(self) -> npt.NDArray[np.int32]:
        """Return the ids that the tokenizer puts before a text."""
        bare = self._ids("a")
        with text_only(self.tokenizer) as backend:
            framed = list(backend.encode("a", add_special_tokens=True).ids)
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return np.array(framed[:start], np.int32)
        return np.empty(0, np.int32)

    def _anchor_ids(self) -> npt.NDArray[np.int32]:
        """Return the ids of what is put before a text that goes on, and dropped again; none if not needed.

        Tokenizers of SentencePiece's kind read a space before every text. A response that follows its prompt
        without one must not get it, and does not behind a line break.
        """
        anchor = self._ids(_ANCHOR)
        behind = [self._ids(_ANCHOR + probe) for probe in _ANCHOR_PROBES]
        if any(ids[: len(anchor)] != anchor for ids in behind):
            return np.empty(0, np.int32)
        if all(
            ids[len(anchor) :] == self._ids(probe) for ids, probe in zip(behind, _ANCHOR_PROBES, strict=True)
        ):
            return np.empty(0, np.int32)
        return np.array(anchor, np.int32)

    def _prefixed_after_control(self) -> bool:
        """Return whether the tokenizer reads a space before a text that follows a control token."""
        controls = self.tokenizer.all_special_tokens
        if not controls:
            return False
        with text_only(self.tokenizer) as backend:
            backend.encode_special_tokens = False
            ids = list(backend.encode(f"{controls[0]}a", add_special_tokens=False).ids)
        return ids[1:] == self._ids("a")


def _before_space(text: str, end: int) -> str:
    """Return a text's first ``end`` characters, or fewer, so that no word is cut."""
    if end < len(text) and not text[end].isspace():
        head = text[:end]
        words = head.rsplit(maxsplit=1)
        # A word longer than half the text is no word: a script without spaces is cut where it must be.
        if len(words) == 2 and len(words[0]) > end // 2:
            return words[0].rstrip()
    return text[:end].rstrip()


def _rejected(example: Example, reject: ExampleReject) -> Reject:
    detail = f"{example.example_id}: {reject.detail}"
    return Reject(example.origin, "", STAGE, reject.reason, detail)
