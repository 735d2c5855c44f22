"""The turns of an example, ordered into questions and what is said to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from baltoro.instructions.example import Example, Role, Turn

LABELS: dict[Role, str] = {
    "thought": "Thought",
    "action": "Action",
    "action_input": "Action Input",
    "observation": "Observation",
    "final_answer": "Final Answer",
}
"""What stands before each step of a tool trace (ReAct, arXiv:2210.03629)."""

FORMAT_REASONS: dict[str, str] = {
    "no_response": "the last turn is neither the assistant's nor a final answer",
    "no_question": "the last turn asks nothing, where a prompt was wanted",
    "empty_instruction": "neither instruction nor input says anything",
    "empty_response": "no response says anything",
    "turn_order": "turns that no dialogue has in this order",
    "template_refuses": "the chat template raises an error for these roles",
    "template_changes_text": "the chat template rewrites or drops what a turn says",
    "not_prefix_stable": "the chat template writes the prompt otherwise once the response follows",
    "longer_than_row": "more tokens than a row has; a response is never cut",
    "nothing_learned": "no token is a target",
}
"""Every reason an example cannot be written or encoded for, with its meaning."""


class ExampleReject(Exception):  # noqa: N818  (not an error of the run: a verdict on one example)
    """Raised for an example that a format cannot write.

    Args:
        reason: one of :data:`FORMAT_REASONS`.
        detail: what was found, in one line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Speech:
    """What one side says without a break.

    Attributes:
        text: the turn, or the labelled lines of several steps.
        by_model: whether the model says it; otherwise it is an observation.
    """

    text: str
    by_model: bool


@dataclass(slots=True)
class Exchange:
    """One question with what follows until the next.

    Attributes:
        instruction: what is asked.
        input: the material it is about; may be empty.
        turns: what follows: the response, or the steps of a tool trace.
    """

    instruction: str
    input: str
    turns: list[Turn] = field(default_factory=list)

    @property
    def is_trace(self) -> bool:
        """Whether a tool trace answers."""
        return any(turn.role in LABELS for turn in self.turns)

    @property
    def is_answered(self) -> bool:
        """Whether the last turn is a response."""
        return bool(self.turns) and self.turns[-1].role in ("assistant", "final_answer")

    @property
    def is_open(self) -> bool:
        """Whether the model speaks next."""
        return not self.turns or self.turns[-1].role == "observation"

    def answers(self) -> Iterator[Turn]:
        """Yield what the model says to the user, without thoughts, calls and observations."""
        return (turn for turn in self.turns if turn.role in ("assistant", "final_answer"))

    def speeches(self, *, labelled: bool) -> list[Speech]:
        """Return what follows the question.

        Args:
            labelled: write the response with the label of a final answer, also where there is no trace.
        """
        if not (labelled or self.is_trace):
            return [Speech(turn.text, True) for turn in self.turns]
        speeches: list[Speech] = []
        lines: list[str] = []
        for turn in self.turns:
            label = LABELS["final_answer" if turn.role == "assistant" else turn.role]
            line = f"{label}: {turn.text}"
            if turn.role == "observation":
                speeches += [Speech("\n".join(lines), True), Speech(line, False)]
                lines = []
            else:
                lines.append(line)
        return [*speeches, Speech("\n".join(lines), True)] if lines else speeches


@dataclass(slots=True)
class Dialogue:
    """An example's system text (empty where there is none) and its exchanges."""

    system: str
    exchanges: list[Exchange]


def dialogue_of(example: Example, system: str | None) -> Dialogue:
    """Return the dialogue of an example.

    Args:
        example: any; it may end with a question.
        system: the system text where the example has none.

    Raises:
        ExampleReject: its turns come in an order that no dialogue has, or a question says nothing.
    """
    turns = example.turns
    first = next((number for number, turn in enumerate(turns) if turn.role != "system"), len(turns))
    said = "\n\n".join(turn.text for turn in turns[:first] if turn.text.strip())
    exchanges: list[Exchange] = []
    previous = "system"
    for number, turn in enumerate(turns[first:], first + 1):
        if not _may_follow(turn.role, previous):
            raise ExampleReject("turn_order", f"turn {number} is {turn.role} after {previous}")
        if turn.role == "user":
            if previous == "user":
                exchanges[-1].instruction += f"\n\n{turn.text}"
            else:
                exchanges.append(Exchange(turn.text, ""))
        elif turn.role == "input":
            exchanges[-1].input = turn.text
        elif turn.role == "assistant" and previous == "assistant":
            last = exchanges[-1].turns[-1]
            exchanges[-1].turns[-1] = Turn("assistant", f"{last.text}\n\n{turn.text}")
        else:
            exchanges[-1].turns.append(turn)
        previous = turn.role
    for exchange in exchanges:
        if not exchange.instruction.strip():
            exchange.instruction, exchange.input = exchange.input, ""
        if not exchange.input.strip():
            exchange.input = ""
        if not exchange.instruction.strip():
            raise ExampleReject("empty_instruction", "neither instruction nor input says anything")
    return Dialogue(said or system or "", exchanges)


def _may_follow(role: Role, previous: str) -> bool:
    match role:
        case "system":
            return False
        case "user":
            return previous in ("system", "user", "assistant", "final_answer")
        case "input":
            return previous == "user"
        case "observation":
            return previous in ("action", "action_input")
        case "assistant":
            return previous not in ("system", "final_answer", "action", "action_input")
        case _:
            return previous not in ("system", "assistant", "final_answer")
