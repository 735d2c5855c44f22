"""Collections of 10^3 to 10^6 paper-like documents with planted copies, for measurement.

Words are made of syllables and occur as in papers: three in ten are function words; the others follow a Zipf
law in two regimes (Ferrer i Cancho and Solé 2001), a common vocabulary and a long tail of rare terms, fitted
to the number of distinct words that some hundred open-access papers have at 20,000 to 400,000 words. Names,
figures, citations and inline formulas stand among them. So filters, signatures, tokenizers and their caches
of words work as hard as on papers, and unrelated papers share no more than real ones do. Every paper depends
only on the seed and its number: a longer collection starts with the shorter one, and parts can be made side
by side.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from baltoro.testing.papers import FORMATS, PaperText

Copy = Literal["original", "exact", "edited", "reordered"]

_FUNCTION_TEXT = (
    "the of and in to a is that for with as by was on are from at be this which it were have an not or we "
    "has these between can been but than more also their our both its into may other during where such two "
    "when only most over after each however thus"
)
_FUNCTION_WORDS = tuple(_FUNCTION_TEXT.split())
_SYLLABLES = tuple(
    onset + vowel + coda
    for onset in ("b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "gr", "st", "tr")
    for vowel in ("a", "e", "i", "o", "u")
    for coda in ("", "l", "n", "r", "s", "th")
)
_HAN_FIRST, _HAN_COUNT = 0x4E00, 3000
_HEADINGS = ("Introduction", "Setting", "Methods", "Results", "Discussion", "Conclusions")
_SENTENCE_WORDS, _PARAGRAPH_SENTENCES = (8, 30), 4

_VOCABULARY = 400_000
_FUNCTION_SHARE = 0.31
# Frequency of the r-th content word: (min(r, common) + shift)^-first · (max(r, common) / common)^-second.
_COMMON_WORDS, _RANK_SHIFT, _FIRST_EXPONENT, _SECOND_EXPONENT = 1500, 2, 0.7, 2.0

# Shares of words that are followed by a comma, written as a name, or stand before a figure, a citation or a
# formula; about what the text of papers has of them, tables and reference lists left aside.
_DECORATIONS = {"comma": 0.05, "name": 0.04, "figure": 0.03, "citation": 0.008, "formula": 0.008}
_UNITS = ("m", "km", "%", "°C", "µm", "GPa", "Ma", "kg m−3")
_SYMBOLS = ("\\alpha", "\\sigma", "T", "k", "u", "\\rho", "\\lambda", "E")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection holds.

    Attributes:
        papers: number of papers, copies included.
        words: mean words of a paper; lengths spread log-normally around it.
        exact_fraction: papers that repeat an earlier one to the letter.
        edited_fraction: papers that repeat an earlier one with some sentences replaced.
        edit_share: share of the sentences replaced in an edited copy.
        reordered_fraction: papers that repeat an earlier one with its sections in another order.
        chinese_fraction: papers in Chinese.
        seed: another one gives another collection.
    """

    papers: int
    words: int = 700
    exact_fraction: float = 0.01
    edited_fraction: float = 0.02
    edit_share: float = 0.1
    reordered_fraction: float = 0.005
    chinese_fraction: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Collection:
    """What :func:`write_collection` wrote; ``copies`` maps a copy's paper key to (kind, original's key)."""

    files: int = 0
    text_bytes: int = 0
    copies: dict[str, tuple[Copy, str]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return the number of copies by kind."""
        return dict(Counter(kind for kind, _ in self.copies.values()))


def copy_of(plan: Plan, index: int) -> tuple[Copy, int]:
    """Return what paper ``index`` is, and the number of the paper that it repeats (its own if none)."""
    chance = np.random.default_rng((plan.seed, index, 1))
    draw, target = chance.random(), int(chance.integers(0, max(index, 1)))
    bounds: tuple[tuple[Copy, float], ...] = (
        ("exact", plan.exact_fraction),
        ("edited", plan.edited_fraction),
        ("reordered", plan.reordered_fraction),
    )
    if index == 0:
        return "original", 0
    for kind, fraction in bounds:
        if draw < fraction:
            # A copy of a copy repeats what that one repeats, so that a cluster is a star.
            return kind, copy_of(plan, target)[1]
        draw -= fraction
    return "original", index


def make_text(plan: Plan, index: int) -> PaperText:
    """Return paper ``index`` of a collection."""
    kind, original = copy_of(plan, index)
    paper = _original(plan, original)
    if kind == "edited":
        return _edited(plan, paper, index)
    if kind == "reordered":
        order = np.random.default_rng((plan.seed, index, 3)).permutation(len(paper.sections))
        return PaperText(paper.title, paper.abstract, "", tuple(paper.sections[place] for place in order))
    return paper


def write_collection(
    folder: Path, plan: Plan, *, format: str = "s2orc", papers_per_file: int = 500
) -> Collection:
    """Write a collection, as JSON lines (``s2orc``) or one file a paper (every other format).

    Args:
        folder: made if it is not there.
        plan: what it holds.
        format: a key of :data:`baltoro.testing.papers.FORMATS`.
        papers_per_file: lines of a JSONL file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = Collection()
    suffix, render = FORMATS[format]
    per_file = papers_per_file if format == "s2orc" else 1

    def place(number: int) -> tuple[str, str]:
        if per_file == 1:
            name = f"paper-{number:07d}{suffix}"
            return name, name
        name = f"part-{number // per_file:06d}.jsonl"
        return name, f"{name}#{number % per_file + 1}"

    for start in range(0, plan.papers, per_file):
        lines = []
        for number in range(start, min(start + per_file, plan.papers)):
            paper = make_text(plan, number)
            lines.append(render(paper))
            written.text_bytes += sum(len(text.encode()) for text in _texts(paper))
            kind, original = copy_of(plan, number)
            if kind != "original":
                written.copies[place(number)[1]] = (kind, place(original)[1])
        (folder / place(start)[0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.files += 1
    return written


def write_truth(path: Path, collection: Collection) -> None:
    """Write the planted copies as JSON, to compare a corpus with later."""
    path.write_text(json.dumps(collection.copies, indent=0), encoding="utf-8")


def _texts(paper: PaperText) -> Iterator[str]:
    yield paper.title
    yield paper.abstract
    for heading, paragraphs in paper.sections:
        yield heading
        yield from paragraphs


def _original(plan: Plan, index: int) -> PaperText:
    chance = np.random.default_rng((plan.seed, index, 0))
    chinese = bool(chance.random() < plan.chinese_fraction)
    wanted = int(plan.words * np.exp(chance.normal(0, 0.5) - 0.125))
    speak = _chinese_sentences if chinese else _sentences
    lengths = _sentence_lengths(chance, wanted)
    # The title, four sentences of the abstract, then the body.
    sentences = speak(chance, np.concatenate([[9], lengths[:4], lengths]))
    body = sentences[5:]
    paragraphs = [
        ("" if chinese else " ").join(body[start : start + _PARAGRAPH_SENTENCES])
        for start in range(0, len(body), _PARAGRAPH_SENTENCES)
    ]
    bounds = np.linspace(0, len(paragraphs), len(_HEADINGS) + 1).astype(int).tolist()
    sections = tuple(
        (heading, tuple(paragraphs[start:end]))
        for heading, start, end in zip(_HEADINGS, bounds[:-1], bounds[1:], strict=True)
        if end > start
    )
    return PaperText(sentences[0].rstrip(".。"), " ".join(sentences[1:5]), "", sections)


def _sentence_lengths(chance: np.random.Generator, words: int) -> npt.NDArray[np.int64]:
    lengths = chance.integers(*_SENTENCE_WORDS, size=max(4, words // _SENTENCE_WORDS[0] + 1))
    enough = int(np.searchsorted(np.cumsum(lengths), words)) + 1
    return lengths[: max(4, enough)]


def _edited(plan: Plan, paper: PaperText, index: int) -> PaperText:
    chance = np.random.default_rng((plan.seed, index, 2))

    def edit(paragraph: str, at_least_one: bool) -> str:
        chinese = "。" in paragraph
        speak, end = (_chinese_sentences, "。") if chinese else (_sentences, ". ")
        sentences = paragraph.split(end)
        chosen = chance.random(len(sentences)) < plan.edit_share
        # A short paper would otherwise come out unchanged by chance.
        chosen[0] |= at_least_one
        for place in np.flatnonzero(chosen).tolist():
            if sentences[place]:
                (new,) = speak(chance, chance.integers(*_SENTENCE_WORDS, size=1))
                sentences[place] = new.rstrip(".。")
        return end.join(sentences)

    sections = tuple(
        (heading, tuple(edit(paragraph, first == second == 0) for second, paragraph in enumerate(paragraphs)))
        for first, (heading, paragraphs) in enumerate(paper.sections)
    )
    return PaperText(paper.title, paper.abstract, "", sections)


def _sentences(chance: np.random.Generator, lengths: npt.NDArray[np.int64]) -> list[str]:
    """Return sentences of so many words each; drawing for all of them at once is what makes it fast."""
    vocabulary, cumulative = _vocabulary()
    count = int(lengths.sum())
    words = [vocabulary[place] for place in np.searchsorted(cumulative, chance.random(count)).tolist()]
    bounds = np.cumsum([0, *_DECORATIONS.values()])
    decoration = np.searchsorted(bounds, chance.random(count), side="right") - 1
    names = (*_DECORATIONS, "")
    values = chance.random((count, 2))
    decorated = np.flatnonzero(decoration < len(_DECORATIONS)).tolist()
    for place, kind, (one, two) in zip(
        decorated, decoration[decorated].tolist(), values[decorated].tolist(), strict=True
    ):
        words[place] = _decorate(words[place], names[kind], one, two)
    sentences = []
    start = 0
    for length in lengths.tolist():
        text = " ".join(words[start : start + length]).rstrip(",")
        sentences.append(f"{text[0].upper()}{text[1:]}.")
        start += length
    return sentences


def _decorate(word: str, kind: str, one: float, two: float) -> str:
    """Return a word with what stands at it; ``one`` and ``two`` are uniform draws."""
    if kind == "comma":
        return f"{word},"
    if kind == "name":
        return word.capitalize()
    if kind == "figure":
        number = f"{10 ** (4 * one):.{int(3 * two)}f}"
        return f"{word} {number} {_UNITS[int(two * len(_UNITS))]}"
    if kind == "citation":
        return (
            f"{word} ({_vocabulary()[0][int(two * _VOCABULARY)].capitalize()} et al, {1950 + int(one * 75)})"
        )
    left, right = _SYMBOLS[int(one * len(_SYMBOLS))], _SYMBOLS[int(two * len(_SYMBOLS))]
    return f"{word} ${left}_{{{int(one * 97)}}} = {two:.3f} {right}^{{{int(two * 9)}}}$"


def _chinese_sentences(chance: np.random.Generator, lengths: npt.NDArray[np.int64]) -> list[str]:
    places = _HAN_FIRST + (_HAN_COUNT * chance.random(int(lengths.sum())) ** 2).astype(int)
    text = "".join([chr(place) for place in places.tolist()])
    ends = np.cumsum(lengths).tolist()
    return [f"{text[end - length : end]}。" for end, length in zip(ends, lengths.tolist(), strict=True)]


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """Return the words, frequent ones first, and their cumulative frequencies; frequent words are short."""
    chance = np.random.default_rng(20)
    words: dict[str, None] = {}
    while len(words) < _VOCABULARY:
        block = 1 << 16
        common = len(words) < _COMMON_WORDS
        syllables = chance.integers(0, len(_SYLLABLES), (1024 if common else block, 4)).tolist()
        counts = chance.choice([1, 2, 3] if common else [2, 3, 4], size=len(syllables), p=[0.1, 0.6, 0.3])
        for row, count in zip(syllables, counts.tolist(), strict=True):
            words["".join([_SYLLABLES[place] for place in row[:count]])] = None
    content_words = list(words)[:_VOCABULARY]
    ranks = np.arange(1, _VOCABULARY + 1)
    content = (np.minimum(ranks, _COMMON_WORDS) + _RANK_SHIFT) ** -_FIRST_EXPONENT
    content *= (np.maximum(ranks, _COMMON_WORDS) / _COMMON_WORDS) ** -_SECOND_EXPONENT
    content *= (1 - _FUNCTION_SHARE) / content.sum()
    places = np.arange(1, len(_FUNCTION_WORDS) + 1)
    function = _FUNCTION_SHARE / places / (1 / places).sum()
    cumulative = np.cumsum(np.concatenate([function, content]))
    cumulative /= cumulative[-1]
    return (*_FUNCTION_WORDS, *content_words), cumulative
