"""Settings of decontamination: which evaluation sets, what counts as found, what is done about it.

Where the figures come from: GPT-3 (Brown et al. 2020, appendix C) compares 13-grams; PaLM (Chowdhery et
al. 2022, section 8) calls an item contaminated at 70 % of its 8-grams; Llama 2 (Touvron et al. 2023, appendix
A.6) tolerates a few changed tokens inside a match. All of them are blind to a multiple-choice stem of ten
words, the usual length in examinations: those are compared word by word here.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, execution, first_repeated, result, section

EvaluationFormat = Literal["auto", "geobench", "json", "jsonl", "csv", "tsv", "parquet", "lines", "review"]
"""How an evaluation set is stored; ``auto`` goes by file name and content."""

Action = Literal["drop", "cut", "report"]


class EvaluationFields(StrictModel):
    """Which fields of a record hold what.

    A dot leads into an object, lists are entered: ``question.choices.text``. If all four are empty, the usual
    names are looked for (``question``, ``choices``, ``answer``, ``A`` to ``E`` …).
    """

    stems: tuple[str, ...] = result((), "fields with the question; several are joined to one")
    options: tuple[str, ...] = result((), "fields with the answers to choose from")
    answers: tuple[str, ...] = result(
        (), "fields with a written answer; a letter, a number or true/false is ignored"
    )
    passages: tuple[str, ...] = result((), "fields with a text to read or judge, an item of its own each")

    @property
    def named(self) -> bool:
        """Whether the recipe names any field."""
        return bool(self.stems or self.options or self.answers or self.passages)

    @model_validator(mode="after")
    def _options_belong_to_a_stem(self) -> Self:
        if self.options and not self.stems:
            raise ValueError(
                f"fields.options: {', '.join(self.options)} without fields.stems; options are looked for "
                "beside their question only, so name its field too"
            )
        return self


class EvaluationSetConfig(StrictModel):
    """One evaluation set that must not be learned from."""

    name: str = result(
        ...,
        "short name of the set, as rejects and the data card show it",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    )
    # A place, not content: what the files hold is fingerprinted by whoever reads them.
    uri: str = execution(..., "file or folder: a path, file:// or s3://bucket/prefix", min_length=1)
    format: EvaluationFormat = result("auto", "how the set is stored; auto goes by file name and content")
    fields: EvaluationFields = section(
        EvaluationFields, "which fields of JSON, CSV and Parquet records to use"
    )

    @model_validator(mode="after")
    def _fields_are_of_records(self) -> Self:
        if self.fields.named and self.format in ("geobench", "lines", "review"):
            raise ValueError(
                f"fields: the format {self.format!r} has no fields to choose; leave them out, or set "
                "format to json, jsonl, csv, tsv or parquet"
            )
        return self


class MatchConfig(StrictModel):
    """What counts as finding an item in a document.

    A word is one of ``corpus/words.py``: in Chinese, Japanese and Korean a character.
    """

    stem_words: int = result(
        8,
        "from this length on a question is told by itself; shorter ones need options nearby, in words",
        ge=4,
    )
    stem_content_words: int = result(
        4,
        "a question with fewer words that are neither stop words nor examination phrases needs options "
        "nearby, in words (a number, or a Chinese, Japanese or Korean character, is half a word)",
        ge=1,
    )
    stem_fraction: float = result(
        0.85, "part of a question's words that must be found in order, in one place", gt=0.5, le=1
    )
    stem_with_options_fraction: float = result(
        0.7, "the same where enough options are found beside it", gt=0.5, le=1
    )
    options_needed: int = result(
        2, "options found nearby that a short question needs, or all it has if fewer", ge=1
    )
    long_item_words: int = result(
        32, "from this length on an item is compared by long runs of words, in words", ge=16
    )
    long_item_fraction: float = result(
        0.5, "part of a long item's words that must be found in long runs in one place", gt=0, le=1
    )
    long_item_enough_words: int = result(
        100, "so many words of a long item in one place are enough, whatever its length, in words", ge=16
    )
    short_window_words: int = result(
        4, "run of words that makes a question a candidate, in words", ge=3, le=6
    )
    long_window_words: int = result(8, "run of words that counts for a long item, in words", ge=6, le=16)
    common_window_items: int = result(
        50, "a run of words that stands in more items than this says nothing about one of them", ge=2
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.stem_with_options_fraction > self.stem_fraction:
            raise ValueError(
                f"match.stem_with_options_fraction: {self.stem_with_options_fraction} is above stem_fraction "
                f"{self.stem_fraction}; options found nearby can only lower what the question must show"
            )
        if self.long_item_words <= self.stem_words:
            raise ValueError(
                f"match.long_item_words: {self.long_item_words} is not above stem_words {self.stem_words}; "
                "no question would be compared by itself"
            )
        if self.short_window_words > self.stem_words // 2:
            raise ValueError(
                f"match.short_window_words: {self.short_window_words} is more than half of stem_words "
                f"{self.stem_words}; one changed word would hide a question of that length"
            )
        return self


class CanaryConfig(StrictModel):
    """Recall, measured by planting disguised items in copies of documents of the same build."""

    number: int = result(200, "items planted per build; 0 measures nothing", ge=0, le=100_000)
    min_recall_fraction: float = result(
        0.98, "part of the planted items of match.stem_words or more words that must be found", ge=0, le=1
    )
    on_low_recall: Literal["fail", "warn"] = result("warn", "what a build does when fewer are found")
    seed: int = result(0, "another seed plants other items in other places", ge=0)


class DecontaminateConfig(StrictModel):
    """Evaluation sets that must not be learned from; without any, decontamination is off."""

    sets: tuple[EvaluationSetConfig, ...] = section(tuple, "the evaluation sets; none switches this off")
    action: Action = result(
        "drop", "what becomes of a document that holds an item: drop it, cut the place out, or only report it"
    )
    cut_to: Literal["sentence", "paragraph"] = result(
        "paragraph", "with action cut, what is taken out around an item"
    )
    max_cut_fraction: float = result(
        0.5, "a document that would lose more than this part of its characters is dropped", gt=0, le=1
    )
    match: MatchConfig = section(MatchConfig, "what counts as finding an item")
    canaries: CanaryConfig = section(CanaryConfig, "how recall is measured")

    @property
    def enabled(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.sets)

    @model_validator(mode="after")
    def _set_names_are_unique(self) -> Self:
        if (twice := first_repeated(evaluation.name for evaluation in self.sets)) is not None:
            raise ValueError(
                f"corpus.decontaminate.sets: the name {twice!r} stands twice; rejects name the set they "
                "were refused for, so give each its own"
            )
        return self
