"""The endpoints of a run, each a URL with its key: its budget, how it has been behaving, and the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """One endpoint with one key: its budget and how it has been behaving.

    ``key_name`` is the environment variable that the key is from; the key itself is in no representation.
    """

    url: str
    key_name: str | None
    key: str | None = field(repr=False)
    budget: Budget
    rests_until: float = 0.0
    failures: int = 0
    rests: int = 0
    refused: str = ""


def key_of(environment: Mapping[str, str], name: str, *, setting: str) -> str:
    """Return a key from the environment, without the blanks and line ends that files leave around it.

    Args:
        environment: where it is.
        name: of the variable.
        setting: what named the variable, for the message.

    Raises:
        ConfigError: the variable is not set, or holds what no HTTP header can carry. Never shows the key.
    """
    key = environment.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"{setting}: the environment variable {name} is not set; export the key under that name"
        )
    if "\n" in key or "\r" in key:
        raise ConfigError(f"{setting}: the key in {name} has a line break; export the key alone, in one line")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"{setting}: the key in {name} has a character that no HTTP header can carry (a letter beyond "
            "ASCII, or a control character); copy the key again"
        )
    return key


def lanes_of(config: EndpointConfig, environment: Mapping[str, str]) -> list[Lane]:
    """Return the endpoints of the settings, with their keys from the environment.

    Raises:
        ConfigError: a key cannot be had (:func:`key_of`).
    """
    keys: list[tuple[str, str] | tuple[None, None]] = [
        (
            name,
            key_of(environment, name, setting=f"instructions.reviews.endpoint.api_key_environment.{number}"),
        )
        for number, name in enumerate(config.api_key_environment)
    ]
    urls = list(config.urls)
    if len(keys) > 1 and len(urls) == 1:
        urls *= len(keys)
    elif len(keys) < 2:
        keys = (keys or [(None, None)]) * len(urls)
    return [
        Lane(
            url,
            name,
            key,
            Budget(
                requests_per_minute=config.requests_per_minute,
                tokens_per_minute=config.tokens_per_minute,
                requests_per_day=config.requests_per_day,
                tokens_per_day=config.tokens_per_day,
            ),
        )
        for url, (name, key) in zip(urls, keys, strict=True)
    ]
