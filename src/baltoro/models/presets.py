"""Model shapes to train from random weights, as plain ``transformers`` configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """The shape of a decoder.

    Attributes:
        hidden_size: width of the residual stream.
        layers: decoder blocks.
        heads: query heads.
        key_value_heads: key and value heads.
        intermediate_size: width of the feed-forward layer (gated in the ``llama`` family).
        context_tokens: longest sequence it is described for; family ``opt`` has no more positions.
        tied: the output projection is the embedding.
        about: what it is, with its source.
        family: ``llama``: rotary positions, RMS norms, SwiGLU; ``opt``: learned positions, layer norms, GeLU.
        dropout: of attention weights and of what each half block adds, during training.
        deviation: standard deviation of the random matrices.
    """

    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    context_tokens: int
    tied: bool
    about: str
    family: Literal["llama", "opt"] = "llama"
    dropout: float = 0.0
    deviation: float = 0.02


def _galactica(hidden_size: int, layers: int, heads: int, about: str, deviation: float = 0.006) -> Preset:
    """Return a Galactica size (arXiv:2211.09085, section 4.1).

    What that paper leaves open is as in OPT (arXiv:2205.01068, section 2.2), whose code base it used: tied
    embeddings, and random matrices of deviation 0.006. It has no biases, in layer norms neither; a layer
    norm's scale is left out with its bias, since the matrices behind it take it up.
    """
    return Preset(
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        key_value_heads=heads,
        intermediate_size=4 * hidden_size,
        context_tokens=2048,
        tied=True,
        about=about,
        family="opt",
        dropout=0.1,
        deviation=deviation,
    )


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
    "llama2-70b": Preset(
        8192, 80, 64, 8, 28672, 4096, False, "Llama 2 70B (arXiv:2307.09288, table 1 and its config.json)"
    ),
    "opt-tiny": _galactica(
        128, 4, 4, "1.0 M parameters + 128 per token: Galactica's architecture on a CPU", deviation=0.02
    ),
    "galactica-125m": _galactica(768, 12, 12, "Galactica 125M (arXiv:2211.09085, table 5)"),
    "galactica-1.3b": _galactica(2048, 24, 32, "Galactica 1.3B (arXiv:2211.09085, table 5)"),
    "galactica-6.7b": _galactica(4096, 32, 32, "Galactica 6.7B (arXiv:2211.09085, table 5)"),
    "galactica-30b": _galactica(7168, 48, 56, "Galactica 30B (arXiv:2211.09085, table 5)"),
    "galactica-120b": _galactica(10240, 96, 80, "Galactica 120B (arXiv:2211.09085, table 5)"),
}


def preset_config(
    name: str,
    *,
    vocabulary_size: int,
    sequence_length: int,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
) -> PretrainedConfig:
    """Return the ``transformers`` configuration of a preset.

    Args:
        name: a key of :data:`PRESETS`.
        vocabulary_size: rows of the embedding.
        sequence_length: a context of rotary positions grows to it where it is longer than the preset's.
        bos_token_id: the tokenizer's, if it has one.
        eos_token_id: the tokenizer's.
        pad_token_id: the tokenizer's, if it has one.
    """
    from transformers import LlamaConfig, OPTConfig

    preset = PRESETS[name]
    shared: dict[str, Any] = {
        "vocab_size": vocabulary_size,
        "hidden_size": preset.hidden_size,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "attention_dropout": preset.dropout,
        "tie_word_embeddings": preset.tied,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    if preset.family == "opt":
        return OPTConfig(
            **shared,
            ffn_dim=preset.intermediate_size,
            max_position_embeddings=preset.context_tokens,
            activation_function="gelu",
            dropout=preset.dropout,
            enable_bias=False,
            layer_norm_elementwise_affine=False,
            init_std=preset.deviation,
            architectures=["OPTForCausalLM"],
        )
    return LlamaConfig(
        **shared,
        intermediate_size=preset.intermediate_size,
        num_key_value_heads=preset.key_value_heads,
        max_position_embeddings=max(preset.context_tokens, sequence_length),
        rms_norm_eps=1e-5,
        initializer_range=preset.deviation,
        architectures=["LlamaForCausalLM"],
    )
