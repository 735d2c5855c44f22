"""Settings of signals: which tasks, how many of each, what counts as noise, and where knowledge is."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, execution, first_repeated, result, section
from baltoro.instructions.signals.tasks import TASKS, nearest_task

KnowledgeFormat = Literal["auto", "turtle", "rdf_xml", "n_triples", "csv", "json"]
"""How a knowledge file is written; OWL and SKOS are words, which any of the RDF notations may use."""


class TaskConfig(StrictModel):
    """How many examples of one task are kept; what is left out is counted."""

    weight: float | None = result(
        None,
        "part of the task's examples that is kept, drawn by hash; 0 leaves the task out; null for the task's "
        "own: all, of judgements (yes or no) a quarter",
        ge=0,
        le=1,
    )
    cap: int | None = result(None, "at most this many examples in the whole set; null for no bound", ge=1)
    per_paper: int | None = result(
        None, "at most this many examples of one paper or concept; null for the task's own number", ge=1
    )


class KnowledgeSource(StrictModel):
    """Files that say what concepts mean and how they are related."""

    name: str = result(
        ..., "short name of the source; first part of every origin", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )
    uri: str = execution(..., "file or folder: a path, file:// or s3://bucket/prefix", min_length=1)
    format: KnowledgeFormat = result("auto", "how the files are written; auto goes by name and content")
    language: str = result("en", "language of the names that are used; those without a language count too")


class QualityConfig(StrictModel):
    """Bounds beyond which a candidate is noise."""

    min_output_characters: int = result(15, "a shorter response is dropped", ge=1)
    min_letter_fraction: float = result(
        0.6, "letters among the printed characters of a sentence, caption or paragraph", ge=0, le=1
    )
    min_sentence_characters: int = result(40, "a shorter sentence is dropped", ge=1)
    max_sentence_characters: int = result(800, "a longer sentence is dropped: it was not cut right", ge=1)
    min_paragraph_characters: int = result(250, "a shorter paragraph does not tell its section's kind", ge=1)
    max_paragraph_characters: int = result(3000, "a longer paragraph is dropped", ge=1)
    min_abstract_characters: int = result(200, "a shorter abstract is dropped", ge=1)
    max_abstract_characters: int = result(4000, "a longer abstract is dropped", ge=1)
    max_title_characters: int = result(300, "a longer title is no title", ge=1)
    min_full_text_characters: int = result(
        2000, "a shorter opening of a paper does not carry its abstract", ge=1
    )
    max_caption_characters: int = result(1200, "a longer caption is dropped", ge=1)
    max_table_characters: int = result(3000, "a longer table, as Markdown, is dropped", ge=1)


class SignalsConfig(StrictModel):
    """Examples restructured from papers and knowledge."""

    enabled: bool = result(True, "make signals at all")
    tasks: dict[str, TaskConfig] = section(
        dict, "settings by task; a task that is not named here is made with the defaults"
    )
    only_named_tasks: bool = result(False, "make only the tasks that stand under tasks")
    knowledge: tuple[KnowledgeSource, ...] = section(tuple, "ontologies, vocabularies and tables of triples")
    quality: QualityConfig = section(QualityConfig, "what counts as noise")
    full_text_characters: int = result(
        8000,
        "the opening of a paper that an abstract is written from, ended after the last sentence that fits",
        ge=500,
    )
    templates: str | None = execution(
        None,
        "folder with TASK.yaml files that replace the built-in templates of these tasks; their content "
        "counts as an input",
        min_length=1,
    )
    seed: int = result(0, "another seed draws other examples and templates", ge=0)

    @model_validator(mode="after")
    def _tasks_exist(self) -> Self:
        for name in self.tasks:
            if name not in TASKS:
                raise ValueError(
                    f"tasks.{name}: there is no such task, did you mean {nearest_task(name)}? "
                    f"Allowed here: {', '.join(TASKS)}"
                )
        return self

    @model_validator(mode="after")
    def _knowledge_names_are_unique(self) -> Self:
        if (twice := first_repeated(source.name for source in self.knowledge)) is not None:
            raise ValueError(
                f"knowledge: the name {twice!r} stands twice; a name is part of every example's origin, "
                "so give each source its own"
            )
        return self

    def weight(self, name: str) -> float:
        """Return which part of a task's examples is kept; 0 where it is not made."""
        if name not in self.tasks and self.only_named_tasks:
            return 0.0
        given = self.tasks[name].weight if name in self.tasks else None
        return TASKS[name].weight if given is None else given

    def makes(self, name: str) -> bool:
        """Return whether a task is made."""
        return self.enabled and self.weight(name) > 0

    def per_origin(self, name: str) -> int:
        """Return how many examples of a task one paper or concept gives at most."""
        given = self.tasks[name].per_paper if name in self.tasks else None
        return given or TASKS[name].per_origin
