"""What people do with an instruction set: look at a sample of it, and take it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baltoro.core.artifacts import Artifact
from baltoro.core.errors import ConfigError
from baltoro.core.storage import join
from baltoro.instructions.example import Example, examples_from_table
from baltoro.instructions.export import ExportLayout, export_examples
from baltoro.instructions.sheet import review_sheet, sheet_csv, sheet_html
from baltoro.jobs.instructions import read_set
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context

SHEET_FILE, PAGE_FILE = "review-sheet.csv", "review-sheet.html"


def built_set(context: Context) -> Artifact:
    """Return the instruction set of a recipe.

    Raises:
        ConfigError: it is not built yet.
    """
    entry = next(entry for entry in plan(context, "instructions") if entry.stage.name == "instructions")
    if entry.artifact is None:
        raise ConfigError(
            f"the instruction set of {context.recipe.name} is {entry.status}; build it first with `baltoro "
            "instructions build`"
        )
    return entry.artifact


def examples_of(context: Context, parts: Sequence[str] | None = None) -> list[Example]:
    """Return the examples of a recipe's built set, or of some of its parts."""
    return examples_from_table(read_set(context.storage, built_set(context), parts))


def write_review_sheet(context: Context, folder: str, *, per_task: int, seed: int) -> dict[str, Any]:
    """Write a sample of a recipe's set as a table and as a page on which people decide.

    Args:
        context: the recipe.
        folder: where both are written.
        per_task: examples of each task.
        seed: another seed draws others.

    Raises:
        ConfigError: the set is not built yet.
    """
    rows = review_sheet(examples_of(context), per_task=per_task, seed=seed)
    sheet, page = join(folder, SHEET_FILE), join(folder, PAGE_FILE)
    context.storage.write_bytes(sheet, sheet_csv(rows))
    title = f"{context.recipe.name}: review sheet"
    context.storage.write_bytes(page, sheet_html(rows, title=title).encode())
    return {"sheet": sheet, "page": page, "examples": len(rows), "tasks": len({row.task for row in rows})}


def export_set(
    context: Context, uri: str, *, layout: ExportLayout, parts: Sequence[str] | None, names: bool
) -> dict[str, Any]:
    """Write a recipe's set as JSON lines.

    Args:
        context: the recipe.
        uri: the file to write.
        layout: of each line.
        parts: only these; ``None`` for all.
        names: whether each line keeps what Baltoro knows of it.

    Raises:
        ConfigError: the set is not built yet.
    """
    counts = export_examples(examples_of(context, parts), layout, uri, context.storage, names=names)
    return {"file": uri, "written": counts.written, "left_out": len(counts.rejects)}
