"""DeepSpeed ZeRO 1, 2 and 3: moments, gradients and weights sharded over all ranks, host memory if wanted.

DeepSpeed does the passes, the reduction and the update (Rajbhandari et al. 2020, arXiv:1910.02054); what goes
in and comes out is what every strategy has: gradients are summed, not averaged, the learning rate is given
per step, master weights and moments are float32, and a checkpoint holds N-dimensional tensors by parameter
name. DeepSpeed's own checkpoints are not used: they fit one stage and one number of ranks.

The model is loaded once the engine stands, straight into this rank's share of the master weights, so that no
master is ever rounded to the dtype of the passes; with ZeRO-3 no rank holds the whole model at any time.

Frozen weights (``requires_grad=False``) have no masters; they are loaded in the dtype of the passes, with
ZeRO-3 a share per rank.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError, PlatformError
from baltoro.parallel.activation_checkpoint import checkpoint_blocks
from baltoro.parallel.compile import compile_blocks
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.data_parallel import compute_dtype
from baltoro.parallel.loss_scale import DynamicLossScale, settle
from baltoro.parallel.strategy import Assign, LossSum, Precision, Update
from baltoro.parallel.timing import PhaseTimer

if TYPE_CHECKING:
    import torch
    from torch import nn

PERSISTENT_ELEMENTS = 100_000
"""ZeRO-3: parameters up to this size stay whole on every rank; gathering them costs more than it saves."""

_LARGEST_BUCKET_ELEMENTS = 500_000_000
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class _Share:
    """What this rank holds of one parameter: a range of its row-major order.

    Attributes:
        shape: of the whole parameter.
        start: position of the range's first element.
        length: elements in the range; may be 0.
        flat: float32; the partition that the optimizer updates, with ranges of many parameters.
        offset: where in ``flat`` the range begins.
    """

    shape: tuple[int, ...]
    start: int
    length: int
    flat: torch.Tensor
    offset: int

    def within(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the range of a tensor that is laid out like :attr:`flat`, as a view."""
        return flat.detach().narrow(0, self.offset, self.length)


