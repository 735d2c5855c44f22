"""The data card: what was read, what became of it and why, on one page.

``card.json`` for programs, ``lengths.png`` for people, ``index.html`` with both and everything inline, so
that the one file can be mailed or opened from MLflow.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from baltoro.corpus.cleaning import RULES
from baltoro.corpus.decontamination.canaries import CanaryCounts
from baltoro.corpus.decontamination.cut import CONTAMINATED
from baltoro.corpus.documents import DOCUMENT_REASONS
from baltoro.papers.schema import READ_REASONS

_ROWS_SHOWN = 200
_CLUSTERS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class StageFlow:
    """What one source contributed at each step; read = kept + rejected + duplicates."""

    source: str
    papers_read: int
    rejected: int
    duplicates: int
    kept: int


@dataclass(frozen=True, slots=True)
class DataCard:
    """The figures of a corpus, the same for every build of it.

    ``lengths_characters`` are of kept documents, ascending.
    """

    name: str
    fingerprint: str
    flow: tuple[StageFlow, ...]
    formats: dict[str, int]
    reasons: dict[str, int]
    splits: dict[str, int]
    licenses: dict[str, int]
    years: dict[str, int]
    languages: dict[str, int]
    metadata: dict[str, dict[str, int]]
    cleaning: tuple[dict[str, Any], ...]
    decontamination: dict[str, Any] | None
    clusters: tuple[dict[str, Any], ...]
    lengths_characters: tuple[int, ...]
    rejects: tuple[dict[str, str], ...]
    duplicates: tuple[dict[str, str], ...]

    @classmethod
    def from_build(
        cls,
        *,
        name: str,
        fingerprint: str,
        records: pa.Table,
        duplicates: pa.Table,
        documents_by_split: Mapping[str, int],
        metadata: Mapping[str, Mapping[str, int]],
        cleaned: Mapping[str, int],
        cleaned_papers: Mapping[str, int],
        evaluation_sets: Sequence[Mapping[str, Any]],
        items_too_short: int,
        canaries: CanaryCounts,
    ) -> DataCard:
        """Count a finished build.

        Args:
            name: the recipe's name.
            fingerprint: the corpus artifact's.
            records: one row per record read (``baltoro.corpus.pipeline.RECORD_SCHEMA``).
            duplicates: one row per document that gave way to a copy.
            documents_by_split: kept documents per split.
            metadata: matched and unmatched counts per source with a metadata table.
            cleaned: effects by cleaning rule.
            cleaned_papers: papers with an effect, by cleaning rule.
            evaluation_sets: name, records, items, empty_records of each set that was looked for.
            items_too_short: items of them that cannot be told from ordinary text.
            canaries: how many planted items were found.
        """
        copies = set(duplicates.column("paper_id").to_pylist())
        rows = records.to_pylist()
        kept = [row for row in rows if row["reason"] is None and row["paper_id"] not in copies]
        refused = [row for row in rows if row["reason"] is not None]
        flow = []
        for source in dict.fromkeys(row["source"] for row in rows):
            mine = [row for row in rows if row["source"] == source]
            flow.append(
                StageFlow(
                    source=source,
                    papers_read=len(mine),
                    rejected=sum(row["reason"] is not None for row in mine),
                    duplicates=sum(row["reason"] is None and row["paper_id"] in copies for row in mine),
                    kept=sum(row["reason"] is None and row["paper_id"] not in copies for row in mine),
                )
            )
        return cls(
            name=name,
            fingerprint=fingerprint,
            flow=tuple(flow),
            formats=_counted(row["format"] for row in rows if row["reason"] is None),
            reasons=_counted(row["reason"] for row in refused),
            splits=dict(documents_by_split),
            licenses=_counted(row["license"] for row in kept),
            years={
                "not stated" if year is None else str(year): count
                for year, count in sorted(
                    Counter(row["year"] for row in kept).items(), key=lambda item: (item[0] is None, item[0])
                )
            },
            languages=_counted(row["language"] or "not stated" for row in kept),
            metadata={source: dict(counts) for source, counts in metadata.items()},
            cleaning=tuple(
                {"rule": rule, "what": what, "effects": cleaned[rule], "papers": cleaned_papers[rule]}
                for rule, what in RULES.items()
                if cleaned.get(rule)
            ),
            decontamination=_decontamination(rows, evaluation_sets, items_too_short, canaries)
            if evaluation_sets
            else None,
            clusters=_largest_clusters(duplicates),
            lengths_characters=tuple(sorted(row["characters"] for row in kept)),
            rejects=tuple(
                {key: row[key] or "" for key in ("paper_id", "stage", "reason", "detail")} for row in refused
            ),
            duplicates=tuple(duplicates.select(["paper_id", "kept_paper_id", "kind"]).to_pylist()),
        )


def _counted(values: Any) -> dict[str, int]:
    return {str(key): count for key, count in Counter(values).most_common()}


def _decontamination(
    rows: Sequence[Mapping[str, Any]],
    evaluation_sets: Sequence[Mapping[str, Any]],
    items_too_short: int,
    canaries: CanaryCounts,
) -> dict[str, Any]:
    recall = canaries.recall()
    return {
        "sets": [dict(evaluation) for evaluation in evaluation_sets],
        "items_too_short": items_too_short,
        "documents_dropped": sum(row["reason"] == CONTAMINATED for row in rows),
        "documents_cut_or_reported": sum(row["contaminated"] is not None for row in rows),
        "recall_of_8_or_more_words": None if recall is None else round(recall, 4),
        "canaries": {
            name: {"planted": planted, "found": canaries.found.get(name, 0)}
            for name, planted in canaries.planted.items()
        },
    }


def _largest_clusters(duplicates: pa.Table) -> tuple[dict[str, Any], ...]:
    """Return the largest groups of copies, where chains of similar texts would show first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in duplicates.to_pylist():
        groups.setdefault(row["cluster"], []).append(row)
    largest = sorted(groups.values(), key=lambda members: (-len(members), members[0]["kept_paper_id"]))
    return tuple(
        {
            "kept": members[0]["kept_paper_id"],
            "copies": len(members),
            "kinds": _counted(row["kind"] for row in members),
        }
        for members in largest[:_CLUSTERS_SHOWN]
    )


