"""The picture of the flow: sources → records read → kept, copies, rejects → splits, widths by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baltoro.corpus.card.card import DataCard
from baltoro.corpus.card.svg import (
    DUPLICATE,
    INK,
    KEPT,
    MUTED,
    NEUTRAL,
    REJECTED,
    clip,
    percent,
    picture,
    rect,
    ribbon,
    text,
)

_WIDTH = 1000.0
_FLOW_HEIGHT = 300.0
_NODE_WIDTH = 12.0
_THINNEST = 2.0
_PITCH = 19.0
_GAP = 7.0
_TOP = 44.0
_SOURCES_X, _READ_X, _OUTCOMES_X, _SPLITS_X = 200.0, 372.0, 588.0, 838.0
_SOURCES_SHOWN = 24
_REASONS_SHOWN = 16
_LABEL_COLUMNS = 28


@dataclass(frozen=True, slots=True)
class _Node:
    """A place in a column of the picture."""

    label: str
    records: int
    color: str


def flow_picture(card: DataCard) -> str:
    """Return the flow as an SVG file; a flow too small for its width is drawn as a line, with its number."""
    title = (
        f"{card.name}: of {card.papers_read:,} records read {card.kept:,} were kept, "
        f"{card.rejected:,} rejected, and {card.gave_way:,} gave way to a copy"
    )
    if not card.papers_read:
        shapes = [text(_WIDTH / 2, 60, "no records were read", anchor="middle", fill=MUTED)]
        return picture(_WIDTH, 100, title, shapes)
    scale = _FLOW_HEIGHT / card.papers_read
    sources = _grouped(
        [_Node(row.source, row.papers_read, NEUTRAL) for row in card.flow], _SOURCES_SHOWN, "other sources"
    )
    kept = _Node("kept", card.kept, KEPT)
    lost = [
        *(
            _Node(f"{kind} copies", records, DUPLICATE)
            for kind, records in card.duplicates_by_kind.items()
            if records
        ),
        *_grouped(
            [_Node(reason.replace("_", " "), records, REJECTED) for reason, records in card.reasons.items()],
            _REASONS_SHOWN,
            "other reasons",
        ),
    ]
    splits = [_Node(split, records, KEPT) for split, records in card.splits.items()]
    columns = [
        (_SOURCES_X, sources, _tops(sources, scale)),
        (_OUTCOMES_X, [kept, *lost], _tops([kept, *lost], scale, first_gap=18)),
        (_SPLITS_X, splits, _tops(splits, scale)),
    ]
    height = max(
        [
            _FLOW_HEIGHT,
            *(tops[-1] + _thickness(nodes[-1], scale) - _TOP for _, nodes, tops in columns if nodes),
        ]
    )
    shapes = [*_bands(columns, scale)]
    for x, nodes, tops in columns:
        shapes += [
            rect(x, top, _NODE_WIDTH, _thickness(node, scale), node.color, title=_caption(node))
            for node, top in zip(nodes, tops, strict=True)
        ]
    shapes.append(rect(_READ_X, _TOP, _NODE_WIDTH, _FLOW_HEIGHT, NEUTRAL, title=f"read {card.papers_read:,}"))
    shapes += _labels(card, columns, scale)
    return picture(_WIDTH, _TOP + height + 24, title, shapes)


def _grouped(nodes: Sequence[_Node], most: int, others: str) -> list[_Node]:
    """Return the nodes with all but the largest in one, which stands last; the others keep their order."""
    if len(nodes) <= most:
        return list(nodes)
    largest = sorted(range(len(nodes)), key=lambda place: (-nodes[place].records, place))[: most - 1]
    rest = [node for place, node in enumerate(nodes) if place not in largest]
    summed = _Node(f"{len(rest)} {others}", sum(node.records for node in rest), rest[0].color)
    return [*(nodes[place] for place in sorted(largest)), summed]


def _thickness(node: _Node, scale: float) -> float:
    return max(node.records * scale, _THINNEST if node.records else 0.5)


def _tops(nodes: Sequence[_Node], scale: float, *, first_gap: float = 0) -> list[float]:
    """Return where each node begins, so far apart that each has room for its label."""
    tops = []
    top = _TOP
    for place, node in enumerate(nodes):
        tops.append(top)
        top += max(_thickness(node, scale) + _GAP, _PITCH) + (first_gap if place == 0 else 0)
    return tops


_Column = tuple[float, Sequence[_Node], Sequence[float]]


def _bands(columns: Sequence[_Column], scale: float) -> Iterator[str]:
    """Yield the bands; where many meet, each has exactly its share of the edge."""
    (_, sources, source_tops), (_, outcomes, outcome_tops), (_, splits, split_tops) = columns
    at = _TOP
    for node, top in zip(sources, source_tops, strict=True):
        share = node.records * scale
        start = (_SOURCES_X + _NODE_WIDTH, top, top + _thickness(node, scale))
        yield ribbon(start, (_READ_X, at, at + share), node.color, title=f"{_caption(node)} read")
        at += share
    at = _TOP
    for node, top in zip(outcomes, outcome_tops, strict=True):
        share = node.records * scale
        if node.records:
            end = (_OUTCOMES_X, top, top + _thickness(node, scale))
            yield ribbon((_READ_X + _NODE_WIDTH, at, at + share), end, node.color, title=_caption(node))
        at += share
    at = _TOP
    for node, top in zip(splits, split_tops, strict=True):
        share = node.records * scale
        end = (_SPLITS_X, top, top + _thickness(node, scale))
        yield ribbon((_OUTCOMES_X + _NODE_WIDTH, at, at + share), end, node.color, title=_caption(node))
        at += share


def _caption(node: _Node) -> str:
    return f"{node.label} {node.records:,}"


def _labels(card: DataCard, columns: Sequence[_Column], scale: float) -> Iterator[str]:
    (_, sources, source_tops), (_, outcomes, outcome_tops), (_, splits, split_tops) = columns

    def middle(node: _Node, top: float) -> float:
        return top + _thickness(node, scale) / 2 + 4.5

    for node, top in zip(sources, source_tops, strict=True):
        # A number is never cut, a name may be.
        count = f" {node.records:,}"
        label = clip(node.label, _LABEL_COLUMNS - len(count)) + count
        yield text(_SOURCES_X - 8, middle(node, top), label, anchor="end")
    yield text(_READ_X + _NODE_WIDTH / 2, _TOP - 10, f"read {card.papers_read:,}", anchor="middle", bold=True)
    share = percent(card.kept / card.papers_read)
    kept = f"kept {card.kept:,} ({share})"
    yield text(_OUTCOMES_X + _NODE_WIDTH / 2, _TOP - 10, kept, anchor="middle", bold=True, fill=KEPT)
    for node, top in list(zip(outcomes, outcome_tops, strict=True))[1:]:
        share = percent(node.records / card.papers_read)
        label = f"{clip(node.label, _LABEL_COLUMNS)} {node.records:,} ({share})"
        yield text(_OUTCOMES_X + _NODE_WIDTH + 8, middle(node, top), label, fill=INK)
    for node, top in zip(splits, split_tops, strict=True):
        yield text(_SPLITS_X + _NODE_WIDTH + 8, middle(node, top), _caption(node))
