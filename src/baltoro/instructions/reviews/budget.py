"""How much may be sent now: requests and tokens, per minute and per day, as pure arithmetic on a clock.

A window slides: what was sent less than a minute (or 24 hours) ago counts. Nothing here waits; the caller
asks for how long, sleeps, and asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

MINUTE_SECONDS, DAY_SECONDS = 60.0, 86_400.0

_ROUNDING_SECONDS = 1e-6
"""Seconds since 1970 are exact to a quarter of this; who has waited must not be told to wait for the rest."""


@dataclass(slots=True)
class Use:
    """One request: when it was sent, and the tokens it takes (an estimate until it is settled)."""

    at: float
    tokens: int


class Budget:
    """The limits of one endpoint (a URL with its key). ``None`` is no limit.

    Args:
        requests_per_minute: requests in any 60 seconds.
        tokens_per_minute: tokens, in and out, in any 60 seconds.
        requests_per_day: requests in any 24 hours.
        tokens_per_day: tokens, in and out, in any 24 hours.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        requests_per_day: int | None = None,
        tokens_per_day: int | None = None,
    ) -> None:
        self._windows = (
            (MINUTE_SECONDS, requests_per_minute, tokens_per_minute),
            (DAY_SECONDS, requests_per_day, tokens_per_day),
        )
        self._uses: deque[Use] = deque()

    def restore(self, uses: Iterable[tuple[float, int]]) -> None:
        """Count what earlier runs sent: ``(seconds since 1970, tokens)``."""
        self._uses = deque(
            sorted([*self._uses, *(Use(at, tokens) for at, tokens in uses)], key=lambda u: u.at)
        )

    def delay_seconds(self, now: float, tokens: int) -> float:
        """Return how long to wait before a request of so many tokens may be sent; 0 to send it now.

        A single request above a token limit waits for an empty window and is then sent: refusing it for ever
        helps nobody.
        """
        while self._uses and self._uses[0].at <= now - DAY_SECONDS:
            self._uses.popleft()
        return max(self._delay(now, tokens, *window) for window in self._windows)

    def _delay(
        self, now: float, tokens: int, length: float, max_requests: int | None, max_tokens: int | None
    ) -> float:
        if max_requests is None and max_tokens is None:
            return 0.0
        recent = [use for use in self._uses if use.at + length > now + _ROUNDING_SECONDS]
        requests_left = len(recent)
        tokens_left = sum(use.tokens for use in recent)
        ready_at = now
        # The oldest uses leave the window first; wait until enough of them have left.
        for use in recent:
            too_many = max_requests is not None and requests_left + 1 > max_requests
            too_much = max_tokens is not None and tokens_left + tokens > max_tokens
            if not (too_many or too_much):
                break
            ready_at = use.at + length
            requests_left -= 1
            tokens_left -= use.tokens
        return max(ready_at - now, 0.0)

    def spend(self, now: float, tokens: int) -> Use:
        """Count a request that is sent now; correct its ``tokens`` when the server has said how many."""
        use = Use(now, tokens)
        self._uses.append(use)
        return use