def card_files(card: DataCard) -> dict[str, bytes]:
    """Return the card's files by name: ``index.html``, ``card.json``, ``lengths.png``."""
    picture = length_histogram(card.lengths_characters, title=f"{card.name}: document lengths")
    record = asdict(card)
    record["lengths_characters"] = length_summary(card.lengths_characters)
    # All of them stand in rejects.parquet and duplicates.parquet; of a large corpus they would fill the card.
    record["rejects"] = record["rejects"][:_ROWS_SHOWN]
    record["duplicates"] = record["duplicates"][:_ROWS_SHOWN]
    return {
        "index.html": render_html(card, picture).encode(),
        "card.json": json.dumps(record, indent=2, ensure_ascii=False).encode(),
        "lengths.png": picture,
    }


def length_summary(lengths: Sequence[int]) -> dict[str, float]:
    """Return count, sum, and quantiles of lengths in characters."""
    if not lengths:
        return {"count": 0, "sum": 0}
    quantiles = np.quantile(np.asarray(lengths), [0, 0.05, 0.5, 0.95, 1])
    names = ("min", "p05", "median", "p95", "max")
    return {
        "count": len(lengths),
        "sum": int(sum(lengths)),
        **{name: round(float(value), 1) for name, value in zip(names, quantiles, strict=True)},
    }