class DeepSpeedZero:
    """The DeepSpeed strategy; see :class:`~baltoro.parallel.strategy.Strategy` for the contract.

    Args:
        config: stage and offloading; all ranks form one group.
        device: where this rank computes; the process group must serve it.
        precision: dtype of forward and backward pass.
        max_gradient_norm: global norm that gradients are clipped to; ``None`` leaves them.
        timer: counts the phases of a step.

    Raises:
        PlatformError: DeepSpeed is not installed.
        ConfigError: the device lacks float16.
    """

    def __init__(
        self,
        config: ParallelConfig,
        *,
        device: torch.device,
        precision: Precision,
        max_gradient_norm: float | None,
        timer: PhaseTimer,
    ) -> None:
        self.device = device
        self._config = config
        self._precision = precision
        self._max_gradient_norm = max_gradient_norm
        self._timer = timer
        self._deepspeed = _import_deepspeed(device)
        if precision == "float16" and not self._deepspeed.accelerator.get_accelerator().is_fp16_supported():
            raise ConfigError(
                f"precision=float16: DeepSpeed does not train in float16 on this {device.type}; set it to "
                "bfloat16 or float32"
            )
        self._loss_scale = DynamicLossScale() if precision == "float16" else None
        self._engine: Any = None
        self._optimizer: torch.optim.Optimizer
        self._loss_sum: LossSum

    def setup(
        self,
        model: nn.Module,
        *,
        blocks: Sequence[nn.Module],
        load: Callable[[nn.Module, Assign], None],
        build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        loss_sum: LossSum,
    ) -> None:
        """Checkpoint activations, compile, make the optimizer, partition, load; in this order.

        Args:
            model: on the meta device; trained parameters in float32, those without ``requires_grad`` in any
                float dtype.
            blocks: the decoder blocks; ZeRO-3 partitions one at a time.
            load: fills every parameter of the model through the given :data:`Assign`.
            build_optimizer: called with a model whose parameters have shapes but no values.
            loss_sum: the loss of one micro-batch.

        Raises:
            ConfigError: the optimizer is not one whose state DeepSpeed's partitions can hold.
        """
        import torch
        import torch.distributed as dist

        # Partitioned parameters have no shape that the loader could go by, so it is shown this one.
        template = copy.deepcopy(model)
        checkpoint_blocks(blocks, self._config.activation_checkpointing)
        if self._config.compile:
            compile_blocks(blocks)
        real = _give_places(model, template, self.device, compute_dtype(self._precision))
        optimizer = build_optimizer(model)
        _refuse_foreign_optimizer(optimizer)
        group_of = {
            id(parameter): index
            for index, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
        }
        self._names = {name: real[id(shape)] for name, shape in template.named_parameters()}
        names = {id(shape): name for name, shape in template.named_parameters()}
        self._aliases = {
            alias: names[id(shape)] for alias, shape in template.named_parameters(remove_duplicate=False)
        }
        self._groups = [
            [name for name, parameter in self._names.items() if group_of.get(id(parameter)) == index]
            for index in range(len(optimizer.param_groups))
        ]
        settings = _engine_settings(
            self._config,
            precision=self._precision,
            max_gradient_norm=self._max_gradient_norm,
            elements=sum(shape.numel() for shape in template.parameters()),
            on_gpu=self.device.type == "cuda",
        )
        stage = self._config.deepspeed.zero_stage
        _set_local_rank(self.device)
        for unit in (*blocks, model):
            for parameter in unit.parameters():
                if not hasattr(parameter, "ds_id"):
                    parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype, device=self.device)
            if stage == 3:
                self._deepspeed.zero.Init(module=unit, config_dict_or_path=settings)
        with contextlib.redirect_stdout(io.StringIO()):
            # It shows memory there, which belongs to the command's own output.
            self._engine = self._deepspeed.initialize(model=model, optimizer=optimizer, config=settings)[0]
        self._optimizer, self._loss_sum = optimizer, loss_sum
        # ZeRO-3 divides by the number of ranks and cannot be told not to: the loss makes up for it.
        self._loss_factor = float(dist.get_world_size()) if stage == 3 else 1.0
        self._shares = self._shares_of_3() if stage == 3 else self._shares_of_1_and_2(group_of)
        self._make_moments()

        def assign(parameter: nn.Parameter, full: torch.Tensor) -> None:
            name = names[id(parameter)]
            share = self._shares.get(name)
            if share is None:
                self._load_frozen(name, full)
                return
            values = full.flatten()[share.start : share.start + share.length]
            share.within(share.flat).copy_(values)

        load(template, assign)
        _share_buffers(model, template)
        self._engine.train()
        self._weights_changed()

    def forward_backward(self, inputs: Any, *, denominator: int, last: bool) -> torch.Tensor:
        """Add one micro-batch's gradient of ``loss_sum / denominator``; return the summed loss (detached).

        ZeRO 2 and 3 reduce the gradient after every micro-batch, so memory stays that of a shard; ZeRO-1 with
        the last one.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        if self._loss_scale is not None:
            self._engine.optimizer.override_loss_scale(self._loss_scale.scale)
        with self._timer.device("forward"):
            loss = self._loss_sum(self._engine, inputs)
        with self._timer.device("backward"):
            self._engine.backward(loss / (denominator / self._loss_factor), scale_wrt_gas=False)
        return loss.detach()

    def clip_and_step(self, learning_rate: float) -> Update:
        """Clip to the global norm and update; a gradient that is not finite is dropped, weights untouched.

        In float16 such a gradient counts as an overflow: the loss scale is halved.
        """
        with self._timer.device("optimizer"):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._engine.step()
            stepped = bool(self._engine.was_step_applied())
            gradient_norm = float(self._engine.get_global_grad_norm())
        return settle(self._loss_scale, gradient_norm, stepped=stepped)

    def leave_out(self) -> Update:
        """Clear the gradients without an update; the norm of the answer is not a number."""
        zero = self._engine.optimizer
        zero.zero_grad(set_to_none=True)
        if self._config.deepspeed.offload_optimizer:
            zero.reset_cpu_buffers()
        if hasattr(zero, "all_grad_tensors"):
            zero._release_preflattened_grad_buffers()
            for held in (zero.averaged_gradients, zero.all_grad_tensors):
                held.update(dict.fromkeys(held))
        if hasattr(zero, "micro_step_id"):
            # The next micro-batch replaces what the partitions' buffers hold; it does not add to it.
            zero.micro_step_id = 0 if self._config.deepspeed.zero_stage == 3 else -1
        return Update(math.nan, stepped=False)

    def evaluate(self, inputs: Any) -> torch.Tensor:
        """Return the summed loss of one micro-batch without gradient."""
        import torch

        self._engine.eval()
        try:
            with torch.no_grad():
                return self._loss_sum(self._engine, inputs)
        finally:
            self._engine.train()

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"model": …, "optimizer": …}`` of what is trained by name, loadable on any layout.

        Weights and moments are :class:`~baltoro.parallel.boxes.Boxes` over the partitions themselves: a
        checkpoint that fills them changes this rank's master weights and moments at once. With float16,
        ``"loss_scale"`` stands beside them.
        """
        model = self._engine.module
        persistent = set(model.state_dict())
        state: dict[str, Any] = {
            "model": {
                # A tied weight is stored under each of its names.
                **{
                    alias: _boxes(self._shares[name], self._shares[name].flat)
                    for alias, name in self._aliases.items()
                    if name in self._shares
                },
                **{name: buffer for name, buffer in model.named_buffers() if name in persistent},
            },
            "optimizer": {
                "state": {
                    name: {
                        # Every rank has it, and a checkpoint stores it once.
                        "step": self._optimizer.state[share.flat]["step"].detach().clone().cpu(),
                        **{key: _boxes(share, self._optimizer.state[share.flat][key]) for key in _MOMENTS},
                    }
                    for name, share in self._shares.items()
                },
                "param_groups": [
                    {
                        **{key: value for key, value in group.items() if key != "params"},
                        "params": names,
                    }
                    for group, names in zip(self._optimizer.param_groups, self._groups, strict=True)
                ],
            },
        }
        if self._loss_scale is not None:
            state["loss_scale"] = self._loss_scale.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that a checkpoint filled in place, or a copy of one.

        Settings of the optimizer stay those of the recipe.
        """
        for name, share in self._shares.items():
            stored = state["optimizer"]["state"][name]
            moments = self._optimizer.state[share.flat]
            share.within(share.flat).copy_(state["model"][name].flat)
            for key in _MOMENTS:
                share.within(moments[key]).copy_(stored[key].flat)
            moments["step"].copy_(stored["step"])
        if self._loss_scale is not None:
            self._loss_scale.load_state_dict(state["loss_scale"])
        self._weights_changed()

    def full_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every trained parameter whole, in the model's order, one at a time; tied ones come once."""
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self._names.items():
            if name in self._shares:
                yield name, safe_get_full_fp32_param(parameter).detach().cpu()

    def _shares_of_1_and_2(self, group_of: dict[int, int]) -> dict[str, _Share]:
        shares = {}
        for name, parameter in self._names.items():
            if id(parameter) not in group_of:
                continue
            flat = self._optimizer.param_groups[group_of[id(parameter)]]["params"][0]
            mapping: Any = parameter._hp_mapping  # type: ignore[attr-defined]
            start, offset, length = (
                (0, 0, 0)
                if mapping is None
                else (
                    mapping.lp_fragment_address.start,
                    mapping.hp_fragment_address.start,
                    mapping.hp_fragment_address.numel,
                )
            )
            shares[name] = _Share(tuple(parameter.shape), start, length, flat, offset)
        return shares

    def _shares_of_3(self) -> dict[str, _Share]:
        zero = self._engine.optimizer
        found: dict[int, _Share] = {}
        for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
            offset = 0
            for parameter in group:
                part = parameter.partition_numel()
                start = min(part * parameter.ds_zero_partition_rank, parameter.ds_numel)
                length = min(part, parameter.ds_numel - start)
                found[id(parameter)] = _Share(tuple(parameter.ds_shape), start, length, flat, offset)
                offset += part
        return {
            name: found[id(parameter)] for name, parameter in self._names.items() if id(parameter) in found
        }

    def _load_frozen(self, name: str, full: torch.Tensor) -> None:
        """Copy a frozen weight, or this rank's part of it, to where the passes take it from."""
        parameter: Any = self._names[name]
        if self._config.deepspeed.zero_stage != 3:
            parameter.detach().copy_(full)
            return
        # Equal parts in row-major order, the last of them padded.
        part = parameter.partition_numel()
        values = full.flatten()[part * parameter.ds_zero_partition_rank :][:part]
        partition = parameter.ds_tensor.detach().flatten()
        partition[: values.numel()].copy_(values)
        partition[values.numel() :].zero_()

    def _make_moments(self) -> None:
        """Give the optimizer the state that its first step would make, so that a checkpoint can fill it."""
        import torch

        fused = any(group.get("fused") for group in self._optimizer.param_groups)
        for flat in {id(share.flat): share.flat for share in self._shares.values()}.values():
            # Between the parameters there is padding, which is updated like everything else.
            flat.detach().zero_()
            self._optimizer.state[flat] = {
                "step": torch.zeros((), dtype=torch.float32, device=flat.device if fused else "cpu"),
                **{key: torch.zeros_like(flat, requires_grad=False) for key in _MOMENTS},
            }

    def _weights_changed(self) -> None:
        """Bring new master weights to the copies that the passes compute with; collective."""
        zero = self._engine.optimizer
        if self._config.deepspeed.zero_stage != 3:
            zero.update_lp_params()
            return
        zero._partition_all_parameters()
        for index in range(len(zero.fp16_groups)):
            zero._reassign_or_swap_out_partitioned_parameters(index)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)


