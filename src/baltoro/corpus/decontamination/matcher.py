"""Find the items of evaluation sets in documents.

The usual test, a 13-gram shared with a paragraph, cannot see what examinations are made of: stems of ten
words with options that a copy prints under other labels, in another order, over other lines. Here a document
is searched in one vectorised pass for runs of 4 words (of long items: 8) that the items have, and only what
shares such a run is looked at:

- a **question** of 8 to 31 words must be there almost whole, its words in order and in one place. What
  another line break, hyphen or apostrophe did to the cutting into words is undone by comparing letters,
  and so is a misprint in a word;
- a **short** question, or one that says little ("Which of the following is true?"), must be there whole with
  its options nearby, in any order, under any labels. One of 8 words and some content may do without if not
  a word stands between. What remains is *too short to be told apart*: it is counted, and never found;
- a **long** item must share enough long runs with one place of the document.

Runs that say nothing, or that stand in many items, lead nowhere; see ``vocabulary``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from baltoro.corpus.decontamination.alignment import Letters, alike, consistent_blocks
from baltoro.corpus.decontamination.config import MatchConfig
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.decontamination.shared_runs import (
    Clusters,
    Integers,
    Windows,
    clusters_of,
    windows_of,
    words_of_all,
)
from baltoro.corpus.words import Hashes, Words, words_of

ItemClass = Literal["too_short", "short", "question", "long"]
ITEM_CLASSES: tuple[ItemClass, ...] = ("too_short", "short", "question", "long")
"""How an item is looked for; the place in this tuple is the code in :attr:`ItemIndex.classes`."""

_TOO_SHORT, _SHORT, _QUESTION, _LONG = range(4)

_SLICE = 4096
_WORDS_PER_BLANK = 8
"""What may stand in a copy where the question has a blank to fill."""
_OPTION_SLACK_WORDS = 24
_LEAST_COMMON = 0.4
"""Part of a question's words that must be near a shared run at all; cheap to see, so seen first."""
_BROKEN_WORDS = 2
"""Telling words of a question that a copy may cut otherwise, so that they seem absent at first sight."""
_WIDEST_CLUSTER = 256
"""Shifts further apart are looked at apart: a looping document must not become one place."""
_EXACT_CONTENT = 0.75
"""Part of ``stem_content_words`` that is enough where nothing is missing and nothing inserted."""


class Match(NamedTuple):
    """An item found in a document.

    Attributes:
        item: which.
        start: offset of its first character in the document, in characters.
        end: offset after its last, the options found beside it included.
        covered_fraction: part of the item's words that stand there.
        options_found: how many of its options stand beside it.
    """

    item: EvaluationItem
    start: int
    end: int
    covered_fraction: float
    options_found: int = 0


