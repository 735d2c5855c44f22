"""The command line. Heavy modules are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast

import click

if TYPE_CHECKING:
    from baltoro.jobs.recipe import Recipe
    from baltoro.papers.config import InputFormat

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])


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


def expected_errors(function: CommandFunction) -> CommandFunction:
    """Turn Baltoro's own errors into one message and an exit code; anything else is a defect and is shown."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from baltoro.core.errors import BaltoroError

        try:
            return function(*args, **kwargs)
        except BaltoroError as error:
            fail(error.message, error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted; the same command goes on from what is finished", 1)

    return wrapper  # type: ignore[return-value]


def recipe_arguments(function: CommandFunction) -> CommandFunction:
    """Add the arguments every command on a recipe takes."""
    function = click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")(function)
    return click.argument("recipe", metavar="RECIPE")(function)


def load(recipe: str, overrides: tuple[str, ...]) -> Recipe:
    """Load a recipe given on the command line."""
    from baltoro.jobs.recipe import load_recipe

    return load_recipe(recipe, overrides)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `baltoro init my-model`, or `baltoro run demo` to see the whole path work.",
)
@click.version_option(package_name="baltoro", prog_name="baltoro")
@click.option("-v", "--verbose", is_flag=True, help="Show what the libraries underneath say, too.")
def main(verbose: bool) -> None:
    """Turn your own scientific literature into your own large language model.

    A recipe (one YAML file) describes the model's whole life; `baltoro run RECIPE` builds every stage that
    is not yet done: papers are read and cleaned into a corpus, tokenised and packed, a model is trained on
    them and registered in MLflow. Every value of a recipe can be changed on the command line:

    \b
        baltoro run RECIPE pretrain.steps=200 corpus.sources.0.uri=s3://bucket/papers
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("baltoro").setLevel(logging.INFO)
    if not verbose:
        for noisy in ("ray.data", "ray.train", "ray"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@main.command()
@recipe_arguments
@click.option("--dry-run", is_flag=True, help="List each stage as done, new or stale, and what made it so.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def run(recipe: str, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Build every stage of RECIPE that is not yet done.

    RECIPE is a YAML file, or the name of one that comes with Baltoro (demo). SECTION.KEY=VALUE changes one of
    its values, for example pretrain.steps=20; `baltoro config show RECIPE` lists them all.
    """
    from baltoro.jobs.runner import last_stage

    loaded = load(recipe, overrides)
    if dry_run:
        _dry_run(loaded, last_stage(loaded), as_json)
        return
    _execute(loaded, last_stage(loaded), as_json, build_parents=True, whole=True)


def _dry_run(loaded: Recipe, target: str, as_json: bool) -> None:
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


def _execute(loaded: Recipe, target: str, as_json: bool, *, build_parents: bool, whole: bool) -> None:
    from baltoro.jobs.runner import execute
    from baltoro.jobs.summary import closing_lines

    stages = execute(loaded, target, build_parents=build_parents, say=say)
    if as_json:
        print_json({"stages": stages} if whole else stages[target])
    else:
        click.echo(closing_lines(loaded, stages, target if not whole else None))


_RECIPE_HELP = """RECIPE is a YAML file, or the name of one that comes with Baltoro (demo). Parents that are
missing are built first. SECTION.KEY=VALUE changes one of the recipe's values, for example
corpus.sources.0.uri=./papers; `baltoro config show RECIPE` lists them all."""


def stage_command(group: click.Group, name: str, stage: str, help_text: str) -> None:
    """Add a command that builds one stage."""

    @group.command(name, help=f"{help_text}\n\n{_RECIPE_HELP}")
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
            _dry_run(loaded, stage, as_json)
        else:
            _execute(loaded, stage, as_json, build_parents=not no_parents, whole=False)


@main.group()
def corpus() -> None:
    """Papers to documents: read, clean, render, filter, deduplicate, split."""


@main.group()
def tokenizer() -> None:
    """Train a tokenizer on the corpus, or take the base model's."""


