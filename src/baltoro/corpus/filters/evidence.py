"""Excerpts that show where a document's scores come from, for people who ask why a paper was rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from baltoro.corpus.filters.parts import CITATION, CODE, FORMULA, PROSE, REFERENCE, TABLE, Flags
from baltoro.corpus.filters.scores import Measurement

_KINDS = {
    PROSE: "prose",
    FORMULA: "formulas",
    TABLE: "tables",
    CITATION: "citations",
    REFERENCE: "references",
    CODE: "code",
}
_EXCERPT_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found in one document.

    Attributes:
        words: number of words by part: prose, formulas, tables, citations, references, code.
        counts: number of damaged words, words in duplicate 5-grams, odd lines by score.
        excerpts: what was found, longest or most frequent first, by the same names.
    """

    words: dict[str, int]
    counts: dict[str, int]
    excerpts: dict[str, list[str]]


def evidence_of(measurement: Measurement, *, most: int = 5) -> Evidence:
    """Return what a document's scores were counted from.

    Args:
        measurement: from :func:`~baltoro.corpus.filters.scores.measure`.
        most: excerpts of each kind.
    """
    text, words, parts = measurement.text, measurement.words, measurement.parts
    numbers = np.bincount(parts.kinds, minlength=max(_KINDS) + 1)
    damaged = measurement.garble.damaged_words
    duplicate = measurement.repetition.duplicate_words
    counts = {
        "damaged_words": int(np.count_nonzero(damaged)),
        "words_in_duplicate_5grams": int(np.count_nonzero(duplicate)),
    }
    places = damaged.nonzero()[0]
    spans = zip(words.starts[places].tolist(), words.ends[places].tolist(), strict=True)
    frequent = Counter(text[start:end] for start, end in spans)
    excerpts = {
        "damaged_words": [_shortened(word) for word, _ in sorted(frequent.items(), key=_most_first)[:most]],
        "words_in_duplicate_5grams": _longest_runs(measurement, duplicate, most),
    }
    top = measurement.repetition.top_words
    excerpts["top_ngram"] = (
        [] if top is None else [_shortened(text[words.starts[top[0]] : words.ends[top[1]]])]
    )
    for name, flags in measurement.lines.items():
        found = flags.nonzero()[0]
        key = name.removesuffix("_fraction") + "s"
        counts[key] = len(found)
        excerpts[key] = [
            _shortened(text[parts.lines.starts[line] : parts.lines.ends[line]])
            for line in found[:most].tolist()
        ]
    return Evidence({name: int(numbers[kind]) for kind, name in _KINDS.items()}, counts, excerpts)


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _longest_runs(measurement: Measurement, flags: Flags, most: int) -> list[str]:
    words = measurement.words
    edges = (np.diff(np.concatenate(([False], flags, [False])).astype(np.int8))).nonzero()[0]
    firsts, ends = edges[0::2], edges[1::2]
    longest = np.argsort(firsts - ends, kind="stable")[:most]
    return [
        _shortened(measurement.text[words.starts[firsts[run]] : words.ends[ends[run] - 1]])
        for run in longest.tolist()
    ]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT_CHARACTERS else f"{line[: _EXCERPT_CHARACTERS - 1]}…"
