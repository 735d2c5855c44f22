"""The figures of a corpus as its data card shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baltoro.corpus.cleaning import RULES
from baltoro.corpus.decontamination.canaries import CanaryCounts
from baltoro.corpus.decontamination.cut import CONTAMINATED
from baltoro.corpus.dedup.clusters import LEVELS
from baltoro.corpus.figures import Amount, Figures, SourceFigures
from baltoro.corpus.tallies import QUANTILE_ERROR_FRACTION, Lengths, Tally, length_edges

NAMES_SHOWN = 100
"""Names of each kind in ``card.json``; the page shows fewer, and both say how many others there are."""

MISSED_SHOWN = 10

_QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True, slots=True)
class StageFlow:
    """What one source contributed at each step; read = kept + rejected + duplicates."""

    source: str
    papers_read: int
    rejected: int
    duplicates: int
    kept: int


@dataclass(frozen=True, slots=True)
class NameCounts:
    """How many papers bear each name of a kind: a licence, a venue, a language.

    Attributes:
        counts: by name, the most frequent first.
        not_stated: papers without one.
        others: papers with a name that is not among ``counts``.
        other_names: how many names that are; ``None`` if there are too many to know.
        grouped_papers: 0 where each count is exact; otherwise a count may hold about so many papers of rare
            names that were counted with it.
    """

    counts: dict[str, int]
    not_stated: int
    others: int
    other_names: int | None
    grouped_papers: int

    @classmethod
    def of(cls, tally: Tally) -> NameCounts:
        """Return the names of a tally that a card has room for.

        Names that differ in case alone are one name, in the most frequent spelling: publishers write
        ``PLoS ONE`` and ``PLOS ONE``.
        """
        spelled: dict[str, tuple[str, int]] = {}
        for name, count in tally.most_frequent(len(tally.entries)).items():
            first, total = spelled.get(name.casefold(), (name, 0))
            spelled[name.casefold()] = (first, total + count)
        names = sorted(spelled.values(), key=lambda entry: (-entry[1], entry[0]))
        counts = dict(names[:NAMES_SHOWN])
        return cls(
            counts=counts,
            not_stated=tally.missing,
            others=tally.total - sum(counts.values()),
            other_names=None if tally.grouped else len(names) - len(counts),
            grouped_papers=-(-tally.total // tally.bound) if tally.grouped else 0,
        )

    def head(self, number: int) -> NameCounts:
        """Return the first names, the rest among the others."""
        counts = dict(list(self.counts.items())[:number])
        dropped = len(self.counts) - len(counts)
        return NameCounts(
            counts,
            self.not_stated,
            self.others + sum(self.counts.values()) - sum(counts.values()),
            None if self.other_names is None else self.other_names + dropped,
            self.grouped_papers,
        )


@dataclass(frozen=True, slots=True)
class DataCard:
    """The figures of a corpus, the same for every build of it.

    Attributes:
        name: the recipe's.
        fingerprint: the corpus artifact's.
        extends: what the corpus adds to, if it is a snapshot; see :meth:`from_figures`.
        flow: one entry per source, in the order of the listing.
        sources: more of each source: text bytes, splits, rejects by stage and reason, copies by kind.
        text_bytes: of all kept documents.
        formats: of readable papers.
        reasons: rejected records by reason, the most frequent first.
        duplicates_by_kind: documents that gave way to a copy.
        splits: kept documents by split; the following are of kept documents, too.
        licenses: as stated.
        languages: as identified.
        venues: journals and conferences.
        years: of publication, ascending.
        lengths_characters: count, sum, smallest, largest, and quantiles with their error.
        length_bins: ``[from, to, documents]``, both lengths included.
        metadata: fit of the metadata table, by source that has one.
        cleaning: rule, what it counts, effects, papers with at least one.
        decontamination: ``None`` if no evaluation set was named.
        merged: documents made of two parses; ``None`` if the recipe does not merge.
        cut: documents and bytes of passages cut; ``None`` if the recipe does not cut.
        clusters: the largest groups of copies.
        cluster_sizes: number of groups by number of copies.
        kept_samples: documents drawn at random.
        reject_samples: records drawn at random of each reason.
        duplicate_samples: pairs drawn at random of each kind.
        rejects: records drawn at random of all rejects, in the order of the listing.
        duplicates: pairs drawn at random, likewise.
    """

    name: str
    fingerprint: str
    extends: dict[str, Any] | None
    flow: tuple[StageFlow, ...]
    sources: dict[str, dict[str, Any]]
    text_bytes: int
    formats: NameCounts
    reasons: dict[str, int]
    duplicates_by_kind: dict[str, int]
    splits: dict[str, int]
    licenses: NameCounts
    languages: NameCounts
    venues: NameCounts
    years: NameCounts
    lengths_characters: dict[str, float]
    length_bins: tuple[tuple[int, int, int], ...]
    metadata: dict[str, dict[str, int]]
    cleaning: tuple[dict[str, Any], ...]
    decontamination: dict[str, Any] | None
    merged: int | None
    cut: dict[str, int] | None
    clusters: tuple[dict[str, Any], ...]
    cluster_sizes: dict[int, int]
    kept_samples: tuple[dict[str, Any], ...]
    reject_samples: dict[str, tuple[dict[str, Any], ...]]
    duplicate_samples: dict[str, tuple[dict[str, Any], ...]]
    rejects: tuple[dict[str, Any], ...]
    duplicates: tuple[dict[str, Any], ...]

    @classmethod
    def from_figures(
        cls,
        *,
        name: str,
        fingerprint: str,
        figures: Figures,
        cleaned: Mapping[str, int],
        cleaned_papers: Mapping[str, int],
        evaluation_sets: Sequence[Mapping[str, Any]],
        items_too_short: int,
        canaries: CanaryCounts,
        metadata_rows: Mapping[str, int],
        clusters: Sequence[Mapping[str, Any]] = (),
        cluster_sizes: Mapping[int, int] | None = None,
        extends: Mapping[str, Any] | None = None,
        merged: int | None = None,
        cut: tuple[int, int] | None = None,
    ) -> DataCard:
        """Return the card of a finished build.

        Args:
            name: the recipe's name.
            fingerprint: the corpus artifact's.
            figures: the sum over all chunks that this build read.
            cleaned: effects by cleaning rule.
            cleaned_papers: papers with an effect, by cleaning rule.
            evaluation_sets: name, records, items, empty_records of each set that was looked for.
            items_too_short: items of them that cannot be told from ordinary text.
            canaries: how many planted items were found.
            metadata_rows: number of rows of each source's metadata table.
            clusters: the largest groups of copies: ``kept``, ``copies``, ``kinds``; both this and the next
                from :func:`~baltoro.corpus.figures.cluster_figures`.
            cluster_sizes: number of groups by number of copies.
            merged: documents made of two parses, if the recipe merges them.
            cut: documents that lost passages of earlier ones and the bytes of these, if the recipe cuts them.
            extends: of a snapshot, what it adds to: ``name``, ``fingerprint`` and ``documents`` of that
                corpus, ``older_versions_kept``, ``objects_unchanged``, ``objects_new``, ``objects_changed``,
                ``objects_gone``, ``objects_of_other_sources``.
        """
        sources = figures.in_order()
        reasons = figures.rejected
        copies = figures.duplicates
        return cls(
            name=name,
            fingerprint=fingerprint,
            extends=None if extends is None else dict(extends),
            flow=tuple(_stage_flow(source, found) for source, found in sources),
            sources={source: _source_detail(found) for source, found in sources},
            text_bytes=figures.text_bytes,
            formats=NameCounts.of(figures.formats),
            reasons=reasons,
            duplicates_by_kind={kind: copies.get(kind, 0) for kind in dict.fromkeys((*LEVELS, *copies))},
            splits=figures.splits,
            licenses=NameCounts.of(figures.licenses),
            languages=NameCounts.of(figures.languages),
            venues=NameCounts.of(figures.venues),
            years=_all_years(figures.years),
            lengths_characters=length_summary(figures.lengths),
            length_bins=length_bins(figures.lengths),
            metadata={
                source: {
                    "papers matched": found.matched,
                    "papers without a row": found.readable - found.matched,
                    "rows without a paper": metadata_rows[source] - found.matched_rows.bit_count(),
                }
                for source, found in sources
                if source in metadata_rows
            },
            cleaning=tuple(
                {"rule": rule, "what": what, "effects": cleaned[rule], "papers": cleaned_papers[rule]}
                for rule, what in RULES.items()
                if cleaned.get(rule)
            ),
            decontamination=_decontamination(figures, evaluation_sets, items_too_short, canaries)
            if evaluation_sets
            else None,
            merged=merged,
            cut=None if cut is None else {"documents": cut[0], "bytes": cut[1]},
            clusters=tuple(dict(cluster) for cluster in clusters),
            cluster_sizes=dict(sorted((cluster_sizes or {}).items())),
            kept_samples=tuple(figures.sample("kept")),
            reject_samples={reason: tuple(figures.sample(f"reason:{reason}")) for reason in reasons},
            duplicate_samples={kind: tuple(figures.sample(f"kind:{kind}")) for kind in copies},
            rejects=tuple(figures.sample("rejects")),
            duplicates=tuple(figures.sample("duplicates")),
        )

    @property
    def papers_read(self) -> int:
        """Records read from all sources."""
        return sum(row.papers_read for row in self.flow)

    @property
    def kept(self) -> int:
        """Documents kept of all sources."""
        return sum(row.kept for row in self.flow)

    @property
    def rejected(self) -> int:
        """Records rejected of all sources."""
        return sum(row.rejected for row in self.flow)

    @property
    def gave_way(self) -> int:
        """Documents of all sources that gave way to a copy."""
        return sum(row.duplicates for row in self.flow)

    @property
    def balanced(self) -> bool:
        """Whether every record read is accounted for."""
        return all(row.papers_read == row.kept + row.rejected + row.duplicates for row in self.flow)


def _stage_flow(name: str, source: SourceFigures) -> StageFlow:
    return StageFlow(
        name,
        source.read,
        rejected=sum(amount.records for amount in source.rejected.values()),
        duplicates=sum(amount.records for amount in source.duplicates.values()),
        kept=sum(amount.records for amount in source.kept.values()),
    )


def _source_detail(source: SourceFigures) -> dict[str, Any]:
    kept = sum(source.kept.values(), Amount())
    return {
        "characters": kept.characters,
        "text_bytes": kept.text_bytes,
        "splits": {split: amount.records for split, amount in sorted(source.kept.items())},
        "rejected": [
            {"stage": stage, "reason": reason, "records": amount.records}
            for (stage, reason), amount in sorted(source.rejected.items())
        ],
        "duplicates": {kind: amount.records for kind, amount in sorted(source.duplicates.items())},
        "duplicate_characters": sum(source.duplicates.values(), Amount()).characters,
    }


def _all_years(tally: Tally) -> NameCounts:
    """Return all years in their order: a card has room for the thousand that a tally holds."""
    counts = {year: count for year, (count, _) in sorted(tally.entries.items(), key=lambda e: int(e[0]))}
    exact = NameCounts.of(tally)
    return NameCounts(counts, tally.missing, 0, None if tally.grouped else 0, exact.grouped_papers)


def _decontamination(
    figures: Figures,
    evaluation_sets: Sequence[Mapping[str, Any]],
    items_too_short: int,
    canaries: CanaryCounts,
) -> dict[str, Any]:
    recall = canaries.recall()
    return {
        "sets": [dict(evaluation) for evaluation in evaluation_sets],
        "items_too_short": items_too_short,
        "documents_dropped": figures.rejected.get(CONTAMINATED, 0),
        "documents_cut": figures.contaminated.get("cut", 0),
        "documents_reported": figures.contaminated.get("reported", 0),
        "samples": [
            sample
            for done in sorted(figures.contaminated)
            for sample in figures.sample(f"contaminated:{done}")
        ],
        "recall_of_8_or_more_words": None if recall is None else round(recall, 4),
        "canaries": {
            length: {"planted": planted, "found": canaries.found.get(length, 0)}
            for length, planted in canaries.planted.items()
        },
        "canaries_missed": [
            {"set": missed.set_name, "item": missed.item_id, "planted": missed.planted}
            for missed in canaries.missed[:MISSED_SHOWN]
        ],
    }


def length_summary(lengths: Lengths) -> dict[str, float]:
    """Return count, sum, smallest, largest and quantiles of lengths in characters."""
    if lengths.smallest is None or lengths.largest is None:
        return {"count": 0, "sum": 0}
    return {
        "count": lengths.count,
        "sum": lengths.total,
        "min": lengths.smallest,
        **{name: round(lengths.quantile(fraction), 1) for name, fraction in _QUANTILES.items()},
        "max": lengths.largest,
        "quantile_error_fraction": QUANTILE_ERROR_FRACTION,
    }


def length_bins(lengths: Lengths) -> tuple[tuple[int, int, int], ...]:
    """Return the filled bins as shortest and longest length and number of documents."""
    edges = length_edges()
    return tuple(
        (int(edges[number]), int(edges[number + 1]) - 1, lengths.bins[number])
        for number in sorted(lengths.bins)
    )
