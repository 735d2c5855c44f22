"""From files of reviews to :class:`~baltoro.instructions.reviews.records.ReviewedPaper`, one per paper.

Layouts, told by the content of each record:

``peerread``
    One JSON object per paper: ``reviews`` is a list with ``comments`` and upper-case scores; the entry with
    ``IS_META_REVIEW`` holds the decision as a string in ``RECOMMENDATION``.
``asap``
    ASAP-Review (ReviewAdvisor): ``*_review.json`` with ``reviews`` of ``review``, ``rating``, ``confidence``
    and a ``metaReview``; the decision and title stand in ``*_paper.json`` of the same id.
``openreview``
    Notes of either API: one list, one object ``{"notes": […]}``, JSON lines, or submissions with their
    ``details.replies``; content values are plain or ``{"value": …}``. Grouped by ``forum`` over all files.
``jats``
    Sub-articles of an article, as :mod:`baltoro.papers` reads them.
``flat``
    Text with ``ID:``, ``Title:``, ``Original Ratings:`` … and one merged review after
    ``Aggregated Review:``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from baltoro.core.errors import InputError
from baltoro.core.storage import ObjectInfo, Storage, absolute_uri
from baltoro.instructions.reviews.config import ReviewLayout
from baltoro.instructions.reviews.heads import split_heads
from baltoro.instructions.reviews.layouts import (
    asap_paper,
    fill_from_table,
    flat_paper,
    peerread_paper,
    text_field,
)
from baltoro.instructions.reviews.letters import split_letter, without_boilerplate
from baltoro.instructions.reviews.notes import gather_notes
from baltoro.instructions.reviews.records import Review, ReviewedPaper
from baltoro.papers.config import ReadLimits
from baltoro.papers.containers import unpack
from baltoro.papers.detect import decode, stem_of
from baltoro.papers.reader import is_hidden, iter_object
from baltoro.papers.schema import Paper, ReadReject, Reject

STAGE = "reviews"
"""The stage of every reject of this package."""

_DEFAULT_LIMITS = ReadLimits()
_STEM_SUFFIX = re.compile(r"[_-](?:reviews?|paper|content)$", re.IGNORECASE)


@dataclass(slots=True)
class ReadReviews:
    """What a folder of reviews holds.

    Attributes:
        papers: the reviewed papers, ordered by key.
        rejects: records that are no reviews or could not be read.
        other_files: files of the same folder that are no reviews (parsed papers of an ASAP folder).
    """

    papers: list[ReviewedPaper] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    other_files: int = 0

    def dropped(self) -> Counter[str]:
        """Return what was left out while reading, summed over the papers."""
        return sum((paper.dropped for paper in self.papers), Counter[str]())


def read_reviews(
    uri: str,
    *,
    storage: Storage | None = None,
    layout: ReviewLayout = "auto",
    limits: ReadLimits = _DEFAULT_LIMITS,
) -> ReadReviews:
    """Read every record of a file or folder of reviews.

    Raises:
        InputError: nothing is there, or nothing of it is a review.
    """
    storage = storage or Storage()
    single = storage.stat(uri)
    objects = [single] if single else [info for info in storage.list(uri) if not is_hidden(info.key)]
    if not objects:
        raise InputError(f"{uri}: no such file, and no folder that holds files; give a folder of reviews")
    read = ReadReviews()
    reader = _Reader(layout, limits, read)
    for info in objects:
        if info.size_bytes > limits.max_object_bytes:
            detail = f"{info.size_bytes} bytes, at most {limits.max_object_bytes} are read"
            read.rejects.append(Reject(info.key, info.uri, STAGE, "too_large", detail))
            continue
        data = storage.read_bytes(info.uri)
        for key, payload in _records(data, info.key, limits):
            reader.take(payload, key, info)
    read.papers += gather_notes(reader.notes)
    for paper in read.papers:
        _add_decision(paper, reader.decisions)
    read.papers = _unique(read)
    if not read.papers:
        reasons = Counter(reject.reason for reject in read.rejects)
        found = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise InputError(
            f"{uri}: no review among {len(objects)} files ({found or f'{read.other_files} other files'}); "
            "give PeerRead, ASAP-Review or OpenReview JSON, JATS with sub-articles, or flat aggregated text"
        )
    return read


def from_paper(paper: Paper) -> ReviewedPaper | None:
    """Return the reviews published inside a paper's file (JATS), ``None`` if there are none by referees."""
    reviewed = ReviewedPaper(
        key=paper.paper_id, stem=stem_of(paper.uri), uri=paper.uri, layout="jats", title=paper.title
    )
    reviewed.venue, reviewed.year = paper.venue, paper.year
    for review in paper.reviews:
        if review.kind in ("reply", "author-comment", "response", "rebuttal", "author-response"):
            reviewed.dropped["author_reply"] += 1
            continue
        if review.kind in ("community-comment", "public-comment"):
            reviewed.dropped["public_comment"] += 1
            continue
        common: dict[str, Any] = {"recommendation": review.rating, "round": review.round}
        if review.kind in ("editor-report", "editor-assessment"):
            if text := without_boilerplate(review.text):
                key = f"m{len(reviewed.meta_reviews) + 1}"
                reviewed.meta_reviews.append(
                    Review(key, split_heads(text), reviewer=review.reviewer, **common)
                )
            else:
                reviewed.dropped["empty"] += 1
            continue
        letters: list[tuple[str | None, str]] = (
            [(review.reviewer, without_boilerplate(review.text))]
            if review.kind in ("reviewer-report", "referee-report")
            else split_letter(review.text)
        )
        letters = [(who, text) for who, text in letters if text]
        if not letters:
            reviewed.dropped["empty"] += 1
        for who, text in letters:
            key = f"r{len(reviewed.reviews) + 1}"
            reviewed.reviews.append(Review(key, split_heads(text), reviewer=who, **common))
    return reviewed if reviewed.reviews else None


