"""What the data card counts: figures of any set of records, which add up and stay small.

Each task makes :class:`Figures` of its own chunk; their sum is the corpus's, in whatever order they are
added and however the corpus was cut. The size depends on the number of sources, reasons and names, not of
papers: names beyond a bound are counted in groups (:class:`~baltoro.corpus.tallies.Tally`), lengths in
bins, and of the records themselves only samples are kept, drawn by a hash of the ``paper_id``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from baltoro.core.errors import ArtifactError
from baltoro.corpus.tallies import Lengths, Tally, clip_bytes

VENUES_BOUND = 16_384
"""Venues that are counted each by itself; a million papers name some ten thousand."""

SAMPLES: dict[str, int] = {
    "kept": 8,
    "reason": 3,
    "kind": 3,
    "contaminated": 3,
    "rejects": 100,
    "duplicates": 100,
}
"""Records shown of each group: the kept ones; each reason, kind of copy, and way of decontaminating; and all
rejects and duplicates, for the tables of the card. A group's name is ``kept``, or ``reason:too_short``."""

LARGEST_CLUSTERS = 20

_NAMES_BOUND = 1024
_ID_BYTES = 300
_DETAIL_BYTES = 500
_EXCERPT_BYTES = 1200
_FORMAT = 1

_Sample = tuple[int, int, str]


class _Adds(Protocol):
    def __add__(self, other: Any, /) -> Any: ...


_Value = TypeVar("_Value", bound=_Adds)


