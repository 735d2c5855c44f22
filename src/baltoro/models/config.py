"""Settings of the model to train."""

from __future__ import annotations

from typing import Literal

from baltoro.core.config import StrictModel, execution, result

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
