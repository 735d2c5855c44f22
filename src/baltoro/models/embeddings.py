"""Carrying a vocabulary's embedding over to another tokenizer.

A token that both vocabularies have keeps its row. A new token starts at the mean of the rows its text had
under the old tokenizer, so that ``[START_REF]`` begins where the model already expects those characters
(Hewitt 2021, "Initializing new word embeddings for pretrained language models"; Gee et al. 2022,
arXiv:2402.09977, for whole vocabularies). Rows that only pad the matrix start at the mean of all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_REPLACEMENT_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True)
class VocabularyMap:
    """Which old rows each row of the new embedding starts from.

    Attributes:
        size: rows of the new embedding.
        known: rows of the old embedding that stand for a token of the old tokenizer.
        pieces: for each new row that is not the old row of the same number, the old rows whose mean it starts
            at; empty means all ``known`` rows.
    """

    size: int
    known: int
    pieces: Mapping[int, tuple[int, ...]]

    @property
    def grows(self) -> bool:
        """Whether there are tokens that the old vocabulary did not have."""
        return any(self.pieces.values())

    def apply(self, old: torch.Tensor) -> torch.Tensor:
        """Return the new matrix (or bias vector).

        Args:
            old: [old rows, D] or [old rows], any float dtype.

        Returns:
            float32 [size, D] or [size].
        """
        import torch
        from torch.nn.functional import embedding_bag

        values = old.detach().to(torch.float32)
        matrix = values[:, None] if values.dim() == 1 else values
        new = torch.empty(self.size, matrix.shape[1], dtype=torch.float32)
        common = min(self.size, matrix.shape[0])
        new[:common] = matrix[:common]
        averaged = [row for row, pieces in self.pieces.items() if pieces]
        if averaged:
            counts = torch.tensor([len(self.pieces[row]) for row in averaged])
            flat = torch.tensor([piece for row in averaged for piece in self.pieces[row]])
            offsets = torch.cumsum(counts, 0) - counts
            new[torch.tensor(averaged)] = embedding_bag(flat, matrix, offsets, mode="mean")
        without = [row for row, pieces in self.pieces.items() if not pieces]
        if without:
            new[torch.tensor(without)] = matrix[: self.known].mean(dim=0)
        return new[:, 0] if values.dim() == 1 else new


def padded_size(tokens: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` with room for ``tokens`` rows."""
    return -(-tokens // multiple) * multiple


def map_vocabulary(
    base_tokenizer: Any, tokenizer: Any, *, base_rows: int, multiple: int
) -> VocabularyMap | None:
    """Return how the base's embedding becomes that of ``tokenizer``.

    Args:
        base_tokenizer: the fast tokenizer the base was trained with.
        tokenizer: the fast tokenizer to train with.
        base_rows: rows of the base's embedding.
        multiple: the new embedding has a multiple of this many rows.

    Returns:
        The map; ``None`` where nothing changes (the same vocabulary, and the base has rows enough).
    """
    old_vocabulary: dict[str, int] = base_tokenizer.get_vocab()
    new_vocabulary: dict[str, int] = tokenizer.get_vocab()
    known = min(max(old_vocabulary.values()) + 1, base_rows)
    needed = max(new_vocabulary.values()) + 1
    if old_vocabulary == new_vocabulary and needed <= base_rows:
        return None
    # An extended vocabulary that still fits keeps the base's own size; so does every row it does not use.
    extends = old_vocabulary.items() <= new_vocabulary.items()
    size = base_rows if extends and needed <= base_rows else padded_size(needed, multiple)
    roles = _shared_roles(base_tokenizer, tokenizer)
    pieces: dict[int, tuple[int, ...]] = {}
    for token, row in new_vocabulary.items():
        if token in old_vocabulary:
            start: tuple[int, ...] = (old_vocabulary[token],)
        elif row in roles:
            start = roles[row]
        else:
            start = _old_pieces(token, base_tokenizer, tokenizer)
        start = tuple(piece for piece in start if piece < base_rows)
        if start != (row,):
            pieces[row] = start
    # Rows without a token keep what the base has there only if the base's own vocabulary is kept.
    used = set(new_vocabulary.values())
    pieces |= {row: () for row in range(base_rows if extends else 0, size) if row not in used}
    return VocabularyMap(size, known, dict(sorted(pieces.items())))


def _shared_roles(base_tokenizer: Any, tokenizer: Any) -> dict[int, tuple[int, ...]]:
    """Return ``{new id: (old id,)}`` for the control tokens that both tokenizers have."""
    roles: dict[int, tuple[int, ...]] = {}
    for role in ("bos_token_id", "eos_token_id", "unk_token_id"):
        new, old = getattr(tokenizer, role), getattr(base_tokenizer, role)
        if new is not None and old is not None:
            roles.setdefault(new, (old,))
    return roles


def _old_pieces(token: str, base_tokenizer: Any, tokenizer: Any) -> tuple[int, ...]:
    text = tokenizer.convert_tokens_to_string([token])
    if not text or _REPLACEMENT_CHARACTER in text:
        return ()
    return tuple(base_tokenizer.encode(text, add_special_tokens=False))
