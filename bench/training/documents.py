"""Documents of mixed length, as a collection of papers gives them, as token ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from baltoro.data.pack import assemble_rows, plan_packing
from baltoro.data.shards import RowBatch

KINDS = {"abstract": (0.4, 0.12, 0.3), "section": (0.4, 0.35, 0.6), "paper": (0.2, 4.0, 0.5)}
"""Share of the documents, median length in sequence lengths, spread (sigma of the logarithm).

At 2048 tokens a sequence these are abstracts of 250, sections of 720 and papers of 8,200 tokens.
"""

_PADDING_FRACTION = 0.01


def mixed_documents(
    count: int, *, sequence_length: int, vocabulary: int, seed: int = 0
) -> list[npt.NDArray[np.int32]]:
    """Return documents in random order, each cut at the sequence length.

    Args:
        count: how many.
        sequence_length: tokens of a row.
        vocabulary: ids are below it, and at least 3: those below are special.
        seed: of lengths, order and ids.
    """
    random = np.random.default_rng(seed)
    shares, medians, spreads = (np.array(column) for column in zip(*KINDS.values(), strict=True))
    kind = random.choice(len(KINDS), size=count, p=shares)
    lengths = np.exp(random.normal(np.log(medians[kind] * sequence_length), spreads[kind]))
    lengths = np.clip(lengths, 8, sequence_length).astype(int)
    return [np.minimum(random.zipf(1.3, length) + 2, vocabulary - 1).astype(np.int32) for length in lengths]


def pack(documents: Sequence[npt.NDArray[np.int32]], sequence_length: int) -> RowBatch:
    """Return the documents as Baltoro packs them, every token once."""
    lengths = np.array([len(document) for document in documents])
    plan = plan_packing(lengths, sequence_length, _PADDING_FRACTION, seed=0)
    return assemble_rows(
        plan,
        range(len(plan.row_offsets) - 1),
        tokens=np.concatenate(documents),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        paper_index=np.zeros(len(documents), dtype=np.int32),
        padding_id=0,
    )
