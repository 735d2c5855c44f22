"""What people do with an instruction set: look at a sample of it, and take it elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from baltoro.core.artifacts import Artifact
from baltoro.core.errors import ConfigError
from baltoro.core.storage import join
from baltoro.instructions.example import examples_from_table
from baltoro.instructions.export import ExportLayout, export_examples
from baltoro.instructions.sheet import review_sheet, sheet_csv, sheet_html
from baltoro.jobs.instructions import read_set
from baltoro.jobs.runner import plan
from baltoro.jobs.stages import Context

if TYPE_CHECKING:
    import pyarrow as pa

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


def refuse_existing(context: Context, uris: Sequence[str], *, overwrite: bool, holds: str) -> None:
    """Refuse to write over files, unless that is wanted.

    Args:
        context: opens them.
        uris: what is to be written.
        overwrite: it is wanted.
        holds: what may be lost, for the message.

    Raises:
        ConfigError: one of them is there.
    """
    there = [uri for uri in uris if context.storage.stat(uri) is not None]
    if there and not overwrite:
        raise ConfigError(
            f"{there[0]} is there already and may hold {holds}; give another --output, or --overwrite to "
            f"replace it"
        )


def write_review_sheet(
    context: Context, folder: str, *, per_task: int, seed: int, overwrite: bool = False
) -> dict[str, Any]:
    """Write a sample of a recipe's set as a table and as a page on which people decide.

    Args:
        context: the recipe.
        folder: where both are written.
        per_task: examples of each task.
        seed: another seed draws others.
        overwrite: replace a sheet that is there.

    Raises:
        ConfigError: the set is not built yet, or a sheet is there already.
    """
    sheet, page = join(folder, SHEET_FILE), join(folder, PAGE_FILE)
    refuse_existing(context, (sheet, page), overwrite=overwrite, holds="decisions")
    examples = examples_from_table(read_set(context.storage, built_set(context)))
    rows = review_sheet(examples, per_task=per_task, seed=seed)
    context.storage.write_bytes(sheet, sheet_csv(rows))
    title = f"{context.recipe.name}: review sheet"
    context.storage.write_bytes(page, sheet_html(rows, title=title).encode())
    return {"sheet": sheet, "page": page, "examples": len(rows), "tasks": len({row.task for row in rows})}


def export_set(
    context: Context,
    uri: str,
    *,
    layout: ExportLayout,
    parts: Sequence[str] | None,
    names: bool,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a recipe's set as JSON lines.

    Args:
        context: the recipe.
        uri: the file to write.
        layout: of each line.
        parts: only these; ``None`` for all.
        names: whether each line keeps what Baltoro knows of it.
        overwrite: replace a file that is there.

    Raises:
        ConfigError: the set is not built yet, has no such part, or the file is there already.
        InputError: there is nothing to write.
    """
    refuse_existing(context, (uri,), overwrite=overwrite, holds="an export")
    artifact = built_set(context)
    table = read_set(context.storage, artifact, parts)
    for part in parts or ():
        if not read_set(context.storage, artifact, (part,)).num_rows:
            there = parts_of(read_set(context.storage, artifact))
            raise ConfigError(
                f"--part {part}: the instruction set of {context.recipe.name} has no example of such a "
                f"part; its parts are {', '.join(there)}"
            )
    splits = dict(zip(table["example_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    counts = export_examples(
        examples_from_table(table), layout, uri, context.storage, names=names, splits=splits
    )
    return {
        "file": uri,
        "written": counts.written,
        "left_out": dict(Counter(reject.reason for reject in counts.rejects)),
    }


def parts_of(table: pa.Table) -> list[str]:
    """Return the parts of a set that have an example, as ``--part`` and ``from`` name them."""
    pairs = zip(table["part"].to_pylist(), table["origin"].to_pylist(), strict=True)
    found = {(part, origin.partition("/")[0] if part == "files" else "") for part, origin in pairs}
    return sorted({part for part, _ in found} | {f"{part}.{name}" for part, name in found if name})