# --- records and their layout ------------------------------------------------------------------------


def _records(data: bytes, key: str, limits: ReadLimits) -> Iterator[tuple[str, Any]]:
    """Yield ``(record key, dict, list, bytes or ReadReject)`` of an object."""
    if key.lower().endswith(".json"):
        # A list of notes is one file of one source, and the reader of papers knows no lists.
        try:
            value = json.loads(decode(data))
        except ReadReject as reject:
            yield "", reject
        except ValueError as error:
            yield "", ReadReject("malformed_json", f"no JSON: {error}")
        else:
            yield "", value
        return
    for record in unpack(data, PurePosixPath(key).name, limits=limits):
        payload: Any = record.payload
        if isinstance(payload, bytes) and record.name.lower().endswith(".json"):
            yield from ((record.key, value) for _, value in _records(payload, record.name, limits))
        else:
            yield record.key, payload


@dataclass(slots=True)
class _Reader:
    """What is gathered over all files: notes of forums, and the decisions that stand beside reviews."""

    layout: ReviewLayout
    limits: ReadLimits
    read: ReadReviews
    notes: list[tuple[Mapping[str, Any], str]] = field(default_factory=list)
    decisions: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, payload: Any, record: str, info: ObjectInfo) -> None:
        """Put one record of an object where it belongs."""
        name = f"{info.key}#{record}" if record else info.key
        stem = _STEM_SUFFIX.sub("", stem_of(PurePosixPath(record or info.key).name))
        found = self.layout if self.layout != "auto" else _layout_of(payload)
        try:
            if isinstance(payload, ReadReject):
                raise payload
            if found == "openreview":
                self.notes += [(note, info.uri) for note in _notes_of(payload)]
            elif found == "peerread":
                self.read.papers.append(peerread_paper(_object(payload, found), stem, info.uri))
            elif found == "asap":
                fields = _object(payload, found)
                if "reviews" in fields:
                    self.read.papers.append(asap_paper(fields, stem, info.uri))
                else:
                    self.decisions[text_field(fields.get("id")) or stem] = fields
                    self.read.other_files += 1
            elif found == "flat":
                self.read.papers.append(flat_paper(payload, stem, info.uri))
            elif found == "jats":
                self._take_articles(payload, info)
            elif found == "science_parse":
                self.read.other_files += 1
            else:
                raise ReadReject("unknown_layout", "none of the known layouts of reviews, by content")
        except ReadReject as reject:
            self.read.rejects.append(Reject(name, info.uri, STAGE, reject.reason, reject.detail))

    def _take_articles(self, payload: Any, info: ObjectInfo) -> None:
        if not isinstance(payload, bytes):
            raise ReadReject("unknown_layout", "no XML where the layout jats was declared")
        for outcome in iter_object(
            payload, key=info.key, uri=info.uri, etag=info.etag, source="reviews", limits=self.limits
        ):
            if isinstance(outcome, Reject):
                self.read.rejects.append(replace(outcome, stage=STAGE))
            elif reviewed := from_paper(outcome):
                reviewed.key = stem_of(info.key)
                self.read.papers.append(reviewed)
            else:
                detail = "an article without reviews by referees"
                self.read.rejects.append(Reject(info.key, info.uri, STAGE, "no_reviews_inside", detail))


