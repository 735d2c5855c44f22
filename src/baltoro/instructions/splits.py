"""Train and validation of instruction examples: drawn by hash of their origin, stable as the set grows."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation"]


def split_of(origin: str, *, seed: int, validation_fraction: float) -> Split:
    """Return the side on which all examples of one origin stand.

    Args:
        origin: ``Example.origin``; of papers that are copies of each other, the one name they share.
        seed: another seed draws another hold-out.
        validation_fraction: part of the origins that is held out, 0 to below 1.
    """
    digest = hashlib.blake2b(f"{seed}\0{origin}".encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < validation_fraction * 2**64 else "train"
