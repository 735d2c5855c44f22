"""Passkey retrieval: whether a model finds a number that was said once in a long text.

After Mohtashami and Jaggi 2023 (arXiv:2305.16300), as LongLoRA (``passkey_retrivial.py``) and YaRN
(``eval/passkey.py``) measure it: a task sentence, filler, the key, filler, the question. Here the key stands
at chosen depths instead of random ones, and its number (1 to 50,000) follows from the seed and the place in
the grid. The model answers greedily; right is who says the key as the first whole number among
:data:`ANSWER_TOKENS` tokens (YaRN's rule: no tokenizer's way to cut numbers matters).
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baltoro.core.errors import ConfigError
from baltoro.core.statistics import wilson_interval
from baltoro.evaluation.lengths import choose_lengths
from baltoro.evaluation.scoring import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER_TOKENS = 10
"""Tokens that the model may say; part of the length."""

USED_CONTEXT_ACCURACY = 0.8
"""Share of keys that must be found for a length to count as used (YaRN's passkey context)."""

TASK = "A pass key is hidden somewhere in the text below. Find it and remember it: you will be asked for it."
FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
KEY = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"

_MOST_KEY = 50_000


@dataclass(frozen=True, slots=True)
class PasskeyPrompt:
    """One text with a key in it.

    Attributes:
        key: the number.
        text: what the model reads, without the tokenizer's begin token.
        input_ids: of the text, begin token included where the tokenizer puts one.
        sentences: of filler.
    """

    key: int
    text: str
    input_ids: tuple[int, ...]
    sentences: int


@dataclass(frozen=True, slots=True)
class PasskeyCell:
    """One length and depth.

    Attributes:
        length: tokens of prompt and answer at most.
        depth: part of the filler before the key, 0 to 1.
        trials: keys asked for.
        found: keys said.
        accuracy: ``found / trials``.
        low: lower bound of the accuracy, 95 % (Wilson 1927).
        high: upper bound.
        shortest_tokens: of the prompts, with the room for the answer: at most one sentence of filler short of
            the length.
    """

    length: int
    depth: float
    trials: int
    found: int
    accuracy: float
    low: float
    high: float
    shortest_tokens: int


@dataclass(frozen=True, slots=True)
class PasskeyGrid:
    """All lengths and depths.

    Attributes:
        cells: by length, then depth, both rising.
    """

    cells: tuple[PasskeyCell, ...]

    @property
    def accuracy(self) -> float:
        """Share of all keys that were found."""
        return sum(cell.found for cell in self.cells) / sum(cell.trials for cell in self.cells)

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's interval, 95 % (Wilson 1927)."""
        return wilson_interval(
            sum(cell.found for cell in self.cells), sum(cell.trials for cell in self.cells)
        )

    @property
    def used_context_tokens(self) -> int | None:
        """The longest length at which 80 % of the keys are found, over all depths; ``None`` if at none."""
        totals: dict[int, tuple[int, int]] = {}
        for cell in self.cells:
            found, trials = totals.get(cell.length, (0, 0))
            totals[cell.length] = (found + cell.found, trials + cell.trials)
        good = [
            length for length, (found, trials) in totals.items() if found >= USED_CONTEXT_ACCURACY * trials
        ]
        return max(good, default=None)


def passkey_retrieval(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    trials: int,
    seed: int = 0,
    setting: str = "lengths",
) -> PasskeyGrid:
    """Ask a model for keys over a grid of lengths and depths.

    Args:
        model: a ``transformers`` causal language model; evaluated with full attention and a KV cache.
        tokenizer: the model's.
        lengths: tokens of prompt and answer; empty: a quarter, a half and the whole of what the model reads.
        depths: parts of the filler before the key, 0 to 1.
        trials: keys for each length and depth.
        seed: another one draws other keys.
        setting: what people call ``lengths``, for messages.

    Raises:
        ConfigError: a length is beyond the model's positions, or too short for the prompt without filler.
    """
    import torch
    from transformers import GenerationConfig

    chosen = choose_lengths(lengths, model.config.to_dict(), setting=setting)
    stop = tokenizer.eos_token_id
    # The model's own settings may sample.
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        use_cache=True,
        eos_token_id=stop,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop,
    )
    cells = []
    with evaluating(model):
        for length in chosen:
            for depth in sorted(set(depths)):
                found, shortest = 0, length
                for trial in range(trials):
                    prompt = passkey_prompt(
                        tokenizer, length=length, depth=depth, trial=trial, seed=seed, setting=setting
                    )
                    ids = torch.tensor([prompt.input_ids], device=model.device)
                    generated: Any = model.generate(
                        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy
                    )
                    answer = tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)
                    found += said_key(str(answer)) == prompt.key
                    shortest = min(shortest, len(prompt.input_ids) + ANSWER_TOKENS)
                low, high = wilson_interval(found, trials)
                cells.append(PasskeyCell(length, depth, trials, found, found / trials, low, high, shortest))
    return PasskeyGrid(tuple(cells))


