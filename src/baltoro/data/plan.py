"""The plan of one part of a token dataset: which documents are packed together, and where their rows go.

Lengths alone decide; no token is looked at. Documents are cut into groups, each small enough for one task to
pack; the rows of all groups are then shuffled together, and travel to the shards that hold their places.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from baltoro.data.config import DataConfig
from baltoro.data.mixture import copies_of, curriculum_of, passes_of
from baltoro.data.pack import PackingPlan, plan_packing, shuffled_rank

IntArray = npt.NDArray[np.int64]

SPLITS = ("train", "validation")
"""The splits that are laid out. Nothing that trains or selects may see the test split."""

GROUP_TOKENS = 1 << 23
"""Tokens that are packed together: 16 to 32 MB in one task, about 10 ms to plan.

Groups are cut by documents, not by corpus parts: how many files a task reads must not change a row. Padding
at the seams, on papers of about 9,000 tokens: 0.2 % of rows of 2,048 tokens and 0.4 % of rows of 32,768,
where groups of 2^27 leave 0.03 % and 0.1 %; where documents are cut to keep ``max_padding_fraction``, groups
make no difference.
"""

_LEAST_ROWS = 128
"""A group has at least this many rows, so that a last row that is not full stays within one percent."""

MOST_PARTITIONS = 256
"""A task hands its rows over in at most this many partitions, so that each is worth a read of its own."""


def group_tokens(sequence_length: int) -> int:
    """Return how many tokens are packed together into rows of a length."""
    return max(GROUP_TOKENS, _LEAST_ROWS * sequence_length)


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """What is known of the documents of a part while it is planned, in corpus order; 21 bytes for each.

    Attributes:
        tokens: int64, length of each.
        split: int8, index into :data:`SPLITS`.
        source: int32, index into ``sources``.
        sources: names in alphabetical order; a known source may have no document here.
    """

    tokens: IntArray
    split: npt.NDArray[np.int8]
    source: npt.NDArray[np.int32]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def tokens_by_source(self, taken: IntArray) -> IntArray:
        """Return the tokens of each source among documents, which may be named several times."""
        counted = np.zeros(len(self.sources), np.int64)
        np.add.at(counted, self.source[taken], self.tokens[taken])
        return counted


@dataclass(frozen=True, slots=True, eq=False)
class PlannedGroup:
    """Documents that are packed together.

    Attributes:
        documents: int64, indices into the part's documents, repeated where one is taken several times.
        seed: what :func:`plan_group` is given for them.
        plan: the rows.
    """

    documents: IntArray
    seed: int
    plan: PackingPlan


def plan_blocks(
    documents: Documents, split: str, config: DataConfig, epochs: int
) -> Iterator[Iterator[PlannedGroup]]:
    """Plan the rows of one split, epoch by epoch and, in an epoch, block by block of the curriculum.

    Args:
        documents: of the whole part.
        split: ``train`` or ``validation``; the mixture is that of training.
        config: sequence length, bound on padding, seed, mixture.
        epochs: how often the mixture is laid out; documents of equal length meet others every time.

    Yields:
        The groups of each block; rows are shuffled within a block.
    """
    for epoch in range(epochs):
        seed = config.shuffle_seed + epoch
        for taken in taken_documents(documents, split, config, seed):
            yield _plan_groups(taken, documents.tokens[taken], config, seed)


def taken_documents(documents: Documents, split: str, config: DataConfig, seed: int) -> Iterator[IntArray]:
    """Yield the documents of each block of one epoch, in corpus order, each as often as the mixture says."""
    in_split = documents.split == SPLITS.index(split)
    if split != "train" or not in_split.any():
        yield np.flatnonzero(in_split)
        return
    counted = documents.tokens_by_source(np.flatnonzero(in_split))
    available = dict(zip(documents.sources, counted.tolist(), strict=True))
    passes = passes_of(config.mixture, available)
    for names in curriculum_of(config.mixture, documents.sources):
        copies = np.zeros(len(documents), np.int64)
        for name in names:
            mine = np.flatnonzero(in_split & (documents.source == documents.sources.index(name)))
            order = np.argsort(shuffled_rank(len(mine), seed))
            copies[mine] = copies_of(documents.tokens[mine], passes[name], order)
        yield np.repeat(np.arange(len(copies)), copies)


def _plan_groups(taken: IntArray, tokens: IntArray, config: DataConfig, seed: int) -> Iterator[PlannedGroup]:
    # A document belongs to the group in whose stretch of tokens its first one falls.
    group_of = (np.cumsum(tokens) - tokens) // group_tokens(config.sequence_length)
    bounds = [0, *(np.flatnonzero(np.diff(group_of)) + 1).tolist(), len(taken)]
    for start, end in itertools.pairwise(bounds):
        if end > start:
            plan = plan_group(tokens[start:end], config, seed)
            yield PlannedGroup(taken[start:end], seed, plan)


def plan_group(tokens: IntArray, config: DataConfig, seed: int) -> PackingPlan:
    """Return the rows of one group; its document ``d`` is the ``d``-th of ``tokens``."""
    # Packing goes by length alone; documents of one length take turns, so that their company changes.
    turns = np.argsort(shuffled_rank(len(tokens), seed))
    plan = plan_packing(tokens[turns], config.sequence_length, config.max_padding_fraction, seed)
    return replace(plan, document=turns[plan.document])


def place_rows(rows_of_groups: Sequence[int], seed: int, first_row: int) -> list[IntArray]:
    """Return the place in the split of each row of a block's groups: shuffled by seed, from ``first_row`` on.

    Takes 32 bytes for each row of the block while it runs.
    """
    order = shuffled_rank(sum(rows_of_groups), seed) + first_row
    bounds = np.cumsum(rows_of_groups, dtype=np.int64)
    return np.split(order, bounds[:-1]) if len(bounds) else []


@dataclass(frozen=True, slots=True)
class Exchange:
    """How the rows of one split travel from the groups they are packed in to the shards they stand in.

    A group hands its rows over in buckets of consecutive places, each a whole number of shards. Up to 256
    shards a bucket is a shard. Beyond, a second step takes one bucket of as many groups as make about two
    groups' worth of rows and sorts it by shard: so nothing holds more than that, and no read is of a single
    row.

    Rows of 2,048 tokens in shards of 8,192: 1 B tokens are 120 groups and 60 shards, so 120 files that are
    read 60 times each. 100 B tokens are 12,000 groups, 5,960 shards, 249 buckets of 24 shards and 25 runs of
    498 groups in each: 3 million reads of about 17 rows in the first step, 150,000 of about 340 rows in the
    second, and 6,200 files between.

    Attributes:
        groups: number of groups.
        rows: of the split.
        rows_per_shard: of every shard but the last.
    """

    groups: int
    rows: int
    rows_per_shard: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.rows_per_shard)

    @property
    def shards_per_bucket(self) -> int:
        """Shards of a bucket; the last one may have fewer."""
        return max(1, -(-self.shards // MOST_PARTITIONS))

    @property
    def rows_per_bucket(self) -> int:
        """Rows of a bucket; the last one may have fewer."""
        return self.shards_per_bucket * self.rows_per_shard

    @property
    def buckets(self) -> int:
        """Number of buckets."""
        return -(-self.shards // self.shards_per_bucket)

    @property
    def in_two_steps(self) -> bool:
        """Whether buckets hold several shards."""
        return self.shards_per_bucket > 1

    @property
    def groups_per_run(self) -> int:
        """Groups of which the second step takes one bucket at a time."""
        return 2 * self.buckets

    @property
    def runs(self) -> int:
        """Tasks of the second step for each bucket; 0 where there is one step."""
        return -(-self.groups // self.groups_per_run) if self.in_two_steps else 0

    def rows_of(self, shard: int) -> int:
        """Return the rows of a shard."""
        return min(self.rows_per_shard, self.rows - shard * self.rows_per_shard)

    def groups_of(self, run: int) -> range:
        """Return the groups of a run."""
        return range(run * self.groups_per_run, min((run + 1) * self.groups_per_run, self.groups))
