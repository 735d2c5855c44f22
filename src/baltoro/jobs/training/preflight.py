"""What training would fail of, refused before any process group starts.

Three moments: the settings alone, when a stage is planned (:func:`check_settings`); the artifacts and the run
so far, once they exist (:func:`check_run`); and a node of the cluster, where it is not this machine
(:func:`check_node`). Each refusal is one sentence: setting, value, what is allowed, what to do. Rules stand
where what they protect stands; they are only called here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baltoro.checkpoint.head import Head, RunIdentity, read_head
from baltoro.core.artifacts import Artifact
from baltoro.core.errors import ArtifactError, ConfigError, PlatformError
from baltoro.core.storage import Storage, join
from baltoro.data.order import Split, StepOrder
from baltoro.data.shards import ShardFile, TokenDataset
from baltoro.jobs.cluster import given_address
from baltoro.jobs.model import MODEL_FOLDER
from baltoro.jobs.recipe import DataTrainConfig, FinetuneDataConfig, FinetuneStageConfig, Recipe
from baltoro.jobs.stages import Context
from baltoro.jobs.training.failures import ATTEMPT_FOLDER, FAILURES_FOLDER
from baltoro.models.attention import choose_attention
from baltoro.models.load import refuse_long_context, refuse_unknown_targets
from baltoro.models.presets import PRESETS, preset_config
from baltoro.models.rope_scaling import scale_rope
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.models.shifted_sparse_attention import choose_group_len
from baltoro.models.windowed_layers import refuse_windowed_layers
from baltoro.optim.config import refuse_missing_optimizer
from baltoro.optim.schedule import build_schedule
from baltoro.parallel.build import refuse_contradictions, refuse_missing_dtype
from baltoro.parallel.mesh import resolve_degrees
from baltoro.parallel.strategy import Precision
from baltoro.train.config import TrainConfig, total_steps
from baltoro.train.loss import refuse_missing_kernel

_NODE_SECONDS = 300.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Training:
    """A part of a recipe that trains.

    Attributes:
        recipe: the whole.
        config: of this training.
        section: where its settings stand.
        rope_scaling: how the positions of ``model.base`` are stretched in it.
    """

    recipe: Recipe
    config: DataTrainConfig
    section: str
    rope_scaling: RopeScalingConfig | None = None


def pretraining(recipe: Recipe) -> Training:
    """Return the pretraining of a recipe."""
    return Training(recipe, recipe.pretrain, "pretrain", recipe.model.rope_scaling)


def check_model(training: Training, config: Mapping[str, Any]) -> None:
    """Check what the model's configuration tells: positions, layers with a window, targets of an adapter.

    Args:
        training: what is trained.
        config: of the model that it begins with, its positions not stretched yet.

    Raises:
        ConfigError: with the setting, its value, what is allowed and what to do.
    """
    settings, base = training.config, training.recipe.model.base
    sequence_length = settings.data.sequence_length
    with _settings_of(training.section):
        if training.rope_scaling is not None:
            config = _stretched(config, training)
        if settings.shifted_sparse_attention is not None:
            # First: what mends it is more than what packed rows need.
            refuse_windowed_layers(config, context_tokens=sequence_length, base=base)
        refuse_long_context(config, sequence_length, base)
        if isinstance(settings, FinetuneStageConfig) and settings.has_adapter:
            refuse_unknown_targets(config, settings.adapter)


def _stretched(config: Mapping[str, Any], training: Training) -> Mapping[str, Any]:
    """Return a configuration with stretched positions; a refusal names the setting that stretches them."""
    assert training.rope_scaling is not None
    try:
        return scale_rope(config, training.rope_scaling, base=training.recipe.model.base)
    except ConfigError as error:
        if training.rope_scaling is training.recipe.model.rope_scaling:
            raise
        own = getattr(training.config, "rope_scaling", None)
        stage = "an earlier stage's" if own is None else training.section
        raise ConfigError(error.message.replace("model.rope_scaling", f"{stage}.rope_scaling")) from None


def check_settings(training: Training) -> None:
    """Check what the recipe alone tells: batch, layout, positions, and a schedule whose length is given.

    Raises:
        ConfigError: with the setting, its value, what is allowed and what to do.
    """
    config = training.config
    with _settings_of(training.section):
        order = StepOrder(0, config.data.sequence_length, config.global_batch_tokens)
        split_of(training, order)
        _check_layout(training)
        _check_optimizer(training)
        _check_groups(training)
        _check_preset(training)
        given = config.steps or (config.tokens is not None and config.tokens // config.global_batch_tokens)
        if given:
            _check_schedule(config, min(given, config.max_steps or given))


@contextlib.contextmanager
def _settings_of(section: str) -> Iterator[None]:
    """Give a refused setting its whole path; rules below know it by its name within the section."""
    try:
        yield
    except ConfigError as error:
        named = re.match(r"[a-z_]+(?=[.=])", error.message)
        if named is not None and named[0] in (*TrainConfig.model_fields, "adapter", "rope_scaling"):
            raise ConfigError(f"{section}.{error.message}") from error
        if named is not None and named[0] in FinetuneDataConfig.model_fields:
            raise ConfigError(f"{section}.data.{error.message}") from error
        raise


def _check_groups(training: Training) -> None:
    shifted = training.config.shifted_sparse_attention
    if shifted is None or shifted.group_len is None:
        return
    try:
        choose_group_len(training.config.data.sequence_length, group_len=shifted.group_len)
    except ConfigError as error:
        raise ConfigError(f"shifted_sparse_attention.{error.message}") from None


def _check_optimizer(training: Training) -> None:
    config = training.config
    refuse_missing_optimizer(config.optimizer)
    if config.strategy != "deepspeed":
        return
    if config.optimizer.name != "adamw":
        raise ConfigError(
            f"optimizer.name={config.optimizer.name}: strategy=deepspeed keeps moments in "
            "partitions of its own, which only adamw knows; set optimizer.name to adamw, or "
            "strategy to fsdp2 or ddp"
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise PlatformError(
            f"{training.section}.strategy=deepspeed: the package is not installed; install the extra with "
            "`pip install 'baltoro[deepspeed]'`, or set strategy to fsdp2"
        )


def split_of(training: Training, order: StepOrder) -> Split:
    """Return how a step is cut for all of the recipe's workers.

    Raises:
        ConfigError: it cannot be.
    """
    cluster, micro_batch = training.recipe.cluster, training.config.micro_batch
    if cluster.elastic and order.rows_per_step < cluster.workers:
        raise ConfigError(
            f"global_batch_tokens={order.global_batch_tokens} is {order.rows_per_step} rows of "
            f"{order.sequence_length} tokens, fewer than cluster.workers={cluster.workers}: some would have "
            f"nothing to do; lower cluster.workers to at most {order.rows_per_step}, or set "
            f"global_batch_tokens to at least {cluster.workers * order.sequence_length}"
        )
    return order.split(cluster.workers, micro_batch, uneven=cluster.elastic)


def check_run(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    context: Context,
    training: Training,
    parents: Mapping[str, Artifact],
    train_files: Sequence[ShardFile],
    validation_files: Sequence[ShardFile],
    run_uri: str,
    identity: RunIdentity,
) -> StepOrder:
    """Check dataset, tokenizer, model and the run so far; returns the order of the dataset.

    Args:
        context: the recipe and its storage.
        training: what is trained.
        parents: the artifacts that training reads.
        train_files: the dataset's shards.
        validation_files: shards of the validation split.
        run_uri: folder of the run.
        identity: of this recipe's run.

    Raises:
        ConfigError: batch, length, schedule or sequence length do not fit the dataset or the model.
        ArtifactError: another tokenizer made the dataset, or the run was started with another dataset.
    """
    config = training.config
    with _settings_of(training.section):
        rows = sum(file.rows for file in train_files)
        order = StepOrder(rows, config.data.sequence_length, config.global_batch_tokens)
        _check_schedule(config, total_steps(config, order))
    check_dataset(
        train_files,
        validation_files,
        context.storage,
        sequence_length=config.data.sequence_length,
        tokenizer_fingerprint=parents["tokenizer"].manifest.extra.get("tokenizer_fingerprint"),
        section=training.section,
    )
    with _settings_of(training.section):
        _check_positions(context, training, parents.get("model"))
    head = read_head(context.storage, run_uri)
    if head is not None:
        identity.check_continues(head.identity, run_uri)
        _tell_of_open_attempt(context.storage, run_uri, head)
    context.storage.probe(context.recipe.storage.root)
    return order


def _tell_of_open_attempt(storage: Storage, run_uri: str, head: Head) -> None:
    """Warn if the last attempt runs, or may run: two commands of one run only cost each other time."""
    if head.finished is not None or not head.attempts:
        return
    last = head.attempt
    runs = last.runs_here()
    name = ATTEMPT_FOLDER.format(last.number)
    ended = storage.list_folders(join(run_uri, FAILURES_FOLDER)) if runs is None else []
    if runs is False or any(folder == name or folder.startswith(f"{name}-") for folder in ended):
        return
    state = (
        f"is still training here (process {last.process_id})"
        if runs
        else "has left no word of its end: it was killed, or another command still trains it"
    )
    _logger.warning(
        "attempt %d of this run, begun at %s on %s, %s; this command takes the run over, and the other one "
        "stops when it next publishes; what it published stays",
        last.number,
        last.started_at,
        last.host,
        state,
    )


def check_dataset(
    train_files: Sequence[ShardFile],
    validation_files: Sequence[ShardFile],
    storage: Storage,
    *,
    sequence_length: int,
    tokenizer_fingerprint: str | None,
    section: str = "pretrain",
) -> None:
    """Check that shards hold rows of this length, made with this tokenizer.

    Raises:
        ArtifactError: they do not, or there is none.
    """
    for files in (train_files, validation_files):
        if not files and files is validation_files:
            continue
        with TokenDataset.open(files, storage) as dataset:
            if tokenizer_fingerprint is not None and dataset.tokenizer_fingerprint != tokenizer_fingerprint:
                raise ArtifactError(
                    f"{files[0].uri}: was made with the tokenizer {dataset.tokenizer_fingerprint[:12]}, the "
                    f"recipe's is {tokenizer_fingerprint[:12]}: every token would mean something else; pin "
                    "the tokenizer that made it as pins.tokenizer, or build the token dataset again"
                )
            if dataset.sequence_length != sequence_length:
                raise ArtifactError(
                    f"{files[0].uri}: has rows of {dataset.sequence_length} tokens, the recipe says "
                    f"{section}.data.sequence_length={sequence_length}; set it to {dataset.sequence_length}, "
                    "or build the token dataset again"
                )


def check_workers(context: Context, training: Training, run_uri: str) -> None:
    """Check on a node of the cluster what only a node can tell; of a local Ray on CPU this machine can tell.

    Raises:
        BaltoroError: as :func:`check_node` does.
    """
    recipe = context.recipe
    if given_address(recipe) is None and not recipe.cluster.use_gpu:
        return
    import ray

    task = ray.remote(check_node).options(num_cpus=0, num_gpus=int(recipe.cluster.use_gpu), max_retries=1)
    ray.get(
        task.remote(context.storage, run_uri, training.config.precision, recipe.cluster.use_gpu),
        timeout=_NODE_SECONDS,
    )


def check_node(storage: Storage, run_uri: str, precision: Precision, use_gpu: bool) -> None:
    """Check, where a worker will run, that it may write into the run's folder and has the dtype.

    Raises:
        StorageError: storage refuses to be written from there.
        ConfigError: the device lacks the dtype.
    """
    storage.probe(join(run_uri, "probe"))
    if use_gpu:
        import torch

        refuse_missing_dtype(precision, torch.device("cuda", 0))


def _check_layout(training: Training) -> None:
    """Refuse parallel degrees and strategy settings that do not fit each other or the workers."""
    cluster, config = training.recipe.cluster, training.config
    refuse_contradictions(config.strategy, config.parallel, device_type="cuda" if cluster.use_gpu else "cpu")
    if cluster.elastic and (config.parallel.dp_replicate > 1 or config.parallel.dp_shard is not None):
        given = (
            f"dp_replicate={config.parallel.dp_replicate}"
            if config.parallel.dp_replicate > 1
            else f"dp_shard={config.parallel.dp_shard}"
        )
        raise ConfigError(
            f"cluster.min_workers={cluster.min_workers} lets the number of workers change, which "
            f"parallel.{given} would not fit; set dp_replicate to 1 and dp_shard to null, or min_workers to "
            "null"
        )
    if config.strategy == "fsdp2":
        resolve_degrees(config.parallel, cluster.workers)
    if not cluster.use_gpu:
        _check_kernels(config)


def _check_kernels(config: TrainConfig) -> None:
    """Refuse kernels that need a GPU; what a GPU's own capability rules out only a worker can tell."""
    if config.attention in ("auto", "sdpa") and config.loss.implementation != "liger":
        return
    import torch

    device = torch.device("cpu")
    refuse_missing_kernel(config.loss, device)
    if config.attention not in ("auto", "sdpa"):
        choose_attention(config.attention, device=device, precision=config.precision, config={})


