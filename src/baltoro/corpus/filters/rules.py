"""From scores to verdicts: the first rule that a document breaks is why it is rejected.

Rules are tried in the order of :func:`rules_of`: is there a text at all, may it be used (licence, year,
venue), is it broken or filler, is it in a wanted language, is it prose, does it repeat itself, is it worded
like prose, is it of the discipline. A score of NaN does not apply to the document and breaks no rule.

Bounds are compared as 32-bit numbers, as scores are stored, so that a table of scores decides exactly as
the document did: thresholds can be changed and looked at without reading a paper again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.corpus.filters.config import UNKNOWN_VENUE, FilterConfig
from baltoro.corpus.filters.facts import FACT_SCHEMA, Facts
from baltoro.corpus.filters.language import UNDETERMINED
from baltoro.corpus.filters.scores import SCORE_SCHEMA, SCORES

FILTER_REASONS: dict[str, str] = {
    "empty_document": "nothing is left after cleaning and rendering",
    "too_short": "fewer characters than corpus.filters.min_characters",
    "too_long": "more characters than corpus.filters.max_characters",
    "license": "a licence that corpus.filters.licenses does not allow",
    "year": "a year outside corpus.filters.years",
    "venue": "a journal or conference that corpus.filters.venues does not allow",
    "word_number": "fewer or more words than corpus.filters.quality allows",
    "garbled": "too many words broken by an extractor, an OCR engine or a wrong encoding",
    "filler_text": "lorem ipsum",
    "language": "a language that corpus.filters.language does not allow",
    "references_only": "hardly more than a reference list",
    "code": "hardly more than program code",
    "web_notices": "too many lines about JavaScript, cookies or logging in",
    "formulas": "more formulas than corpus.filters.quality.max_formula_fraction",
    "tables": "more tables than corpus.filters.quality.max_table_fraction",
    "duplicate_lines": "too many lines or paragraphs stood in the document before",
    "repeated_ngram": "too much of the text is one short phrase",
    "duplicate_ngrams": "too much of the text stood in the document before",
    "no_sentences": "too little of the text ends as sentences do: menus, lists of keywords",
    "word_length": "words that are too short or too long on average",
    "not_alphabetic": "too many words without a letter",
    "symbols": "too many hash signs or ellipses, or lines that end in one",
    "bullets": "too many lines with a bullet",
    "no_stop_words": "too few of the words that every running text in its language holds",
    "discipline": "too few of the keywords in corpus.filters.keywords",
}
"""Every reason a readable paper can be refused for here, with its meaning."""

VERDICT_SCHEMA = pa.schema([("reason", pa.string()), ("detail", pa.string())])
"""What :func:`decide_table` returns: one row per document, nulls where it is kept."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a document is rejected: a key of :data:`FILTER_REASONS`, and the value with the bound it broke."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule says of one document.

    Attributes:
        setting: dotted path of the bound below ``corpus.filters``.
        reason: what a document that breaks it is rejected for.
        value: the score, or the paper's licence, language, venue or year as text.
        bound: the bound, or the allowed values as text.
        applies: whether the document is large enough and has the score; a rule that does not apply passes.
        passed: whether the document passes.
        detail: value and bound in words, as a verdict gives them.
    """

    setting: str
    reason: str
    value: float | str
    bound: float | str
    applies: bool
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Bound:
    """A bound on a score; ``from_words`` is the number of prose words below which it is not applied."""

    setting: str
    reason: str
    score: str
    sense: Literal["min", "max"]
    bound: float
    from_words: float = 0.0

    def broken(self, value: float, prose_words: float) -> bool:
        limit = float(np.float32(self.bound))
        # NaN breaks nothing: every comparison with it is false.
        return prose_words >= self.from_words and (value < limit if self.sense == "min" else value > limit)

    def broken_rows(self, columns: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.bool_]:
        limit = np.float32(self.bound)
        values = columns[self.score]
        beyond = values < limit if self.sense == "min" else values > limit
        rows: npt.NDArray[np.bool_] = beyond & (columns["prose_words"] >= self.from_words)
        return rows

    def detail(self, value: float) -> str:
        return _comparison(self.score, value, self.bound, below=self.sense == "min")


@dataclass(frozen=True, slots=True)
class _Condition:
    """A condition on facts: ``broken`` takes the values of ``columns``, ``detail`` the same."""

    setting: str
    reason: str
    columns: tuple[str, ...]
    broken: Callable[..., bool]
    detail: Callable[..., str]
    bound: str


_Rule = _Bound | _Condition


def decide(scores: Mapping[str, float], facts: Facts, config: FilterConfig) -> Verdict | None:
    """Return why a document is rejected, ``None`` if it is kept.

    Args:
        scores: from :func:`~baltoro.corpus.filters.scores.score_document`.
        facts: of the same document.
        config: the bounds.
    """
    prose_words = scores["prose_words"]
    for rule in rules_of(config):
        if isinstance(rule, _Bound):
            value = scores[rule.score]
            if rule.broken(value, prose_words):
                return Verdict(rule.reason, rule.detail(value))
        else:
            values = [getattr(facts, name) for name in rule.columns]
            if rule.broken(*values):
                return Verdict(rule.reason, rule.detail(*values))
    return None


def explain(scores: Mapping[str, float], facts: Facts, config: FilterConfig) -> list[RuleResult]:
    """Return what every rule that is switched on says of a document, in the order they are tried."""
    prose_words = scores["prose_words"]
    results = []
    for rule in rules_of(config):
        if isinstance(rule, _Bound):
            value = scores[rule.score]
            results.append(
                RuleResult(
                    setting=rule.setting,
                    reason=rule.reason,
                    value=value,
                    bound=rule.bound,
                    applies=prose_words >= rule.from_words and not math.isnan(value),
                    passed=not rule.broken(value, prose_words),
                    detail=rule.detail(value),
                )
            )
        else:
            values = [getattr(facts, name) for name in rule.columns]
            results.append(
                RuleResult(
                    setting=rule.setting,
                    reason=rule.reason,
                    value="unknown" if values[0] is None else str(values[0]),
                    bound=rule.bound,
                    applies=True,
                    passed=not rule.broken(*values),
                    detail=rule.detail(*values),
                )
            )
    return results


def decide_table(table: pa.Table, config: FilterConfig) -> pa.Table:
    """Decide on every row of a score table, exactly as :func:`decide` would.

    Args:
        table: the columns of ``SCORE_SCHEMA`` and ``FACT_SCHEMA``; others are not looked at.
        config: the bounds.

    Returns:
        A table in :data:`VERDICT_SCHEMA` with the rows in the same order.

    Raises:
        ValueError: a column is missing.
    """
    missing = [name for name in (*SCORE_SCHEMA.names, *FACT_SCHEMA.names) if name not in table.column_names]
    if missing:
        raise ValueError(f"a score table without the column {missing[0]!r}; score the documents again")
    columns = {name: _numbers(table.column(name)) for name in SCORE_SCHEMA.names}
    reasons: list[str | None] = [None] * table.num_rows
    details: list[str | None] = [None] * table.num_rows
    open_rows = np.ones(table.num_rows, np.bool_)
    for rule in rules_of(config):
        if isinstance(rule, _Bound):
            broken = (rule.broken_rows(columns) & open_rows).nonzero()[0]
            for row in broken.tolist():
                reasons[row], details[row] = rule.reason, rule.detail(float(columns[rule.score][row]))
            open_rows[broken] = False
        else:
            values = [table.column(name).to_pylist() for name in rule.columns]
            for row in open_rows.nonzero()[0].tolist():
                found = [column[row] for column in values]
                if rule.broken(*found):
                    reasons[row], details[row] = rule.reason, rule.detail(*found)
                    open_rows[row] = False
    return pa.table({"reason": reasons, "detail": details}, schema=VERDICT_SCHEMA)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return a column as 32-bit numbers, null as NaN."""
    filled: npt.NDArray[np.float32] = (
        column.cast(pa.float32()).fill_null(math.nan).combine_chunks().to_numpy(zero_copy_only=False)
    )
    return filled


