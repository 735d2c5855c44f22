"""Collections of 10^3 to 10^6 paper-like documents with planted copies, for measurement.

Words are made of syllables and occur as in natural text (a Zipf law, four in ten of them function words),
so that filters, signatures and tokenizers work as hard as on papers and unrelated papers share no more than
real ones do. Every paper depends only on the seed and its number: a longer collection starts with the
shorter one, and parts can be made side by side.
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
_VOCABULARY = 30_000
_HEADINGS = ("Introduction", "Setting", "Methods", "Results", "Discussion", "Conclusions")
_SENTENCE_WORDS, _PARAGRAPH_SENTENCES = (8, 30), 6


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
    keys: list[str] = []
    for start in range(0, plan.papers, per_file):
        numbers = range(start, min(start + per_file, plan.papers))
        name = f"part-{start // per_file:06d}.jsonl" if per_file > 1 else f"paper-{start:07d}{suffix}"
        lines = []
        for line, number in enumerate(numbers, 1):
            paper = make_text(plan, number)
            lines.append(render(paper))
            written.text_bytes += sum(len(text.encode()) for text in _texts(paper))
            keys.append(f"{name}#{line}" if per_file > 1 else name)
            kind, original = copy_of(plan, number)
            if kind != "original":
                written.copies[keys[number]] = (kind, keys[original])
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
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
    speak = _chinese_sentence if chinese else _sentence
    title = speak(chance, 9).rstrip(".。")
    abstract = " ".join(speak(chance) for _ in range(4))
    sections = []
    each = max(1, wanted // len(_HEADINGS))
    for heading in _HEADINGS:
        paragraphs: list[str] = []
        words = 0
        while words < each:
            sentences = [speak(chance) for _ in range(_PARAGRAPH_SENTENCES)]
            paragraph = ("" if chinese else " ").join(sentences)
            words += len(paragraph) if chinese else paragraph.count(" ") + 1
            paragraphs.append(paragraph)
        sections.append((heading, tuple(paragraphs)))
    return PaperText(title, abstract, "", tuple(sections))


def _edited(plan: Plan, paper: PaperText, index: int) -> PaperText:
    chance = np.random.default_rng((plan.seed, index, 2))

    def edit(paragraph: str) -> str:
        chinese = "。" in paragraph
        sentences = paragraph.split("。") if chinese else paragraph.split(". ")
        new = [
            (_chinese_sentence(chance) if chinese else _sentence(chance)).rstrip(".。")
            if sentence and chance.random() < plan.edit_share
            else sentence
            for sentence in sentences
        ]
        return ("。" if chinese else ". ").join(new)

    sections = tuple((heading, tuple(edit(p) for p in paragraphs)) for heading, paragraphs in paper.sections)
    return PaperText(paper.title, paper.abstract, "", sections)


def _sentence(chance: np.random.Generator, words: int | None = None) -> str:
    count = words or int(chance.integers(*_SENTENCE_WORDS))
    vocabulary, cumulative = _vocabulary()
    chosen = np.searchsorted(cumulative, chance.random(count))
    text = " ".join([vocabulary[place] for place in chosen.tolist()])
    return text[0].upper() + text[1:] + "."


def _chinese_sentence(chance: np.random.Generator, words: int | None = None) -> str:
    count = words or int(chance.integers(*_SENTENCE_WORDS))
    places = (_HAN_COUNT * chance.random(count) ** 2).astype(int)
    return "".join([chr(_HAN_FIRST + place) for place in places.tolist()]) + "。"


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    chance = np.random.default_rng(20)
    words: dict[str, None] = {}
    while len(words) < _VOCABULARY:
        count = int(chance.integers(2, 5))
        words["".join(_SYLLABLES[place] for place in chance.integers(0, len(_SYLLABLES), count).tolist())] = (
            None
        )
    ranks = np.arange(1, _VOCABULARY + 1)
    content = 0.6 / ranks**0.9 / (1 / ranks**0.9).sum()
    places = np.arange(1, len(_FUNCTION_WORDS) + 1)
    function = 0.4 / places / (1 / places).sum()
    cumulative = np.cumsum(np.concatenate([function, content]))
    cumulative /= cumulative[-1]
    return (*_FUNCTION_WORDS, *words), cumulative