def length_histogram(lengths: Sequence[int], *, title: str) -> bytes:
    """Return a PNG histogram of lengths in characters, on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    if lengths:
        low, high = max(1, min(lengths)), max(lengths)
        bins = np.geomspace(low, max(high, low * 1.1), 31).tolist()
        axes.hist(lengths, bins=bins, color="#3b6ea5", edgecolor="white", linewidth=0.5)
        median = float(np.median(lengths))
        axes.axvline(median, color="#c44e52", linewidth=1.5, label=f"median {median:,.0f}")
        axes.set_xscale("log")
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no documents were kept", ha="center", va="center", transform=axes.transAxes)
    axes.set_xlabel("length (characters)")
    axes.set_ylabel("documents")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    # Without a creation date the same lengths give the same bytes.
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data card: {{ card.name }}</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
        padding: 0 1rem }
 h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2rem }
 table { border-collapse: collapse; margin: .5rem 0 }
 th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
 th { border-bottom: 1px solid #999; font-weight: 600 }
 td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
 .muted { color: #666 } .bar { background: #3b6ea5; height: .7rem; display: inline-block }
 .columns { display: flex; flex-wrap: wrap; gap: 0 3rem } img { max-width: 100% } code { font-size: .9em }
</style></head><body>
<h1>Data card: {{ card.name }}</h1>
<p class="muted">corpus {{ card.fingerprint }}</p>
<p>{{ total.read }} records read = <b>{{ total.kept }} kept</b> + {{ total.rejected }} rejected
 + {{ total.duplicates }} duplicates.{% if not total.balanced %} <b>This does not balance.</b>{% endif %}</p>
<h2>Flow by source</h2>
<table>
<tr><th>source<th class="n">read<th class="n">rejected<th class="n">duplicates<th class="n">kept<th></tr>
{% for row in card.flow %}
<tr><td>{{ row.source }}<td class="n">{{ row.papers_read }}<td class="n">{{ row.rejected }}
<td class="n">{{ row.duplicates }}<td class="n">{{ row.kept }}
<td><span class="bar" style="width: {{ (160 * row.kept / [row.papers_read, 1] | max) | round(1) }}px">
</span></tr>
{% endfor %}
</table>
<h2>Lengths of kept documents</h2>
<img alt="histogram of document lengths" src="data:image/png;base64,{{ picture }}">
<p class="muted">
{% for key, value in lengths.items() %}
{{ key }} {{ "{:,.0f}".format(value) }}{{ " · " if not loop.last }}
{% endfor %}
(characters)</p>
<div class="columns">
{% for title, counts in tables %}
<div><h2>{{ title }}</h2><table>
{% for key, value in counts.items() %}
<tr><td>{{ key }}<td class="n">{{ value }}</tr>
{% else %}
<tr><td class="muted">none</tr>
{% endfor %}
</table></div>
{% endfor %}
</div>
{% if card.cleaning %}
<h2>Cleaning</h2>
<table><tr><th>rule<th class="n">effects<th class="n">papers<th>what is counted</tr>
{% for row in card.cleaning %}
<tr><td>{{ row.rule }}<td class="n">{{ row.effects }}<td class="n">{{ row.papers }}<td>{{ row.what }}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Decontamination</h2>
{% if card.decontamination %}
<table><tr><th>evaluation set<th class="n">records<th class="n">items looked for</tr>
{% for row in card.decontamination.sets %}
<tr><td>{{ row.name }}<td class="n">{{ row.records }}<td class="n">{{ row["items"] }}</tr>
{% endfor %}
</table>
<p>{{ card.decontamination.documents_dropped }} documents dropped,
{{ card.decontamination.documents_cut_or_reported }} cut or reported;
{{ card.decontamination.items_too_short }} items are too short to be told from ordinary text.</p>
{% if card.decontamination.canaries %}
<table><tr><th>planted items by length<th class="n">planted<th class="n">found</tr>
{% for name, counts in card.decontamination.canaries.items() %}
<tr><td>{{ name.replace("_", " ") }}<td class="n">{{ counts.planted }}<td class="n">{{ counts.found }}</tr>
{% endfor %}
</table>
{% endif %}
{% else %}
<p class="muted">no evaluation set is named (corpus.decontaminate.sets), so nothing was looked for</p>
{% endif %}
<h2>Rejected records</h2>
{% if card.rejects %}
<table><tr><th>paper<th>stage<th>reason<th>found</tr>
{% for row in card.rejects[:shown] %}
<tr><td><code>{{ row.paper_id }}</code><td>{{ row.stage }}
<td title="{{ meanings.get(row.reason, '') }}">{{ row.reason }}<td>{{ row.detail }}</tr>
{% endfor %}
</table>
{{ more(card.rejects, "rejects.parquet") }}
<p class="muted">
{% for reason in card.reasons %}
<b>{{ reason }}</b>: {{ meanings.get(reason, "") }}.
{% endfor %}
</p>
{% else %}
<p class="muted">none</p>
{% endif %}
<h2>Largest groups of copies</h2>
{% if card.clusters %}
<table><tr><th>kept<th class="n">copies<th>kinds</tr>
{% for row in card.clusters %}
<tr><td><code>{{ row.kept }}</code><td class="n">{{ row.copies }}
<td>{% for kind, count in row.kinds.items() %}
{{ count }} {{ kind }}{{ ", " if not loop.last }}
{% endfor %}</tr>
{% endfor %}
</table>
{% else %}
<p class="muted">none</p>
{% endif %}
<h2>Duplicates</h2>
{% if card.duplicates %}
<table><tr><th>paper<th>gave way to<th>kind</tr>
{% for row in card.duplicates[:shown] %}
<tr><td><code>{{ row.paper_id }}</code><td><code>{{ row.kept_paper_id }}</code><td>{{ row.kind }}</tr>
{% endfor %}
</table>
{{ more(card.duplicates, "duplicates.parquet") }}
{% else %}
<p class="muted">none</p>
{% endif %}
</body></html>
"""


def render_html(card: DataCard, picture: bytes) -> str:
    """Return the card as one self-contained HTML page."""
    from jinja2 import Environment

    total = {
        "read": sum(row.papers_read for row in card.flow),
        "kept": sum(row.kept for row in card.flow),
        "rejected": sum(row.rejected for row in card.flow),
        "duplicates": sum(row.duplicates for row in card.flow),
    }
    balanced = total["read"] == total["kept"] + total["rejected"] + total["duplicates"]
    tables = [
        ("Formats read", card.formats),
        ("Reasons of rejection", card.reasons),
        ("Splits", card.splits),
        ("Licences", card.licenses),
        ("Languages", card.languages),
        ("Years", card.years),
        *((f"Metadata of {source}", counts) for source, counts in card.metadata.items()),
    ]
    template = Environment(autoescape=True, trim_blocks=True).from_string(_TEMPLATE)
    return template.render(
        card=card,
        total=total | {"balanced": balanced},
        lengths=length_summary(card.lengths_characters),
        picture=base64.b64encode(picture).decode(),
        tables=tables,
        meanings=READ_REASONS | DOCUMENT_REASONS,
        shown=_ROWS_SHOWN,
        more=_left_out,
    )


def _left_out(rows: Sequence[Any], file: str) -> str:
    """Return where the rows stand that the page has no room for, or nothing."""
    return f"{len(rows) - _ROWS_SHOWN} more stand in {file}." if len(rows) > _ROWS_SHOWN else ""