@lru_cache(maxsize=16)
def rules_of(config: FilterConfig) -> tuple[_Rule, ...]:
    """Return the rules that are switched on, in the order they are tried."""
    quality, repetition = config.quality, config.repetition
    rules: list[_Rule] = [
        _Bound("min_characters", "empty_document", "characters", "min", 1),
        _Bound("min_characters", "too_short", "characters", "min", config.min_characters),
    ]

    def add(setting: str, reason: str, score: str, bound: float | None, *, from_words: int = 0) -> None:
        if bound is not None:
            name = setting.rpartition(".")[2]
            sense: Literal["min", "max"] = "min" if name.startswith("min_") else "max"
            rules.append(_Bound(setting, reason, score, sense, bound, from_words))

    add("max_characters", "too_long", "characters", config.max_characters)
    rules.extend(_license_rule(config) + _year_rules(config) + _venue_rules(config))
    if quality.enabled:
        add("quality.min_words", "word_number", "words", quality.min_words)
        add("quality.max_words", "word_number", "words", quality.max_words)
    garble = config.garble
    add(
        "garble.max_fraction", "garbled", "garble_fraction", garble.max_fraction, from_words=garble.from_words
    )
    if quality.enabled:
        _add_quality(add, config, "filler_text")
    rules.extend(_language_rule(config))
    if quality.enabled:
        for reason in ("references_only", "code", "web_notices", "formulas", "tables"):
            _add_quality(add, config, reason)
    if repetition.enabled:
        for name in type(repetition).model_fields:
            score = name.removeprefix("max_")
            if score in SCORES:
                bound = getattr(repetition, name)
                reason = _repetition_reason(score)
                add(f"repetition.{name}", reason, score, bound, from_words=repetition.from_words)
    if quality.enabled:
        for reason in (
            "not_alphabetic",
            "no_sentences",
            "word_length",
            "symbols",
            "bullets",
            "no_stop_words",
        ):
            _add_quality(add, config, reason)
    if config.keywords.any_of:
        add(
            "keywords.min_hits_per_1000_words",
            "discipline",
            "keyword_hits_per_1000_words",
            config.keywords.min_hits_per_1000_words,
        )
    return tuple(rules)


