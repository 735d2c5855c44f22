"""Train and validation of instruction examples: drawn by hash of what they are made of, for all parts alike.

One rule holds for a whole set, so that no paper stands on both sides: a paper is told by the stem of its file
(or its record's id), under which signals and reviews know it in whatever folder and format it is read from.
What is drawn is stable as the set grows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from baltoro.papers.detect import stem_of

Split = Literal["train", "validation"]

_OF_PAPERS = frozenset(("signals", "reviews"))

_MOST_PARSES = 8
"""Of one paper, in all parts, sources and formats of a set."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """What is held out of a set.

    Attributes:
        seed: another seed draws another hold-out.
        validation_fraction: part of the papers, concepts and records that is held out, 0 to below 1.
        vague_stems: stems that tell no paper (:func:`vague_stems`).
    """

    seed: int = 0
    validation_fraction: float = 0.0
    vague_stems: frozenset[str] = frozenset()

    def split_of(self, source: str, origin: str) -> Split:
        """Return the side on which all examples of one origin stand.

        Args:
            source: ``Example.source``.
            origin: ``Example.origin``; of papers that are copies of each other, the one name they share.
        """
        key = split_key(source, origin)
        if key in self.vague_stems:
            key = origin
        digest = hashlib.blake2b(f"{self.seed}\0{key}".encode(), digest_size=8).digest()
        return "validation" if int.from_bytes(digest, "big") < self.validation_fraction * 2**64 else "train"


def split_key(source: str, origin: str) -> str:
    """Return what an origin's side is drawn by: of a paper its stem, of everything else its whole name.

    >>> split_key("signals", "tei/2023/basalt.tei.xml"), split_key("reviews", "openreview/basalt.mmd")
    ('basalt', 'basalt')
    >>> split_key("files", "chats/a.jsonl#3")
    'chats/a.jsonl#3'
    """
    if source not in _OF_PAPERS:
        return origin
    return stem_of(origin.partition("#")[2] or origin) or origin


def vague_stems(names: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the stems that more papers of a set have than one paper has parses: ``paper`` in every folder.

    Args:
        names: ``Example.source`` and ``Example.origin`` of the whole set.
    """
    counts = Counter(split_key(source, origin) for source, origin in set(names) if source in _OF_PAPERS)
    return frozenset(stem for stem, origins in counts.items() if origins > _MOST_PARSES)
