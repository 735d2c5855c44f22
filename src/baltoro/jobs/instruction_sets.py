"""An instruction set as it is put together: its parts, what people have decided, and early refusals."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import InputError
from baltoro.instructions.example import Example
from baltoro.instructions.reviews.lanes import lanes_of
from baltoro.jobs.stages import Context
from baltoro.papers.metadata import MetadataTable
from baltoro.papers.schema import Reject, count_reasons

if TYPE_CHECKING:
    from baltoro.instructions.decisions import Decision

MOST_NAMES = 20
"""Names that are told of decisions which could not be applied."""


@dataclass
class InstructionSet:
    """What the parts of a build add up to.

    Attributes:
        examples: by part.
        rejects: of all parts.
        counts: of the steps of each part, for people.
        rejected: by part, reason → what was left out for it.
        few_paraphrases: task → paraphrases, where a template file has fewer than usual.
        pictures: PNG by name.
    """

    examples: dict[str, list[Example]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    few_paraphrases: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(
        self, part: str, examples: Sequence[Example], rejects: Iterable[Reject], counts: Mapping[str, Any]
    ) -> None:
        """Add a part."""
        rejects = list(rejects)
        self.examples[part] = list(examples)
        self.rejects += rejects
        self.rejected[part] = dict(count_reasons(rejects).most_common())
        self.counts[part] = dict(counts)


def decide(context: Context, uri: str, made: InstructionSet) -> None:
    """Leave out and change what people have decided on.

    Raises:
        InputError: the sheet cannot be read; names row and column.
    """
    from baltoro.instructions.decisions import apply_decisions, noise_rates

    decisions = decisions_of(context, uri)
    everything = [example for examples in made.examples.values() for example in examples]
    part_of = {example.example_id: part for part, examples in made.examples.items() for example in examples}
    applied = apply_decisions(everything, decisions)
    if not applied.used:
        raise InputError(
            f"instructions.decisions: not one of the {len(decisions)} decisions of {uri} is on an example "
            f"of this set ({applied.counts.absent} name none, first {decisions[0].example_id}; "
            f"{applied.counts.stale} are on another state of theirs); give the sheet of this recipe, write "
            "a new one with `baltoro instructions review-sheet`, or set instructions.decisions to null"
        )
    made.examples = {
        part: [example for example in applied.examples if part_of[example.example_id] == part]
        for part in made.examples
    }
    made.rejects += applied.rejects
    made.counts["decisions"] = {
        **asdict(applied.counts),
        "applied": len(applied.used),
        "absent_names": [decision.example_id for decision in applied.absent[:MOST_NAMES]],
        "stale_names": [decision.example_id for decision in applied.stale[:MOST_NAMES]],
        "noise": {task: asdict(rate) for task, rate in noise_rates(applied.used).items()},
    }


def decisions_of(context: Context, uri: str) -> list[Decision]:
    """Return the decisions of a recipe's sheet.

    Raises:
        InputError: the sheet cannot be read, with row and column, or nothing is decided in it.
    """
    from baltoro.instructions.decisions import read_decisions

    decisions = read_decisions(uri, context.storage)
    if not decisions:
        raise InputError(
            f"instructions.decisions: {uri} holds no decision yet; fill in its column decision with keep, "
            "drop or edit, or set instructions.decisions to null"
        )
    return decisions


def check_instructions(context: Context) -> None:
    """Refuse, before anything is made, what the build would refuse after it.

    Raises:
        InputError: a sheet of decisions that cannot be read or is not filled in; a column to join by that the
            table of papers lacks.
        ConfigError: a template file is not as its task needs it, or an endpoint's key is not there.
    """
    config = context.recipe.instructions
    if config.decisions is not None:
        decisions_of(context, config.decisions)
    if config.signals is not None and config.signals.templates is not None:
        from baltoro.instructions.signals.templates import load_templates

        load_templates(config.signals.templates, context.storage)
    reviews = config.reviews
    if reviews is not None and reviews.merger == "endpoint":
        # Its keys are looked for; a build would ask for them only once papers and reviews are joined.
        lanes_of(reviews.endpoint, os.environ)
    if (
        reviews is not None
        and reviews.join.metadata_column is not None
        and reviews.papers_metadata is not None
    ):
        column = reviews.join.metadata_column
        table = MetadataTable.load(reviews.papers_metadata, context.storage)
        if not any(column in row for row in table.rows.values()):
            known = sorted({name for row in table.rows.values() for name in row})
            raise InputError(
                f"instructions.reviews.join.metadata_column={column}: {reviews.papers_metadata.uri} has no "
                f"such column beside its key; it has {', '.join(known) or 'none'}"
            )
