"""The scores of a document: numbers about its text, the same whatever the thresholds are.

Gopher's quality rules (Rae et al. 2021, table A1) and C4's (Raffel et al. 2020, section 2.2) as
scores, measured on the prose of a rendered paper (:mod:`baltoro.corpus.filters.parts`), with repetition
(:mod:`~baltoro.corpus.filters.repetition`), damage (:mod:`~baltoro.corpus.filters.garble`), and the shares of
what is not prose. A score that does not apply to a document (stop words of a language without a list,
word length in Chinese) is NaN, and no rule rejects by it.

A line is what the renderer writes as one: a paragraph, a list item, a caption. Headings are no lines here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.corpus.filters.characters import CYRILLIC, LATIN, any_of_fields
from baltoro.corpus.filters.facts import Facts
from baltoro.corpus.filters.garble import Garble, garble_of
from baltoro.corpus.filters.parts import (
    CITATION,
    CODE,
    FORMULA,
    MARKER,
    PROSE,
    REFERENCE,
    TABLE,
    Flags,
    Offsets,
    Parts,
    parts_of,
)
from baltoro.corpus.filters.repetition import Repetition, repetition_of
from baltoro.corpus.filters.stop_words import stop_words_of
from baltoro.corpus.filters.word_sets import Lexicon, WordSet
from baltoro.corpus.words import Codes, Words, ngram_hashes, ngram_hashes_at, words_of

SCORES: dict[str, str] = {
    "characters": "length of the document, in characters",
    "words": "words, bracket tokens left out; a Chinese, Japanese or Korean character is a word",
    "prose_words": "words of prose",
    "formula_fraction": "words in formulas, of all words",
    "table_fraction": "words in tables, of all words",
    "citation_fraction": "words in cited titles, of all words",
    "reference_fraction": "words in entries of a reference list, of all words",
    "code_fraction": "words in fenced code, of all words",
    "garble_fraction": "damaged words, of the prose words",
    "garble_vowelless_fraction": "words without a vowel, of the prose words",
    "garble_spaced_fraction": "letters set apart by spaces, of the prose words",
    "garble_glued_fraction": "words of more than 30 letters, of the prose words",
    "garble_mixed_fraction": "words that mix scripts, cases or digits, of the prose words",
    "garble_glyph_fraction": "words beside impossible glyphs, or in a wrong encoding, of the prose words",
    "lorem_ipsum_fraction": "words of the Latin filler text, of the prose words",
    "web_notice_line_fraction": "short lines about JavaScript, cookies or logging in, of the prose lines",
    "code_line_fraction": "lines in the form of program code outside fences, of the prose lines",
    "sentence_fraction": "prose in lines that end as a sentence or a formula does, by characters",
    "mean_word_characters": "mean length of the prose words with Latin or Cyrillic letters, in characters",
    "alphabetic_word_fraction": "prose words that hold a letter",
    "symbols_per_word": "hash signs and ellipses per prose word",
    "bullet_line_fraction": "prose lines that start with a bullet",
    "ellipsis_line_fraction": "prose lines that end in an ellipsis",
    "stop_words": "different stop words of the document's language that occur",
    "stop_word_fraction": "stop words of the document's language, of the prose words",
    "dup_line_fraction": "prose lines that stood before",
    "dup_line_character_fraction": "prose in lines that stood before, by characters",
    "dup_paragraph_fraction": "paragraphs that stood before",
    "dup_paragraph_character_fraction": "prose in paragraphs that stood before, by characters",
    **{f"top_{n}gram_fraction": f"prose in the {n}-gram that fills most of it" for n in (2, 3, 4)},
    **{f"dup_{n}gram_fraction": f"prose in {n}-grams that stood before" for n in (5, 6, 7, 8, 9, 10)},
    "keyword_hits_per_1000_words": "occurrences of the discipline's keywords per 1000 prose words",
}
"""Every score with its meaning, in the order of the columns."""

SCORE_SCHEMA = pa.schema([(name, pa.float32()) for name in SCORES])
"""The columns of a score table; all are 32-bit numbers, NaN where a score does not apply."""

_FRACTIONS = {
    FORMULA: "formula_fraction",
    TABLE: "table_fraction",
    CITATION: "citation_fraction",
    REFERENCE: "reference_fraction",
    CODE: "code_fraction",
}

# Words of the filler text that no living language shares.
_LOREM_IPSUM = (
    "lorem ipsum consectetur consectetuer adipiscing adipisicing eiusmod incididunt aliqua veniam nostrud "
    "ullamco aliquip commodo consequat aute irure reprehenderit cillum fugiat nulla pariatur excepteur "
    "occaecat cupidatat proident deserunt mollit vestibulum pellentesque curabitur vivamus phasellus "
    "suspendisse praesent maecenas aenean nullam donec fusce quisque"
)
_WEB_WORDS = "javascript cookie cookies login logout sitemap newsletter unsubscribe adblock"
_WEB_PHRASES = ("privacy policy", "cookie policy", "log in", "sign in", "sign up", "click here", "read more")
_LONGEST_NOTICE_CHARACTERS = 200

# Sentence ends of many scripts, with the brackets and quotation marks that may follow one.
_TERMINAL = ".!?:;…。！？：；．｡।॥؟۔։።។။།\"'”’»」』)]）］"
_BULLETS = "-*+•‣▪▫●○◦■□·–—∙►▶➢✓"
_CODE_LINE = re.compile(
    r"(?:(?:def|class|import|from|return|elif|except|public|private|static|void|int|float|double|const|var|let"
    r"|function|func|fn|struct|namespace|using|package|print|printf|echo|end|endif|begin|try|else|while|for|if)\b"
    r"(?!.*[.?!]$)(?=.*[=(){}:;<>\[\]]|$)|[#$>]\s?(?:include|define|pip|sudo|cd|ls|python)\b|//|/\*|@\w+$"
    r"|[\w.\[\]]+\s*(?:[+\-*/|&]?=|:=|<-)\s*\S|[\w.]+\([^)]*\);?$|</?\w+[^>]*>$)"
)
_LONGEST_CODE_LINE_CHARACTERS = 160
_ALPHABETS = any_of_fields(LATIN, CYRILLIC)

# The lists of a lexicon, those last whose words are looked at one by one.
_STOP, _LOREM, _WEB, _FIRST = range(4)


@dataclass(frozen=True)
class Keywords:
    """The keywords of a discipline, ready to be found; made by :func:`keywords_of`.

    Attributes:
        by_length: the phrases' n-grams, by their number of words.
    """

    by_length: dict[int, WordSet]

    def hits(self, words: Words) -> Flags:
        """Return at which words a keyword starts."""
        found = np.zeros(len(words), np.bool_)
        for length, wanted in self.by_length.items():
            ngrams = ngram_hashes(words.hashes, length)
            found[: len(ngrams)] |= wanted.contains(ngrams)
        return found


@lru_cache(maxsize=8)
def keywords_of(phrases: tuple[str, ...]) -> Keywords | None:
    """Return keywords of one or more words each, compared as words are: without case, accents, punctuation.

    Args:
        phrases: the keywords; ``None`` is returned where there is none.
    """
    by_length: dict[int, list[int]] = {}
    for phrase in phrases:
        words = words_of(phrase)
        if len(words):
            by_length.setdefault(len(words), []).extend(ngram_hashes(words.hashes, len(words)).tolist())
    if not by_length:
        return None
    return Keywords({n: WordSet.of(np.array(found, np.uint64)) for n, found in sorted(by_length.items())})


@dataclass(frozen=True)
class Measurement:
    """A document with everything that was found in it; made by :func:`measure`.

    Attributes:
        text: the rendered document.
        words: its words.
        parts: which of them are prose, and the lines.
        repetition: where it repeats itself.
        garble: which words are damaged.
        lines: kinds of odd lines by the name of the score that counts them.
        scores: a value per name in :data:`SCORES`, rounded to 32 bits.
    """

    text: str
    words: Words
    parts: Parts
    repetition: Repetition
    garble: Garble
    lines: dict[str, Flags]
    scores: dict[str, float]


def score_document(
    text: str, words: Words, facts: Facts, *, parts: Parts | None = None, keywords: Keywords | None = None
) -> dict[str, float]:
    """Return the scores of a document, by name, in the order of :data:`SCORES`.

    Args:
        text: the rendered document.
        words: its words, from :func:`baltoro.corpus.words.words_of`.
        facts: the document's language decides which stop words are counted.
        parts: from :func:`~baltoro.corpus.filters.parts.parts_of`, if it is there already.
        keywords: the discipline's; without them their score is NaN.

    Returns:
        Values rounded to 32 bits, so that a row of a score table is exactly what was decided on.
    """
    return measure(text, words, facts, parts=parts, keywords=keywords).scores


def measure(
    text: str, words: Words, facts: Facts, *, parts: Parts | None = None, keywords: Keywords | None = None
) -> Measurement:
    """Return the scores of a document together with where in the text they come from."""
    parts = parts if parts is not None else parts_of(text, words)
    lexicon = _lexicon_of(facts.language)
    numbers = lexicon.numbers(words.hashes)
    odd_lines, line_scores = _line_scores(text, words, parts, _web_words(words, lexicon, numbers))
    repetition = repetition_of(words, parts, code_lines=odd_lines["code_line_fraction"])
    garble = garble_of(text, words, parts)
    found = {
        "characters": float(len(text)),
        **_shares(parts),
        **garble.scores,
        **line_scores,
        **_word_scores(words, parts, facts.language, lexicon, numbers),
        **repetition.scores,
        "keyword_hits_per_1000_words": _keyword_hits(words, parts, keywords),
    }
    rounded = np.array([found[name] for name in SCORES]).astype(np.float32)
    scores = dict(zip(SCORES, rounded.tolist(), strict=True))
    return Measurement(text, words, parts, repetition, garble, odd_lines, scores)


def _shares(parts: Parts) -> dict[str, float]:
    numbers = np.bincount(parts.kinds, minlength=MARKER + 1)
    total = int(numbers.sum() - numbers[MARKER])
    return {
        "words": float(total),
        "prose_words": float(numbers[PROSE]),
        **{name: float(numbers[kind]) / max(total, 1) for kind, name in _FRACTIONS.items()},
    }


def _word_scores(
    words: Words, parts: Parts, language: str, lexicon: Lexicon, numbers: npt.NDArray[np.uint16]
) -> dict[str, float]:
    prose, total = parts.prose, parts.prose_words
    lettered = np.count_nonzero(words.has_letter & prose)
    # Scripts with spaces between words; Thai, Lao, Khmer, Burmese and Tibetan have none.
    alphabet = ((parts.counts & _ALPHABETS) != 0) & prose
    spelled = np.count_nonzero(alphabet)
    occurrences = np.bincount(numbers * prose, minlength=len(lexicon.words))
    different, fraction = math.nan, math.nan
    if stop_words_of(language) is not None and total:
        stop_words = occurrences[lexicon.members[_STOP]]
        different, fraction = float(np.count_nonzero(stop_words)), int(stop_words.sum()) / total
    return {
        "mean_word_characters": int((parts.lengths * alphabet).sum()) / spelled
        if spelled * 2 > lettered
        else math.nan,
        "alphabetic_word_fraction": lettered / total if total else math.nan,
        "symbols_per_word": _symbols(words, parts) / max(total, 1),
        "stop_words": different,
        "stop_word_fraction": fraction,
        "lorem_ipsum_fraction": int(occurrences[lexicon.members[_LOREM]].sum()) / max(total, 1),
    }


def _symbols(words: Words, parts: Parts) -> int:
    """Return the number of hash signs outside headings and of ellipses, in prose."""
    characters = words.characters
    hashes = (characters.ascii == ord("#")).nonzero()[0]
    if len(hashes):
        line = np.searchsorted(parts.lines.starts, hashes, side="right") - 1
        hashes = hashes[~parts.lines.heading[line]]
    found = [hashes, characters.beyond[characters.codes[characters.beyond] == 0x2026]]
    dots = (characters.ascii == ord(".")).nonzero()[0]
    third = (dots[2:] - dots[:-2] == 2).nonzero()[0]
    if len(third):
        # Of a longer row of dots only the first three count.
        found.append(dots[third[np.diff(third, prepend=-2) != 1]])
    symbols = np.concatenate(found)
    if not len(symbols) or not len(words):
        return len(symbols)
    nearest = np.maximum(np.searchsorted(words.starts, symbols) - 1, 0)
    return int(np.count_nonzero(parts.prose[nearest]))


def _line_scores(
    text: str, words: Words, parts: Parts, notices: Offsets
) -> tuple[dict[str, Flags], dict[str, float]]:
    lines, codes = parts.lines, parts.codes
    prose = parts.prose_lines.nonzero()[0]
    starts, ends = lines.starts[prose], lines.ends[prose]
    first, last = codes[starts], codes[ends - 1]
    bullet = _is_one_of(first, _BULLETS) & (codes[np.minimum(starts + 1, len(codes) - 1)] <= 32)
    dot = ord(".")
    ellipsis = (last == 0x2026) | (
        (last == dot)
        & (ends - starts >= 3)
        & (codes[ends - 2] == dot)
        & (codes[np.maximum(ends - 3, 0)] == dot)
    )
    notice = (ends - starts <= _LONGEST_NOTICE_CHARACTERS) & (lines.count_at(notices)[prose] > 0)
    terminal = _is_one_of(last, _TERMINAL)
    code = _code_lines(text, parts, prose, last)
    characters = parts.prose_characters_per_line[prose]
    total = int(characters.sum())
    # Before a displayed formula a sentence stops in the middle of its line.
    goes_on = _formula_follows(parts, prose)
    odd: dict[str, Flags] = {}
    for name, flags in (
        ("bullet_line_fraction", bullet),
        ("ellipsis_line_fraction", ellipsis),
        ("web_notice_line_fraction", notice),
        ("code_line_fraction", code),
    ):
        odd[name] = np.zeros(len(lines), np.bool_)
        odd[name][prose[flags]] = True
    scores = {name: float(np.count_nonzero(flags)) / max(len(prose), 1) for name, flags in odd.items()}
    ended = int(characters[terminal | goes_on].sum())
    scores["sentence_fraction"] = (
        ended / total if total and not _ends_without_mark(words, parts) else math.nan
    )
    return odd, scores


def _ends_without_mark(words: Words, parts: Parts) -> bool:
    """Return whether the prose is Thai or Lao, whose sentences end in a space."""
    beyond = words.characters.codes[words.characters.beyond]
    if not ((beyond >= 0x0E00) & (beyond < 0x0F00)).any():
        return False
    first = parts.codes[words.starts[parts.prose]]
    thai_or_lao = np.count_nonzero((first >= 0x0E00) & (first < 0x0F00))
    return 2 * int(thai_or_lao) > len(first)


def _formula_follows(parts: Parts, prose: Offsets) -> Flags:
    """Return which prose lines stand before a line that starts with a formula."""
    lines = parts.lines
    formula_line = (lines.end_words > lines.first_words) & (parts.prose_words_per_line == 0) & ~lines.heading
    holds = lines.count(parts.kinds == FORMULA) > 0
    follows = np.zeros(len(lines), np.bool_)
    follows[:-1] = (formula_line & holds)[1:]
    return follows[prose]


def _web_words(words: Words, lexicon: Lexicon, numbers: npt.NDArray[np.uint16]) -> Offsets:
    """Return at which words a notice about cookies and the like starts."""
    places = (numbers >= lexicon.first_numbers[_WEB]).nonzero()[0]
    found = lexicon.members[_WEB][numbers[places]]
    first = (~found & (places < len(words) - 1)).nonzero()[0]
    found[first] = _phrases().contains(ngram_hashes_at(words.hashes, 2, places[first]))
    notices: Offsets = places[found]
    return notices


def _code_lines(text: str, parts: Parts, prose: Offsets, last: np.ndarray) -> Flags:
    """Return which prose lines have the form of program code."""
    lines, codes = parts.lines, parts.codes
    found = _is_one_of(last, "{};") & ((lines.ends - lines.starts)[prose] <= _LONGEST_CODE_LINE_CHARACTERS)
    short = ((lines.ends - lines.starts)[prose] <= _LONGEST_CODE_LINE_CHARACTERS) & ~found
    short &= ~_is_one_of(last, ".?!") & (codes[lines.starts[prose]] != ord("["))
    for index in short.nonzero()[0].tolist():
        line = prose[index]
        found[index] = _CODE_LINE.match(text, lines.starts[line], lines.ends[line]) is not None
    return found


def _keyword_hits(words: Words, parts: Parts, keywords: Keywords | None) -> float:
    total = parts.prose_words
    if keywords is None or not total:
        return math.nan
    return 1000 * np.count_nonzero(keywords.hits(words) & parts.prose) / total


@lru_cache(maxsize=8)
def _lexicon_of(language: str) -> Lexicon:
    """Return all words that are looked for in a document, of which only the stop words differ by language."""
    stop_words = stop_words_of(language)
    first_words = " ".join(phrase.split()[0] for phrase in _WEB_PHRASES)
    lists = [words_of(text).hashes for text in (_LOREM_IPSUM, _WEB_WORDS, first_words)]
    return Lexicon.of([stop_words if stop_words is not None else np.empty(0, np.uint64), *lists])


@lru_cache(maxsize=1)
def _phrases() -> WordSet:
    pairs = [ngram_hashes(words_of(phrase).hashes, 2) for phrase in _WEB_PHRASES]
    return WordSet.of(np.concatenate(pairs))


def _is_one_of(codes: Codes, characters: str) -> Flags:
    flags: Flags = _table_of(characters).take(codes, mode="clip")
    return flags


@lru_cache(maxsize=8)
def _table_of(characters: str) -> Flags:
    table = np.zeros(0x10000, np.bool_)
    table[[ord(character) for character in characters]] = True
    return table