_QUALITY: dict[str, tuple[str, ...]] = {
    "filler_text": ("max_lorem_ipsum_fraction",),
    "references_only": ("max_reference_fraction",),
    "code": ("max_code_fraction", "max_code_line_fraction"),
    "web_notices": ("max_web_notice_line_fraction",),
    "formulas": ("max_formula_fraction",),
    "tables": ("max_table_fraction",),
    "no_sentences": ("min_sentence_fraction",),
    "word_length": ("min_mean_word_characters", "max_mean_word_characters"),
    "not_alphabetic": ("min_alphabetic_word_fraction",),
    "symbols": ("max_symbols_per_word", "max_ellipsis_line_fraction"),
    "bullets": ("max_bullet_line_fraction",),
    "no_stop_words": ("min_stop_words", "min_stop_word_fraction"),
}
"""The bounds of the quality section by reason; each is named ``min_`` or ``max_`` and the score."""

_SHARES_OF_ALL_WORDS = frozenset(
    ("max_reference_fraction", "max_code_fraction", "max_formula_fraction", "max_table_fraction")
)
"""Bounds that hold however little of a document is prose."""


def _repetition_reason(score: str) -> str:
    if score.startswith("top_"):
        return "repeated_ngram"
    return "duplicate_ngrams" if "gram" in score else "duplicate_lines"


