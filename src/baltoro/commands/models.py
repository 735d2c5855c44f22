"""``baltoro model`` and ``review``: what goes into training, and what comes out of it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from baltoro.commands.shared import (
    expected_errors,
    load,
    print_json,
    say,
)

if TYPE_CHECKING:
    from baltoro.papers.config import InputFormat


_LARGEST_SEED = 2**63 - 1
_MOST_NEW_TOKENS = 1_000_000


class _Number(click.FloatRange):
    """A number within bounds; ``nan`` and ``inf`` are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


@click.command("review")
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
    type=_Number(min=0, min_open=True),
    default=None,
    help="Time for one answer of the endpoint (default: 300).",
)
@click.option("--record", default=None, metavar="KEY", help="Which paper of a file that holds several.")
@click.option("--format", "input_format", default="auto", show_default=True, help="As in `papers show`.")
@click.option("--text-column", default=None, help="The text column of JSONL or Parquet records.")
@click.option("--temperature", type=_Number(0, 2), default=0.35, show_default=True, help="0 is greedy.")
@click.option(
    "--top-p",
    type=_Number(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Sample from so much of the probability.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, _MOST_NEW_TOKENS),
    default=None,
    help="Bound on the response (default: the room that training left for it).",
)
@click.option(
    "--seed",
    type=click.IntRange(0, _LARGEST_SEED),
    default=None,
    help="Another seed draws another response.",
)
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
    from baltoro.jobs.review import check_page, read_one, review_paper, reviewer_of, write_page

    submitted = read_one(
        paper, record=record, input_format=cast("InputFormat", input_format), text_column=text_column
    )
    if html is not None:
        check_page(html, paper=paper)
    found = review_paper(
        submitted,
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
    )
    # Before the page: whatever becomes of that, the review is there.
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(review_text(found))
    if html is not None:
        write_page(found, html)
        say(f"page: {html}")
    elif not as_json and sys.stdout.isatty():
        say("--html FILE writes the review as a page, --json prints it with all that is known about it")
    if not found.found:
        sys.exit(3)


@click.group()
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
    from baltoro.jobs.model import MODEL_FOLDER, import_model
    from baltoro.jobs.recipe import StorageConfig, absolute_base
    from baltoro.jobs.runner import stage_summary

    storage_config = load(recipe, ()).storage if recipe else StorageConfig()
    root_uri = absolute_uri(root or storage_config.root)
    source = absolute_base(source, Path.cwd())
    artifact = import_model(Storage(storage_config.profiles), root_uri, source, say=say)
    if as_json:
        print_json(stage_summary(artifact))
    else:
        folder = artifact.uri_of(f"{MODEL_FOLDER}/config.json").removesuffix("/config.json")
        click.echo(f"{artifact.uri}\nUse it with model.base={source}\nAs a plain model, for --base: {folder}")


@model.command("merge")
@click.argument(
    "adapters",
    metavar="ADAPTER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--base",
    required=True,
    metavar="FOLDER|PRESET",
    help="Folder of the model that the first adapter was trained on, or the preset.",
)
@click.option("--output", required=True, metavar="FOLDER", help="Folder to write; must not exist.")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    default=None,
    help="Of the written weights (default: the training run's precision, as of its own merged model).",
)
@expected_errors
def model_merge(adapters: tuple[Path, ...], base: str, output: str, dtype: str | None) -> None:
    """Make ADAPTER, a folder that a finetune run exported, part of its base: a plain Hugging Face model.

    An adapter whose stage began with start: merged was trained on the base with the adapters before it:
    give these first, in the order of training. README.md in the adapter's folder has the whole command.

    Base and adapters are compared with those of training by the content of their weights, and others are
    refused: an adapter on other weights gives a wrong model. Where the base was trained on in four bits, it
    is rounded the same way first.

    \b
        baltoro model merge runs/expert --base models/llama --output merged
        baltoro model merge runs/general runs/expert --base models/llama --output merged
    """
    from baltoro.instructions.reviews.ask import local_folder
    from baltoro.jobs.merge import merge_folders, merge_output
    from baltoro.models.presets import PRESETS

    folder = merge_output(output)
    from_preset = base in PRESETS and not Path(base).is_dir()
    *before, adapter = adapters
    merge_folders(
        adapter,
        base if from_preset else local_folder("--base", base),
        folder,
        before=before,
        dtype=dtype,
    )
    click.echo(f"{folder}\nload it with AutoModelForCausalLM.from_pretrained({str(folder)!r})")
