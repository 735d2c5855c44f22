"""``baltoro instructions`` and ``finetune``: examples, what people say of them, and training on them."""

from __future__ import annotations

from typing import Literal

import click

from baltoro.commands.shared import (
    RECIPE_HELP,
    execute,
    expected_errors,
    load,
    print_json,
    recipe_arguments,
    show_plan,
    stage_command,
)


@click.group()
def instructions() -> None:
    """Papers, knowledge and reviews to examples; people look at them."""


stage_command(instructions, "build", "instructions", "Build the instruction set of RECIPE.")


@instructions.command("review-sheet")
@recipe_arguments
@click.option(
    "--per-task", type=click.IntRange(1), default=20, show_default=True, help="Examples of each task."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws other examples.")
@click.option("--output", default=".", show_default=True, help="Folder or s3:// prefix to write into.")
@click.option("--overwrite", is_flag=True, help="Replace what is there already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def instructions_review_sheet(  # noqa: PLR0917  (one per option)
    recipe: str,
    overrides: tuple[str, ...],
    per_task: int,
    seed: int,
    output: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a sample of RECIPE's examples for people to keep, drop or edit: a CSV file and a page.

    Fill in either one (the page downloads a CSV file) and write its name into the recipe, as
    instructions.decisions: the next build leaves out what was dropped, takes over what was edited, and tells
    the share of noise of each task. SECTION.KEY=VALUE changes one of the recipe's values, as everywhere.
    """
    from baltoro.core.storage import absolute_uri
    from baltoro.jobs.sheets import write_review_sheet
    from baltoro.jobs.stages import Context

    told = write_review_sheet(
        Context(load(recipe, overrides)),
        absolute_uri(output),
        per_task=per_task,
        seed=seed,
        overwrite=overwrite,
    )
    if as_json:
        print_json(told)
    else:
        click.echo(
            f"{told['examples']:,} examples of {told['tasks']:,} "
            f"tasks\n{told['sheet']}\n{told['page']}\nnext\n"
            "  decide in either: column decision (keep, drop, edit), or the page, which downloads a CSV "
            "file\n"
            f"  write into the recipe:   instructions: {{decisions: {told['sheet']}}}\n"
            "  build again:             baltoro instructions build RECIPE"
        )


@instructions.command("export")
@recipe_arguments
@click.option("--output", required=True, help="File or s3:// URI to write (JSON lines).")
@click.option(
    "--layout",
    type=click.Choice(["alpaca", "messages"]),
    default="alpaca",
    show_default=True,
    help="Of a line.",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    help="Only this part (signals, reviews, files, files.NAME); may be repeated.",
)
@click.option("--plain", is_flag=True, help="Leave out what Baltoro knows of an example.")
@click.option("--overwrite", is_flag=True, help="Replace what is there already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def instructions_export(  # noqa: PLR0917  (one per option)
    recipe: str,
    overrides: tuple[str, ...],
    output: str,
    layout: Literal["alpaca", "messages"],
    parts: tuple[str, ...],
    plain: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write RECIPE's examples as JSON lines, as other tools read them.

    The set must be built. SECTION.KEY=VALUE changes one of the recipe's values, as everywhere.
    """
    from baltoro.core.storage import absolute_uri
    from baltoro.jobs.sheets import export_set
    from baltoro.jobs.stages import Context

    told = export_set(
        Context(load(recipe, overrides)),
        absolute_uri(output),
        layout=layout,
        parts=parts or None,
        names=not plain,
        overwrite=overwrite,
    )
    if as_json:
        print_json(told)
    else:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in told["left_out"].items())
        click.echo(
            f"{told['written']:,} examples written, "
            f"{f'left out: {left_out}' if left_out else 'none left out'}\n"
            f"{told['file']}"
        )


@click.command("finetune", help=f"Fine-tune the model of RECIPE, stage after stage.\n\n{RECIPE_HELP}")
@recipe_arguments
@click.option("--stage", "stage_name", default=None, help="End after this stage; default: the last one.")
@click.option("--no-parents", is_flag=True, help="Refuse, instead of building, when a parent is missing.")
@click.option("--dry-run", is_flag=True, help="Only say what is done, new or stale, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def finetune(  # noqa: PLR0917  (one per option)
    recipe: str,
    overrides: tuple[str, ...],
    stage_name: str | None,
    no_parents: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fine-tune; the help text stands at the command."""
    from baltoro.jobs.finetune import finetune_target

    loaded = load(recipe, overrides)
    target = finetune_target(loaded, stage_name)
    if dry_run:
        show_plan(loaded, target, as_json)
    else:
        execute(loaded, target, as_json, build_parents=not no_parents, whole=False)
