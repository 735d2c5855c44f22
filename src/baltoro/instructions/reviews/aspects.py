"""The merged review: four aspects, each with points of a gist and its detail, as JSON and as bracketed text.

Bracketed text is what a model learns to write (base models follow JSON poorly)::

    [Significance and novelty]
    <new task> The paper is the first to …
    [Potential reasons for acceptance]
    …

It is read back without loss, by two rules. A ``>`` inside a gist is written twice, so the first single one
ends it; and every further line of a gist or detail begins with two spaces, so a line that begins with ``[``
or ``<`` always is a heading or a point. Nothing else is changed: LaTeX stays as it is. Lines end at ``\\n``
only.

>>> review = merged_review({"Significance and novelty": {"a > b": "line one\\n[2] line two"}})
>>> print(to_brackets(review).split("[Potential")[0].rstrip())
[Significance and novelty]
<a >> b> line one
  [2] line two
>>> from_brackets(to_brackets(review)) == review
True
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ASPECTS: tuple[str, ...] = (
    "Significance and novelty",
    "Potential reasons for acceptance",
    "Potential reasons for rejection",
    "Suggestions for improvement",
)
"""The aspects in their fixed order."""

_INDENT = "  "
_NOTHING = frozenset(("", "unknown", "none", "n/a", "not mentioned", "empty"))


class AspectsError(ValueError):
    """A value is no merged review; the message says where and what is expected, fit to be sent to a model."""


@dataclass(frozen=True, slots=True)
class MergedReview:
    """One review of a paper: for each of :data:`ASPECTS`, in order, its points ``{gist: detail}``."""

    points: tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]

    def of(self, aspect: str) -> dict[str, str]:
        """Return the points of an aspect."""
        return self.points[ASPECTS.index(aspect)]

    def count(self) -> int:
        """Return the number of points."""
        return sum(map(len, self.points))

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Return ``{aspect: {gist: detail}}``, every aspect present."""
        return {aspect: dict(points) for aspect, points in zip(ASPECTS, self.points, strict=True)}

    def to_json(self) -> str:
        """Return the review as JSON, aspects and points in order."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


def merged_review(points: Mapping[str, Mapping[str, str]]) -> MergedReview:
    """Return a merged review of ``{aspect: {gist: detail}}``; an aspect that is absent has no points."""
    first, second, third, fourth = (dict(points.get(aspect, {})) for aspect in ASPECTS)
    return MergedReview((first, second, third, fourth))


def from_json(value: Any) -> MergedReview:
    """Return the merged review of a decoded JSON value, as strictly as a schema.

    Every aspect must be there under its exact name (spelled in any case); its value is an object of text by
    text, or says that nothing is known (``{}``, ``[]``, ``null``, ``"unknown"``). Gists and details are not
    empty, and there is at least one point.

    Raises:
        AspectsError: names the first thing that is wrong.
    """
    if not isinstance(value, Mapping):
        raise AspectsError(f"the answer must be a JSON object with the keys {', '.join(map(repr, ASPECTS))}")
    by_name = {str(name).strip().casefold(): content for name, content in value.items()}
    extra = sorted(set(by_name) - {aspect.casefold() for aspect in ASPECTS})
    if extra:
        raise AspectsError(f"the key {extra[0]!r} is not one of {', '.join(map(repr, ASPECTS))}")
    points: dict[str, dict[str, str]] = {}
    for aspect in ASPECTS:
        if aspect.casefold() not in by_name:
            raise AspectsError(f"the key {aspect!r} is missing; give an empty object if nothing is known")
        content = by_name[aspect.casefold()]
        points[aspect] = {}
        if not content or (isinstance(content, str) and content.strip().casefold() in _NOTHING):
            continue
        if not isinstance(content, Mapping):
            raise AspectsError(
                f"the value of {aspect!r} must be an object of gist by detail, not {_kind(content)}"
            )
        for gist, detail in content.items():
            if not isinstance(detail, str):
                raise AspectsError(f"the detail of {gist!r} in {aspect!r} must be text, not {_kind(detail)}")
            if gist.strip().casefold() in _NOTHING or detail.strip().casefold() in _NOTHING:
                continue
            points[aspect][gist.strip()] = detail.strip()
    merged = merged_review(points)
    if not merged.count():
        raise AspectsError("there is no point under any aspect; take the points from the reviews")
    return merged


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def to_brackets(review: MergedReview) -> str:
    """Return the review as bracketed text; every aspect has its heading, also without points."""
    lines: list[str] = []
    for aspect, points in zip(ASPECTS, review.points, strict=True):
        lines.append(f"[{aspect}]")
        for gist, detail in points.items():
            point = f"<{gist.replace('>', '>>')}>" + (f" {detail}" if detail else "")
            lines.append(point.replace("\n", f"\n{_INDENT}"))
    return "\n".join(lines)


def from_brackets(text: str) -> MergedReview:
    """Return the review of a text that :func:`to_brackets` wrote.

    Raises:
        AspectsError: it is not of that form; names the line.
    """
    points, strays = _parse(text)
    if strays:
        number, line = strays[0]
        raise AspectsError(f"line {number}: {line[:80]!r} is no heading of an aspect and no <gist> detail")
    missing = [aspect for aspect in ASPECTS if aspect not in points]
    if missing:
        raise AspectsError(f"the heading [{missing[0]}] is missing")
    return merged_review(points)


def read_generated(text: str) -> MergedReview:
    """Return what can be read of a model's bracketed text: an absent aspect is empty, a stray line goes on.

    A line that is neither heading nor point continues the detail before it, and is lost if there is none.
    """
    return merged_review(_parse(text)[0])


def _parse(text: str) -> tuple[dict[str, dict[str, str]], list[tuple[int, str]]]:
    """Return the points by aspect, and the lines that broke the form with their numbers."""
    headings = {f"[{aspect}]": aspect for aspect in ASPECTS}
    points: dict[str, dict[str, str]] = {}
    strays: list[tuple[int, str]] = []
    current: dict[str, str] = {}
    record: list[str] = []
    started = 0

    def close() -> None:
        if record:
            gist, detail, ended = _split_point("\n".join(record))
            if not ended or gist in current:
                strays.append((started, record[0]))
            current[gist] = f"{current[gist]}\n{detail}" if gist in current else detail
            record.clear()

    for number, line in enumerate(text.split("\n"), 1):
        aspect = headings.get(line)
        if aspect is not None and aspect not in points:
            close()
            current = points[aspect] = {}
        elif line.startswith("<") and points:
            close()
            record.append(line)
            started = number
        elif line.startswith(_INDENT) and record:
            record.append(line[len(_INDENT) :])
        else:
            strays.append((number, line))
            if record and line.strip():
                record.append(line)
    close()
    return points, sorted(strays)


def _split_point(record: str) -> tuple[str, str, bool]:
    """Return gist, detail and whether the gist ended: at the first ``>`` that is not doubled."""
    position = 1
    gist: list[str] = []
    while (end := record.find(">", position)) >= 0:
        gist.append(record[position:end])
        if record[end + 1 : end + 2] != ">":
            detail = record[end + 1 :]
            return "".join(gist), detail[1:] if detail.startswith(" ") else detail, True
        gist.append(">")
        position = end + 2
    return "", record[1:], False
