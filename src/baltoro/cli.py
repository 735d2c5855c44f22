"""The command line. Heavy modules are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from baltoro.commands.instructions import finetune, instructions
from baltoro.commands.models import model, review
from baltoro.commands.shared import (
    RECIPE_HELP,
    execute,
    expected_errors,
    load,
    print_json,
    recipe_arguments,
    say,
    show_plan,
    stage_command,
)

if TYPE_CHECKING:
    from baltoro.papers.config import InputFormat


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
        show_plan(loaded, last_stage(loaded), as_json)
        return
    execute(loaded, last_stage(loaded), as_json, build_parents=True, whole=True)


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
    "build", help=f"Build the corpus of RECIPE, with its rejects table and data card.\n\n{RECIPE_HELP}"
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
        show_plan(loaded, "corpus", as_json)
    else:
        execute(loaded, "corpus", as_json, build_parents=not no_parents, whole=False)


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


stage_command(main, "evaluate", "evaluate", "Measure the model of RECIPE.")
for command in (instructions, finetune, review, model):
    main.add_command(command)


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


if __name__ == "__main__":
    main()