def _layout_of(payload: Any) -> str:
    if isinstance(payload, bytes):
        head = payload[:4096].lstrip(b"\xef\xbb\xbf \r\n\t")
        if head.startswith(b"<"):
            return "jats"
        return (
            "flat" if re.search(rb"(?im)^(?:Aggregated Review|Original Ratings)\s*:|\AID\s*:", head) else ""
        )
    if isinstance(payload, list):
        return "openreview" if payload and all(_is_note(item) for item in payload) else ""
    if not isinstance(payload, Mapping):
        return ""
    if _is_note(payload) or isinstance(payload.get("notes"), list):
        return "openreview"
    if isinstance(payload.get("metadata"), Mapping) and "sections" in payload["metadata"]:
        return "science_parse"
    reviews = payload.get("reviews")
    if isinstance(reviews, list):
        asap = any(isinstance(review, Mapping) and "review" in review for review in reviews)
        return "asap" if asap or "metaReview" in payload or "meta_review" in payload else "peerread"
    return "asap" if "decision" in payload and "id" in payload else ""


def _is_note(value: Any) -> bool:
    return isinstance(value, Mapping) and "forum" in value and isinstance(value.get("content"), Mapping)


def _notes_of(payload: Any) -> list[Mapping[str, Any]]:
    if isinstance(payload, Mapping):
        payload = payload["notes"] if isinstance(payload.get("notes"), list) else [payload]
    if not isinstance(payload, list) or not all(_is_note(item) for item in payload):
        raise ReadReject("malformed_json", "no list of notes with forum and content")
    notes: list[Mapping[str, Any]] = []
    for note in payload:
        notes.append(note)
        details = note.get("details")
        for name in ("replies", "directReplies"):
            replies = details.get(name) if isinstance(details, Mapping) else None
            if isinstance(replies, list):
                notes += [reply for reply in replies if _is_note(reply)]
    return notes


def _object(payload: Any, layout: str) -> Mapping[str, Any]:
    if not isinstance(payload, Mapping):
        raise ReadReject("malformed_json", f"no JSON object where the layout {layout} was declared")
    return payload


def _add_decision(paper: ReviewedPaper, decisions: Mapping[str, Mapping[str, Any]]) -> None:
    fields = decisions.get(paper.key) or decisions.get(paper.stem)
    if fields is not None and paper.layout == "asap":
        fill_from_table(paper, fields)


def _unique(read: ReadReviews) -> list[ReviewedPaper]:
    """Return the papers by key; a second record of the same key, layout and folder is a reject."""
    kept: dict[tuple[str, str], ReviewedPaper] = {}
    for paper in sorted(read.papers, key=lambda paper: (paper.key, paper.uri)):
        folder = absolute_uri(paper.uri).rpartition("/")[0] if paper.uri else ""
        first = kept.setdefault((paper.key, folder), paper)
        if first is not paper:
            detail = f"the paper {paper.key!r} has reviews already, in {first.uri}"
            read.rejects.append(Reject(paper.key, paper.uri, STAGE, "duplicate_reviews", detail))
    return [*kept.values()]
