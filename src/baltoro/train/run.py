"""A whole training run on one rank: claim, load, restore, train, export."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baltoro.checkpoint.checkpointer import Checkpointer, collect_abandoned
from baltoro.checkpoint.head import Claim, Head, RunIdentity, claim_attempt, read_head
from baltoro.checkpoint.ledger import Ledger
from baltoro.checkpoint.state import TrainState, seed_rank
from baltoro.core.errors import ConfigError, TrainingError
from baltoro.core.storage import Storage
from baltoro.data.feed import Feed
from baltoro.data.order import StepOrder
from baltoro.models.attention import Attention, choose_attention
from baltoro.models.flops import peak_flops, training_flops_per_token
from baltoro.models.load import ModelPlan, build_model, decoder_blocks, load_weights
from baltoro.models.shifted_sparse_attention import ShiftedSparseAttention, choose_group_len
from baltoro.models.windowed_layers import refuse_windowed_layers
from baltoro.optim.optimizer import build_optimizer
from baltoro.optim.schedule import build_schedule
from baltoro.parallel.build import build_strategy
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy
from baltoro.parallel.timing import PhaseTimer
from baltoro.train.bad_steps import BadSteps, RollBack
from baltoro.train.config import TrainConfig, total_steps
from baltoro.train.export import published_export, write_export
from baltoro.train.hooks import CheckpointHook, Hook, Report, ReportHook, ValidationHook
from baltoro.train.ledger_hook import LedgerHook
from baltoro.train.loop import train_steps
from baltoro.train.loss import evaluate, make_loss_sum
from baltoro.train.metrics import VALIDATION_LOSS, StepRecord
from baltoro.train.preemption import PreemptionHook, SecondsLeft
from baltoro.train.prometheus import MetricsEndpoint, PrometheusHook
from baltoro.train.throughput import Throughput
from baltoro.train.watchdog import process_group_timeout_seconds

if TYPE_CHECKING:
    import torch

    from baltoro.data.shards import TokenDataset

_logger = logging.getLogger(__name__)

MakeFeed = Callable[..., Any]
"""Makes what is made and used like :class:`~baltoro.data.feed.Feed`."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run did, the same on every rank.

    Attributes:
        steps: steps done over all attempts.
        skipped_steps: of these, steps whose rows were consumed without an update.
        tokens_seen: non-padding tokens consumed over all attempts.
        loss_first: training loss of step 1, nats per token.
        loss_last: training loss of the last step, nats per token.
        validation_before: validation loss before step 1, nats per token; ``None`` without validation rows.
        validation_after: the same after the last step.
        tokens_per_second: non-padding tokens of this attempt's steps over the time of these steps.
        attempt: number of this attempt.
        world_size: ranks that it ended with.
        resumed_from_step: steps that earlier attempts had done.
        export_uri: the exported Hugging Face folder, or that of the adapter.
        export_files: ``{name: (bytes, sha256)}`` of it.
        export_digest: one SHA-256 over these.
    """

    steps: int
    skipped_steps: int
    tokens_seen: int
    loss_first: float | None
    loss_last: float | None
    validation_before: float | None
    validation_after: float | None
    tokens_per_second: float
    attempt: int
    world_size: int
    resumed_from_step: int
    export_uri: str
    export_files: dict[str, tuple[int, str]]
    export_digest: str


class _Totals(Hook):
    """Keeps what the result needs of the steps."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0

    def step_end(self, record: StepRecord) -> None:
        """Add the step."""
        self.tokens += record.tokens
        self.seconds += record.step_seconds


