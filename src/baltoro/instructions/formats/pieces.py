"""The parts a written example is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a written example.

    Attributes:
        text: what it says; of a control token its name (``</s>``).
        learned: whether its tokens are targets of the loss.
        control: it is one control token; otherwise all of it is read as text, also what looks like one.
    """

    text: str
    learned: bool
    control: bool = False


def merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with texts of one kind put together and empty ones left out.

    Texts that stand together at inference must be encoded together, or their tokens would differ.
    """
    result: list[Piece] = []
    for piece in pieces:
        if not piece.text:
            continue
        last = result[-1] if result else None
        if last is not None and not piece.control and not last.control and last.learned == piece.learned:
            result[-1] = replace(last, text=last.text + piece.text)
        else:
            result.append(piece)
    return result
