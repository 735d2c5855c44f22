"""Second pass: which documents are copies of each other, and who gives way to whom."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from baltoro.corpus.dedup.clusters import KEPT, LEVELS, Clusters, Edges, clusters_of, find_edges
from baltoro.corpus.dedup.keys import KeyFilter, flat_keys, settled_rows, signature_schema
from baltoro.corpus.dedup.merge import choose_parses
from baltoro.corpus.dedup.records import DECISION_SCHEMA
from baltoro.corpus.passes.build import Build
from baltoro.corpus.work import Task

_DECISIONS_PER_ROW_GROUP = 1 << 16
_VERSION = LEVELS.index("version")


@dataclass(frozen=True)
class NewKeysTask(Task):
    """One task: what tells whether a key may occur among the new documents."""

    build: Build

    def run(self, index: int) -> None:
        """Collect the keys of all chunks."""
        area, chunks = self.build.area, range(len(self.build.cut))
        total = sum(
            int(pa.compute.sum(pa.compute.list_value_length(table.column("keys"))).as_py() or 0)
            for table in area.read_all("signatures", chunks, ["keys"])
        )
        found = KeyFilter.of(map(flat_keys, area.read_all("signatures", chunks, ["keys"])), total)
        area.write("new-keys", index, pa.table({"bits": found.bits}))


def new_keys(build: Build, name: str) -> KeyFilter:
    """Return what a task of the pass ``name`` wrote."""
    return KeyFilter(build.area.read(name, 0).column("bits").to_numpy())


@dataclass(frozen=True)
class SettledTask(Task):
    """One signature file of the corpus that is extended: the rows that may meet a new document."""

    build: Build

    def run(self, index: int) -> None:
        """Pick them out, by partition."""
        build = self.build
        assert build.earlier is not None, "there is nothing settled in a first part"
        dedup = build.config.dedup
        signatures = build.area.read_uri(build.earlier.signatures[index]).cast(signature_schema(dedup))
        rows = settled_rows(signatures, new_keys(build, "new-keys"), dedup)
        build.area.write_partitions("settled", index, rows, build.partitions)


@dataclass(frozen=True)
class EdgeTask(Task):
    """One partition of the keys: the pairs of copies in it."""

    build: Build

    def run(self, index: int) -> None:
        """Find its edges."""
        build = self.build
        rows = build.area.read_partition("keys", range(len(build.cut)), index)
        if build.earlier is not None and build.earlier.signatures:
            settled = build.area.read_partition("settled", range(len(build.earlier.signatures)), index)
            rows = pa.concat_tables([rows, settled])
        build.area.write("edges", index, find_edges(rows, build.config.dedup).to_table())


@dataclass(frozen=True)
class DecideTask(Task):
    """One task: who gives way to whom. It holds what is proportional to the number of copies."""

    build: Build

    def run(self, index: int) -> None:
        """Join all edges and write the decisions, in the order of the documents' numbers."""
        area = self.build.area
        edges = Edges.from_tables([area.read("edges", number) for number in range(self.build.partitions)])
        clusters = clusters_of(edges)
        members = self._members(clusters)
        # A document of an earlier part is named, but nothing is decided about it any more.
        new = ~members.settled
        names = members.paper_ids
        kinds = np.array([*LEVELS, "kept"], dtype=object)
        assert len(LEVELS) == KEPT
        kept = np.searchsorted(clusters.documents, clusters.kept)
        frames, donors = self._merges(clusters, members, kept)
        decisions = pa.table(
            {
                "number": clusters.documents[new],
                "kept": clusters.kept[new],
                "paper_id": names.filter(pa.array(new)),
                "uri": members.uris.filter(pa.array(new)),
                "kept_paper_id": names.take(pa.array(kept[new])),
                "kind": pa.array(kinds[clusters.levels[new]].tolist(), pa.string()),
                "cluster": names.take(pa.array(np.searchsorted(clusters.documents, clusters.clusters)[new])),
                "kept_earlier": members.settled[kept][new],
                "ranks_better": (members.ranks < members.ranks[kept])[new],
                "frame": frames.filter(pa.array(new)),
                "donor": donors.filter(pa.array(new)),
            }
        )
        sink = io.BytesIO()
        pq.write_table(decisions.cast(DECISION_SCHEMA), sink, row_group_size=_DECISIONS_PER_ROW_GROUP)
        area.storage.write_bytes(area.place("decisions", index), sink.getvalue())

    def _members(self, clusters: Clusters) -> _Members:
        """Return the names of the documents that have copies; of others nothing is held."""
        build, area = self.build, self.build.area
        schema = pa.schema(
            [("number", pa.int64()), ("rank", pa.uint64()), ("settled", pa.bool_())]
            + [(name, pa.string()) for name in ("paper_id", "uri", "format")]
        )
        found = [schema.empty_table()]

        def add(table: pa.Table, *, settled: bool) -> None:
            mask = np.isin(table.column("number").to_numpy(), clusters.documents)
            if not mask.any():
                return
            chosen = table.filter(pa.array(mask)).replace_schema_metadata()
            for name in ("uri", "format", "rank"):
                if name not in chosen.column_names:
                    chosen = chosen.append_column(name, pa.nulls(chosen.num_rows, schema.field(name).type))
            chosen = chosen.append_column("settled", pa.array([settled] * chosen.num_rows))
            found.append(chosen.select(schema.names).cast(schema))

        for table in area.read_all("records", range(len(build.cut)), ["number", "paper_id", "uri", "format"]):
            add(table, settled=False)
        for uri in build.earlier.signatures if build.earlier is not None else ():
            add(area.read_uri(uri, ["number", "paper_id", "rank"]), settled=True)
        members = pa.concat_tables(found).sort_by("number").combine_chunks()
        settled = members.column("settled").to_numpy()
        own = pa.compute.fill_null(members.column("rank"), pa.scalar(0, pa.uint64())).to_numpy()
        return _Members(
            members.column("paper_id").combine_chunks(),
            members.column("uri").combine_chunks(),
            members.column("format").to_pylist(),
            settled,
            np.where(settled, own, clusters.ranks),
        )

    def _merges(
        self, clusters: Clusters, members: _Members, kept: npt.NDArray[np.int64]
    ) -> tuple[pa.Array, pa.Array]:
        """Return, for documents that stay, the numbers of the two parses that they are merged from."""
        pairs: dict[int, tuple[int, int]] = {}
        if self.build.config.dedup.versions.merge:
            alike = (clusters.levels <= _VERSION) & ~members.settled[kept]
            families: dict[int, list[int]] = {}
            for place in np.flatnonzero(alike).tolist():
                families.setdefault(int(kept[place]), []).append(place)
            for head, versions in families.items():
                parses = [
                    _Parse(members.paper_ids[place].as_py(), members.formats[place], place)
                    for place in (head, *versions)
                ]
                chosen = choose_parses(parses, parses[0].paper_id)
                if chosen is not None:
                    pairs[head] = (chosen[0].place, chosen[1].place)
        numbers = clusters.documents.tolist()
        places = range(len(numbers))
        return (
            pa.array([numbers[pairs[at][0]] if at in pairs else None for at in places], pa.int64()),
            pa.array([numbers[pairs[at][1]] if at in pairs else None for at in places], pa.int64()),
        )


class _Parse(NamedTuple):
    paper_id: str
    format: str
    place: int


@dataclass(frozen=True)
class _Members:
    """The documents of all clusters, in the order of their numbers."""

    paper_ids: pa.Array
    uris: pa.Array
    formats: list[Any]
    settled: npt.NDArray[np.bool_]
    ranks: npt.NDArray[np.uint64]


def decisions_between(build: Build, first: int, end: int) -> pa.Table:
    """Return the decisions about the documents with numbers from ``first`` to below ``end``."""
    return build.area.read_between("decisions", 0, "number", first, end)