def _check_schedule(config: TrainConfig, steps: int) -> None:
    """Refuse a warm-up and decay that do not fit the run."""
    build_schedule(
        config.schedule,
        learning_rate=config.optimizer.learning_rate,
        steps=steps,
        global_batch_tokens=config.global_batch_tokens,
    )


def _check_positions(context: Context, training: Training, model: Artifact | None) -> None:
    """Refuse rows longer than a base model reads; one that was staged just now could not tell earlier."""
    if model is None:
        return
    config = json.loads(context.storage.read_bytes(model.uri_of(f"{MODEL_FOLDER}/config.json")))
    base = context.recipe.model.base
    if training.rope_scaling is not None:
        config = scale_rope(config, training.rope_scaling, base=base)
    refuse_long_context(config, training.config.data.sequence_length, base)


def _check_preset(training: Training) -> None:
    """Refuse rows longer than a preset's learned or stretched positions; rotary ones have no own end."""
    base, scaling = training.recipe.model.base, training.rope_scaling
    preset = PRESETS.get(base)
    if preset is None or (preset.family != "opt" and scaling is None):
        return
    positions: dict[str, Any] = {"max_position_embeddings": preset.context_tokens}
    if scaling is not None:
        config = preset_config(base, vocabulary_size=1, sequence_length=preset.context_tokens).to_dict()
        positions = scale_rope(config, scaling, base=base)
    refuse_long_context(positions, training.config.data.sequence_length, base)
