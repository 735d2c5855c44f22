"""The evaluate stage: the recipe's model and held-out documents → scores, with intervals and pictures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import ConfigError, InputError
from baltoro.core.statistics import wilson_interval
from baltoro.core.storage import Storage, is_local, join, local_path
from baltoro.corpus.work import PartFile
from baltoro.evaluation.config import LongContextConfig
from baltoro.jobs.extend import part_chain
from baltoro.jobs.finetune import finetune_stage_name
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.jobs.tokenizer import corpus_parts
from baltoro.tracking.mlflow import StageRun

if TYPE_CHECKING:
    from baltoro.evaluation.perplexity import Perplexity
    from baltoro.evaluation.scoring import TokenIds

SCORES_FILE = "scores.json"

_HELD_OUT = ("test", "validation")
_HOURS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Checks:
    """What a node does; plain values, so that it travels.

    Attributes:
        config: which checks.
        storage: reaches everything.
        model_uri: folder of the model.
        documents: files of the corpus.
        name: for pictures.
        use_gpu: compute there.
    """

    config: LongContextConfig
    storage: Storage
    model_uri: str
    documents: tuple[PartFile, ...]
    name: str
    use_gpu: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """What came out.

    Attributes:
        scores: task → ``{value, low, high, items}``.
        details: everything measured, as plain values.
        pictures: PNG by file name.
    """

    scores: dict[str, dict[str, Any]]
    details: dict[str, Any]
    pictures: dict[str, bytes]


def evaluate_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies an evaluation beyond model and corpus."""
    assert context.recipe.evaluation is not None
    return result_fields(context.recipe.evaluation, "evaluation.")


def check_evaluation(context: Context) -> None:
    """Refuse checks that need documents of a recipe that has none.

    Raises:
        ConfigError: with the checks that need none.
    """
    recipe = context.recipe
    assert recipe.evaluation is not None
    needing = [task for task in recipe.evaluation.tasks if task != "passkey"]
    if needing and not has_documents(recipe):
        raise ConfigError(
            f"evaluation.tasks: {needing[0]} is measured on held-out papers, and this recipe has no corpus; "
            "name papers under corpus.sources, or set evaluation.tasks=[passkey]"
        )
    splits = recipe.corpus.splits
    if needing and recipe.pins.corpus is None and not (splits.test_fraction or splits.validation_fraction):
        raise ConfigError(
            f"evaluation.tasks: {needing[0]} is measured on held-out papers, and this recipe holds none out; "
            "raise corpus.splits.test_fraction or corpus.splits.validation_fraction, or set "
            "evaluation.tasks=[passkey]"
        )


def has_documents(recipe: Recipe) -> bool:
    """Return whether a recipe's corpus can be measured on."""
    return bool(recipe.corpus.sources) or recipe.pins.corpus is not None


def build_evaluation(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun, model: str
) -> StageOutput:
    """Run the checks on a node of the cluster, and log their scores and pictures.

    Raises:
        ConfigError: a length is beyond what the model reads.
        InputError: no held-out document is long enough.
    """
    import ray

    recipe = context.recipe
    assert recipe.evaluation is not None
    extra = parents[model].manifest.extra
    corpus = parents.get("corpus")
    documents = []
    if corpus is not None:
        documents = [file for part in part_chain(context.store, corpus) for file in corpus_parts(part)]
    checks = Checks(
        recipe.evaluation,
        context.storage,
        join(parents[model].uri, extra.get("merged", extra["export"])),
        tuple(documents),
        recipe.name,
        recipe.cluster.use_gpu,
    )
    task = ray.remote(run_checks).options(num_cpus=1, num_gpus=int(checks.use_gpu), max_retries=1)
    found: Scored = ray.get(task.remote(checks), timeout=_HOURS)
    writer.write_file(SCORES_FILE, (json.dumps(found.details, indent=1) + "\n").encode())
    for name, picture in found.pictures.items():
        writer.write_file(name, picture)
        run.log_bytes(picture, name)
    run.log_bytes(json.dumps(found.details, indent=1).encode(), SCORES_FILE)
    run.log_metrics({f"evaluation/{task}": score["value"] for task, score in found.scores.items()})
    return StageOutput(
        counts={task: score["items"] for task, score in found.scores.items()},
        summary={
            "run_id": run.run_id,
            "scores": found.scores,
            "pictures": [writer.uri_for(name) for name in found.pictures],
        },
    )