@main.group()
def tokens() -> None:
    """Documents to packed rows of tokens."""


@corpus.command(
    "build", help=f"Build the corpus of RECIPE, with its rejects table and data card.\n\n{_RECIPE_HELP}"
)
@recipe_arguments
@click.option("--limit", type=int, default=None, help="A trial with at most this many files.")
@click.option("--sample", type=float, default=None, help="A trial with about this part of the files.")
@click.option(
    "--extend", is_flag=True, help="Add the papers that arrived since to the newest corpus of this name."
)
@click.option("--no-parents", is_flag=True, help="Refuse, instead of building, when a parent is missing.")
@click.option("--dry-run", is_flag=True, help="Only say what is done, new or stale, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def corpus_build(  # noqa: PLR0917  (one per option)
    recipe: str,
    overrides: tuple[str, ...],
    limit: int | None,
    sample: float | None,
    extend: bool,
    no_parents: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build the corpus, or a trial of it; the help text stands at the command."""
    from baltoro.corpus.config import LATEST

    flags = {
        "corpus.trial.limit": limit,
        "corpus.trial.fraction": sample,
        "corpus.extends": LATEST if extend else None,
    }
    given = tuple(f"{key}={value}" for key, value in flags.items() if value is not None)
    loaded = load(recipe, (*overrides, *given))
    if dry_run:
        _dry_run(loaded, "corpus", as_json)
    else:
        _execute(loaded, "corpus", as_json, build_parents=not no_parents, whole=False)


@corpus.command("explain")
@click.argument("recipe", metavar="RECIPE")
@click.argument("paper_id", metavar="PAPER_ID")
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def corpus_explain(recipe: str, paper_id: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what each step of the corpus does to one paper of RECIPE, and what becomes of it.

    PAPER_ID is SOURCE/FILE, or SOURCE/FILE#RECORD for a file that holds several, as the data card and the
    tables of rejects and duplicates name it. The corpus need not be built. SECTION.KEY=VALUE changes one of
    the recipe's values, to see what would become of the paper then.
    """
    from baltoro.jobs.explain import describe, explain_paper
    from baltoro.jobs.stages import Context

    explained = explain_paper(Context(load(recipe, overrides)), paper_id)
    if as_json:
        print_json(explained)
    else:
        click.echo(describe(explained))


stage_command(tokenizer, "build", "tokenizer", "Build the tokenizer of RECIPE.")
stage_command(tokens, "build", "tokens", "Build the token dataset of RECIPE: tokenise, pack, shuffle, shard.")
stage_command(
    main, "pretrain", "pretrain", "Train the model of RECIPE on its token dataset, export and register it."
)


@main.group()
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def instructions_review_sheet(  # noqa: PLR0917  (one per option)
    recipe: str, overrides: tuple[str, ...], per_task: int, seed: int, output: str, as_json: bool
) -> None:
    """Write a sample of RECIPE's examples for people to keep, drop or edit: a CSV file and a page.

    Fill in either one and name the CSV file as instructions.decisions: the next build leaves out what was
    dropped, takes over what was edited, and tells the share of noise of each task. SECTION.KEY=VALUE changes
    one of the recipe's values, as everywhere.
    """
    from baltoro.core.storage import absolute_uri
    from baltoro.jobs.sheets import write_review_sheet
    from baltoro.jobs.stages import Context

    told = write_review_sheet(
        Context(load(recipe, overrides)), absolute_uri(output), per_task=per_task, seed=seed
    )
    if as_json:
        print_json(told)
    else:
        click.echo(f"{told['examples']} examples of {told['tasks']} tasks\n{told['sheet']}\n{told['page']}")


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
    "--part", "parts", multiple=True, help="Only this part (signals, reviews, files); may be repeated."
)
@click.option("--plain", is_flag=True, help="Leave out what Baltoro knows of an example.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def instructions_export(  # noqa: PLR0917  (one per option)
    recipe: str,
    overrides: tuple[str, ...],
    output: str,
    layout: Literal["alpaca", "messages"],
    parts: tuple[str, ...],
    plain: bool,
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
    )
    if as_json:
        print_json(told)
    else:
        click.echo(f"{told['written']} examples written, {told['left_out']} left out\n{told['file']}")