def train_model(
    *,
    config: TrainConfig,
    plan: ModelPlan,
    tokenizer: Any,
    dataset: TokenDataset,
    validation: TokenDataset | None,
    storage: Storage,
    run_uri: str,
    identity: RunIdentity,
    device: torch.device,
    scratch: Path,
    report: Report | None = None,
    hooks: Sequence[Hook] = (),
    elastic: bool = False,
    preempted: SecondsLeft | None = None,
    make_feed: MakeFeed = Feed,
    command_started_at: str | None = None,
    base_name: str = "",
    merged_names: Sequence[str] = (),
    export_files: Mapping[str, bytes] | None = None,
) -> TrainResult:
    """Train a model from its beginning or its last checkpoint to its end, and export it.

    Called by every rank of an initialised default process group whose backend serves ``device`` (``gloo`` for
    CPU, ``nccl`` for CUDA, with ``torch.cuda.set_device`` done); the group stays initialised. A run that is
    complete already is not trained, and exported again only if its export is not whole any more.

    Args:
        config: the run's settings.
        plan: the model, the same on every rank; its weights folder must be readable on every node.
        tokenizer: written beside the exported weights.
        dataset: the training rows, opened on this rank and used by nothing else.
        validation: held-out rows; ``None`` or none at all leaves validation out.
        storage: gives access to ``run_uri``.
        run_uri: folder of the run, the same on every rank and every attempt.
        identity: fingerprints of settings and dataset, which a resumed run must share.
        device: of this rank.
        scratch: a folder on this machine, for the export on its way to storage; ranks may share it.
        report: called on every rank with due metrics (rank 0 usually shows them).
        hooks: further hooks, run before the checkpoint of a step is taken.
        elastic: the number of ranks need not divide the rows of a step.
        preempted: asked after each step whether this machine is about to be taken away.
        make_feed: gives the rows; made and used like :class:`~baltoro.data.feed.Feed`.
        command_started_at: when the command was given that this is part of, ISO 8601; kept in the run's head.
        base_name: what an exported adapter says it was trained on: a path, URI or hub id, or a preset.
        merged_names: where the adapters that are part of the base stand; their folders here if not given.
        export_files: further files of the export, by name.

    Raises:
        ConfigError: batch, length, schedule or parallel degrees do not fit the dataset or the workers.
        ArtifactError: the run folder belongs to other settings or another dataset, or is damaged.
        TrainingError: loss or gradient is not finite, or a newer attempt has claimed the run.
        StorageError: a checkpoint or the export could not be written.
        Preempted: there was notice; the run goes on when it is started again.
    """
    # Not before the watchdog, which can say what a rank waits in.
    timeout_seconds = process_group_timeout_seconds(config.faults.hang_seconds)
    ranks = Ranks(timeout_seconds)
    order = StepOrder(len(dataset), dataset.sequence_length, config.global_batch_tokens)
    steps = total_steps(config, order)
    split = order.split(ranks.world_size, config.micro_batch, uneven=elastic)
    schedule = build_schedule(
        config.schedule,
        learning_rate=config.optimizer.learning_rate,
        steps=steps,
        global_batch_tokens=config.global_batch_tokens,
    )
    _check_vocabulary(plan, tokenizer)
    send = report or _report_nothing
    timer = PhaseTimer(device)
    strategy = set_up_strategy(
        config,
        plan,
        device=device,
        timer=timer,
        rank=ranks.rank,
        sequence_length=dataset.sequence_length,
    )

    # Claimed only now: whatever is wrong with settings or weights has not cost an attempt.
    claim, head = _claim(ranks, storage, run_uri, identity, command_started_at)
    with _ledger(claim, head, ranks) as ledger:
        checkpointer = Checkpointer(
            config.checkpoint, claim=claim, device=device, ledger=ledger, timeout_seconds=timeout_seconds
        )
        state = checkpointer.restore(strategy, head, seed=config.seed) or TrainState()
        resumed_from_step = state.step
        measure = _validation(config, validation, strategy, ranks, device)
        if measure is not None and state.step == 0:
            state = replace(state, initial_validation_loss=measure())
            send(0, {VALIDATION_LOSS: state.initial_validation_loss or 0.0})
        if config.faults.on_bad_step == "roll_back" and not head.checkpoints:
            # Something to go back to, from the first step on.
            checkpointer.save(strategy, state)

        totals = _Totals()
        throughput = _throughput(config, plan, dataset.sequence_length, device)
        around: list[Hook] = [
            totals,
            ReportHook(send, throughput.metrics, every_steps=config.log_every_steps, total_steps=steps),
        ]
        if config.prometheus_port is not None and ranks.rank == 0:
            endpoint = MetricsEndpoint(config.prometheus_port, run=run_uri)
            around.append(PrometheusHook(endpoint, throughput.metrics))
            send = _both(send, endpoint.update)
        validated: ValidationHook | None = None
        if measure is not None and config.evaluation.every_steps is not None:
            validated = ValidationHook(
                measure, send, timer, every_steps=config.evaluation.every_steps, total_steps=steps
            )
            around.append(validated)

        def validation_loss(step: int) -> float | None:
            return validated.loss_at(step) if validated is not None else None

        around += hooks
        recorded = LedgerHook(ledger, claim.attempt) if ledger is not None else None
        if recorded is not None:
            around.append(recorded)
        if preempted is not None:
            around.append(
                PreemptionHook(preempted, checkpointer, strategy, timer, validation_loss=validation_loss)
            )
        around.append(
            CheckpointHook(
                checkpointer,
                strategy,
                timer,
                every_steps=config.checkpoint.every_steps,
                total_steps=steps,
                validation_loss=validation_loss,
            )
        )
        way_back = _WayBack(claim, checkpointer, strategy, ranks, recorded, config.seed)
        bad_steps = BadSteps(config.faults)
        trained = False
        while not trained:
            with make_feed(
                dataset,
                order,
                split,
                rank=ranks.rank,
                start_step=state.step,
                stop_step=steps,
                prefetch_steps=config.feed.prefetch_steps,
            ) as feed:
                try:
                    state = train_steps(
                        strategy,
                        feed,
                        schedule=schedule,
                        state=state,
                        ranks=ranks,
                        device=device,
                        timer=timer,
                        bad_steps=bad_steps,
                        hooks=around,
                    )
                    trained = True
                except RollBack as left:
                    state = way_back.take(left)
        validation_after = measure() if measure is not None else None
        if validation_after is not None:
            send(state.step, {VALIDATION_LOSS: validation_after})
        # Another command may have come to the end just before: what it published stays what it is.
        published = ranks.first(lambda: published_export(claim, head, state))
        export_uri, files, digest = published or write_export(
            strategy=strategy,
            plan=plan,
            tokenizer=tokenizer,
            config=config,
            claim=claim,
            state=state,
            ranks=ranks,
            scratch=scratch,
            base_name=base_name,
            merged_names=merged_names,
            export_files=export_files or {},
        )
    return TrainResult(
        steps=state.step,
        skipped_steps=state.skipped_steps,
        tokens_seen=state.tokens_seen,
        loss_first=state.first_loss,
        loss_last=state.last_loss,
        validation_before=state.initial_validation_loss,
        validation_after=validation_after,
        tokens_per_second=totals.tokens / totals.seconds if totals.seconds else 0.0,
        attempt=claim.attempt,
        world_size=ranks.world_size,
        resumed_from_step=resumed_from_step,
        export_uri=export_uri,
        export_files=files,
        export_digest=digest,
    )


