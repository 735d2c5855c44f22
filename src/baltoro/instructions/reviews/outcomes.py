"""What the endpoint merger is given and gives back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from baltoro.core.errors import BaltoroError
from baltoro.instructions.reviews.aspects import MergedReview
from baltoro.instructions.reviews.budget import DAY_SECONDS


class EndpointError(BaltoroError):
    """No endpoint answers (any more); what was paid is saved and the same command goes on with it."""


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """One paper's reviews, to be merged."""

    paper_id: str
    title: str
    reviews: str


@dataclass(slots=True)
class Spent:
    """What was asked and paid in this run, for one paper or for all.

    Attributes:
        requests: requests sent, retries and repairs included.
        answers: whole answers received.
        prompt_tokens: charged.
        completion_tokens: charged.
        failures: failed requests by kind (``429``, ``500``, ``no_answer`` …).
    """

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a whole answer."""
        self.answers += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def fail(self, kind: str) -> None:
        """Count a failed request."""
        self.failures[kind] = self.failures.get(kind, 0) + 1

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.answers + other.answers,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            dict(Counter(self.failures) + Counter(other.failures)),
        )


STOPPED = "stopped"
"""Reason of a paper that was not asked for, as no endpoint was left; the run ends with an error."""

FAILED, REFUSED, INVALID = "endpoint_failed", "request_refused", "invalid_answer"
"""Reasons of a paper that was asked for in vain; see :class:`MergeOutcome`."""


@dataclass(frozen=True, slots=True)
class MergeOutcome:
    """What became of one paper: a review, or a ``reason`` why there is none.

    :data:`INVALID`: no answer had the right form within the repair tries. :data:`REFUSED`: the endpoint
    refuses this request. :data:`FAILED`: no endpoint answered within the retries; the next run asks again.
    :data:`STOPPED`: the run ends here. ``spent`` is what this run paid, ``in_all`` all answers about the
    paper, whenever they were paid. ``asked_again``: answers of the wrong form were saved, and the request was
    put anew.
    """

    paper_id: str
    review: MergedReview | None
    reason: str = ""
    detail: str = ""
    spent: Spent = field(default_factory=Spent)
    in_all: Spent = field(default_factory=Spent)
    asked_again: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will ask, cost and last, before its first request; repairs and retries not counted.

    Attributes:
        papers: papers to merge.
        saved: of these, with saved answers that settle them: free.
        asked_again: of these, with saved answers of the wrong form only that are asked for anew.
        requests: requests to send.
        prompt_tokens: tokens to send.
        completion_tokens: tokens expected back.
        cost: in the currency of the prices; ``None`` where none are set.
        seconds: how long it takes within the budgets.
        limited_by: what it waits for: a limit's name, or ``concurrency``.
    """

    papers: int
    saved: int
    asked_again: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    seconds: float
    limited_by: str

    @property
    def days(self) -> float:
        """The time in days."""
        return self.seconds / DAY_SECONDS

    def sentence(self) -> str:
        """Return the estimate for people, in one line."""
        again = f", {self.asked_again:,} anew as all their answers were of the wrong form" * bool(
            self.asked_again
        )
        cost = "prices are not set" if self.cost is None else f"costs about {self.cost:,.2f}"
        return (
            f"merging the reviews of {self.papers:,} papers takes {self.requests:,} requests "
            f"({self.saved:,} are answered already{again}), about {self.prompt_tokens:,} tokens in and "
            f"{self.completion_tokens:,} out ({cost}), and lasts about {self.days:,.2f} days (limited by "
            f"{self.limited_by})"
        )


@dataclass(slots=True)
class EndpointRun:
    """The outcomes, in the order of the requests, and what they took.

    Attributes:
        outcomes: one per request.
        estimate: what was told before.
        spent: by this run.
        answers_reused: papers answered from what earlier runs had paid.
        asked_again: papers that were asked for anew, since all their saved answers were of the wrong form.
        cost: of this run; ``None`` where no prices are set.
        cost_of_set: of all answers about these papers, whenever they were paid.
        possibly_charged_lost: requests that may have been charged without an answer that could be saved: cut
            by the deadline or a lost connection in this run, or under way when an earlier run was killed.
    """

    outcomes: list[MergeOutcome]
    estimate: Estimate
    spent: Spent
    answers_reused: int
    asked_again: int
    cost: float | None
    cost_of_set: float | None
    possibly_charged_lost: int
