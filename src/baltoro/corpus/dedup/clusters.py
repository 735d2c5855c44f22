"""From exchanged keys to clusters of copies: verified edges per partition, then connected components.

:func:`find_edges` works on all rows of one partition of the keys. Documents with a key in common are
candidates; what makes two of them copies stands in :mod:`~baltoro.corpus.dedup.versions` and
:mod:`~baltoro.corpus.dedup.minhash`. A group of equal keys is worked off so that time and memory stay
linear in its size: up to 16 documents are all compared with each other; in a larger one the best-ranked is
compared with all others, those that match leave, and the best of the rest goes on, for at most 16 rounds. A
text that 10^5 documents copy costs one round; a form that 10^5 unrelated documents share (a checklist fills
whole bands) costs 16 comparisons per document. A true pair within such a group that no round compares is
not lost: it shares other keys, since similar documents share several of their 64 bands.

:func:`clusters_of` joins the edges of all partitions. They are few: a partition gives at most one edge per
document and level. Everything is chosen by rank and document number alone, so the result does not depend on
the order of rows, on the partitioning, or on which edge was found first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.dedup.minhash import Sketch, containment, similarity, similarity_noise
from baltoro.corpus.dedup.versions import NO_TITLE, SETTLED_RANK, KeyKind
from baltoro.corpus.words import Hashes

Numbers = npt.NDArray[np.int64]
Pairs = tuple[Numbers, Numbers]
Accept = Callable[[Numbers, Numbers], npt.NDArray[np.bool_]]

LEVELS = ("exact", "version", "near")
"""Kinds of duplicates, strongest first; an edge's level is the place of its kind."""

KEPT = len(LEVELS)
"""In :attr:`Clusters.levels`: the document stays."""