stage_command(main, "evaluate", "evaluate", "Measure the model of RECIPE.")


@main.command("finetune", help=f"Fine-tune the model of RECIPE, stage after stage.\n\n{_RECIPE_HELP}")
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
        _dry_run(loaded, target, as_json)
    else:
        _execute(loaded, target, as_json, build_parents=not no_parents, whole=False)


@main.command("verify-resume")
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
@click.option("--run", "run_name", default=None, help="Audit this run (its name, or the URI of its folder).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def verify_resume(
    recipe: str | None, overrides: tuple[str, ...], run_name: str | None, as_json: bool
) -> None:
    """Prove that training resumes without losing, repeating or changing anything; exit code 3 if it does not.

    Without --run it rehearses RECIPE on this machine: a small stand-in is trained with the recipe's strategy,
    optimizer, precision and kind of storage, killed at chosen points, resumed (on other numbers of workers,
    too), and compared step by step with an uninterrupted twin. This takes some minutes.

    With --run it audits a run, finished or not: every row exactly once, in the planned order, its ledger's
    chain intact, the digest of what was fed recomputed from the token dataset, and the newest checkpoint
    read against its checksums. RECIPE (default: demo) then only says where the storage root is.
    SECTION.KEY=VALUE changes one of its values, for example storage.root=s3://bucket/models.

    \b
        baltoro verify-resume my-model/demo.yaml
        baltoro verify-resume my-model/demo.yaml --run demo
    """
    from baltoro.jobs.stages import Context
    from baltoro.jobs.verify.certificate import describe
    from baltoro.jobs.verify.command import certify

    if run_name is not None and recipe is not None and "=" in recipe:
        overrides, recipe = (recipe, *overrides), None
    if recipe is None and run_name is None:
        raise click.UsageError("give a RECIPE to rehearse, or --run to audit a run")
    certificate, uri = certify(Context(load(recipe or "demo", overrides)), run_name, say=say)
    if as_json:
        print_json({"artifact": uri, **certificate.summary()})
    else:
        click.echo(f"{describe(certificate)}\ncertificate: {uri}")
    if not certificate.certified:
        sys.exit(3)


@main.group()
def papers() -> None:
    """Look at parsed papers the way Baltoro reads them."""


@papers.command("show")
@click.argument("file", metavar="FILE_OR_URI")
@click.option(
    "--style",
    type=click.Choice(["k2", "galactica", "review", "plain"]),
    default="k2",
    show_default=True,
    help="How the paper is rendered.",
)
@click.option(
    "--format",
    "input_format",
    default="auto",
    show_default=True,
    help="Force an input format: grobid_tei, jats, nougat, s2orc, science_parse, sciencebeam, "
    "docling_json, docling_markdown, markdown, plain_text, records.",
)
@click.option("--text-column", default=None, help="The text column of JSONL or Parquet records.")
@click.option("--json", "as_json", is_flag=True, help="Print the record, or the reject, as JSON.")
@expected_errors
def papers_show(file: str, style: str, input_format: str, text_column: str | None, as_json: bool) -> None:
    """Print one paper as a model will read it, its record, or why it is rejected (exit code 2).

    FILE_OR_URI is a file (also .gz, .zst, .tar, or a table of many papers), a folder, or an s3:// URI. With
    --json a single record is printed as it is; several as {"papers": [...], "rejects": [...]}.
    """
    from dataclasses import asdict

    from baltoro.core.storage import absolute_uri
    from baltoro.papers import Reject, read
    from baltoro.papers.renderers import render
    from baltoro.papers.schema import paper_to_dict

    papers: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    shown = 0
    declared = cast("InputFormat", input_format)
    for record in read(absolute_uri(file), format=declared, text_column=text_column):
        if isinstance(record, Reject):
            rejects.append(asdict(record))
            say(f"rejected: {record.paper_id}: {record.reason}: {record.detail}")
        elif as_json:
            papers.append(paper_to_dict(record))
        else:
            if shown:
                click.echo("\n" + "─" * 80 + "\n")
            click.echo(render(record, style))
            shown += 1
    if as_json:
        records = papers + rejects
        print_json(records[0] if len(records) == 1 else {"papers": papers, "rejects": rejects})
    if rejects:
        sys.exit(2)