def set_up_strategy(
    config: TrainConfig,
    plan: ModelPlan,
    *,
    device: torch.device,
    timer: PhaseTimer,
    rank: int,
    sequence_length: int,
) -> Strategy:
    """Return the strategy of a run with its model in it, weights loaded; collective.

    Args:
        config: the run's settings.
        plan: the model.
        device: of this rank.
        timer: counts the phases of a step.
        rank: of this process, whose generators are seeded by it.
        sequence_length: tokens of a row.

    Raises:
        ConfigError: strategy, precision, attention or loss are not what the device or the model can do.
    """
    seed_rank(config.seed, step=0, rank=rank)
    strategy = build_strategy(
        config.strategy,
        config.parallel,
        device=device,
        precision=config.precision,
        max_gradient_norm=config.optimizer.max_gradient_norm,
        timer=timer,
    )
    attention = training_attention(config, plan, device, sequence_length)
    model = build_model(plan, attention)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda sharded, assign: load_weights(sharded, plan, assign),
        build_optimizer=lambda sharded: build_optimizer(sharded, config.optimizer),
        loss_sum=make_loss_sum(config.loss, attention, device),
    )
    return strategy


def training_attention(
    config: TrainConfig, plan: ModelPlan, device: torch.device, sequence_length: int
) -> Attention:
    """Return the attention that a model is trained with.

    Args:
        config: the run's settings.
        plan: the model.
        device: where it computes.
        sequence_length: tokens of a row.

    Raises:
        ConfigError: the kernel cannot run there, or the model has layers that groups cannot stand for.
    """
    attention = choose_attention(
        config.attention, device=device, precision=config.precision, config=plan.config
    )
    shifted = config.shifted_sparse_attention
    if shifted is None:
        return attention
    refuse_windowed_layers(plan.config, context_tokens=sequence_length, base=str(plan.weights or "the model"))
    group_len = choose_group_len(sequence_length, ratio=shifted.group_fraction, group_len=shifted.group_len)
    _logger.info("shifted sparse attention in groups of %d tokens", group_len)
    return ShiftedSparseAttention(attention.kernel, group_len=group_len)


