"""What can be asked of papers and of knowledge: every task with its slots, checks and usual number.

A task fills the slots of a template (:mod:`~baltoro.instructions.signals.templates`). ``question`` are the
slots that its instruction or input must hold, ``answer`` those of its output. Each value is checked as the
kind of text it is (:mod:`~baltoro.instructions.signals.quality`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

TextKind = Literal[
    "title",
    "abstract",
    "full_text",
    "context",
    "paragraph",
    "sentence",
    "caption",
    "term",
    "definition",
    "cell",
    "table",
]

Material = Literal["paper", "knowledge"]


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of question.

    Attributes:
        material: what it is made of.
        question: slot → kind of text, of the instruction and its input.
        answer: slot → kind of text, of the response.
        per_origin: examples of one paper or concept at most, unless the recipe says otherwise.
        copied: whether the answer may stand in the question word for word.
        weight: part of its examples that is kept, unless the recipe says otherwise.
    """

    material: Material
    question: Mapping[str, TextKind]
    answer: Mapping[str, TextKind]
    per_origin: int = 1
    copied: bool = False
    weight: float = 1.0
    slots: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", frozenset([*self.question, *self.answer]))


_JUDGEMENTS = 0.25
"""There are two judgements for each pair of concepts. All of them would be half of what an ontology gives:
yes and no over and over, where the other tasks answer with names and sentences."""

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "title_from_abstract": Task("paper", {"input": "abstract"}, {"output": "title"}),
        "abstract_from_full_text": Task("paper", {"input": "full_text"}, {"output": "abstract"}),
        "keywords": Task("paper", {"input": "abstract"}, {"output": "term"}, copied=True),
        "one_sentence_summary": Task("paper", {"input": "abstract"}, {"output": "sentence"}, copied=True),
        "reference_resolution": Task(
            "paper", {"input": "sentence", "mark": "cell"}, {"output": "title"}, per_origin=4
        ),
        "citation_prediction": Task("paper", {"input": "context"}, {"output": "title"}, per_origin=4),
        "related_paper": Task("paper", {"input": "abstract"}, {"output": "title"}),
        "figure_caption_from_mention": Task(
            "paper", {"input": "sentence"}, {"output": "caption"}, per_origin=3
        ),
        "figure_mention_from_caption": Task(
            "paper", {"input": "caption"}, {"output": "sentence"}, per_origin=3
        ),
        "table_caption_from_mention": Task(
            "paper", {"input": "sentence"}, {"output": "caption"}, per_origin=2
        ),
        "table_mention_from_caption": Task(
            "paper", {"input": "caption"}, {"output": "sentence"}, per_origin=2
        ),
        "table_content": Task(
            "paper",
            {"input": "table", "key": "cell", "object": "cell"},
            {"value": "cell"},
            per_origin=4,
            copied=True,
        ),
        "section_classification": Task(
            "paper", {"input": "paragraph", "kinds": "term"}, {"output": "term"}, per_origin=4, copied=True
        ),
        "entity_recognition": Task(
            "paper", {"input": "sentence"}, {"output": "term"}, per_origin=3, copied=True
        ),
        "definition": Task("knowledge", {"object": "term"}, {"value": "definition"}, per_origin=2),
        "synonym": Task("knowledge", {"object": "term"}, {"value": "term"}, per_origin=2, copied=True),
        "hypernym": Task("knowledge", {"child": "term"}, {"parent": "term"}, copied=True),
        "hyponym": Task("knowledge", {"parent": "term"}, {"child": "term"}, copied=True),
        "hypernym_judgement": Task(
            "knowledge",
            {"child": "term", "parent": "term"},
            {"answer": "term", "verb": "term"},
            per_origin=2,
            copied=True,
            weight=_JUDGEMENTS,
        ),
        "hyponym_judgement": Task(
            "knowledge",
            {"child": "term", "parent": "term"},
            {"answer": "term", "verb": "term"},
            per_origin=2,
            copied=True,
            weight=_JUDGEMENTS,
        ),
        "facts": Task(
            "knowledge", {"key": "term", "object": "term"}, {"value": "cell"}, per_origin=4, copied=True
        ),
        "relations": Task(
            "knowledge", {"key": "term", "object": "term"}, {"value": "cell"}, per_origin=4, copied=True
        ),
    }
)
"""Every task; the order is that of counts and reports."""


def nearest_task(name: str) -> str:
    """Return the task whose name is most like a wrong one."""
    return difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]


@dataclass(slots=True)
class Candidate:
    """What may become an example, or why it may not.

    Attributes:
        slots: values of the task's slots; may be incomplete where a reason is set.
        reason: one of ``quality.REASONS`` if whoever found it refuses it, else empty.
        detail: what was found, for a reason.
        costly: makes the values that take time to find; most candidates are never drawn and need none.
    """

    slots: dict[str, str]
    reason: str = ""
    detail: str = ""
    costly: Callable[[], dict[str, str]] | None = None

    def filled(self) -> dict[str, str]:
        """Return the values of all slots, the costly ones too."""
        return self.slots if self.costly is None else {**self.slots, **self.costly()}
