"""The closing lines of a command: what came out, where it is, what to do next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from baltoro.core.storage import is_local
from baltoro.jobs.instruction_lines import instruction_lines, next_steps
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.review import taught_to_review


def closing_lines(recipe: Recipe, stages: Mapping[str, Mapping[str, Any]], only: str | None) -> str:
    """Return a few lines per stage, and what to do next.

    Args:
        recipe: the recipe that ran.
        stages: summary per stage, as ``--json`` prints them.
        only: the one stage to speak of, or ``None`` for all.
    """
    lines: list[str] = []
    for name, summary in stages.items():
        if only is None or name == only or (name.startswith("finetune-") and only.startswith("finetune-")):
            describe = _DESCRIBE[name.partition("-")[0]]
            lines.extend([name, *(f"  {line}" for line in describe(summary))])
    unmeasured = recipe.evaluation is not None and "evaluate" not in stages
    trained = [summary for summary in stages.values() if summary.get("export")]
    last = stages[only] if only else (trained or [{}])[-1]
    if last.get("export"):
        lines.extend(["next", *(f"  {line}" for line in _next_steps(recipe, last, unmeasured=unmeasured))])
    if only == "instructions":
        decided = recipe.instructions.decisions is not None
        steps = next_steps(finetunes=bool(recipe.finetune.stages), decided=decided)
        lines.extend(["next", *(f"  {line}" for line in steps)])
    return "\n".join(lines)


def _next_steps(recipe: Recipe, summary: Mapping[str, Any], *, unmeasured: bool) -> list[str]:
    tracking_uri, export = str(recipe.tracking.uri), str(summary["export"])
    run = str(summary["artifact"]).rstrip("/").split("/")[-2]
    look = tracking_uri
    if tracking_uri.startswith("sqlite:"):
        program = "mlflow"
        if shutil.which(program) is None:
            # Baltoro was called by its path, in an environment that is not activated.
            program = shlex.quote(str(Path(sys.executable).parent / program))
        look = f"{program} server --backend-store-uri {shlex.quote(tracking_uri)}"
    folder = export
    fetch = []
    if not is_local(export):
        folder = "model"
        fetch = [f"fetch the model:   aws s3 cp --recursive {shlex.quote(export)} {folder}"]
    return [
        f"look at the run:   {look}",
        *fetch,
        f"load the model:    AutoModelForCausalLM.from_pretrained({folder!r})",
        *([f"its adapter alone: {summary['adapter']}"] if summary.get("adapter") else []),
        *(
            [f"review a paper:    baltoro review PAPER --model {shlex.quote(folder)}"]
            if recipe.finetune.stages and taught_to_review(recipe, len(recipe.finetune.stages) - 1)
            else []
        ),
        *(["measure the model: baltoro evaluate RECIPE"] if unmeasured else []),
        f"prove the run:     baltoro verify-resume --run {run} "
        f"storage.root={shlex.quote(recipe.storage.root)}",
    ]


def _corpus(summary: Mapping[str, Any]) -> list[str]:
    rejected, duplicates = summary["rejected"], summary["duplicates"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
    return [
        f"{summary['papers_read']} records read = {summary['kept']} kept + {sum(rejected.values())} rejected"
        f" + {sum(duplicates.values())} duplicates",
        *([f"rejected: {reasons}"] if reasons else []),
        f"{summary['bytes'] / 1e6:.2f} MB of text; data card: {summary['data_card']}",
        *([f"{summary['merged']:,} documents merged from two parses"] if "merged" in summary else []),
        *(
            [
                f"{summary['repeated_bytes_cut']:,} bytes cut from {summary['documents_cut']:,} documents, "
                "since they stand in earlier ones"
            ]
            if "documents_cut" in summary
            else []
        ),
        *_extends(summary.get("extends"), summary["kept"]),
        *_trial(summary.get("trial")),
        str(summary["artifact"]),
    ]


def _extends(extends: Mapping[str, Any] | None, kept: int) -> list[str]:
    if extends is None:
        return []
    changed, gone = extends["objects_changed"], extends["objects_gone"] + extends["objects_of_other_sources"]
    older = extends["older_versions_kept"]
    return [
        f"SNAPSHOT: {extends['objects_new']:,} new files read"
        + (f" and {changed:,} changed" if changed else "")
        + f", {extends['objects_unchanged']:,} were there"
        + (f", {gone:,} are no longer listed (their documents stay)" if gone else "")
        + f"; {extends['documents']:,} + {kept:,} = {extends['documents'] + kept:,} documents",
        "every command that is to use it needs corpus.extends=latest: write it into the recipe",
        *(
            [
                f"{older:,} gave way to an older version of theirs that ranks lower; corpus.extends=null "
                "builds all anew"
            ]
            if older
            else []
        ),
    ]


def _trial(trial: Mapping[str, Any] | None) -> list[str]:
    if trial is None:
        return []
    whole = trial["whole"]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in whole["rejected"].items())
    return [
        f"TRIAL: {trial['files']:,} of {trial['files_of_whole']:,} files, "
        f"{100 * trial['read_fraction']:.2f} % of their bytes; the whole would be about",
        f"  {whole['seconds']:,} s on these CPUs, {whole['documents']:,} documents, "
        f"{whole['bytes'] / 1e6:,.1f} MB of text, {whole['tokens']:,} tokens",
        *([f"  rejected: {reasons}"] if reasons else []),
    ]


def _model(summary: Mapping[str, Any]) -> list[str]:
    return [f"{summary['parameters']:,} parameters from {summary['source']}", str(summary["artifact"])]


def _tokenizer(summary: Mapping[str, Any]) -> list[str]:
    asked = summary.get("vocabulary_asked", 0)
    short = (
        f" (tokenizer.vocab_size={asked:,}, but the sample has no more: add papers, or lower it)"
        if summary["vocabulary"] < asked
        else ""
    )
    return [f"vocabulary of {summary['vocabulary']:,}{short}", str(summary["artifact"])]


def _tokens(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"{summary['tokens']:,} tokens in {summary['sequences']:,} sequences, "
        f"{100 * summary['padding_fraction']:.2f} % padding",
        str(summary["artifact"]),
    ]


_MEASURED = {
    "perplexity": "perplexity by length, {}",
    "positions": "nats per token by tokens of context",
    "passkey": "share of passkeys found by length",
}


def _evaluate(summary: Mapping[str, Any]) -> list[str]:
    grouped: dict[str, list[str]] = {}
    for name, score in summary["scores"].items():
        task, *rest = name.split("/")
        known = score["low"] is not None and score["high"] is not None
        interval = (
            f"{score['low']:.4g} to {score['high']:.4g}" if known else "too few documents for an interval"
        )
        where = rest[-1] if rest else "in all"
        title = _MEASURED[task].format(*rest[:-1])
        grouped.setdefault(title, []).append(f"{where}: {score['value']:.4g} ({interval})")
    lines = []
    for title, scores in grouped.items():
        lines += [title, *(f"  {score}" for score in scores)]
    if summary.get("pictures"):
        lines.append(f"pictures: {', '.join(summary['pictures'])}")
    return [*lines, str(summary["artifact"])]


def _pretrain(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{summary['steps']} steps, {summary['tokens_seen']:,} tokens, "
        f"{summary['tokens_per_second']:,.0f} tokens/s",
        *(
            [f"resumed after step {summary['resumed_from_step']:,} by attempt {summary['attempt']}"]
            if summary.get("resumed_from_step")
            else []
        ),
        f"training loss {summary['loss_first']:.3f} → {summary['loss_last']:.3f} nats per token",
    ]
    if summary.get("validation_loss_before") is not None:
        lines.append(
            f"validation loss {summary['validation_loss_before']:.3f} → "
            f"{summary['validation_loss_after']:.3f} nats per token"
        )
    registered = summary.get("registered")
    if registered:
        lines.append(f"registered as {registered['name']} version {registered['version']} (alias candidate)")
    return [*lines, str(summary["export"])]


_DESCRIBE: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "corpus": _corpus,
    "model": _model,
    "tokenizer": _tokenizer,
    "tokens": _tokens,
    "pretrain": _pretrain,
    "instructions": instruction_lines,
    "finetune": _pretrain,
    "evaluate": _evaluate,
}
