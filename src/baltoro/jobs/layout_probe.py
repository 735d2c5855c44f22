"""The dry run's own process: a model on the meta device, sharded as a rank of a group that is not there.

``torch.testing._internal.distributed.fake_pg`` gives a process group of any size in which collectives do
nothing. The real strategy sets the real model up in it, on the mesh of the real world size, and what a rank
would hold is read from the DTensors that come out. Nothing has storage: 120 B parameters take no more memory
than their names.

Run as a module: a request as JSON on standard input, the answer as JSON on standard output. It is a process
of its own because a process group belongs to a whole process, and so that its memory can be measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baltoro.core.memory import peak_resident_bytes
from baltoro.models.load import ModelPlan, build_model, decoder_blocks
from baltoro.optim.config import OptimizerConfig
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.mesh import resolve_degrees

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_ATTENTION = "baltoro_layout"
_MATRIX_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"})


def probe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a layout is made of.

    Args:
        request: ``config`` (the model's, as plain values), ``world_size``, ``ranks`` (whose shares are read
            from a set-up of their own), ``strategy``, ``parallel``, ``optimizer`` (as plain values),
            ``precision``, ``sequence_length``.

    Returns:
        ``parameters``, ``blocks``; ``shards``: see :func:`shard_shares`, only for fsdp2; ``units``:
        parameters of the largest block, of the root unit and of the embedding; ``activations``: see
        :func:`count_activations`; ``seconds`` that this took; ``cpu_seconds`` and
        ``peak_memory_bytes`` of the whole process.
    """
    began = time.perf_counter()
    plan = ModelPlan(request["config"])
    model = build_model(plan)
    blocks = decoder_blocks(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    block_parameters = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    answer: dict[str, Any] = {
        "parameters": parameters,
        "blocks": len(blocks),
        "units": {
            "largest_block": max(block_parameters),
            "root": parameters - sum(block_parameters),
            "embedding": model.get_input_embeddings().weight.numel(),
        },
        "activations": count_activations(
            model, sequence_length=request["sequence_length"], precision=request["precision"]
        ),
    }
    if request["strategy"] == "fsdp2":
        answer["shards"] = shard_shares(plan, request)
    answer["seconds"] = time.perf_counter() - began
    answer["cpu_seconds"] = time.process_time()
    answer["peak_memory_bytes"] = peak_resident_bytes()
    return answer


# --------------------------------------------------------------------------------------------------
# Shards


def shard_shares(plan: ModelPlan, request: Mapping[str, Any]) -> dict[str, Any]:
    """Set the strategy up as each of the ranks asked for, and return the parameters that they hold.

    Returns:
        ``by_rank``: elements of each rank asked for; ``largest``, ``smallest``: over all ranks;
        ``padded``: elements that every rank stores, since FSDP2 pads shares to one size; ``empty_tensors``:
        parameters of which some rank holds nothing.

    Raises:
        RuntimeError: the shares are not those of an even split, or do not sum up to the whole.
    """
    parallel = ParallelConfig.model_validate(request["parallel"])
    world_size = request["world_size"]
    replicas, ways = resolve_degrees(parallel, world_size)
    by_rank: dict[int, int] = {}
    shapes: list[tuple[int, ...]] = []
    for rank in request["ranks"]:
        local, shapes = _shares_of_rank(plan, request, parallel, rank)
        expected = [_rows_of(shape[0], ways, rank % ways) * _row_elements(shape) for shape in shapes]
        if local != expected:
            raise RuntimeError(f"rank {rank} of {world_size}: fully_shard cut its shares in another way")
        by_rank[rank] = sum(local)
    totals = [
        sum(_rows_of(shape[0], ways, place) * _row_elements(shape) for shape in shapes)
        for place in range(ways)
    ]
    whole = sum(_row_elements(shape) * shape[0] for shape in shapes)
    if sum(totals) != whole:
        raise RuntimeError(f"the shares of {ways} ranks make {sum(totals)} elements, the model has {whole}")
    return {
        "by_rank": {str(rank): elements for rank, elements in by_rank.items()},
        "largest": max(totals),
        "smallest": min(totals),
        "padded": sum(_rows_of(shape[0], ways, 0) * _row_elements(shape) for shape in shapes),
        "empty_tensors": sum(_rows_of(shape[0], ways, ways - 1) == 0 for shape in shapes),
        "tensors": len(shapes),
        "replicas": replicas,
        "ways": ways,
    }


def _shares_of_rank(
    plan: ModelPlan, request: Mapping[str, Any], parallel: ParallelConfig, rank: int
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return the elements of each parameter that a rank holds, and the parameters' whole shapes."""
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from baltoro.optim.optimizer import build_optimizer
    from baltoro.parallel.fsdp2 import Fsdp2
    from baltoro.parallel.timing import PhaseTimer

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=request["world_size"])
    try:
        model = build_model(plan)
        # What is traded for time or kept in host memory changes no share.
        plain = parallel.model_copy(
            update={
                "compile": False,
                "activation_checkpointing": "none",
                "fsdp2": parallel.fsdp2.model_copy(update={"cpu_offload": False}),
            }
        )
        strategy = Fsdp2(
            plain,
            device=torch.device("cpu"),
            precision=request["precision"],
            max_gradient_norm=None,
            timer=PhaseTimer(torch.device("cpu")),
        )
        # The mesh is one of CPUs; storage is never given.
        strategy.device = torch.device("meta")
        # Its 8-bit forms want a GPU, and group the same parameters.
        settings = OptimizerConfig.model_validate({**request["optimizer"], "name": "adamw"})
        strategy.setup(
            model,
            blocks=decoder_blocks(model),
            load=_leave_empty,
            build_optimizer=lambda sharded: build_optimizer(sharded, settings),
            loss_sum=_no_loss,
        )
        sharded: list[Any] = list(model.parameters())
        return (
            [parameter.to_local().numel() for parameter in sharded],
            [tuple(parameter.shape) for parameter in sharded],
        )
    finally:
        dist.destroy_process_group()


def _leave_empty(model: nn.Module, assign: Any) -> None:
    del model, assign


def _no_loss(module: nn.Module, inputs: Any) -> torch.Tensor:
    del module, inputs
    raise RuntimeError("a dry run computes no loss")


def _rows_of(rows: int, ways: int, place: int) -> int:
    """Return the rows of the first dimension that the shard at ``place`` holds: equal chunks, then less."""
    chunk = -(-rows // ways)
    return max(0, min(chunk, rows - place * chunk))


def _row_elements(shape: Sequence[int]) -> int:
    elements = 1
    for size in shape[1:]:
        elements *= size
    return elements


# --------------------------------------------------------------------------------------------------
# Activations


def count_activations(model: PreTrainedModel, *, sequence_length: int, precision: str) -> dict[str, int]:
    """Return the bytes that autograd keeps of one row, counted in a forward pass without values.

    The real modelling code runs on the meta device; attention is counted as a fused kernel does it (queries,
    keys, values, output and the log-sum-exp of each query are kept, no scores). Tensors are counted once per
    storage, weights not at all.

    Args:
        model: on the meta device; is changed.
        sequence_length: tokens of the row.
        precision: dtype of the forward pass.

    Returns:
        ``block``: of one decoder block that keeps everything; ``block_selective``: of one that keeps its
        input and the outputs of matrix products and attention; ``block_input``: of one that keeps its input
        alone; ``outside``: before and after the blocks, without logits.
    """
    import torch

    _register_attention()
    model = model.to(getattr(torch, precision)).train()
    model.set_attn_implementation(_ATTENTION)
    blocks = decoder_blocks(model)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == len(blocks) and module[0] is blocks[0]:
            del module[1:]
    block = blocks[0]
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[str, dict[int, Any]] = {"inside": {}, "outside": {}}
    place = "outside"
    outputs = _OutputBytes()
    input_bytes = 0

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal place, input_bytes
        del module
        hidden = args[0] if args else kwargs["hidden_states"]
        input_bytes = hidden.nbytes
        place = "inside"
        outputs.__enter__()

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal place
        del module, args, output
        outputs.__exit__(None, None, None)
        place = "outside"

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            # Held, so that its address is not given to another one.
            kept[place].setdefault(storage._cdata, storage)
        return tensor

    block.register_forward_pre_hook(enter, with_kwargs=True)
    block.register_forward_hook(leave)
    with torch.device("meta"):
        ids = torch.zeros(1, sequence_length, dtype=torch.long)
        positions = torch.arange(sequence_length)[None]
        mask = torch.ones(1, 1, sequence_length, sequence_length, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    shared = {mask.untyped_storage()._cdata, positions.untyped_storage()._cdata, ids.untyped_storage()._cdata}
    sizes = {
        name: {address: storage.nbytes() for address, storage in found.items() if address not in shared}
        for name, found in kept.items()
    }
    return {
        "block": sum(sizes["inside"].values()),
        "block_selective": input_bytes + outputs.bytes + _attention_bytes(model, sequence_length),
        "block_input": input_bytes,
        "outside": sum(size for address, size in sizes["outside"].items() if address not in sizes["inside"]),
    }


def _attention_bytes(model: PreTrainedModel, sequence_length: int) -> int:
    """Return the bytes of the output and log-sum-exp of one block's attention on one row."""
    config = model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(sequence_length * heads * (width * model.dtype.itemsize + 4))


class _OutputBytes:
    """Adds up the bytes of what matrix products give, while it is entered."""

    def __init__(self) -> None:
        from torch.utils._python_dispatch import TorchDispatchMode

        owner = self
        self.bytes = 0

        class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no annotations
            def __torch_dispatch__(
                self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                del types
                output = operator(*args, **(kwargs or {}))
                if operator.name().partition(".")[0] in _MATRIX_PRODUCTS:
                    owner.bytes += output.nbytes
                return output

        counting: Any = Count
        self._mode = counting()

    def __enter__(self) -> None:
        self._mode.__enter__()

    def __exit__(self, *details: Any) -> None:
        self._mode.__exit__(*details)


def _register_attention() -> None:
    """Give transformers an attention that keeps what a fused kernel keeps, and computes nothing."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    class FusedAttention(torch.autograd.Function):
        @staticmethod
        def forward(
            context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor:
            output = torch.empty_like(query)
            log_sum_exp = query.new_empty(query.shape[:3], dtype=torch.float32)
            context.save_for_backward(query, key, value, output, log_sum_exp)
            return output

    def attention(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **settings: Any
    ) -> tuple[Any, None]:
        del module, attention_mask, settings
        fused: Any = FusedAttention
        return fused.apply(query, key, value).transpose(1, 2), None

    def no_mask(*args: Any, **settings: Any) -> None:
        del args, settings

    AttentionInterface.register(_ATTENTION, attention)
    AttentionMaskInterface.register(_ATTENTION, no_mask)


if __name__ == "__main__":
    json.dump(probe(json.load(sys.stdin)), sys.stdout)