def run_checks(checks: Checks) -> Scored:
    """Load the model and run every check; plain of Ray."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch.device("cuda" if checks.use_gpu else "cpu")
    with tempfile.TemporaryDirectory(prefix="baltoro-evaluate-") as scratch:
        folder = Path(local_path(checks.model_uri)) if is_local(checks.model_uri) else Path(scratch) / "model"
        if not folder.exists():
            checks.storage.download_folder(checks.model_uri, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
    return score(model.to(device), tokenizer, checks)


def score(model: Any, tokenizer: Any, checks: Checks) -> Scored:
    """Run the checks on a loaded model.

    Raises:
        ConfigError: a length is beyond what the model reads.
        InputError: no held-out document is long enough.
    """
    config = checks.config
    found = Scored({}, {}, {})
    texts: list[Any] = []
    if any(task != "passkey" for task in config.tasks):
        texts = held_out_ids(checks.storage, checks.documents, tokenizer)
    for task in config.tasks:
        {"perplexity": _perplexity, "positions": _positions, "passkey": _passkey}[task](
            model, tokenizer, texts, checks, found
        )
    return found


def held_out_ids(storage: Storage, documents: Sequence[PartFile], tokenizer: Any) -> list[TokenIds]:
    """Return the tokens of the test documents, or of the validation documents where there are none.

    Raises:
        InputError: the corpus holds none out.
    """
    import numpy as np

    from baltoro.jobs.token_passes import read_documents

    by_split: dict[str, list[str]] = {split: [] for split in _HELD_OUT}
    for part in documents:
        for table in read_documents(storage, part):
            for split, text in zip(table["split"].to_pylist(), table["text"].to_pylist(), strict=True):
                if split in by_split:
                    by_split[split].append(text)
    chosen = next((by_split[split] for split in _HELD_OUT if by_split[split]), None)
    if chosen is None:
        raise InputError(
            "evaluation: the corpus holds no document out; raise corpus.splits.test_fraction or "
            "corpus.splits.validation_fraction"
        )
    encoded = tokenizer(chosen, add_special_tokens=False)["input_ids"]
    return [np.asarray(ids, dtype=np.int64) for ids in encoded]


def _perplexity(model: Any, tokenizer: Any, texts: list[Any], checks: Checks, found: Scored) -> None:
    from baltoro.evaluation.figures import perplexity_picture
    from baltoro.evaluation.perplexity import perplexities

    config = checks.config.perplexity
    curves: dict[str, dict[int, Perplexity]] = {
        protocol: perplexities(
            model,
            texts,
            protocol=protocol,
            lengths=config.lengths,
            bos_token_id=tokenizer.bos_token_id,
            max_texts=config.max_documents,
            same_texts=config.same_documents,
            setting="evaluation.perplexity.lengths",
        )
        for protocol in config.protocols
    }
    for protocol, curve in curves.items():
        for length, measured in curve.items():
            found.scores[f"perplexity/{protocol}/{length}"] = {
                "value": measured.perplexity,
                "low": measured.low,
                "high": measured.high,
                "items": measured.tokens,
            }
    found.details["perplexity"] = {
        protocol: {str(length): asdict(measured) for length, measured in curve.items()}
        for protocol, curve in curves.items()
    }
    title = f"{checks.name}: perplexity by length"
    found.pictures["perplexity.png"] = perplexity_picture(curves, title=title)


def _positions(model: Any, _tokenizer: Any, texts: list[Any], checks: Checks, found: Scored) -> None:
    from baltoro.evaluation.figures import positions_picture
    from baltoro.evaluation.positions import loss_by_position

    config = checks.config.positions
    measured = loss_by_position(
        model,
        texts,
        length=config.length,
        buckets_per_doubling=config.buckets_per_doubling,
        max_texts=config.max_documents,
        setting="evaluation.positions.length",
    )
    for bucket in measured.buckets:
        found.scores[f"positions/{bucket.first}-{bucket.last}"] = {
            "value": bucket.nats_per_token,
            "low": bucket.low,
            "high": bucket.high,
            "items": bucket.tokens,
        }
    found.details["positions"] = asdict(measured)
    title = f"{checks.name}: loss by position"
    found.pictures["positions.png"] = positions_picture({checks.name: measured}, title=title)


def _passkey(model: Any, tokenizer: Any, _texts: list[Any], checks: Checks, found: Scored) -> None:
    from baltoro.evaluation.figures import passkey_picture
    from baltoro.evaluation.passkey import passkey_retrieval

    config = checks.config.passkey
    grid = passkey_retrieval(
        model,
        tokenizer,
        lengths=config.lengths,
        depths=config.depths,
        trials=config.trials,
        seed=config.seed,
        setting="evaluation.passkey.lengths",
    )
    for length in (*sorted({cell.length for cell in grid.cells}), None):
        cells = [cell for cell in grid.cells if length in (None, cell.length)]
        keys, trials = sum(cell.found for cell in cells), sum(cell.trials for cell in cells)
        low, high = wilson_interval(keys, trials)
        found.scores["passkey" if length is None else f"passkey/{length}"] = {
            "value": keys / trials,
            "low": low,
            "high": high,
            "items": trials,
        }
    found.details["passkey"] = asdict(grid) | {"used_context_tokens": grid.used_context_tokens}
    found.pictures["passkey.png"] = passkey_picture(grid, title=f"{checks.name}: passkeys found")


def evaluation_stage(recipe: Recipe) -> Stage:
    """Return the stage that evaluates the recipe's model, for the plan."""
    stages = recipe.finetune.stages
    model = finetune_stage_name(stages[-1]) if stages else "pretrain"
    return Stage(
        name="evaluate",
        kind="evaluation",
        version=1,
        parents=(model, *(("corpus",) if has_documents(recipe) else ())),
        inputs=evaluate_inputs,
        build=partial(build_evaluation, model=model),
        check=check_evaluation,
    )