def _add_quality(add: Callable[..., None], config: FilterConfig, reason: str) -> None:
    for name in _QUALITY[reason]:
        score = name.removeprefix("min_").removeprefix("max_")
        from_words = 0 if name in _SHARES_OF_ALL_WORDS else config.quality.from_words
        add(f"quality.{name}", reason, score, getattr(config.quality, name), from_words=from_words)


def _license_rule(config: FilterConfig) -> list[_Rule]:
    allowed = frozenset(config.licenses.allow)
    if not allowed:
        return []
    listed = ", ".join(sorted(allowed))
    return [
        _Condition(
            "licenses.allow",
            "license",
            ("license",),
            lambda license_id: license_id not in allowed,
            lambda license_id: f"licence {license_id}, allowed: {listed}",
            listed,
        )
    ]


def _year_rules(config: FilterConfig) -> list[_Rule]:
    first, last, keep_unknown = config.years.first, config.years.last, config.years.keep_unknown
    if first is None and last is None:
        return []

    def broken(year: int | None) -> bool:
        if year is None:
            return not keep_unknown
        return (first is not None and year < first) or (last is not None and year > last)

    span = f"{first if first is not None else ''} to {last if last is not None else ''}".strip()
    span = (
        span.replace("to", "up to", 1)
        if first is None
        else span.removesuffix(" to") + (" on" if last is None else "")
    )

    return [
        _Condition(
            "years",
            "year",
            ("year",),
            broken,
            lambda year: f"year {'unknown' if year is None else year}, allowed: {span}",
            span,
        )
    ]


def _venue_rules(config: FilterConfig) -> list[_Rule]:
    rules: list[_Rule] = []
    for name, patterns, wanted in (("deny", config.venues.deny, False), ("allow", config.venues.allow, True)):
        if patterns:
            rules.append(_venue_rule(name, patterns, wanted))
    return rules


def _venue_rule(name: str, patterns: tuple[str, ...], wanted: bool) -> _Condition:
    folded = [_plain_name(pattern) for pattern in patterns]

    @lru_cache(maxsize=4096)
    def broken(venue: str | None) -> bool:
        plain = _plain_name(venue) if venue and venue.strip() else UNKNOWN_VENUE
        return any(fnmatchcase(plain, pattern) for pattern in folded) != wanted

    listed = ", ".join(patterns)
    verb = "allowed" if wanted else "denied"
    return _Condition(
        f"venues.{name}",
        "venue",
        ("venue",),
        broken,
        lambda venue: f"venue {venue or UNKNOWN_VENUE}, {verb}: {listed}",
        listed,
    )


def _plain_name(venue: str) -> str:
    return " ".join(venue.casefold().split())


def _language_rule(config: FilterConfig) -> list[_Rule]:
    allowed = frozenset(config.language.allow)
    if not allowed:
        return []
    least = float(np.float32(config.language.min_confidence))
    listed = ", ".join(sorted(allowed))

    def broken(language: str | None, confidence: float | None) -> bool:
        if language is None or language == UNDETERMINED or language in allowed:
            return False
        return confidence is not None and float(np.float32(confidence)) >= least

    return [
        _Condition(
            "language.allow",
            "language",
            ("language", "language_confidence"),
            broken,
            lambda language, confidence: (
                f"language {language or UNDETERMINED}, confidence {confidence or 0:.2f}, allowed: {listed}"
            ),
            listed,
        )
    ]


def _comparison(name: str, value: float, bound: float, *, below: bool) -> str:
    """Return ``dup_5gram_fraction 0.51 > 0.45``, with as many digits as it takes to see the difference."""
    if math.isnan(value):
        return f"{name} does not apply"
    limit = float(np.float32(bound))
    sign = ("<" if value < limit else ">=") if below else (">" if value > limit else "<=")
    for digits in range(2, 9):
        shown, shown_bound = _number(value, digits), _number(bound, digits)
        if shown != shown_bound or value == limit:
            break
    return f"{name} {shown} {sign} {_number(bound, 8)}"


def _number(value: float, digits: int) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.{digits}g}"
