"""Model shapes to train from random weights, as plain ``transformers`` LLaMA configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """The shape of a LLaMA-architecture decoder.

    Attributes:
        hidden_size: width of the residual stream.
        layers: decoder blocks.
        heads: query heads.
        key_value_heads: key and value heads.
        intermediate_size: width of the gated feed-forward layer.
        context_tokens: longest sequence it is described for.
        tied: the output projection is the embedding.
        about: what it is, with its source.
    """

    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    context_tokens: int
    tied: bool
    about: str


PRESETS: dict[str, Preset] = {
    "llama-tiny": Preset(
        128, 4, 4, 4, 384, 2048, True, "0.9 M parameters + 128 per token: CPU demonstrations"
    ),
    "llama-125m": Preset(
        768, 12, 12, 12, 2048, 2048, True, "85 M + 768 per token: GPT-2 small's width and depth"
    ),
    "llama-1b": Preset(2048, 22, 32, 4, 5632, 2048, False, "TinyLlama 1.1B (arXiv:2401.02385, table 1)"),
    "llama-7b": Preset(4096, 32, 32, 32, 11008, 2048, False, "LLaMA 7B (arXiv:2302.13971, table 2)"),
    "llama-13b": Preset(5120, 40, 40, 40, 13824, 2048, False, "LLaMA 13B (arXiv:2302.13971, table 2)"),
}


def preset_config(
    name: str,
    *,
    vocabulary_size: int,
    sequence_length: int,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
) -> LlamaConfig:
    """Return the ``transformers`` configuration of a preset.

    Args:
        name: a key of :data:`PRESETS`.
        vocabulary_size: rows of the embedding.
        sequence_length: the context grows to it where it is longer than the preset's.
        bos_token_id: the tokenizer's, if it has one.
        eos_token_id: the tokenizer's.
        pad_token_id: the tokenizer's, if it has one.
    """
    from transformers import LlamaConfig

    preset = PRESETS[name]
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=preset.hidden_size,
        intermediate_size=preset.intermediate_size,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.key_value_heads,
        max_position_embeddings=max(preset.context_tokens, sequence_length),
        rms_norm_eps=1e-5,
        initializer_range=0.02,
        tie_word_embeddings=preset.tied,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        architectures=["LlamaForCausalLM"],
    )