def _validation(
    config: TrainConfig,
    validation: TokenDataset | None,
    strategy: Strategy,
    ranks: Ranks,
    device: torch.device,
) -> Callable[[], float] | None:
    """Return what measures the validation loss over all ranks; ``None`` without validation rows."""
    if validation is None or len(validation) == 0:
        return None

    def measure() -> float:
        return evaluate(
            strategy,
            validation,
            ranks=ranks,
            device=device,
            micro_batch=config.micro_batch,
            max_rows=config.evaluation.max_rows,
        )

    return measure


@dataclass(frozen=True, slots=True)
class _WayBack:
    """Takes the last checkpoint's weights back after a bad step, and keeps the position."""

    claim: Claim
    checkpointer: Checkpointer
    strategy: Strategy
    ranks: Ranks
    recorded: LedgerHook | None
    seed: int

    def take(self, left: RollBack) -> TrainState:
        """Return the position to go on from, with the weights of the last checkpoint; collective.

        Raises:
            TrainingError: there is no checkpoint.
        """
        self.checkpointer.wait()
        run_uri = self.claim.run_uri
        newest = self.ranks.first(lambda: read_head(self.claim.storage, run_uri))
        restored = self.checkpointer.restore(self.strategy, newest, seed=self.seed) if newest else None
        if restored is None:
            raise TrainingError(
                f"{left}: there is no checkpoint to go back to in {run_uri}; run the command again"
            )
        self.ranks.first(lambda: self.recorded.rolled_back(restored.step) if self.recorded else None)
        _logger.warning(
            "%s: weights of step %d are taken back; steps %d to %d count as seen and are left out",
            left,
            restored.step,
            restored.step + 1,
            left.state.step,
        )
        position = replace(
            restored,
            step=left.state.step,
            tokens_seen=left.state.tokens_seen,
            skipped_steps=restored.skipped_steps + left.state.step - restored.step,
        )
        # Whoever resumes must not meet the bad step again.
        self.checkpointer.save(self.strategy, position)
        return position


@contextlib.contextmanager
def _ledger(claim: Claim, head: Head, ranks: Ranks) -> Iterator[Ledger | None]:
    """Give rank 0 the ledger of this attempt, the others nothing."""
    opened: list[Ledger] = []

    def open_on_first() -> None:
        opened.append(Ledger(claim, head))

    ranks.first(open_on_first)
    try:
        yield opened[0] if opened else None
    finally:
        for ledger in opened:
            ledger.close()


def _throughput(
    config: TrainConfig, plan: ModelPlan, sequence_length: int, device: torch.device
) -> Throughput:
    peak = config.device_peak_flops
    if peak is None and device.type == "cuda":
        import torch

        peak = peak_flops(torch.cuda.get_device_name(device), config.precision)
    flops = training_flops_per_token(plan.config, sequence_length)
    if plan.tuning is not None:
        # A frozen weight has no gradient of its own: two of the three products of each are left.
        flops *= 2 / 3
    return Throughput(device, flops, peak)


def _both(first: Report, second: Report) -> Report:
    def report(step: int, metrics: Mapping[str, float]) -> None:
        first(step, metrics)
        second(step, metrics)

    return report


def _report_nothing(step: int, metrics: Mapping[str, float]) -> None:
    pass


def _check_vocabulary(plan: ModelPlan, tokenizer: Any) -> None:
    if len(tokenizer) > plan.vocabulary_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {plan.vocabulary_size} rows; "
            "plan the model with this tokenizer"
        )


def _claim(
    ranks: Ranks, storage: Storage, run_uri: str, identity: RunIdentity, command_started_at: str | None
) -> tuple[Claim, Head]:
    """Claim the next attempt on rank 0 and clear away what abandoned ones left; every rank learns of it."""

    def claim_on_first() -> tuple[Claim, Head]:
        claim, head = claim_attempt(
            storage,
            run_uri,
            identity,
            world_size=ranks.world_size,
            command_started_at=command_started_at,
        )
        removed = collect_abandoned(claim, head)
        _logger.info(
            "%s: attempt %d on %d ranks, %s%s",
            run_uri,
            claim.attempt,
            ranks.world_size,
            f"resuming after step {head.checkpoints[-1].step}" if head.checkpoints else "from the beginning",
            f"; removed unpublished {', '.join(removed)}" if removed else "",
        )
        return claim, head

    return ranks.first(claim_on_first)
