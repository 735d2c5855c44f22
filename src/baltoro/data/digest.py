"""A fingerprint of what a step was really fed, that does not depend on how its rows were spread.

Each row is hashed together with its number in the dataset, and the hashes of a step's rows are added up: any
ranks, in any split, come to the same sum, while a row that is missing, repeated, altered or fed in another
row's place changes it. Sums of hashes are the incremental hash of Bellare and Micciancio (1997, "A new
paradigm for collision-free hashing", AdHash); it is meant against mistakes, not against forgers.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from baltoro.data.collate import ModelInputs

LANES = 4
"""A sum is kept as so many 32-bit numbers in int64, which 2³¹ rows cannot overflow."""

_LANE_BITS = 32


def digest_rows(rows: range, inputs: ModelInputs) -> list[int]:
    """Return the sum of a micro-batch's row hashes, as ``LANES`` numbers to be added to others.

    Args:
        rows: numbers in the dataset of the rows that ``inputs`` holds, in order; none at all gives zeros.
        inputs: on the CPU, as the model gets them: token ids, segments and labels are hashed.

    Raises:
        ValueError: as many rows were not given.
    """
    total = np.zeros(LANES, dtype=np.int64)
    if rows and len(rows) != len(inputs.input_ids):
        raise ValueError(f"{len(rows)} row numbers for {len(inputs.input_ids)} rows")
    for index, row in enumerate(rows):
        digest = hashlib.blake2b(row.to_bytes(8, "little"), digest_size=LANES * _LANE_BITS // 8)
        for tensor in (inputs.input_ids, inputs.segment_ids, inputs.labels):
            digest.update(tensor[index].numpy().tobytes())
        total += np.frombuffer(digest.digest(), dtype=np.uint32)
    return [int(lane) for lane in total]


def digest_text(lanes: list[int]) -> str:
    """Return the hexadecimal digest of a step from the sum over all its rows."""
    return "".join(f"{lane % (1 << _LANE_BITS):08x}" for lane in lanes)
