"""Settings of the filters: which documents are kept, by bounds on scores that are the same for any bounds.

The defaults are for scientific papers, and cautious: each stands well beyond what real papers in four input
formats reach, so that a formula-heavy, table-heavy, short or repetitive paper is kept, and text that is
broken, generated or no paper at all is not. ``null`` switches a single bound off, ``enabled: false`` a group.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from baltoro.core.config import StrictModel, result, section
from baltoro.corpus.filters.language import LANGUAGE_CODES
from baltoro.papers.licenses import normalise_license
from baltoro.papers.schema import UNKNOWN_LICENSE

UNKNOWN_VENUE = "unknown"
"""Stands in a venue list for papers whose venue is not known."""

_Fraction = Annotated[float, Field(ge=0, le=1)]
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+\-]*")


class LanguageFilterConfig(StrictModel):
    """Which languages are kept."""

    allow: tuple[str, ...] = result(
        (), "ISO 639-1 codes of the languages to keep; empty keeps all; text too short to tell is kept"
    )
    min_confidence: float = result(
        0.8, "another language than those is rejected if found with this confidence, 0 to 1", ge=0, le=1
    )

    @field_validator("allow")
    @classmethod
    def _codes_exist(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if code not in LANGUAGE_CODES:
                near = difflib.get_close_matches(code.lower()[:2], sorted(LANGUAGE_CODES), n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"corpus.filters.language.allow: {code!r} is no language that can be told; write "
                    f"ISO 639-1 codes such as en, de, zh{hint}"
                )
        return codes


class QualityConfig(StrictModel):
    """Rules after Gopher (Rae et al. 2021) and C4 (Raffel et al. 2020), measured on prose."""

    enabled: bool = result(True, "apply the rules of this section")
    from_words: int = result(
        50, "documents with fewer words of prose are too small for all but the word-number rules", ge=0
    )
    min_words: int | None = result(20, "fewer words are rejected", ge=1)
    max_words: int | None = result(None, "more words are rejected", ge=1)
    min_mean_word_characters: float | None = result(
        2.5, "a lower mean length of words is rejected, in characters; in scripts with spaces only", ge=0
    )
    max_mean_word_characters: float | None = result(
        10.0, "a higher mean length of words is rejected, in characters; in scripts with spaces only", gt=0
    )
    max_symbols_per_word: float | None = result(
        0.1, "more hash signs and ellipses per word of prose are rejected", ge=0
    )
    max_bullet_line_fraction: _Fraction | None = result(0.9, "more lines with a bullet are rejected, 0 to 1")
    max_ellipsis_line_fraction: _Fraction | None = result(
        0.3, "more lines that end in an ellipsis are rejected, 0 to 1"
    )
    min_alphabetic_word_fraction: _Fraction | None = result(
        0.6, "fewer words of prose with a letter are rejected, 0 to 1"
    )
    min_stop_words: int | None = result(
        2, "fewer different stop words are rejected, in languages that have a list", ge=0
    )
    min_stop_word_fraction: _Fraction | None = result(
        0.08, "a smaller share of stop words in prose is rejected, in languages that have a list, 0 to 1"
    )
    min_sentence_fraction: _Fraction | None = result(
        0.2, "less prose in lines that end as sentences do is rejected, by characters, 0 to 1"
    )
    max_reference_fraction: _Fraction | None = result(
        0.8, "more words in entries of a reference list are rejected, 0 to 1"
    )
    max_code_fraction: _Fraction | None = result(0.7, "more words in fenced code are rejected, 0 to 1")
    max_code_line_fraction: _Fraction | None = result(
        0.5, "more lines in the form of program code are rejected, 0 to 1"
    )
    max_formula_fraction: _Fraction | None = result(None, "more words in formulas are rejected, 0 to 1")
    max_table_fraction: _Fraction | None = result(None, "more words in tables are rejected, 0 to 1")
    max_lorem_ipsum_fraction: _Fraction | None = result(
        0.05, "more words of the Latin filler text are rejected, 0 to 1"
    )
    max_web_notice_line_fraction: _Fraction | None = result(
        0.3, "more short lines about JavaScript, cookies or logging in are rejected, 0 to 1"
    )

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> Self:
        _refuse_empty_range("quality.min_words", self.min_words, "max_words", self.max_words)
        _refuse_empty_range(
            "quality.min_mean_word_characters",
            self.min_mean_word_characters,
            "max_mean_word_characters",
            self.max_mean_word_characters,
        )
        return self


class RepetitionConfig(StrictModel):
    """Gopher's repetition rules on prose; n-grams in papers repeat three times as much as on web pages.

    Captions, definitions and methods are worded alike throughout a paper; Gopher's own bounds (0.15 to 0.10
    for 5- to 10-grams) would lose 7 of 101 real papers. In Chinese, Japanese and Korean an n-gram has 2n
    characters.
    """

    enabled: bool = result(True, "apply the rules of this section")
    from_words: int = result(200, "documents with fewer words of prose are too small for these rules", ge=0)
    max_dup_line_fraction: _Fraction | None = result(0.3, "more lines that stood before are rejected, 0 to 1")
    max_dup_line_character_fraction: _Fraction | None = result(
        0.2, "more prose in lines that stood before is rejected, by characters, 0 to 1"
    )
    max_dup_paragraph_fraction: _Fraction | None = result(
        0.3, "more paragraphs that stood before are rejected, 0 to 1"
    )
    max_dup_paragraph_character_fraction: _Fraction | None = result(
        0.2, "more prose in paragraphs that stood before is rejected, by characters, 0 to 1"
    )
    max_top_2gram_fraction: _Fraction | None = result(
        0.20, "more prose filled by one pair of words is rejected, 0 to 1"
    )
    max_top_3gram_fraction: _Fraction | None = result(
        0.18, "more prose filled by one 3-gram is rejected, 0 to 1"
    )
    max_top_4gram_fraction: _Fraction | None = result(
        0.16, "more prose filled by one 4-gram is rejected, 0 to 1"
    )
    max_dup_5gram_fraction: _Fraction | None = result(
        0.45, "more prose in 5-grams that stood before is rejected, 0 to 1"
    )
    max_dup_6gram_fraction: _Fraction | None = result(
        0.42, "more prose in 6-grams that stood before is rejected, 0 to 1"
    )
    max_dup_7gram_fraction: _Fraction | None = result(
        0.39, "more prose in 7-grams that stood before is rejected, 0 to 1"
    )
    max_dup_8gram_fraction: _Fraction | None = result(
        0.36, "more prose in 8-grams that stood before is rejected, 0 to 1"
    )
    max_dup_9gram_fraction: _Fraction | None = result(
        0.33, "more prose in 9-grams that stood before is rejected, 0 to 1"
    )
    max_dup_10gram_fraction: _Fraction | None = result(
        0.30, "more prose in 10-grams that stood before is rejected, 0 to 1"
    )


class GarbleConfig(StrictModel):
    """Text that an extractor, an OCR engine or a wrong encoding broke."""

    from_words: int = result(50, "documents with fewer words of prose are too small for this rule", ge=0)
    max_fraction: _Fraction | None = result(0.08, "more damaged words in prose are rejected, 0 to 1")


class YearFilterConfig(StrictModel):
    """Years of publication."""

    first: int | None = result(None, "papers of an earlier year are rejected", ge=1000, le=9999)
    last: int | None = result(None, "papers of a later year are rejected", ge=1000, le=9999)
    keep_unknown: bool = result(True, "keep papers whose year is not known, where a range is set")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        _refuse_empty_range("years.first", self.first, "last", self.last)
        return self


class VenueFilterConfig(StrictModel):
    """Journals and conferences, as glob patterns without regard to case: ``PLoS *``, ``*Geophys*``."""

    allow: tuple[str, ...] = result(
        (), "patterns of venues to keep; empty keeps all; 'unknown' stands for papers without a venue"
    )
    deny: tuple[str, ...] = result(
        (), "patterns of venues to reject, whatever allow says; 'unknown' likewise"
    )

    @field_validator("allow", "deny")
    @classmethod
    def _patterns_hold_something(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern.strip():
                raise ValueError(
                    f"corpus.filters.venues: {pattern!r} is no pattern; write a name such as 'PLoS ONE', a "
                    "pattern such as 'PLoS *', or 'unknown' for papers without a venue"
                )
        return patterns


class KeywordFilterConfig(StrictModel):
    """The discipline, by its vocabulary."""

    any_of: tuple[str, ...] = result(
        (), "words and phrases of the discipline, compared without case and accents; empty keeps all papers"
    )
    min_hits_per_1000_words: float = result(
        1.0, "papers with fewer occurrences of any of them per 1000 words of prose are rejected", gt=0
    )

    @field_validator("any_of")
    @classmethod
    def _keywords_hold_a_word(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        for keyword in keywords:
            if not any(character.isalnum() for character in keyword):
                raise ValueError(
                    f"corpus.filters.keywords.any_of: {keyword!r} holds no word; write words or phrases such "
                    "as 'basalt' or 'plate tectonics' (patterns are not understood)"
                )
            if "*" in keyword or "?" in keyword:
                raise ValueError(
                    f"corpus.filters.keywords.any_of: {keyword!r} is a pattern; only whole words are "
                    "compared, so write each form: 'mineral', 'minerals'"
                )
        return keywords


class LicenseFilterConfig(StrictModel):
    """Licences."""

    allow: tuple[str, ...] = result(
        (), "SPDX ids of licences to keep, each exactly; empty keeps all; 'unknown' stands for none stated"
    )

    @field_validator("allow")
    @classmethod
    def _ids_are_spdx(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        for license_id in ids:
            normal = normalise_license(license_id)
            if normal != license_id:
                raise ValueError(
                    f"corpus.filters.licenses.allow: {license_id!r} is not how papers' licences are written "
                    f"here; write {normal!r}"
                )
            if license_id != UNKNOWN_LICENSE and not _SPDX.fullmatch(license_id):
                raise ValueError(
                    f"corpus.filters.licenses.allow: {license_id!r} is no SPDX id; write ids such as "
                    "CC-BY-4.0 or CC0-1.0, each exactly, or unknown for papers that state none"
                )
        return ids


class FilterConfig(StrictModel):
    """Which rendered documents are kept."""

    min_characters: int = result(200, "shorter documents are rejected, in characters", ge=1)
    max_characters: int | None = result(None, "longer documents are rejected, in characters", ge=1)
    language: LanguageFilterConfig = section(LanguageFilterConfig, "languages")
    garble: GarbleConfig = section(GarbleConfig, "broken text")
    quality: QualityConfig = section(QualityConfig, "rules for the quality of prose")
    repetition: RepetitionConfig = section(RepetitionConfig, "rules for repeated text")
    years: YearFilterConfig = section(YearFilterConfig, "years of publication")
    venues: VenueFilterConfig = section(VenueFilterConfig, "journals and conferences")
    keywords: KeywordFilterConfig = section(KeywordFilterConfig, "the discipline")
    licenses: LicenseFilterConfig = section(LicenseFilterConfig, "licences")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"corpus.filters.max_characters: {self.max_characters} is below min_characters "
                f"{self.min_characters}; no document could pass"
            )
        return self


def _refuse_empty_range(path: str, low: float | None, other: str, high: float | None) -> None:
    if low is not None and high is not None and high < low:
        raise ValueError(
            f"corpus.filters.{path}: {low} is above {other} {high}; no document could pass, so lower it or "
            f"raise {other}"
        )
