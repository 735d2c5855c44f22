"""A byte tokenizer, a model of a few thousand parameters, and packed rows to train it on."""

from __future__ import annotations

from typing import Any

import numpy as np

from baltoro.data.shards import RowBatch
from baltoro.models.load import ModelPlan

WORDS = (
    *("basalt", "granite", "gneiss", "schist", "melt", "rises", "cools", "slowly"),
    *("under", "the", "crust", "and", "forms"),
)


def byte_tokenizer() -> Any:
    """Return a tokenizer whose ids are 0 begin, 1 padding, 2 end, then one per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2}
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )


def tiny_plan(
    *, vocabulary_size: int = 264, hidden_size: int = 32, layers: int = 2, tied: bool = True, seed: int = 0
) -> ModelPlan:
    """Return a LLaMA of about 20,000 parameters, 4 query and 2 key-value heads, random weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    return ModelPlan(config.to_dict(), seed=seed)


def tiny_rows(rows: int, sequence_length: int, *, seed: int = 0, vocabulary_size: int = 259) -> RowBatch:
    """Return rows of one to three segments of simple sentences, every third row with padding."""
    random = np.random.default_rng(seed)
    input_ids = np.full((rows, sequence_length), 1, dtype=np.int32)
    segment_ends, paper_index = [], []
    for row in range(rows):
        used = sequence_length - (int(random.integers(1, sequence_length // 4)) if row % 3 == 2 else 0)
        cuts = sorted(set(random.integers(2, used, size=int(random.integers(0, 3))).tolist()) | {used})
        text = " ".join(random.choice(WORDS, size=sequence_length)).encode()
        input_ids[row, :used] = (
            np.frombuffer(text[:used], dtype=np.uint8).astype(np.int32) % (vocabulary_size - 3) + 3
        )
        segment_ends.append(np.array(cuts, dtype=np.int32))
        paper_index.append(np.zeros(len(cuts), dtype=np.int32))
    return RowBatch(input_ids, segment_ends, paper_index)
