"""Settings of the corpus stage: where papers come from and what becomes of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, execution, first_repeated, result, section
from baltoro.corpus.cleaning.config import CleanConfig
from baltoro.corpus.decontamination.config import DecontaminateConfig
from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.filters.config import FilterConfig
from baltoro.papers.config import InputFormat, MetadataTableConfig, ReadLimits

LATEST = "latest"
"""Value of ``corpus.extends``: the newest corpus of the recipe's name and settings."""

Style = Literal["k2", "galactica", "review", "plain"]


class SourceConfig(StrictModel):
    """One place papers come from."""

    name: str = result(
        ...,
        "short name of the source; first part of every paper_id",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    )
    uri: str = execution(..., "folder or file: a path, file:// or s3://bucket/prefix", min_length=1)
    uri_list: bool = result(
        False, "uri is a text file that names the papers' files, one path or URI a line; # begins a comment"
    )
    include: tuple[str, ...] = result((), "glob patterns of keys to read; empty reads all")
    exclude: tuple[str, ...] = result((), "glob patterns of keys to leave out")
    format: InputFormat = result("auto", "input format; auto detects it from each file's content")
    style: Style = result("k2", "how a paper is rendered into text")
    text_column: str | None = result(None, "the text column of JSONL or Parquet records of general text")
    metadata: MetadataTableConfig | None = section(
        lambda: None, "a table with licence, DOI, year … of papers whose files carry none"
    )


class SplitConfig(StrictModel):
    """Held-out documents, chosen by a hash that is stable as the corpus grows."""

    validation_fraction: float = result(0.02, "part of the documents held out for validation", ge=0, lt=0.5)
    test_fraction: float = result(0.0, "part of the documents held out for testing", ge=0, lt=0.5)
    seed: int = result(0, "another seed draws another hold-out", ge=0)


class TrialConfig(StrictModel):
    """A part of the files, to see what a build would give; never mistaken for the whole."""

    limit: int | None = result(None, "at most this many files, chosen by a seeded hash of their keys", ge=1)
    fraction: float | None = result(None, "about this part of the files, chosen the same way", gt=0, lt=1)
    seed: int = result(0, "another seed chooses other files", ge=0)

    @property
    def enabled(self) -> bool:
        """Whether only a part of the files is read."""
        return self.limit is not None or self.fraction is not None


class CorpusConfig(StrictModel):
    """Papers in, clean documents out."""

    sources: tuple[SourceConfig, ...] = section(
        tuple, "where the papers are; at least one, unless pins.corpus is set"
    )
    limits: ReadLimits = section(ReadLimits, "sizes beyond which a file or record is rejected")
    clean: CleanConfig = section(CleanConfig, "cleaning of the structure")
    filters: FilterConfig = section(FilterConfig, "which documents are kept")
    dedup: DedupConfig = section(DedupConfig, "which copies are removed")
    decontaminate: DecontaminateConfig = section(
        DecontaminateConfig, "evaluation sets that must not be learned from"
    )
    splits: SplitConfig = section(SplitConfig, "train, validation and test")
    extends: str | None = execution(
        None,
        "continue this corpus with the papers that it does not have: the URI of a corpus artifact, or latest "
        "for the newest of this name and these settings; empty builds the whole from all papers",
        min_length=1,
    )
    trial: TrialConfig = section(TrialConfig, "only a part of the files; `corpus build --limit`, `--sample`")
    objects_per_task: int = execution(64, "files that one read task handles", ge=1)
    bytes_per_task: int = execution(64_000_000, "bytes of files that one read task handles at most", ge=1)

    @model_validator(mode="after")
    def _a_trial_extends_nothing(self) -> Self:
        if self.extends is not None and self.trial.enabled:
            raise ValueError(
                f"corpus.extends: {self.extends} together with corpus.trial: a trial is a sample of all "
                "papers and continues nothing; leave out one of them"
            )
        return self

    @model_validator(mode="after")
    def _exempt_sources_exist(self) -> Self:
        names = [source.name for source in self.sources]
        unknown = [name for name in self.dedup.repeated_spans.exempt_sources if name not in names]
        if unknown and names:
            raise ValueError(
                f"corpus.dedup.repeated_spans.exempt_sources: {unknown[0]!r} is no source of this recipe; "
                f"it has {', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _source_names_are_unique(self) -> Self:
        if (twice := first_repeated(source.name for source in self.sources)) is not None:
            raise ValueError(
                f"corpus.sources: the name {twice!r} stands twice; a name is part of every paper_id, "
                "so give each source its own"
            )
        return self
