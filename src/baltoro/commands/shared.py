"""What all commands share: how they speak, fail, load a recipe and build a stage of it."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from baltoro.jobs.recipe import Recipe

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def say(text: str) -> None:
    """Tell a person something; standard output is left to results."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print the command's one JSON object."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fail(message: str, exit_code: int) -> NoReturn:
    """End with one clear error."""
    click.echo(f"error: {message}", err=True)
    sys.exit(exit_code)


def expected_errors(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn Baltoro's own errors into one message and an exit code; anything else is a defect and is shown."""

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        from baltoro.core.errors import BaltoroError

        try:
            return function(*args, **kwargs)
        except BaltoroError as error:
            fail(error.message, error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted; the same command goes on from what is finished", 1)

    return wrapper


def recipe_arguments(function: CommandFunction) -> CommandFunction:
    """Add the arguments every command on a recipe takes."""
    function = click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")(function)
    return click.argument("recipe", metavar="RECIPE")(function)


def load(recipe: str, overrides: tuple[str, ...]) -> Recipe:
    """Load a recipe given on the command line."""
    from baltoro.jobs.recipe import load_recipe

    return load_recipe(recipe, overrides)


def show_plan(loaded: Recipe, target: str, as_json: bool) -> None:
    """Say of each needed stage whether it is done, and what would be built."""
    from baltoro.jobs.runner import describe_plan, plan
    from baltoro.jobs.stages import Context

    planned = plan(Context(loaded), target)
    if as_json:
        print_json(
            {
                "stages": {
                    entry.stage.name: {
                        "status": entry.status,
                        "fingerprint": entry.fingerprint,
                        "artifact": entry.artifact.uri if entry.artifact else None,
                        "changes": [
                            {"key": change.key, "old": change.old, "new": change.new, "how": change.how}
                            for change in entry.changes
                        ],
                    }
                    for entry in planned
                }
            }
        )
    else:
        click.echo(describe_plan(planned))


def execute(loaded: Recipe, target: str, as_json: bool, *, build_parents: bool, whole: bool) -> None:
    """Build a stage and what it needs, and say what came of it."""
    from baltoro.jobs.runner import execute as build
    from baltoro.jobs.summary import closing_lines

    stages = build(loaded, target, build_parents=build_parents, say=say)
    if as_json:
        print_json({"stages": stages} if whole else stages[target])
    else:
        click.echo(closing_lines(loaded, stages, target if not whole else None))


RECIPE_HELP = """RECIPE is a YAML file, or the name of one that comes with Baltoro (demo). Parents that are
missing are built first. SECTION.KEY=VALUE changes one of the recipe's values, for example
corpus.sources.0.uri=./papers; `baltoro config show RECIPE` lists them all."""


def stage_command(group: click.Group, name: str, stage: str, help_text: str) -> None:
    """Add a command that builds one stage."""

    @group.command(name, help=f"{help_text}\n\n{RECIPE_HELP}")
    @recipe_arguments
    @click.option("--no-parents", is_flag=True, help="Refuse, instead of building, when a parent is missing.")
    @click.option("--dry-run", is_flag=True, help="Only say what is done, new or stale, and why.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
    @expected_errors
    def command(
        recipe: str, overrides: tuple[str, ...], no_parents: bool, dry_run: bool, as_json: bool
    ) -> None:
        loaded = load(recipe, overrides)
        if dry_run:
            show_plan(loaded, stage, as_json)
        else:
            execute(loaded, stage, as_json, build_parents=not no_parents, whole=False)