def _boxes(share: _Share, flat: torch.Tensor) -> Any:
    """Return a share of a tensor that is laid out like the masters."""
    from baltoro.parallel.boxes import Boxes

    return Boxes(share.within(flat), share.shape, share.start)


def _import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed for a device, without its chatter and without compiling anything."""
    if importlib.util.find_spec("deepspeed") is None:
        raise PlatformError(
            "strategy=deepspeed: package deepspeed is not installed; run `pip install 'baltoro[deepspeed]'` "
            "on every node, or set strategy=fsdp2"
        )
    if device.type == "cpu":
        # Otherwise it takes a GPU that this machine may have.
        os.environ["DS_ACCELERATOR"] = "cpu"
    # It speaks on standard output, which belongs to commands, and of steps left out the loop speaks.
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.ERROR)
    with _without_module("mlflow"):
        import deepspeed
    logger.setLevel(logging.ERROR)
    from deepspeed.runtime import compiler

    # An optimizer that is not used here asks for torch's compiler when it is imported: ten seconds.
    compile_function, compiler.compile = compiler.compile, lambda **_: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon
    finally:
        compiler.compile = compile_function
    # It calls collectives by names that torch is about to change, at every step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # A shared-memory reduction for inference, which would be built with a C++ compiler at first use.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextlib.contextmanager
def _without_module(name: str) -> Iterator[None]:
    """Let imports of a module fail that is not imported yet.

    DeepSpeed's tuner imports MLflow where there is one, which takes most of the time of importing DeepSpeed.
    """
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]


def _engine_settings(
    config: ParallelConfig,
    *,
    precision: Precision,
    max_gradient_norm: float | None,
    elements: int,
    on_gpu: bool,
) -> dict[str, Any]:
    """Return DeepSpeed's configuration.

    Args:
        config: stage and offloading.
        precision: dtype of the passes.
        max_gradient_norm: ``None`` for no clipping.
        elements: of the whole model.
        on_gpu: host memory is pinned for transfers.
    """
    own = config.deepspeed
    bucket = min(_LARGEST_BUCKET_ELEMENTS, elements)
    zero: dict[str, Any] = {"stage": own.zero_stage, "reduce_bucket_size": bucket}
    if own.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = PERSISTENT_ELEMENTS
    host = {"device": "cpu", "pin_memory": on_gpu}
    if own.offload_optimizer:
        zero["offload_optimizer"] = host
    if own.offload_parameters:
        zero["offload_param"] = host
    settings: dict[str, Any] = {
        # Batches are the loop's business; DeepSpeed wants numbers that agree with each other.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_gradient_norm or 0.0,
        "communication_data_type": "fp32",
        # ZeRO-1 holds whole gradients in it, and that is what stage 1 means: a rank's sum over its
        # micro-batches is of the whole model until the last of them is reduced; stage 2 reduces each. A sum
        # in low precision would take half the memory, lose what a small micro-batch adds, and part from the
        # curve of every other strategy.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        # Offloaded partitions are updated by torch's AdamW as well.
        "zero_force_ds_cpu_optimizer": False,
        "timers": {"throughput": {"enabled": False, "synchronized": False}},
    }
    if own.zero_stage != 3:
        settings["gradient_allreduce_op"] = "sum"
    if precision == "bfloat16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
    elif precision == "float16":
        # A static scale, which each step overrides.
        settings["fp16"] = {"enabled": True, "loss_scale": 1.0}
    return settings


def _refuse_foreign_optimizer(optimizer: torch.optim.Optimizer) -> None:
    import torch

    if not isinstance(optimizer, torch.optim.AdamW):
        raise ConfigError(
            f"optimizer.name: strategy=deepspeed partitions the float32 moments of adamw, not the state of "
            f"{type(optimizer).__name__}; set optimizer.name=adamw, or strategy=fsdp2"
        )


def _give_places(
    model: nn.Module, template: nn.Module, device: torch.device, dtype: torch.dtype
) -> dict[int, nn.Parameter]:
    """Give a model on the meta device parameters with a device and a dtype, but no memory, and buffers.

    Args:
        model: gets the parameters; tied ones stay one.
        template: its copy; gets the same buffers and keeps its parameters on the meta device.
        device: for both.
        dtype: of the parameters; buffers keep theirs.

    Returns:
        The model's new parameter by the ``id`` of the template's.
    """
    import torch
    from torch import nn

    made: dict[int, nn.Parameter] = {}
    for module, shape in zip(model.modules(), template.modules(), strict=True):
        for name, parameter in shape._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                # One element seen everywhere: what the optimizer looks at is shape, dtype and device.
                empty = torch.empty((), dtype=dtype, device=device).expand(parameter.shape)
                made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in shape._buffers.items():
            if buffer is not None:
                shape._buffers[name] = torch.empty_like(buffer, device=device)
    _share_buffers(model, template)
    return made


def _share_buffers(model: nn.Module, template: nn.Module) -> None:
    for module, shape in zip(model.modules(), template.modules(), strict=True):
        module._buffers.update(shape._buffers)


def _set_local_rank(device: torch.device) -> None:
    """Let DeepSpeed, which takes its device from an environment variable, take the one that is meant."""
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            index = torch.cuda.current_device()
    else:
        index = 0
    # It is read again during training, so it stays.
    os.environ["LOCAL_RANK"] = str(index)