class _Span(NamedTuple):
    """A question's words in a document.

    ``first`` and ``end`` are word numbers, ``matched`` and ``inserted`` count words, the fraction and
    ``content`` (of the whole question) weigh them by what they say.
    """

    first: int
    end: int
    matched: int
    inserted: int
    content_fraction: float
    content: float


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """The items of all sets, ready to be looked for; plain arrays and strings, picklable, to be shared.

    Attributes:
        items: what is looked for.
        config: what counts as found.
        classes: uint8 per item, a place in :data:`ITEM_CLASSES`.
    """

    items: tuple[EvaluationItem, ...]
    config: MatchConfig
    classes: npt.NDArray[np.uint8]
    _words: Hashes
    _weights: npt.NDArray[np.float32]
    _bounds: Integers
    _options: Hashes
    _option_bounds: Integers
    _options_of_item: Integers
    _insertions: Integers
    _short: Windows
    _long: Windows

    @classmethod
    def build(cls, items: Sequence[EvaluationItem], config: MatchConfig | None = None) -> ItemIndex:
        """Return the index of some items.

        Args:
            items: from :func:`~baltoro.corpus.decontamination.items.load_evaluation_set`, any number of sets.
            config: what counts as found; the defaults if not given.
        """
        config = config or MatchConfig()
        words, weights, bounds = words_of_all([item.text for item in items])
        options, option_weights, option_bounds = words_of_all([o for item in items for o in item.options])
        # An option that says nothing ("2", "both") is found beside anything.
        telling = _sums(option_weights, option_bounds) >= 1.0
        owners = np.repeat(np.arange(len(items)), [len(item.options) for item in items])[telling]
        lengths = np.diff(option_bounds)[telling]
        options = options[np.repeat(telling, np.diff(option_bounds))]
        per_item = np.bincount(owners, minlength=len(items))

        counts = np.diff(bounds)
        content = _sums(weights, bounds)
        alone = (counts >= config.stem_words) & (content >= config.stem_content_words)
        classes = np.full(len(items), _TOO_SHORT, np.uint8)
        exact = (counts >= config.stem_words) & (content >= _EXACT_CONTENT * config.stem_content_words)
        classes[(counts >= config.short_window_words) & (content >= 1) & (per_item > 0) | exact] = _SHORT
        classes[alone] = _QUESTION
        classes[(counts >= config.long_item_words) & alone] = _LONG
        blanks = np.array([_blanks(item.text) for item in items], np.int64)
        return cls(
            items=tuple(items),
            config=config,
            classes=classes,
            _words=words,
            _weights=weights,
            _bounds=bounds,
            _options=options,
            _option_bounds=np.append(0, np.cumsum(lengths)),
            _options_of_item=np.append(0, np.cumsum(per_item)),
            _insertions=counts // 4 + 1 + _WORDS_PER_BLANK * blanks,
            _short=windows_of(
                words,
                weights,
                bounds,
                (classes == _SHORT) | (classes == _QUESTION),
                size=config.short_window_words,
                common=config.common_window_items,
            ),
            _long=windows_of(
                words,
                weights,
                bounds,
                classes == _LONG,
                size=config.long_window_words,
                common=config.common_window_items,
            ),
        )

    @property
    def too_short(self) -> tuple[EvaluationItem, ...]:
        """The items that cannot be told from ordinary text, and so are never found."""
        return tuple(self.items[i] for i in np.flatnonzero(self.classes == _TOO_SHORT))

    def word_count(self, item: int) -> int:
        """Return the words of an item's text (its options not counted)."""
        return int(self._bounds[item + 1] - self._bounds[item])

    def find(self, words: Words, text: str) -> list[Match]:
        """Return the items that a document holds, by place.

        Args:
            words: the document's words, from ``words_of(text)``.
            text: the document.
        """
        matches = [*self._find_long(words), *self._find_short(words, text)]
        return sorted(
            matches, key=lambda match: (match.start, match.end, match.item.set_name, match.item.item_id)
        )

    # --- long items ------------------------------------------------------------------------------------

    def _find_long(self, words: Words) -> list[Match]:
        size = self._long.size
        clusters = clusters_of(self._long.hits(words.hashes), size, self._bounds)
        lengths = np.diff(self._bounds)[clusters.items]
        config = self.config
        enough = (clusters.covered >= config.long_item_fraction * lengths) | (
            clusters.covered >= config.long_item_enough_words
        )
        matches = []
        for i in np.flatnonzero(enough).tolist():
            item = int(clusters.items[i])
            first, end = int(clusters.first_places[i]), int(clusters.last_places[i]) + size
            found, end = self._options_beside(item, first, end, words)
            matches.append(
                Match(
                    self.items[item],
                    int(words.starts[first]),
                    int(words.ends[end - 1]),
                    float(clusters.covered[i] / lengths[i]),
                    found,
                )
            )
        return matches

    # --- questions -------------------------------------------------------------------------------------

    def _find_short(self, words: Words, text: str) -> list[Match]:
        clusters = clusters_of(
            self._short.hits(words.hashes), self._short.size, self._bounds, widest=_WIDEST_CLUSTER
        )
        if not len(clusters.items):
            return []
        # A question that repeats itself shares runs at wrong shifts, too: there its covered words tell.
        lengths = np.diff(self._bounds)[clusters.items]
        promising = np.flatnonzero(
            (clusters.covered >= _LEAST_COMMON * lengths) | self._looks_alike(clusters, words.hashes)
        )
        matches: list[Match] = []
        seen: set[tuple[int, int]] = set()
        for i in promising.tolist():
            item = int(clusters.items[i])
            match = self._look_closely(
                item, int(clusters.low_shifts[i]), int(clusters.high_shifts[i]), words, text
            )
            if match is not None and (item, match.start) not in seen:
                seen.add((item, match.start))
                matches.append(match)
        return matches

    def _looks_alike(self, clusters: Clusters, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Compare each cluster's question word by word at its two shifts.

        One broken word leaves a shared run on one side of it only, perhaps a short one, but the words of
        at least one side stand at that run's shift.
        """
        alike = np.empty(len(clusters.items), np.bool_)
        # In slices, so that a looping document costs time, never memory.
        for first in range(0, len(alike), _SLICE):
            part = slice(first, first + _SLICE)
            items = clusters.items[part]
            starts, counts = self._bounds[items], np.diff(self._bounds)[items]
            position = np.arange(int(counts.max()))
            inside = position < counts[:, None]
            wanted = self._words[np.minimum(starts[:, None] + position, len(self._words) - 1)]
            there = np.zeros(wanted.shape, np.bool_)
            for shifts in (clusters.low_shifts[part], clusters.high_shifts[part]):
                places = shifts[:, None] + position
                known = inside & (places >= 0) & (places < len(hashes))
                there |= known & (hashes[np.clip(places, 0, len(hashes) - 1)] == wanted)
            alike[part] = there.sum(axis=1) >= _LEAST_COMMON * counts
        return alike

    def _look_closely(self, item: int, low: int, high: int, words: Words, text: str) -> Match | None:
        """Compare a question with the place that shares a run with it; shifts are place minus position."""
        config = self.config
        count = self.word_count(item)
        slack = int(self._insertions[item])
        first = max(low - slack, 0)
        last = min(high + count + slack, len(words))
        span = self._align(item, first_word=first, end_word=last, words=words, text=text)
        if span is None or span.content_fraction < config.stem_with_options_fraction:
            return None
        found, end_word = self._options_beside(item, span.first, span.end, words)
        available = int(self._options_of_item[item + 1] - self._options_of_item[item])
        with_options = found >= min(config.options_needed, available) > 0
        if self.classes[item] == _SHORT:
            exact = (
                count >= config.stem_words
                and span.inserted == 0
                and span.content >= _EXACT_CONTENT * config.stem_content_words
            )
            accepted = span.matched == count and (with_options or exact)
        else:
            needed = config.stem_with_options_fraction if with_options else config.stem_fraction
            accepted = span.matched >= math.ceil(needed * count - 1e-9) and span.content_fraction >= needed
        if not accepted:
            return None
        return Match(
            self.items[item],
            int(words.starts[span.first]),
            int(words.ends[end_word - 1]),
            span.matched / count,
            found,
        )

    def _align(self, item: int, *, first_word: int, end_word: int, words: Words, text: str) -> _Span | None:
        """Return where the item's words stand in order, between two words of the document."""
        wanted = self._words[self._bounds[item] : self._bounds[item + 1]]
        present, offset = words.hashes[first_word:end_word], first_word
        allowed = int(self._insertions[item])
        weights = self._weights[self._bounds[item] : self._bounds[item + 1]]
        content = float(weights.sum())
        whole = _find_aligned(present.tobytes(), wanted.tobytes(), 0)
        if whole >= 0:
            first = offset + whole // 8
            return _Span(first, first + len(wanted), len(wanted), 0, 1.0, content)
        nearby = set(present.tolist())
        absent = sum(
            weight
            for word, weight in zip(wanted.tolist(), weights.tolist(), strict=True)
            if word not in nearby
        )
        if absent > (1 - self.config.stem_with_options_fraction) * content + _BROKEN_WORDS:
            return None
        blocks = consistent_blocks(wanted.tolist(), present.tolist(), allowed)
        if not blocks:
            return None
        there = np.zeros(len(wanted), np.bool_)
        for position, _, size in blocks:
            there[position : position + size] = True
        first, end = blocks[0][1], blocks[-1][1] + blocks[-1][2]
        printed = Letters(self.items[item].text, _words_of_item(self.items[item].text))
        document = Letters(text, words, offset)
        inserted = 0
        for (position, place, size), (next_position, next_place, _) in itertools.pairwise(blocks):
            missing = slice(position + size, next_position)
            between = slice(place + size, next_place)
            if alike(printed.of(missing), document.of(between)):
                there[missing] = True
            else:
                inserted += between.stop - between.start
        head = slice(0, blocks[0][0])
        if head.stop and (taken := document.ending(first, printed.of(head))):
            there[head] = True
            first -= taken
        tail = slice(blocks[-1][0] + blocks[-1][2], len(wanted))
        if tail.start < tail.stop and (taken := document.starting(end, printed.of(tail))):
            there[tail] = True
            end += taken
        if inserted > allowed:
            return None
        return _Span(
            offset + first,
            offset + end,
            int(there.sum()),
            inserted,
            float(weights[there].sum()) / content if content else 1.0,
            content,
        )

    def _options_beside(self, item: int, first: int, end: int, words: Words) -> tuple[int, int]:
        """Count the options near a question that stands at some words, in any order.

        Options follow their question nearly always; so much text is looked at as they, their labels and a
        few words of instruction need.

        Returns:
            How many there are, and the word after the last of them (``end`` if there are none).
        """
        own = range(int(self._options_of_item[item]), int(self._options_of_item[item + 1]))
        lengths = [int(self._option_bounds[i + 1] - self._option_bounds[i]) for i in own]
        room = _OPTION_SLACK_WORDS + sum(lengths) + 3 * len(lengths)
        area = words.hashes[first : end + room].tobytes()
        has_blank = int(self._insertions[item]) >= self.word_count(item) // 4 + 1 + _WORDS_PER_BLANK
        found, last = 0, end
        for i, length in zip(own, lengths, strict=True):
            option = self._options[self._option_bounds[i] : self._option_bounds[i + 1]].tobytes()
            at = _find_aligned(area, option, 8 * (end - first))
            if at < 0 and has_blank:  # filled in, the answer stands inside the question
                at = _find_aligned(area, option, 0)
            if at >= 0:
                found += 1
                last = max(last, first + at // 8 + length)
        return found, last


@lru_cache(maxsize=4096)
def _words_of_item(text: str) -> Words:
    return words_of(text)


def _find_aligned(area: bytes, wanted: bytes, start: int) -> int:
    """Return the byte offset of a sequence of 8-byte hashes from ``start`` on, -1 if it is not there."""
    at = area.find(wanted, start)
    while at >= 0 and at % 8:
        at = area.find(wanted, at + 1)
    return at


def _blanks(text: str) -> int:
    """Count the blanks to fill: ``____``, ``()``, ``……``."""
    count = 0
    for mark in ("__", "()", "( )", "（）", "（ ）", "……", "...."):
        while mark in text:
            before, _, after = text.partition(mark)
            text = f"{before} {after.lstrip(mark[-1])}"
            count += 1
    return min(count, 8)


def _sums(values: npt.NDArray[np.float32], bounds: Integers) -> npt.NDArray[np.float64]:
    total = np.append(0.0, np.cumsum(values, dtype=np.float64))
    return np.asarray(total[bounds[1:]] - total[bounds[:-1]])