@main.group("config")
def config_group() -> None:
    """Look at recipes and what may stand in them."""


@config_group.command("show")
@recipe_arguments
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@expected_errors
def config_show(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print RECIPE with every default, variable and override in place.

    RECIPE is a YAML file, or the name of one that comes with Baltoro (demo). SECTION.KEY=VALUE changes one of
    its values; so does a variable BALTORO__SECTION__KEY, which ranks below it. What is printed is a recipe.
    """
    from baltoro.core.config import dump_yaml

    loaded = load(recipe, overrides)
    if as_json:
        print_json(loaded.model_dump(mode="json", by_alias=True))
    else:
        click.echo(dump_yaml(loaded), nl=False)


@config_group.command("schema")
@expected_errors
def config_schema() -> None:
    """Print the JSON schema of recipes, for editors that complete and check YAML."""
    from baltoro.jobs.recipe import recipe_json_schema

    print_json(recipe_json_schema())


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--from", "name", default="demo", show_default=True, help="The packaged recipe to start from.")
@expected_errors
def init(directory: Path, name: str) -> None:
    """Write an annotated recipe into DIRECTORY, which is made if needed.

    A file that exists is never replaced.
    """
    from baltoro.jobs.initialise import initialise

    path = initialise(directory, name)
    say(
        f"wrote {path}\nEdit corpus.sources (where your parsed papers are), then:\n"
        f"  baltoro doctor {path}\n  baltoro run {path} --dry-run\n  baltoro run {path}"
    )


@main.command()
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def doctor(recipe: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check this machine, and what RECIPE needs of it; a remedy stands beside every problem.

    Without RECIPE (a YAML file, or the name of one that comes with Baltoro) only the machine is checked.
    SECTION.KEY=VALUE changes one of its values. The exit code is 2 when something must be mended.
    """
    from baltoro.jobs.doctor import check_machine, describe_checks

    checks = check_machine(load(recipe, overrides) if recipe else None)
    if as_json:
        print_json({c.name: {"status": c.status, "found": c.found, "remedy": c.remedy} for c in checks})
    else:
        click.echo(describe_checks(checks))
    if any(check.status == "problem" for check in checks):
        sys.exit(2)


@main.command("gpu-check")
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    show_default=True,
    help="Where the checks run; CUDA_VISIBLE_DEVICES picks one of several GPUs.",
)
@click.option(
    "--only", default=None, metavar="NAME[,NAME]...", help="Run only these checks, for example attention,nf4."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE|FOLDER",
    help="Where the report goes; a file that exists is replaced (default: the current folder).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def gpu_check(device: str, only: str | None, output: Path | None, as_json: bool) -> None:
    """Prove that this GPU, its driver and its libraries compute what training needs, in ten minutes.

    Real tensors and short training runs are held against references that are written out, never against
    themselves; each check runs in a process of its own, so that a crash of one leaves the others:

    \b
        attention   every kernel within packed rows, against each segment alone
        loss        full, chunked and Liger's cross-entropy, against float64
        nf4         4-bit weights, against the matrix that their bytes stand for
        optimizers  fused, foreach, 8-bit and paged AdamW, against float64
        compile     compiled decoder blocks, against eager ones
        resume      interrupted and resumed training, bit for bit: FSDP2 and ZeRO-2
        precision   loss curves in bfloat16 and float16, against float32
        memory      out of memory is told with the settings that need less
        speed       tokens/s, MFU, copies, matrix products: told, not judged

    Everything goes into one Markdown file to attach to a bug: gpu-check-REPORT with the date. Names of user
    and machine and places of folders are taken out of it. What this machine lacks a library for is listed as
    not available. The exit code is 0 only if all that ran passed, 3 if not.

    \b
        baltoro gpu-check
        baltoro gpu-check --only attention,nf4 --output ~/report.md
        baltoro gpu-check --device cpu
    """
    from baltoro.jobs.gpu_check.command import gpu_check as check

    found = check(device, only, output.expanduser() if output else None, say=say)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(f"{found.sentence}\nreport: {found.report}")
    if not found.passed:
        sys.exit(3)


@main.command()
@recipe_arguments
@click.option("--workers", type=int, default=None, help="Another number of workers (cluster.workers).")
@click.option(
    "--model-config",
    default=None,
    metavar="FILE|PRESET",
    help="The base's config.json, its folder, or a preset of the same shape.",
)
@click.option(
    "--device-memory-gib",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Memory of one device: tells what fits.",
)
@click.option(
    "--device", default=None, help="Name of the device (A100, H100 …): tells how long the run takes."
)
@click.option(
    "--mfu",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=None,
    help="Share of the device's peak that is reached (default: 0.4).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def layout(  # noqa: PLR0917  (one per option)
    recipe: str,
    overrides: tuple[str, ...],
    workers: int | None,
    model_config: str | None,
    device_memory_gib: float | None,
    device: str | None,
    mfu: float | None,
    as_json: bool,
) -> None:
    """Show what the training of RECIPE takes, without GPUs: shards, memory, steps, time.

    The strategy sets the model up at the real number of workers, without storage and without other
    processes. Needs no corpus, no Ray and no network; a base on a hub is known by its config.json.
    SECTION.KEY=VALUE changes one of the recipe's values. The exit code is 3 when --device-memory-gib is given
    and the recipe does not fit.
    """
    from baltoro.jobs.layout import DEFAULT_MFU_FRACTION, dry_run_layout
    from baltoro.jobs.layout_report import describe_layout

    given = (f"cluster.workers={workers}",) if workers is not None else ()
    found = dry_run_layout(
        load(recipe, (*overrides, *given)),
        model_config=model_config,
        device_memory_gib=device_memory_gib,
        device=device,
        mfu_fraction=DEFAULT_MFU_FRACTION if mfu is None else mfu,
    )
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(describe_layout(found))
    if found.fits is False:
        sys.exit(3)


@main.command("review")
@click.argument("paper", metavar="PAPER")
@click.option(
    "--model",
    "model_name",
    required=True,
    metavar="FOLDER|NAME",
    help="Folder of the model or adapter; with --endpoint the model's name there.",
)
@click.option("--base", default=None, metavar="FOLDER", help="The model that an adapter was trained on.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default=None,
    help="Where it runs (default: auto).",
)
@click.option(
    "--endpoint", default=None, metavar="URL", help="OpenAI-compatible server, http://HOST:PORT/v1."
)
@click.option(
    "--api-key-environment", default=None, metavar="VARIABLE", help="Environment variable with its key."
)
@click.option(
    "--tokenizer", default=None, metavar="FOLDER", help="Of the endpoint's model: counts its tokens exactly."
)
@click.option(
    "--deadline-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Time for one answer of the endpoint (default: 300).",
)
@click.option("--record", default=None, metavar="KEY", help="Which paper of a file that holds several.")
@click.option("--format", "input_format", default="auto", show_default=True, help="As in `papers show`.")
@click.option("--text-column", default=None, help="The text column of JSONL or Parquet records.")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), default=0.35, show_default=True, help="0 is greedy."
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Sample from so much of the probability.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    default=None,
    help="Bound on the response (default: the room that training left for it).",
)
@click.option("--seed", type=click.IntRange(0), default=None, help="Another seed draws another response.")
@click.option(
    "--html", default=None, metavar="FILE", help="Also write a page; a file that exists is replaced."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def review(  # noqa: PLR0917  (one per option)
    paper: str,
    model_name: str,
    base: str | None,
    device: Literal["auto", "cpu", "cuda"] | None,
    endpoint: str | None,
    api_key_environment: str | None,
    tokenizer: str | None,
    deadline_seconds: float | None,
    record: str | None,
    input_format: str,
    text_column: str | None,
    temperature: float,
    top_p: float,
    max_new_tokens: int | None,
    seed: int | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Let a model review PAPER: significance and novelty, reasons for and against it, suggestions.

    PAPER is a file of one parsed paper in any of the input formats, or an s3:// URI of one. It is cleaned,
    rendered, cut and put to the model exactly as the examples that a finetune stage was trained on; the
    model's baltoro_review.json says how. What was cut of the paper is told. What cannot be read of the
    response is shown as it is; if no review is in it at all, the exit code is 3.

    \b
        baltoro review paper.tei.xml --model runs/reviewer/merged --html review.html
        baltoro review paper.tei.xml --model reviewer --endpoint http://localhost:8000/v1
    """
    from baltoro.instructions.reviews.ask import Sampling
    from baltoro.instructions.reviews.page import review_text
    from baltoro.jobs.review import review_paper, reviewer_of, write_page

    found = review_paper(
        paper,
        reviewer_of(
            model_name,
            say=say,
            base=base,
            device=device,
            endpoint=endpoint,
            api_key_environment=api_key_environment,
            tokenizer=tokenizer,
            deadline_seconds=deadline_seconds,
        ),
        say=say,
        sampling=Sampling(temperature, top_p, max_new_tokens, seed),
        record=record,
        input_format=cast("InputFormat", input_format),
        text_column=text_column,
    )
    if html is not None:
        write_page(found, html)
        say(f"page: {html}")
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(review_text(found))
    if not found.found:
        sys.exit(3)


@main.group()
def model() -> None:
    """Bring base models under the storage root."""


@model.command("import")
@click.argument("source", metavar="ID_OR_PATH")
@click.option("--recipe", default=None, help="Take storage.root and its profiles from this recipe.")
@click.option("--root", default=None, help="The storage root (default: the recipe's, or ./workspace).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@expected_errors
def model_import(source: str, recipe: str | None, root: str | None, as_json: bool) -> None:
    """Stage a checksummed copy of a base model under the storage root, once.

    ID_OR_PATH is a Hugging Face hub id, a folder, a GGUF file, or an s3:// prefix. HF_TOKEN, HF_ENDPOINT and
    HF_HUB_OFFLINE are honoured.
    """
    from baltoro.core.storage import Storage, absolute_uri
    from baltoro.jobs.model import import_model
    from baltoro.jobs.recipe import StorageConfig, absolute_base
    from baltoro.jobs.runner import stage_summary

    storage_config = load(recipe, ()).storage if recipe else StorageConfig()
    root_uri = absolute_uri(root or storage_config.root)
    source = absolute_base(source, Path.cwd())
    artifact = import_model(Storage(storage_config.profiles), root_uri, source, say=say)
    if as_json:
        print_json(stage_summary(artifact))
    else:
        click.echo(f"{artifact.uri}\nUse it with model.base={source}")


@model.command("merge")
@click.argument("adapter", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--base",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the model that the adapter was trained on.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Of the written weights.",
)
@expected_errors
def model_merge(adapter: Path, base: Path, output: Path, dtype: str) -> None:
    """Make ADAPTER, a folder that a finetune run exported, part of its base: a plain Hugging Face model.

    Where the base was trained on in four bits, it is rounded the same way first: that is what the adapter
    was trained on, and the logits are those of training.
    """
    from baltoro.jobs.merge import merge_folders

    merge_folders(adapter, base, output, dtype=dtype)
    click.echo(f"{output}\nload it with AutoModelForCausalLM.from_pretrained({str(output)!r})")


if __name__ == "__main__":
    main()
