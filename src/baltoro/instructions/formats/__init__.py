"""How an example is written for a model, and what of it is learned.

``alpaca`` (Stanford Alpaca; K2 breaks the line after the last head, ``alpaca_legacy`` does not)::

    Below is an instruction that describes a task, paired with an input …

    ### Instruction:
    {user}

    ### Input:
    {input}

    ### Response:
    {assistant}

``vicuna`` (as LongQLoRA's training has it)::

    A chat between a curious user and an artificial intelligence assistant. …
    USER: {user}
    ASSISTANT: {assistant}

``llama2`` (as LongLoRA's training has it): ``[INST]{user}[/INST]{assistant}``, and where there is an input
the system block before it. ``chat``: what the tokenizer's own template makes of the messages. ``react``
(arXiv:2210.03629)::

    Question: {user}
    Thought: {thought}
    Action: {action}
    Action Input: {action_input}
    Observation: {observation}
    Final Answer: {final_answer}

In the other formats a tool trace has the same lines where the response stands. What a model says is learned,
its labels included; questions and observations never are. Each turn of the model ends with the end token,
also one that waits for an observation, so that it learns to stop there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from baltoro.core.errors import ConfigError
from baltoro.instructions.example import Example
from baltoro.instructions.formats.chat import ChatTemplate
from baltoro.instructions.formats.dialogue import ExampleReject, dialogue_of
from baltoro.instructions.formats.pieces import Piece, merged
from baltoro.instructions.formats.plain import LAYOUTS, written
from baltoro.instructions.formats_config import FormatConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["ExampleReject", "Piece", "Writer", "prompt_text", "render"]


class Writer:
    """Writes examples in one format for one tokenizer; make one for many examples."""

    def __init__(self, config: FormatConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        """Prepare a format.

        Raises:
            ConfigError: ``chat`` with a tokenizer that has no chat template, or one that cannot be learned
                from; ``eos`` with a tokenizer that names no end token.
        """
        if config.eos and tokenizer.eos_token is None:
            raise ConfigError(
                "format.eos is on, and the tokenizer names no end token; set eos_token in its "
                "tokenizer_config.json, or set format.eos to false"
            )
        self.config = config
        self._eos = str(tokenizer.eos_token) if config.eos else None
        self._bos = str(tokenizer.bos_token) if config.bos and tokenizer.bos_token is not None else None
        self._chat = ChatTemplate(tokenizer) if config.format == "chat" else None

    @property
    def begins_itself(self) -> bool:
        """Whether the format writes the begin token, so that the tokenizer must not put one there."""
        return self._chat is not None or not self.config.bos

    def pieces(self, example: Example) -> list[Piece]:
        """Return a whole example; adjacent pieces differ in being learned or being a control token.

        Raises:
            ExampleReject: the format cannot write it, or nothing of it would be learned.
        """
        dialogue = dialogue_of(example, self.config.system)
        if not dialogue.exchanges or not dialogue.exchanges[-1].is_answered:
            raise ExampleReject("no_response", "the last turn is neither the assistant's nor a final answer")
        if not any(turn.text.strip() for exchange in dialogue.exchanges for turn in exchange.answers()):
            raise ExampleReject("empty_response", "every response is empty")
        if self._chat is None:
            pieces = written(dialogue, LAYOUTS[self.config.format], eos=self._eos, bos=self._bos)
        else:
            pieces = self._chat.pieces(dialogue, eos=self._eos)
        if self.config.learn == "everything":
            pieces = [replace(piece, learned=True) for piece in pieces]
        return merged(pieces)

    def prompt(self, example: Example) -> list[Piece]:
        """Return what a model is shown before it answers; no piece is learned.

        Args:
            example: ends with what is asked, or with an observation.

        Raises:
            ExampleReject: it ends otherwise, or the format cannot write it.
        """
        dialogue = dialogue_of(example, self.config.system)
        if not dialogue.exchanges or not dialogue.exchanges[-1].is_open:
            raise ExampleReject(
                "no_question",
                "the last turn is not the user's, an input or an observation, so nothing is asked",
            )
        if self._chat is None:
            pieces = written(dialogue, LAYOUTS[self.config.format], eos=self._eos, bos=self._bos)
        else:
            pieces = self._chat.prompt(dialogue)
        # Put together by what was learned, since it was generated token by token where it now is shown.
        return [replace(piece, learned=False) for piece in merged(pieces)]


def render(example: Example, config: FormatConfig, tokenizer: PreTrainedTokenizerFast) -> list[Piece]:
    """Return an example as pieces of text with what of it is learned.

    Raises:
        ConfigError: the format does not work with this tokenizer.
        ExampleReject: the format cannot write this example, or nothing of it would be learned.
    """
    return Writer(config, tokenizer).pieces(example)


def prompt_text(example: Example, config: FormatConfig, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return exactly what a model is shown at generation time, control tokens as their text.

    What the tokenizer itself puts before a text is not in it; a chat template's begin token is. The ids are
    those of :func:`baltoro.instructions.tokens.prompt_ids`.

    Args:
        example: without its response: it ends with what is asked, or with an observation.
        config: as in training.
        tokenizer: as in training.

    Raises:
        ConfigError: the format does not work with this tokenizer.
        ExampleReject: the example ends with a response, or the format cannot write it.
    """
    return "".join(piece.text for piece in Writer(config, tokenizer).prompt(example))
