"""The endpoints of a run, each a URL with its key: its budget, how it has been behaving, and the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from baltoro.core.errors import ConfigError
from baltoro.instructions.reviews.budget import Budget
from baltoro.instructions.reviews.config import EndpointConfig


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def now(self) -> float:
        """Return seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait without holding up other requests."""
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class Lane:
    """One endpoint with one key: its budget and how it has been behaving."""

    number: int
    url: str
    key: str | None
    budget: Budget
    rests_until: float = 0.0
    failures: int = 0
    rests: int = 0
    refused: str = ""


def lanes_of(config: EndpointConfig, environment: Mapping[str, str]) -> list[Lane]:
    """Return the endpoints of the settings, with their keys from the environment.

    Raises:
        ConfigError: a named environment variable is not set.
    """
    keys: list[str | None] = []
    for number, name in enumerate(config.api_key_environment):
        if not environment.get(name):
            raise ConfigError(
                f"instructions.reviews.endpoint.api_key_environment.{number}: the environment "
                f"variable {name} is "
                "not set; export the key under that name"
            )
        keys.append(environment[name])
    urls = list(config.urls)
    if len(keys) > 1 and len(urls) == 1:
        pairs = [(urls[0], key) for key in keys]
    else:
        keys = keys * len(urls) if len(keys) == 1 else keys or [None] * len(urls)
        pairs = list(zip(urls, keys, strict=True))
    return [
        Lane(
            number,
            url,
            key,
            Budget(
                requests_per_minute=config.requests_per_minute,
                tokens_per_minute=config.tokens_per_minute,
                requests_per_day=config.requests_per_day,
                tokens_per_day=config.tokens_per_day,
            ),
        )
        for number, (url, key) in enumerate(pairs)
    ]
