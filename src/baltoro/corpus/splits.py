"""Train, validation and test: drawn by hash, so that a document never changes sides as a corpus grows."""

from __future__ import annotations

import hashlib

from baltoro.corpus.config import SplitConfig

SPLITS = ("train", "validation", "test")


def split_of(cluster_id: str, config: SplitConfig) -> str:
    """Return the split of a document.

    Args:
        cluster_id: identity of its duplicate cluster, so that copies always share a side.
        config: the fractions and the seed.
    """
    digest = hashlib.blake2b(f"{config.seed}\0{cluster_id}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    if position < config.test_fraction:
        return "test"
    if position < config.test_fraction + config.validation_fraction:
        return "validation"
    return "train"
