"""Settings of the model to train."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from baltoro.core.config import StrictModel, execution, result, section
from baltoro.models.rope_scaling_config import RopeScalingConfig

AttentionName = Literal["auto", "sdpa", "flex", "flash_varlen"]


class ModelConfig(StrictModel):
    """The model training starts from."""

    base: str = execution(
        "llama-tiny",
        "a preset to start from random weights (llama-tiny, llama-125m, llama-1b, llama-7b, llama-13b, "
        "llama2-70b; with learned positions opt-tiny, galactica-125m, -1.3b, -6.7b, -30b, -120b), or "
        "trained weights: a Hugging Face folder or GGUF file (path or URI), or a hub id; fingerprinted by "
        "content",
        min_length=1,
    )
    init_seed: int = result(0, "seed of the random weights of a preset", ge=0)
    rope_scaling: RopeScalingConfig | None = section(
        lambda: None, "longer contexts than the base was trained for; null keeps its positions"
    )


class ShiftedAttentionConfig(StrictModel):
    """Shifted sparse attention while training (LongLoRA, arXiv:2309.12307); evaluation sees everything."""

    group_fraction: float = result(0.25, "tokens of a group as a share of the row", gt=0.0, le=1.0)
    group_len: int | None = result(None, "tokens of a group; null takes group_fraction of the row", ge=1)


ALL_LINEAR = "all-linear"


class QuantizationConfig(StrictModel):
    """A frozen base in four bits: NF4 in blocks of 64 (QLoRA, arXiv:2305.14314)."""

    double: bool = result(True, "keep the blocks' scales in eight bits, which saves 0.37 bits a weight")


class AdapterConfig(StrictModel):
    """A low-rank adapter on a frozen base (LoRA, arXiv:2106.09685)."""

    rank: int = result(16, "rows of A and columns of B", ge=1, le=4096)
    alpha: int = result(32, "the adapter's product is scaled by alpha / rank", ge=1)
    dropout: float = result(0.0, "part of the adapter's input that is left out in training", ge=0.0, lt=1.0)
    targets: tuple[str, ...] | Literal["all-linear"] = result(
        ALL_LINEAR,
        "layers that get an adapter, by the ends of their names (q_proj, v_proj); all-linear is every linear "
        "layer but the output projection",
    )
    train: tuple[Literal["embeddings", "norms"], ...] = result(
        (), "parts that are trained whole beside the adapter; LongLoRA trains both for longer contexts"
    )

    @field_validator("targets")
    @classmethod
    def _some_targets(cls, targets: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if not targets:
            raise ValueError(
                f"no layer would get an adapter; name some (q_proj, v_proj), or set {ALL_LINEAR}"
            )
        return targets

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied with."""
        return self.alpha / self.rank
