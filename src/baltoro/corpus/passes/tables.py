"""Last pass, one task: the tables of the whole corpus and the sum of its figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from baltoro.corpus.dedup.records import DUPLICATE_SCHEMA
from baltoro.corpus.figures import Figures, cluster_figures
from baltoro.corpus.passes.build import LISTING, LISTING_SCHEMA, Build
from baltoro.corpus.work import Task, write_table_file
from baltoro.papers.schema import REJECT_SCHEMA

_ROWS_AT_ONCE = 1 << 14
_ROWS_PER_GROUP = 1 << 10
_NUMBERS = ("merged", "cut_documents", "cut_bytes", "ranks_better")
_JSON_FIELDS = ("files", "cleaned", "cleaned_papers", "canaries", "clusters", "cluster_sizes")


@dataclass(slots=True)
class Totals:
    """What all chunks say together, as plain values.

    Attributes:
        files: ``name``, ``rows``, ``size_bytes`` and ``sha256`` of every file of the artifact.
        figures: of all records.
        cleaned: effects by cleaning rule.
        cleaned_papers: papers with an effect, by rule.
        canaries: ``planted`` and ``found`` by length, and the ``missed``.
        merged: documents made of two parses.
        cut_documents: documents that lost passages because they stand in earlier ones.
        cut_bytes: bytes of these passages.
        ranks_better: documents that gave way to a worse one of an earlier part.
        clusters: the largest groups of copies.
        cluster_sizes: number of groups by number of copies.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    cleaned: dict[str, int] = field(default_factory=dict)
    cleaned_papers: dict[str, int] = field(default_factory=dict)
    canaries: dict[str, Any] = field(default_factory=dict)
    merged: int = 0
    cut_documents: int = 0
    cut_bytes: int = 0
    ranks_better: int = 0
    clusters: list[dict[str, Any]] = field(default_factory=list)
    cluster_sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TablesTask(Task):
    """One task: write ``rejects``, ``duplicates`` and ``objects.parquet``, and sum up."""

    build: Build

    def run(self, index: int) -> None:
        """Join what the chunks wrote, a chunk at a time."""
        area = self.build.area
        totals = Totals()
        cleaned: Counter[str] = Counter()
        cleaned_papers: Counter[str] = Counter()
        planted: Counter[str] = Counter()
        found: Counter[str] = Counter()
        missed: list[Any] = []
        chunks = range(len(self.build.cut))
        for table in area.read_all("written", chunks, ["files", "counts"]):
            row = table.to_pylist()[0]
            counts = json.loads(row["counts"])
            totals.files += json.loads(row["files"])
            totals.merged += counts["merged"]
            totals.cut_bytes += counts["cut_bytes"]
            totals.cut_documents += counts["cut_documents"]
            cleaned.update(counts["cleaned"])
            cleaned_papers.update(counts["cleaned_papers"])
            planted.update(counts["canaries"]["planted"])
            found.update(counts["canaries"]["found"])
            missed += counts["canaries"]["missed"]
        totals.figures = Figures.total(
            Figures.from_json(table.column("figures")[0].as_py())
            for table in area.read_all("written", chunks, ["figures"])
        )
        totals.cleaned, totals.cleaned_papers = dict(cleaned), dict(cleaned_papers)
        totals.canaries = {"planted": dict(planted), "found": dict(found), "missed": missed}
        duplicates = area.read_if("decisions", 0, [*DUPLICATE_SCHEMA.names], [("kind", "!=", "kept")])
        totals.ranks_better = int(pa.compute.sum(duplicates.column("ranks_better")).as_py() or 0)
        totals.clusters, sizes = cluster_figures(duplicates)
        totals.cluster_sizes = {str(size): count for size, count in sizes.items()}
        rejects = area.read_all("rejects", chunks, REJECT_SCHEMA.names)
        totals.files += [
            self._write("rejects.parquet", rejects, REJECT_SCHEMA),
            self._write("duplicates.parquet", iter([duplicates]), DUPLICATE_SCHEMA),
            self._write("objects.parquet", area.batches(LISTING, 0, _ROWS_AT_ONCE), LISTING_SCHEMA),
        ]
        row = {name: json.dumps(getattr(totals, name)) for name in _JSON_FIELDS}
        numbers = {name: getattr(totals, name) for name in _NUMBERS}
        area.write(
            "tables", index, pa.Table.from_pylist([row | numbers | {"figures": totals.figures.to_json()}])
        )

    def _write(self, name: str, tables: Iterator[pa.Table], schema: pa.Schema) -> dict[str, Any]:
        uri = self.build.uri_for(name)
        written = write_table_file(self.build.storage, uri, tables, schema, _ROWS_PER_GROUP)
        return {"name": name, **written}


def read_totals(build: Build) -> Totals:
    """Return what the pass ``tables`` wrote."""
    row = build.area.read("tables", 0).to_pylist()[0]
    return Totals(
        figures=Figures.from_json(row["figures"]),
        **{name: row[name] for name in _NUMBERS},
        **{name: json.loads(row[name]) for name in _JSON_FIELDS},
    )
