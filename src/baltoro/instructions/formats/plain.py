"""The formats that are plain text with heads, the same for every tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from baltoro.instructions.formats.dialogue import Dialogue, Exchange
from baltoro.instructions.formats.pieces import Piece

# The wording of these is what models were trained on, so it is kept to the letter.
_ALPACA = "Below is an instruction that describes a task. "
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
)
_ALPACA_END = "Write a response that appropriately completes the request."
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_LLAMA2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "
    "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something not correct. If you don't know the answer to a question, please don't share false information."
)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write a dialogue.

    Attributes:
        ask: what stands before the model's first word of an exchange; gets the dialogue and the exchange's
            number.
        labelled: responses carry the label of a final answer.
        begins_each: the begin token stands before every exchange but the first too.
    """

    ask: Callable[[Dialogue, int], str]
    labelled: bool = False
    begins_each: bool = False


def written(dialogue: Dialogue, layout: Layout, *, eos: str | None, bos: str | None) -> list[Piece]:
    """Return the pieces of a dialogue.

    Args:
        dialogue: what is said.
        layout: how it is written.
        eos: the end token put after each turn of the model, ``None`` for none.
        bos: the begin token, for layouts that repeat it; ``None`` for none.
    """
    pieces: list[Piece] = []
    for number, exchange in enumerate(dialogue.exchanges):
        if number and layout.begins_each and bos is not None:
            pieces.append(Piece(bos, learned=False, control=True))
        pieces.append(Piece(layout.ask(dialogue, number), learned=False))
        for speech in exchange.speeches(labelled=layout.labelled):
            if speech.by_model:
                pieces.append(Piece(speech.text, learned=True))
                if eos is not None:
                    pieces.append(Piece(eos, learned=True, control=True))
            else:
                pieces.append(Piece(f"\n{speech.text}\n", learned=False))
    return pieces


def _alpaca(end: str) -> Callable[[Dialogue, int], str]:
    def ask(dialogue: Dialogue, number: int) -> str:
        exchange = dialogue.exchanges[number]
        head = "\n\n"
        if number == 0:
            own = (_ALPACA_WITH_INPUT if exchange.input else _ALPACA) + _ALPACA_END
            head = f"{dialogue.system or own}\n\n"
        material = f"### Input:\n{exchange.input}\n\n" if exchange.input else ""
        return f"{head}### Instruction:\n{exchange.instruction}\n\n{material}### Response:{end}"

    return ask


def _vicuna(dialogue: Dialogue, number: int) -> str:
    head = (dialogue.system or _VICUNA) if number == 0 else ""
    return f"{head}\nUSER: {joined(dialogue.exchanges[number])}\nASSISTANT: "


def _llama2(dialogue: Dialogue, number: int) -> str:
    exchange = dialogue.exchanges[number]
    system = dialogue.system or (_LLAMA2 if exchange.input else "")
    asked = f"{exchange.instruction}\n{exchange.input}" if exchange.input else exchange.instruction
    if number == 0 and system:
        return f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{asked} [/INST]"
    return f"[INST]{asked}[/INST]"


def _react(dialogue: Dialogue, number: int) -> str:
    head = f"{dialogue.system}\n\n" if number == 0 and dialogue.system else "\n\n" if number else ""
    return f"{head}Question: {joined(dialogue.exchanges[number])}\n"


def joined(exchange: Exchange) -> str:
    """Return instruction and input with a blank line between them."""
    return f"{exchange.instruction}\n\n{exchange.input}" if exchange.input else exchange.instruction


LAYOUTS: dict[str, Layout] = {
    "alpaca": Layout(_alpaca("\n")),
    "alpaca_legacy": Layout(_alpaca("")),
    "vicuna": Layout(_vicuna),
    "llama2": Layout(_llama2, begins_each=True),
    "react": Layout(_react, labelled=True),
}
"""The layouts by the name of their format."""