_LEVEL_OF_KIND = np.array([0, 1, 1, 1, 1, 1, 2], np.uint8)
_TRUSTED = (KeyKind.EXACT, KeyKind.METADATA, KeyKind.TITLE_AUTHOR)
_COMPARISONS = 16
_LARGEST_FAMILY = 32
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Edges:
    """Pairs of documents found to be copies; ``left`` is the better of the two.

    Attributes:
        left: int64 document numbers.
        right: int64 document numbers.
        levels: uint8, the place of the kind in :data:`LEVELS`.
        left_ranks: uint64.
        right_ranks: uint64.
    """

    left: Numbers
    right: Numbers
    levels: npt.NDArray[np.uint8]
    left_ranks: Hashes
    right_ranks: Hashes

    def __len__(self) -> int:
        return len(self.left)

    def to_table(self) -> pa.Table:
        """Return the edges as a table with one column per attribute."""
        return pa.table({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_tables(cls, tables: Sequence[pa.Table]) -> Edges:
        """Return the edges of all partitions."""
        types = {"left": np.int64, "right": np.int64, "levels": np.uint8}
        return cls(
            **{
                field.name: np.concatenate(
                    [
                        np.empty(0, types.get(field.name, np.uint64)),
                        *(table.column(field.name).to_numpy() for table in tables),
                    ]
                )
                for field in fields(cls)
            }
        )


@dataclass(frozen=True, slots=True)
class Clusters:
    """Documents that have copies, in order of number; a document that is not here stands alone.

    Attributes:
        documents: int64, ascending.
        clusters: int64, the smallest document number of the cluster: the same for all of its members.
        kept: int64, the number of the member that stays.
        levels: uint8, the kind of duplicate in :data:`LEVELS`, or :data:`KEPT`. A document gives way at the
            strongest kind at which a better copy exists, if only to one that itself gives way. A document of
            an earlier part (``SETTLED_RANK``) never gives way.
        ranks: uint64, each document's own.
    """

    documents: Numbers
    clusters: Numbers
    kept: Numbers
    levels: npt.NDArray[np.uint8]
    ranks: Hashes


def find_edges(rows: pa.Table, config: DedupConfig) -> Edges:
    """Return the verified edges among the rows of one partition, as a spanning star per level.

    Args:
        rows: all rows of the partition in :func:`~baltoro.corpus.dedup.keys.key_schema`, in any order.
        config: thresholds; must be the one the rows were made with.
    """
    group = _Rows.with_shared_keys(rows)
    pairs: list[tuple[npt.NDArray[np.uint8], Pairs]] = []

    def accept(left: Numbers, right: Numbers) -> npt.NDArray[np.bool_]:
        return _verified(group, left, right, config)

    trusted = np.isin(group.kinds, [int(kind) for kind in _TRUSTED])
    alone = np.flatnonzero(trusted | (group.sizes > _COMPARISONS))
    together = np.flatnonzero(~trusted & (group.sizes <= _COMPARISONS))
    for left, right in (_rounds(group.groups, alone, accept), _all_pairs(group.groups, together, accept)):
        pairs.append((_LEVEL_OF_KIND[group.kinds[left]], (left, right)))
    levels = np.concatenate([level for level, _ in pairs])
    left = np.concatenate([pair[0] for _, pair in pairs])
    right = np.concatenate([pair[1] for _, pair in pairs])
    found = Edges(
        group.documents[left], group.documents[right], levels, group.ranks[left], group.ranks[right]
    )
    return _spanning_stars(found)


def clusters_of(edges: Edges) -> Clusters:
    """Return the connected components of all edges, and which member of each stays."""
    documents, ranks, left, right = _compact(edges)
    order = np.lexsort((documents, ranks))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    levels = np.full(len(documents), KEPT, np.uint8)
    settled = ranks == SETTLED_RANK
    components = np.arange(len(documents))
    best = components
    for level in range(len(LEVELS)):
        chosen = edges.levels <= level
        components = _components(left[chosen], right[chosen], len(documents))
        best = order[_smallest(place, components)]
        gave_way = (best[components] != np.arange(len(documents))) & (levels == KEPT) & ~settled
        levels[gave_way] = level
    return Clusters(
        documents,
        documents[_smallest(np.arange(len(documents)), components)[components]],
        np.where(settled, documents, documents[best[components]]),
        levels,
        ranks,
    )


# --- rows and candidates -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows whose key stands in several, sorted by key, then rank and document: the best of a group first."""

    groups: Numbers
    sizes: Numbers
    kinds: npt.NDArray[np.uint8]
    documents: Numbers
    ranks: Hashes
    titles: Hashes
    shingles: Numbers
    formats: npt.NDArray[np.uint8]
    sketches: Sketch

    @classmethod
    def with_shared_keys(cls, rows: pa.Table) -> _Rows:
        keys = rows.column("key").to_numpy()
        order = np.argsort(keys)
        ordered = keys[order]
        equal = ordered[1:] == ordered[:-1]
        shared = np.zeros(len(keys), np.bool_)
        shared[1:] |= equal
        shared[:-1] |= equal
        picked = rows.take(pa.array(order[shared]))
        column = {name: picked.column(name).to_numpy() for name in picked.column_names if name != "sketch"}
        order = np.lexsort((column["document"], column["rank"], column["kind"], column["key"]))
        column = {name: values[order] for name, values in column.items()}
        starts = np.ones(len(order), np.bool_)
        starts[1:] = (column["key"][1:] != column["key"][:-1]) | (column["kind"][1:] != column["kind"][:-1])
        groups = np.cumsum(starts) - 1
        return cls(
            groups=groups,
            sizes=np.bincount(groups)[groups] if len(groups) else groups,
            kinds=column["kind"],
            documents=column["document"],
            ranks=column["rank"],
            titles=column["title"],
            shingles=column["shingles"].astype(np.int64),
            formats=column["format"],
            sketches=_sketches(picked)[order],
        )


def _sketches(rows: pa.Table) -> Sketch:
    column = rows.column("sketch").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    width = column.type.byte_width
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.empty((0, width), np.uint8)
    first = column.offset * width
    values: Sketch = np.frombuffer(data, np.uint8)[first : first + len(column) * width]
    return values.reshape(-1, width)


def _all_pairs(groups: Numbers, rows: Numbers, accept: Accept) -> Pairs:
    """Return the accepted pairs among all of each group; groups hold at most ``_COMPARISONS`` rows."""
    lefts, rights = [rows[:0]], [rows[:0]]
    for distance in range(1, _COMPARISONS):
        near = np.flatnonzero(groups[rows[distance:]] == groups[rows[:-distance]])
        if not len(near):
            break
        left, right = rows[near], rows[near + distance]
        chosen = accept(left, right)
        lefts.append(left[chosen])
        rights.append(right[chosen])
    return np.concatenate(lefts), np.concatenate(rights)


def _rounds(groups: Numbers, rows: Numbers, accept: Accept) -> Pairs:
    """Return the accepted pairs of each group's best row with the others, then of the next best left."""
    lefts, rights = [rows[:0]], [rows[:0]]
    for _ in range(_COMPARISONS):
        if not len(rows):
            break
        first = np.ones(len(rows), np.bool_)
        first[1:] = groups[rows[1:]] != groups[rows[:-1]]
        leaders = rows[first][np.cumsum(first) - 1][~first]
        others = rows[~first]
        chosen = accept(leaders, others)
        lefts.append(leaders[chosen])
        rights.append(others[chosen])
        rows = others[~chosen]
    return np.concatenate(lefts), np.concatenate(rights)


def _verified(rows: _Rows, left: Numbers, right: Numbers, config: DedupConfig) -> npt.NDArray[np.bool_]:
    """Return which candidate pairs are copies; both rows of a pair have the same key and kind."""
    accepted = np.zeros(len(left), np.bool_)
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        accepted[part] = _verified_part(rows, left[part], right[part], config)
    return accepted


def _verified_part(rows: _Rows, left: Numbers, right: Numbers, config: DedupConfig) -> npt.NDArray[np.bool_]:
    kinds = rows.kinds[left]
    accepted = np.isin(kinds, (int(KeyKind.METADATA), int(KeyKind.TITLE_AUTHOR)))
    # What more documents share ("n/a" in a column, a serial's title) identifies no paper.
    accepted &= rows.sizes[left] <= _LARGEST_FAMILY
    judged = np.flatnonzero(~accepted)
    if not len(judged):
        return accepted
    left, right, kinds = left[judged], right[judged], kinds[judged]
    alike = similarity(rows.sketches[left], rows.sketches[right])
    held = containment(alike, rows.shingles[left], rows.shingles[right])
    versions, near = config.versions, config.near
    similar = np.ones(len(left), np.bool_)
    if versions.min_containment > 0:
        # A short text's containment in a long one multiplies the noise of the estimate.
        similar = (held >= versions.min_containment) & (alike >= 4 * similarity_noise(near.bins))
    same_title = (rows.titles[left] == rows.titles[right]) & (rows.titles[left] != NO_TITLE)
    near_copies = alike >= near.threshold
    if near.min_containment is not None:
        near_copies |= (held >= near.min_containment) & (alike >= 4 * similarity_noise(near.bins))
    accepted[judged] = np.select(
        [kinds == KeyKind.EXACT, kinds == KeyKind.DOI, kinds == KeyKind.STEM, kinds == KeyKind.NEAR],
        [
            alike == 1.0,
            same_title | similar,
            (rows.formats[left] != rows.formats[right]) & (same_title | similar),
            near_copies,
        ],
        similar,
    )
    return accepted


# --- graphs ------------------------------------------------------------------------------------------


def _spanning_stars(edges: Edges) -> Edges:
    """Return per level and component the edges from its best document to the others; sorted, each once."""
    parts = []
    for level in range(len(LEVELS)):
        chosen = edges.levels == level
        part = Edges(*(getattr(edges, field.name)[chosen] for field in fields(edges)))
        documents, ranks, left, right = _compact(part)
        components = _components(left, right, len(documents))
        order = np.lexsort((documents, ranks))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        best = order[_smallest(place, components)][components]
        others = np.flatnonzero(best != np.arange(len(documents)))
        best = best[others]
        parts.append(
            Edges(
                documents[best], documents[others], np.full(len(others), level, np.uint8),
                ranks[best], ranks[others],
            )
        )  # fmt: skip
    return Edges(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(edges)))


def _compact(edges: Edges) -> tuple[Numbers, Hashes, Numbers, Numbers]:
    """Return the documents of some edges in order, their ranks, and both ends as places in that order."""
    both = np.concatenate([edges.left, edges.right])
    documents, first, places = np.unique(both, return_index=True, return_inverse=True)
    ranks = np.concatenate([edges.left_ranks, edges.right_ranks])[first]
    return documents, ranks, places[: len(edges)], places[len(edges) :]


def _components(left: Numbers, right: Numbers, count: int) -> Numbers:
    if not count:
        return np.empty(0, np.int64)
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    labels: Numbers = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _smallest(values: Numbers, components: Numbers) -> Numbers:
    """Return the smallest value of each component."""
    if not len(values):
        return values
    smallest = np.full(int(components.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, components, values)
    return smallest