def _added(left: Mapping[Any, _Value], right: Mapping[Any, _Value]) -> dict[Any, _Value]:
    total = dict(left)
    for key, value in right.items():
        total[key] = total[key] + value if key in total else value
    return total


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of something: records, characters of their texts, and bytes of them as far as counted."""

    records: int = 0
    characters: int = 0
    text_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.records + other.records,
            self.characters + other.characters,
            self.text_bytes + other.text_bytes,
        )


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """What became of one source's records.

    Attributes:
        first_number: place of its first record in the listing; the card shows sources in this order.
        read: records read.
        kept: by split.
        rejected: by stage and reason.
        duplicates: by kind of copy.
        matched: readable papers that have a row of the source's metadata table.
        matched_rows: bit ``i`` says that row ``i`` of the table has a paper.
    """

    first_number: int
    read: int = 0
    kept: Mapping[str, Amount] = field(default_factory=dict)
    rejected: Mapping[tuple[str, str], Amount] = field(default_factory=dict)
    duplicates: Mapping[str, Amount] = field(default_factory=dict)
    matched: int = 0
    matched_rows: int = 0

    def __add__(self, other: SourceFigures) -> SourceFigures:
        return SourceFigures(
            min(self.first_number, other.first_number),
            self.read + other.read,
            _added(self.kept, other.kept),
            _added(self.rejected, other.rejected),
            _added(self.duplicates, other.duplicates),
            self.matched + other.matched,
            self.matched_rows | other.matched_rows,
        )

    @property
    def readable(self) -> int:
        """Records that became documents: kept, or gave way to a copy."""
        return _records(self.kept) + _records(self.duplicates)


def _records(amounts: Mapping[Any, Amount]) -> int:
    return sum(amount.records for amount in amounts.values())


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of some records; ``Figures()`` is of none, ``+`` of both.

    Attributes:
        sources: by name.
        formats: of readable papers.
        languages: of kept documents, as the others below.
        licenses: as stated.
        venues: journals and conferences.
        years: of publication, as text.
        lengths: in characters.
        contaminated: documents with an evaluation item that was ``cut`` or is ``reported``.
        samples: by group (:data:`SAMPLES`), the records with the smallest draws: draw,
            number, and fields as JSON.
    """

    sources: Mapping[str, SourceFigures] = field(default_factory=dict)
    formats: Tally = field(default_factory=lambda: Tally(_NAMES_BOUND))
    languages: Tally = field(default_factory=lambda: Tally(_NAMES_BOUND))
    licenses: Tally = field(default_factory=lambda: Tally(_NAMES_BOUND))
    venues: Tally = field(default_factory=lambda: Tally(VENUES_BOUND))
    years: Tally = field(default_factory=lambda: Tally(_NAMES_BOUND))
    lengths: Lengths = field(default_factory=Lengths)
    contaminated: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, tuple[_Sample, ...]] = field(default_factory=dict)

    def __add__(self, other: Figures) -> Figures:
        samples = dict(self.samples)
        for group, rows in other.samples.items():
            samples[group] = tuple(sorted((*samples.get(group, ()), *rows))[: _most(group)])
        return Figures(
            _added(self.sources, other.sources),
            self.formats + other.formats,
            self.languages + other.languages,
            self.licenses + other.licenses,
            self.venues + other.venues,
            self.years + other.years,
            self.lengths + other.lengths,
            _added(self.contaminated, other.contaminated),
            samples,
        )

    @classmethod
    def total(cls, parts: Iterable[Figures]) -> Figures:
        """Return the sum of many figures, of which only a few are held at a time.

        Sums of equal age are added first, so that no large sum is copied for every small part.
        """
        waiting: list[tuple[int, Figures]] = []
        for part in parts:
            age, sum_so_far = 0, part
            while waiting and waiting[-1][0] == age:
                sum_so_far = waiting.pop()[1] + sum_so_far
                age += 1
            waiting.append((age, sum_so_far))
        return sum((figures for _, figures in reversed(waiting)), cls())

    @property
    def papers_read(self) -> int:
        """Records read."""
        return sum(source.read for source in self.sources.values())

    @property
    def kept(self) -> int:
        """Documents kept."""
        return sum(_records(source.kept) for source in self.sources.values())

    @property
    def text_bytes(self) -> int:
        """Bytes of the kept documents' texts."""
        return sum(amount.text_bytes for source in self.sources.values() for amount in source.kept.values())

    @property
    def splits(self) -> dict[str, int]:
        """Kept documents by split, the largest first."""
        return _falling(
            (split, amount) for source in self.sources.values() for split, amount in source.kept.items()
        )

    @property
    def rejected(self) -> dict[str, int]:
        """Rejected records by reason, the most frequent first."""
        return _falling(
            (reason, amount)
            for source in self.sources.values()
            for (_, reason), amount in source.rejected.items()
        )

    @property
    def duplicates(self) -> dict[str, int]:
        """Documents that gave way, by kind of copy, the most frequent first."""
        return _falling(
            (kind, amount) for source in self.sources.values() for kind, amount in source.duplicates.items()
        )

    def balance(self) -> None:
        """Check for each source that every record read is accounted for.

        Raises:
            ArtifactError: read ≠ kept + rejected + duplicates.
        """
        for name, source in self.in_order():
            kept, duplicates = _records(source.kept), _records(source.duplicates)
            rejected = _records(source.rejected)
            if source.read != kept + rejected + duplicates:
                raise ArtifactError(
                    f"the corpus does not balance: {source.read} records read, {kept} kept + {rejected} "
                    f"rejected + {duplicates} duplicates in the source {name!r}; please report this with the "
                    "recipe"
                )

    def in_order(self) -> list[tuple[str, SourceFigures]]:
        """Return the sources in the order in which they were listed."""
        return sorted(self.sources.items(), key=lambda item: (item[1].first_number, item[0]))

    def sample(self, group: str) -> list[dict[str, Any]]:
        """Return the records kept of a group, in the order of the listing."""
        rows = sorted((number, fields) for _, number, fields in self.samples.get(group, ()))
        return [json.loads(fields) for _, fields in rows]

    def to_json(self) -> str:
        """Return the figures as JSON, the same text for equal figures."""
        return json.dumps(
            {
                "figures": _FORMAT,
                "sources": {name: _source_to_plain(self.sources[name]) for name in sorted(self.sources)},
                **{name: getattr(self, name).to_plain() for name in (*_TALLIES, "lengths")},
                "contaminated": dict(sorted(self.contaminated.items())),
                "samples": {group: list(self.samples[group]) for group in sorted(self.samples)},
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the figures that :meth:`to_json` wrote.

        Raises:
            ArtifactError: the text is of another version of Baltoro.
        """
        plain = json.loads(text)
        if plain.get("figures") != _FORMAT:
            raise ArtifactError(
                f"figures of format {plain.get('figures')!r}, where this version of Baltoro writes and reads "
                f"{_FORMAT}; build the corpus again with one version"
            )
        return cls(
            sources={name: _source_from_plain(source) for name, source in plain["sources"].items()},
            **{name: Tally.from_plain(plain[name]) for name in _TALLIES},
            lengths=Lengths.from_plain(plain["lengths"]),
            contaminated=plain["contaminated"],
            samples={
                group: tuple((draw, number, fields) for draw, number, fields in rows)
                for group, rows in plain["samples"].items()
            },
        )


_TALLIES = ("formats", "languages", "licenses", "venues", "years")


def _falling(amounts: Iterable[tuple[str, Amount]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, amount in amounts:
        counts[name] = counts.get(name, 0) + amount.records
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _most(group: str) -> int:
    return SAMPLES[group.partition(":")[0]]


def _source_to_plain(source: SourceFigures) -> dict[str, Any]:
    bits = source.matched_rows.to_bytes((source.matched_rows.bit_length() + 7) // 8, "little")
    return {
        "first_number": source.first_number,
        "read": source.read,
        "kept": [[key, *_amount(source.kept[key])] for key in sorted(source.kept)],
        "rejected": [[*key, *_amount(source.rejected[key])] for key in sorted(source.rejected)],
        "duplicates": [[key, *_amount(source.duplicates[key])] for key in sorted(source.duplicates)],
        "matched": source.matched,
        "matched_rows": base64.b64encode(zlib.compress(bits, 9)).decode() if bits else "",
    }


def _amount(amount: Amount) -> tuple[int, int, int]:
    return amount.records, amount.characters, amount.text_bytes


def _source_from_plain(plain: Mapping[str, Any]) -> SourceFigures:
    packed = base64.b64decode(plain["matched_rows"])
    return SourceFigures(
        plain["first_number"],
        plain["read"],
        {split: Amount(*amount) for split, *amount in plain["kept"]},
        {(stage, reason): Amount(*amount) for stage, reason, *amount in plain["rejected"]},
        {kind: Amount(*amount) for kind, *amount in plain["duplicates"]},
        plain["matched"],
        int.from_bytes(zlib.decompress(packed), "little") if packed else 0,
    )


def figures_of(
    records: pa.Table, gone: pa.Table, *, metadata_rows: Mapping[str, Mapping[str, int]] | None = None
) -> Figures:
    """Count some records.

    What is kept is told by ``split``, what is rejected by ``reason``, what gave way by ``gone``: three
    statements of their own, so that :meth:`Figures.balance` finds a record that is lost or counted twice.

    Args:
        records: one row per record read: ``RECORD_SCHEMA`` of ``baltoro.corpus.pipeline``, with ``split`` and
            ``text_bytes`` (null unless kept) and ``excerpt`` (of whatever has text).
        gone: one row per document among them that gave way: ``number``, ``kept_paper_id``, ``kind``.
        metadata_rows: by source with a metadata table, the place of each row by its key.

    Raises:
        ArtifactError: a document gave way that is not among the records.
    """
    records = records.append_column("draw", pa.array(_draws(records.column("paper_id"))))
    kept = pc.is_valid(records.column("split"))
    rejected = pc.is_valid(records.column("reason"))
    places = _places_of(gone.column("number").to_numpy(), records.column("number").to_numpy())
    copies = records.take(pa.array(places))
    for name in ("kind", "kept_paper_id"):
        copies = copies.append_column(name, gone.column(name))
    documents = records.filter(kept)
    rejects = records.filter(rejected)
    readable = records.filter(pc.invert(rejected))
    contaminated = Counter(
        text.partition(":")[0] for text in documents.column("contaminated").drop_null().to_pylist()
    )
    return Figures(
        sources=_sources(records, documents, rejects, copies, metadata_rows or {}),
        formats=_tally(readable, "format", _NAMES_BOUND),
        languages=_tally(documents, "language", _NAMES_BOUND),
        licenses=_tally(documents, "license", _NAMES_BOUND),
        venues=_tally(documents, "venue", VENUES_BOUND),
        years=_tally(documents, "year", _NAMES_BOUND),
        lengths=Lengths.of(documents.column("characters").to_numpy().astype(np.int64)),
        contaminated=dict(contaminated),
        samples=dict(_samples(documents, rejects, copies)),
    )


def _draws(paper_ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return a number per paper as if drawn at random, the same in every build (blake2b)."""
    digests = b"".join(
        hashlib.blake2b((paper_id or "").encode(), digest_size=8, person=b"data card").digest()
        for paper_id in paper_ids.to_pylist()
    )
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def _places_of(wanted: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    order = np.argsort(numbers, kind="stable")
    found = np.searchsorted(numbers, wanted, sorter=order)
    places = order[np.minimum(found, len(order) - 1)] if len(order) else np.zeros(0, np.int64)
    if len(places) != len(wanted) or not np.array_equal(numbers[places], wanted):
        raise ArtifactError(
            "the corpus does not balance: a document gave way to a copy that is not among the records read; "
            "please report this with the recipe"
        )
    return places


def _sources(
    records: pa.Table,
    documents: pa.Table,
    rejects: pa.Table,
    copies: pa.Table,
    metadata_rows: Mapping[str, Mapping[str, int]],
) -> dict[str, SourceFigures]:
    kept = _amounts(documents, ["split"])
    rejected = _amounts(rejects, ["stage", "reason"])
    duplicates = _amounts(copies, ["kind"])
    groups = records.group_by("source").aggregate([([], "count_all"), ("number", "min")]).to_pylist()
    sources = {}
    for group in groups:
        name = group["source"]
        matched, bits = 0, 0
        if name in metadata_rows:
            matched, bits = _matched(records, name, metadata_rows[name])
        sources[name] = SourceFigures(
            group["number_min"],
            group["count_all"],
            {split: amount for (split,), amount in kept.get(name, {}).items()},
            {(stage, reason): amount for (stage, reason), amount in rejected.get(name, {}).items()},
            {kind: amount for (kind,), amount in duplicates.get(name, {}).items()},
            matched,
            bits,
        )
    return sources


def _amounts(table: pa.Table, keys: list[str]) -> dict[str, dict[tuple[str, ...], Amount]]:
    sums = table.group_by(["source", *keys]).aggregate(
        [([], "count_all"), ("characters", "sum"), ("text_bytes", "sum")]
    )
    amounts: dict[str, dict[tuple[str, ...], Amount]] = {}
    for row in sums.to_pylist():
        amount = Amount(row["count_all"], row["characters_sum"] or 0, row["text_bytes_sum"] or 0)
        amounts.setdefault(row["source"], {})[tuple(row[key] for key in keys)] = amount
    return amounts


def _matched(records: pa.Table, source: str, rows: Mapping[str, int]) -> tuple[int, int]:
    """Return how many readable papers of a source have a row, and which rows those are."""
    mine = pc.and_(pc.equal(records.column("source"), source), pc.is_null(records.column("reason")))
    keys = records.filter(mine).column("metadata_row").drop_null().to_pylist()
    bits = bytearray(len(rows) // 8 + 1)
    for key in keys:
        bits[rows[key] // 8] |= 1 << rows[key] % 8
    return len(keys), int.from_bytes(bits, "little")


def _tally(table: pa.Table, column: str, bound: int) -> Tally:
    table = table.select([column, "draw"]).set_column(0, "name", table.column(column).cast(pa.string()))
    groups = table.group_by("name").aggregate([([], "count_all"), ("draw", "min")])
    return Tally.of(
        {row["name"]: (row["count_all"], row["draw_min"] >> 32) for row in groups.to_pylist()}, bound=bound
    )


_KEPT_FIELDS = (
    "paper_id",
    "source",
    "format",
    "license",
    "language",
    "year",
    "venue",
    "characters",
    "split",
    "excerpt",
)
_REJECT_FIELDS = ("paper_id", "stage", "reason", "detail")
_COPY_FIELDS = ("paper_id", "kept_paper_id", "kind")
_MOST_BYTES = {"detail": _DETAIL_BYTES, "contaminated": _DETAIL_BYTES, "excerpt": _EXCERPT_BYTES}


def _samples(
    documents: pa.Table, rejects: pa.Table, copies: pa.Table
) -> Iterator[tuple[str, tuple[_Sample, ...]]]:
    yield from _drawn("kept", documents, _KEPT_FIELDS)
    yield from _drawn("rejects", rejects, _REJECT_FIELDS)
    yield from _drawn("duplicates", copies, _COPY_FIELDS)
    for reason, rows in _by_value(rejects, rejects.column("reason")):
        yield from _drawn(f"reason:{reason}", rows, (*_REJECT_FIELDS, "excerpt"))
    for kind, rows in _by_value(copies, copies.column("kind")):
        yield from _drawn(f"kind:{kind}", rows, (*_COPY_FIELDS, "excerpt"))
    done = pc.struct_field(pc.extract_regex(documents.column("contaminated"), "^(?P<done>[^:]*)"), "done")
    for value, rows in _by_value(documents, done):
        yield from _drawn(f"contaminated:{value}", rows, ("paper_id", "contaminated"))


def _by_value(table: pa.Table, values: pa.ChunkedArray) -> Iterator[tuple[str, pa.Table]]:
    for value in pc.unique(values).drop_null().to_pylist():
        yield value, table.filter(pc.equal(values, value))


def _drawn(group: str, table: pa.Table, fields: tuple[str, ...]) -> Iterator[tuple[str, tuple[_Sample, ...]]]:
    if not len(table):
        return
    order = np.lexsort((table.column("number").to_numpy(), table.column("draw").to_numpy()))
    rows = table.select(["draw", "number", *fields]).take(pa.array(order[: _most(group)])).to_pylist()
    yield (
        group,
        tuple(
            sorted(
                (row.pop("draw"), row.pop("number"), json.dumps(_clipped(row), ensure_ascii=False))
                for row in rows
            )
        ),
    )


def _clipped(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: clip_bytes(value, _MOST_BYTES.get(name, _ID_BYTES)) if isinstance(value, str) else value
        for name, value in row.items()
    }


def cluster_figures(gone: pa.Table) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Return the largest groups of copies, where chains of similar texts would show first, and all sizes.

    A group reaches over chunks, so this needs all documents that gave way.

    Args:
        gone: one row each: ``kept_paper_id``, ``kind``, ``cluster``, in the order of their numbers.

    Returns:
        The 20 largest as ``{"kept", "copies", "kinds"}``; and the number of groups by number of copies.
    """
    groups = gone.group_by("cluster", use_threads=False).aggregate(
        [([], "count_all"), ("kept_paper_id", "first")]
    )
    sizes, counts = np.unique(groups.column("count_all").to_numpy(), return_counts=True)
    ranked = groups.sort_by([("count_all", "descending"), ("cluster", "ascending")]).slice(
        0, LARGEST_CLUSTERS
    )
    largest = []
    for row in ranked.to_pylist():
        members = gone.filter(pc.equal(gone.column("cluster"), row["cluster"]))
        kinds = pc.value_counts(members.column("kind")).to_pylist()
        largest.append(
            {
                "kept": row["kept_paper_id_first"],
                "copies": row["count_all"],
                "kinds": dict(
                    sorted(
                        ((entry["values"], entry["counts"]) for entry in kinds), key=lambda k: (-k[1], k[0])
                    )
                ),
            }
        )
    return largest, dict(zip(sizes.tolist(), counts.tolist(), strict=True))
