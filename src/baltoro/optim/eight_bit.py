"""AdamW whose moments take one byte per value, or live in memory that the GPU pages out, by bitsandbytes.

The moments are kept as codes of a 256-entry map with one float32 scale per block of 256 values (Dettmers et
al. 2022, arXiv:2110.02861), or in float32 where a tensor is small or an embedding, as that paper advises.

They never leave this module as codes: :meth:`BitsAndBytesAdamW.state_dict` gives what ``torch.optim.AdamW``
gives, float32 moments by parameter, and :meth:`~BitsAndBytesAdamW.load_state_dict` takes them. So a
checkpoint can be loaded on any layout, and by any AdamW. On the same layout training goes on bit for bit,
since decoded values encode to themselves; on another one blocks are cut differently, and values move within a
code's width.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import pad

from baltoro.core.errors import ConfigError
from baltoro.optim.config import OptimizerConfig, refuse_missing_optimizer

BLOCK_VALUES = 256
"""Values that share a scale; what bitsandbytes' update kernels are written for."""

SMALLEST_QUANTISED_VALUES = 4096
"""Tensors with fewer values on this rank keep float32 moments, as bitsandbytes does by default."""

MOMENTS = ("exp_avg", "exp_avg_sq")


def build_bitsandbytes_adamw(
    groups: list[dict[str, Any]], config: OptimizerConfig, *, float32_moments: Collection[torch.Tensor] = ()
) -> BitsAndBytesAdamW:
    """Return the optimizer that ``config.name`` names.

    Args:
        groups: parameter groups with ``params`` and ``weight_decay``.
        config: ``adamw_8bit``, ``paged_adamw`` or ``paged_adamw_8bit``.
        float32_moments: parameters whose moments are never quantised.

    Raises:
        ConfigError: paged moments without a GPU.
        PlatformError: bitsandbytes is not installed.
    """
    refuse_missing_optimizer(config)
    paged = config.name.startswith("paged_")
    devices = {_local(parameter).device.type for group in groups for parameter in group["params"]}
    if paged and devices != {"cuda"}:
        raise ConfigError(
            f"optimizer.name={config.name} pages moments out of a GPU's memory, but parameters are on "
            f"{', '.join(sorted(devices))}; set optimizer.name to adamw or adamw_8bit"
        )
    return BitsAndBytesAdamW(
        groups,
        learning_rate=config.learning_rate,
        betas=(config.beta1, config.beta2),
        epsilon=config.epsilon,
        quantised=config.name.endswith("_8bit"),
        paged=paged,
        float32_moments=float32_moments,
    )


