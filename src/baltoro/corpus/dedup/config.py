"""Settings of deduplication: which copies are found, and which of them stays."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import model_validator

from baltoro.core.config import StrictModel, result, section
from baltoro.papers.config import InputFormat

KeepCriterion = Literal["full_text", "published", "structure", "format", "length", "newest"]

PREFERRED_FORMATS = (
    "jats",
    "grobid_tei",
    "s2orc",
    "nougat",
    "docling_json",
    "docling_markdown",
    "sciencebeam",
    "science_parse",
    "markdown",
    "records",
    "plain_text",
)
"""Formats by how much of a paper's structure they carry: marked up by the publisher first."""


class KeepConfig(StrictModel):
    """Which one of several copies stays; what decides first stands first."""

    order: tuple[KeepCriterion, ...] = result(
        ("full_text", "published", "structure", "format", "length"),
        "what decides, first to last; copies equal in all of it are told apart by the smallest paper_id",
    )
    formats: tuple[str, ...] = result(
        PREFERRED_FORMATS, "input formats from most to least preferred; one that is not named comes last"
    )
    full_text_characters: int = result(
        4000, "a document of at least this length counts as a full text, in characters", ge=1
    )

    @model_validator(mode="after")
    def _nothing_stands_twice(self) -> Self:
        for name, values in (("order", self.order), ("formats", self.formats)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(
                    f"corpus.dedup.keep.{name}: {twice[0]!r} stands twice; name each once, the most "
                    "preferred first"
                )
        known = [name for name in get_args(InputFormat) if name != "auto"]
        for name in self.formats:
            if name not in known:
                raise ValueError(
                    f"corpus.dedup.keep.formats: {name!r} is no input format; they are {', '.join(known)}"
                )
        return self


class VersionConfig(StrictModel):
    """Versions of one paper: preprint and journal, or several parsers' outputs of one PDF."""

    enabled: bool = result(True, "find versions of one paper by what identifies it")
    doi: bool = result(True, "by the same DOI or arXiv identifier")
    title_and_first_author: bool = result(
        True, "by the same title and first author's surname; without an author by title and similar text"
    )
    file_stem: bool = result(
        True, "by the same file name in different formats (0001.tei.xml, 0001.mmd) with similar text or title"
    )
    metadata_key: str | None = result(
        None,
        "a column of the sources' metadata tables that is the same for all versions of a paper; "
        "metadata_row takes the row itself",
        min_length=1,
    )
    min_title_letters: int = result(
        20, "shorter titles identify no paper, in letters; a Chinese character counts as 2", ge=1
    )
    min_containment: float = result(
        0.4,
        "how much of the shorter text two documents must share where a DOI or file name alone speaks for "
        "them, as a fraction of its word sequences; 0 trusts the key",
        ge=0,
        le=1,
    )
    merge: bool = result(
        False,
        "make one paper of a GROBID and a Nougat parse of it: metadata, sections and citations of the first, "
        "formulas and tables of the second where they align",
    )

    @model_validator(mode="after")
    def _some_key_is_used(self) -> Self:
        keys = (self.doi, self.title_and_first_author, self.file_stem, self.metadata_key is not None)
        if self.enabled and not any(keys):
            raise ValueError(
                "corpus.dedup.versions: enabled, but doi, title_and_first_author and file_stem are false and "
                "metadata_key is null, so no version can be found; switch one on or set enabled to false"
            )
        if self.merge and not self.enabled:
            raise ValueError(
                "corpus.dedup.versions.merge: true, but corpus.dedup.versions.enabled is false, so there are "
                "no versions to merge; set enabled to true or merge to false"
            )
        return self


class NearDuplicateConfig(StrictModel):
    """Near-duplicates by their words: MinHash signatures, bands, and a threshold that is verified."""

    enabled: bool = result(True, "find documents with nearly the same words")
    shingle_words: int = result(
        5, "length of the word sequences compared, in words; in CJK text in characters", ge=1, le=64
    )
    bands: int = result(64, "keys per document; more find less similar pairs and cost more", ge=1, le=512)
    rows: int = result(4, "bins that must agree in a band; more need more similar pairs", ge=1, le=64)
    threshold: float = result(
        0.45, "similarity (Jaccard, as estimated) from which a document is a near-duplicate", gt=0, le=1
    )
    min_containment: float | None = result(
        None,
        "also take a text as near-duplicate when this fraction of it is in a longer one; the one kept "
        "by rule may be the shorter",
        gt=0,
        le=1,
    )
    min_words: int = result(
        50, "documents with fewer words (notices of one form) are never near-duplicates, in words", ge=0
    )

    @property
    def bins(self) -> int:
        """Bins of a signature; a sketch holds two in a byte."""
        return self.bands * self.rows

    @model_validator(mode="after")
    def _bins_are_a_power_of_two(self) -> Self:
        if self.bins & (self.bins - 1) or not 16 <= self.bins <= 4096:
            raise ValueError(
                f"corpus.dedup.near.bands: {self.bands} bands of {self.rows} rows make {self.bins} bins; "
                "bands × rows must be a power of two from 16 to 4096, for example 64 × 4 or 32 × 4"
            )
        return self

    @model_validator(mode="after")
    def _bands_reach_the_threshold(self) -> Self:
        share = 1 - (1 - self.threshold**self.rows) ** self.bands
        if self.enabled and share < 0.5:
            raise ValueError(
                f"corpus.dedup.near.rows: with {self.bands} bands of {self.rows} rows only {share:.0%} of "
                f"the pairs at threshold {self.threshold} would meet at all; take more bands, fewer rows "
                "or a higher threshold"
            )
        return self


class RepeatedSpanConfig(StrictModel):
    """Passages that several documents share, cut from all but the first (Galactica, appendix A.2)."""

    enabled: bool = result(
        False, "cut passages that stand in an earlier document, in the order of sources and files"
    )
    min_bytes: int = result(100, "shorter passages may repeat, in bytes of UTF-8", ge=16)
    boundary: Literal["paragraph", "line"] = result(
        "paragraph", "what is cut whole; by line also items of a list and rows of a table are"
    )
    max_gap_bytes: int = result(
        4, "what stands between two repeated passages is cut with them up to this length, in bytes", ge=0
    )
    exempt_sources: tuple[str, ...] = result((), "names of sources that are neither cut nor counted")


class DedupConfig(StrictModel):
    """Which copies are found, and which stays."""

    exact: bool = result(True, "find documents whose text is identical, byte for byte")
    versions: VersionConfig = section(VersionConfig, "versions and other parses of one paper")
    near: NearDuplicateConfig = section(NearDuplicateConfig, "documents with nearly the same words")
    keep: KeepConfig = section(KeepConfig, "which one of several copies stays")
    repeated_spans: RepeatedSpanConfig = section(
        RepeatedSpanConfig, "passages that several documents share (papers that are no copies of each other)"
    )