def passkey_prompt(
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    depth: float,
    trial: int,
    seed: int = 0,
    setting: str = "lengths",
) -> PasskeyPrompt:
    """Return the longest prompt that leaves room for the answer, the same for the same arguments.

    It has as many sentences of filler as fit, so it is at most one sentence short.

    Args:
        tokenizer: any.
        length: tokens of prompt and answer.
        depth: part of the filler before the key, 0 to 1, to a sentence.
        trial: number of the key.
        seed: another one draws another key.
        setting: what people call the length, for messages.

    Raises:
        ConfigError: the prompt does not fit without any filler.
    """
    digest = hashlib.blake2b(f"{seed}:{length}:{depth}:{trial}".encode(), digest_size=8).digest()
    key = 1 + int.from_bytes(digest, "big") % _MOST_KEY
    begin = _begin(tokenizer)

    def encode(sentences: int) -> tuple[int, ...]:
        text = passkey_text(key, sentences=sentences, depth=depth)
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return (*begin, *ids)

    cheapest = min(len(tokenizer(sentence, add_special_tokens=False)["input_ids"]) for sentence in FILLER)
    # A sentence within the text may be a token shorter than alone, where its end merges with what follows.
    enough = length // max(cheapest - 1, 1) + 1
    most = bisect.bisect_right(
        range(enough), length - ANSWER_TOKENS, key=lambda sentences: len(encode(sentences))
    )
    if most == 0:
        raise ConfigError(
            f"{setting}: {length} tokens are too few for the pass key's prompt, which takes "
            f"{len(encode(0)) + ANSWER_TOKENS} with this tokenizer before any filler; raise it to that at "
            "least"
        )
    sentences = most - 1
    text = passkey_text(key, sentences=sentences, depth=depth)
    return PasskeyPrompt(key, text, encode(sentences), sentences)


def passkey_text(key: int, *, sentences: int, depth: float) -> str:
    """Return the text of a prompt.

    Args:
        key: the number to find.
        sentences: of filler, before and after the key.
        depth: part of them that stands before the key.
    """
    filler = [FILLER[number % len(FILLER)] for number in range(sentences)]
    before = round(depth * sentences)
    lines = (TASK, " ".join(filler[:before]), KEY.format(key=key), " ".join(filler[before:]), QUESTION)
    return "\n".join(line for line in lines if line)


def said_key(answer: str) -> int | None:
    """Return the first whole number in an answer, ``None`` if there is none.

    >>> said_key(" 12345. Remember")
    12345
    """
    match = re.search(r"\d+", answer, re.ASCII)
    return int(match[0]) if match else None


def _begin(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the begin token where the tokenizer puts one; never the end token that some put, too."""
    bos = tokenizer.bos_token_id
    framed: Any = tokenizer(FILLER[0])["input_ids"]
    return (bos,) if bos is not None and framed[:1] == [bos] else ()