class BitsAndBytesAdamW(torch.optim.Optimizer):
    """AdamW on float32 parameters, whole or sharded, one update kernel per parameter.

    Args:
        groups: parameter groups with ``params`` and ``weight_decay``.
        learning_rate: initial; ``group["lr"]`` afterwards.
        betas: decays of the two moments.
        epsilon: added to the denominator.
        quantised: keep moments in 8 bits.
        paged: keep moments in memory that CUDA pages between GPU and host.
        float32_moments: parameters whose moments are never quantised.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        quantised: bool,
        paged: bool,
        float32_moments: Collection[torch.Tensor] = (),
    ) -> None:
        super().__init__(groups, {"lr": learning_rate, "betas": betas, "eps": epsilon, "weight_decay": 0.0})
        self._quantised = quantised
        self._paged = paged
        self._float32_moments = {id(parameter) for parameter in float32_moments}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: not supported; part of torch's interface.
        """
        import bitsandbytes.functional as kernels

        assert closure is None
        devices = set()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                values, gradient = _local(parameter), _local(parameter.grad).contiguous()
                state = self.state[parameter]
                if not state:
                    state |= {"step": torch.zeros(()), **self._fresh_moments(parameter)}
                state["step"] += 1
                if not values.numel():
                    continue
                first, second = state["exp_avg"], state["exp_avg_sq"]
                if self._paged:
                    devices.add(values.device)
                    for moment in (first, second):
                        moment.prefetch()
                beta1, beta2 = group["betas"]
                if first.scales is None:
                    kernels.optimizer_update_32bit(
                        "adam",
                        gradient,
                        values,
                        first.values,
                        beta1,
                        group["eps"],
                        int(state["step"]),
                        group["lr"],
                        second.values,
                        beta2,
                        weight_decay=group["weight_decay"],
                    )
                else:
                    kernels.optimizer_update_8bit_blockwise(
                        "adam",
                        gradient,
                        values,
                        first.values,
                        second.values,
                        beta1,
                        beta2,
                        0.0,
                        0.0,
                        group["eps"],
                        int(state["step"]),
                        group["lr"],
                        first.code,
                        second.code,
                        first.scales,
                        second.scales,
                        group["weight_decay"],
                    )
        for device in devices:
            # Paged memory is moved on its own; the host must not touch it before the kernels are done.
            torch.cuda.synchronize(device)

    def state_dict(self) -> dict[str, Any]:
        """Return what ``torch.optim.AdamW.state_dict`` returns, moments in float32 and on the host.

        They are decoded one by one and leave the device at once, so a save needs device memory for one.
        """
        packed = super().state_dict()
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        state = {}
        for index, entry in packed["state"].items():
            state[index] = {"step": entry["step"].clone()} | {
                name: _like(parameters[index], entry[name].decoded()) for name in MOMENTS
            }
        return {**packed, "state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over groups' settings and moments.

        Args:
            state_dict: of this class, or of any AdamW, for the same parameters in the same groups.

        Raises:
            ValueError: the groups are not those of this optimizer.
        """
        saved_groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in saved_groups] != sizes:
            raise ValueError("the loaded state has other parameter groups than this optimizer")
        self.state.clear()
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            group.update({name: value for name, value in saved.items() if name in group and name != "params"})
            for parameter, key in zip(group["params"], saved["params"], strict=True):
                entry = state_dict["state"].get(key)
                if entry is None:
                    continue
                moments = self._fresh_moments(parameter)
                for name in MOMENTS:
                    moments[name].encode(_local(entry[name]))
                step = torch.as_tensor(entry["step"], dtype=torch.float32).detach().cpu().clone()
                self.state[parameter] = {"step": step, **moments}

    def _fresh_moments(self, parameter: torch.Tensor) -> dict[str, _Moment]:
        values = _local(parameter)
        quantised = (
            self._quantised
            and values.numel() >= SMALLEST_QUANTISED_VALUES
            and id(parameter) not in self._float32_moments
        )
        return {
            name: _Moment(values, signed=name == "exp_avg", quantised=quantised, paged=self._paged)
            for name in MOMENTS
        }


class _Moment:
    """One moment of one parameter's local share, zero at first.

    Attributes:
        values: uint8 codes, or float32 values; shaped like the share.
        code: float32 [256], what each code stands for times its block's scale; ``None`` if not quantised.
        scales: float32 [blocks]; ``None`` if not quantised.
    """

    def __init__(self, like: torch.Tensor, *, signed: bool, quantised: bool, paged: bool) -> None:
        self.code: torch.Tensor | None = None
        self.scales: torch.Tensor | None = None
        dtype = torch.uint8 if quantised else torch.float32
        self.values = _paged_zeros(like, dtype) if paged else torch.zeros_like(like, dtype=dtype)
        if quantised:
            blocks = -(-like.numel() // BLOCK_VALUES)
            self.code = _code(signed, like.device)
            self.scales = torch.zeros(blocks, dtype=torch.float32, device=like.device)
            # Code 0 is the map's lowest entry, not zero.
            self.encode(torch.zeros_like(like, dtype=torch.float32))

    def prefetch(self) -> None:
        """Have paged values moved to the GPU while it still does something else."""
        import bitsandbytes.functional as kernels

        if getattr(self.values, "is_paged", False):
            kernels.prefetch_tensor(self.values)

    def decoded(self) -> torch.Tensor:
        """Return the values in float32 on the host, in memory of their own."""
        if self.scales is None:
            return self.values.to("cpu", copy=True)
        assert self.code is not None
        decoded: torch.Tensor = torch.ops.bitsandbytes.dequantize_blockwise(
            self._on_device(), self.scales, self.code, BLOCK_VALUES, torch.float32
        )
        return decoded.to("cpu")

    def encode(self, values: torch.Tensor) -> None:
        """Take over float32 values.

        Args:
            values: shaped like the share, on any device.
        """
        if self.scales is None:
            self.values.copy_(values)
            return
        assert self.code is not None
        # Not by bitsandbytes: its encoder for CPUs looks codes up in steps of 3e-5 of the largest value, so
        # that small codes would not come back as themselves (zero becomes 2e-5 of the largest value).
        flat = values.to(self.scales.device, torch.float32).flatten()
        blocks = pad(flat, (0, len(self.scales) * BLOCK_VALUES - len(flat))).view(-1, BLOCK_VALUES)
        scales = blocks.abs().amax(dim=1)
        shares = blocks / scales.where(scales > 0.0, 1.0)[:, None]
        nearest = torch.bucketize(shares, (self.code[1:] + self.code[:-1]) / 2, out_int32=True)
        self.values.copy_(nearest.flatten()[: len(flat)].view(self.values.shape))
        self.scales.copy_(scales)

    def _on_device(self) -> torch.Tensor:
        # Paged memory looks like a host tensor to torch.
        assert self.scales is not None
        return self.values.to(self.scales.device)


def _paged_zeros(like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    import bitsandbytes.functional as kernels

    if not like.numel():
        return torch.zeros_like(like, dtype=dtype)
    values: torch.Tensor = kernels.get_paged(*like.shape, dtype=dtype, device=like.device)
    return values.zero_()


@functools.cache
def _code(signed: bool, device: torch.device) -> torch.Tensor:
    """Return bitsandbytes' dynamic map, ascending.

    Its signed form ends in −0.993 and 1. The lowest entry is moved to −1 here: then the largest value of a
    block, of whichever sign, is held exactly, its scale is found again from decoded values, and these encode
    to the very same codes.
    """
    import bitsandbytes.functional as kernels

    code: torch.Tensor = kernels.create_dynamic_map(signed=signed)
    if signed:
        code[0] = -1.0
    return code.to(device)


def _local(tensor: Any) -> torch.Tensor:
    """Return the share of this rank, the tensor itself if it is not sharded; no copy."""
    local: torch.Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
    return local.detach()


def _like(parameter: Any, local: torch.Tensor) -> torch.Tensor:
    """Return this rank's share as a tensor that is laid out over ranks like a parameter."""
    if not isinstance(parameter, DTensor):
        return local
    return DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
