"""Asking a model for a review: what a reviewer is, and one behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from baltoro.core.errors import ConfigError
from baltoro.core.storage import absolute_uri, is_local
from baltoro.data.tokenizer import load_tokenizer
from baltoro.instructions.example import Example
from baltoro.instructions.formats.dialogue import dialogue_of
from baltoro.instructions.formats.plain import joined
from baltoro.instructions.reviews.config import EndpointConfig
from baltoro.instructions.reviews.endpoint import four_characters_a_token
from baltoro.instructions.reviews.lanes import SystemClock, key_of
from baltoro.instructions.reviews.outcomes import EndpointError
from baltoro.instructions.reviews.prompt import request_body
from baltoro.instructions.reviews.service import (
    SERVICE_FILE,
    ReviewService,
    read_service_file,
    token_counter,
)
from baltoro.instructions.reviews.transport import (
    Message,
    http_session,
    message_of,
    post,
    retry_after_seconds,
    verdict_of,
)
from baltoro.instructions.reviews.triples import TokenCount

Say = Callable[[str], None]
"""Tells a person one line."""

DEADLINE_SECONDS = 300.0
"""A request without its whole answer by then is given up."""

MOST_TRIES = 4
"""Requests for one review before the endpoint is given up: somebody waits for it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a response is drawn.

    Greedy decoding of small tuned models falls into loops over a thousand tokens, and free sampling wanders
    from the paper; these are the values with which the published recipe of such reviewers is continued.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: tokens are drawn from the likeliest that make up this probability.
        max_new_tokens: bound on the response; ``None`` is the room that the prompt leaves for it.
        seed: the same seed draws the same response on the same machine; an endpoint gets it only if given.
    """

    temperature: float = 0.35
    top_p: float = 0.9
    max_new_tokens: int | None = None
    seed: int | None = None


DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came, its tokens, those of the prompt, and whether the model ended it by itself."""

    text: str
    tokens: int
    prompt_tokens: int
    finished: bool


class Reviewer(Protocol):
    """A model that can be asked.

    Attributes:
        name: as people named it.
        service: how it is asked.
        taught: it says itself how it was taught; else ``service`` holds the defaults.
        count_tokens: counts a text's tokens.
    """

    name: str
    service: ReviewService
    taught: bool
    count_tokens: TokenCount

    def answer(self, example: Example, sampling: Sampling) -> Answer:
        """Return the response to a question."""


def local_folder(option: str, folder: str) -> Path:
    """Return a folder of this machine that an option names.

    Raises:
        ConfigError: it is elsewhere, or none.
    """
    if not is_local(folder):
        raise ConfigError(f"{option} {folder}: must be a folder of this machine; copy it here first")
    path = Path(absolute_uri(folder))
    if not path.is_dir():
        raise ConfigError(
            f"{option} {folder}: is no folder; give a model's folder, such as a finetune run exports"
        )
    return path


class ChatEndpoint:
    """A model behind a server that speaks the OpenAI chat completions protocol.

    The prompt is one message of the user; the server puts it into the model's chat template.

    Args:
        url: base URL, as ``http://host:8000/v1``.
        model: the model's name there.
        say: tells a person what is assumed, and what went wrong before a further try.
        api_key_environment: name of the environment variable with the key; ``None`` sends none.
        tokenizer: folder of the model's tokenizer, and of what it says about how it was taught.
        deadline_seconds: a request without its whole answer by then is given up.

    Raises:
        ConfigError: the URL is none, or the variable is not set or holds no key.
        InputError: the folder has no tokenizer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        say: Say,
        api_key_environment: str | None = None,
        tokenizer: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        if not plain or parts.query:
            raise ConfigError(
                "--endpoint: give http://HOST[:PORT]/v1 or https://…, without user, password and query; a "
                "key goes into an environment variable that --api-key-environment names"
            )
        self.name = model
        self._url = url.rstrip("/")
        self._say = say
        self._deadline_seconds = deadline_seconds
        self._headers: dict[str, str] = {}
        if api_key_environment is not None:
            key = key_of(os.environ, api_key_environment, setting="--api-key-environment")
            self._headers["Authorization"] = f"Bearer {key}"
        self.count_tokens: TokenCount = four_characters_a_token
        taught = None
        if tokenizer is None:
            say(
                "tokens are counted as four characters each; --tokenizer FOLDER counts them as the model does"
            )
        else:
            folder = local_folder("--tokenizer", tokenizer)
            self.count_tokens = token_counter(load_tokenizer(folder))
            taught = read_service_file(folder)
        self.taught = taught is not None
        self.service = taught or ReviewService()
        if taught is None:
            say(
                f"whether {model} was tuned on reviews is not known, so it is asked by the defaults: at most "
                f"{self.service.cutoff_tokens:,} tokens; a --tokenizer FOLDER with {SERVICE_FILE} tells"
            )
        elif taught.format.format != "chat":
            say(
                f"{model} was taught in the format {taught.format.format}, and the server writes its own "
                "chat template; --model FOLDER asks exactly as it was taught"
            )

    def answer(self, example: Example, sampling: Sampling) -> Answer:
        """Return the response to a question.

        Raises:
            EndpointError: the endpoint does not answer within the tries, or refuses.
        """
        dialogue = dialogue_of(example, self.service.format.system)
        messages = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
        messages.append({"role": "user", "content": joined(dialogue.exchanges[0])})
        config = EndpointConfig(
            model=self.name, temperature=sampling.temperature, json_mode=False, seed=sampling.seed
        )
        limit = sampling.max_new_tokens or self.service.response_room_tokens
        body = {**request_body(messages, config), "max_tokens": limit, "top_p": sampling.top_p}
        message = asyncio.run(self._ask(body, config))
        shown = sum(self.count_tokens(one["content"]) for one in messages)
        return Answer(
            message.content,
            self.count_tokens(message.content)
            if message.completion_tokens is None
            else message.completion_tokens,
            shown if message.prompt_tokens is None else message.prompt_tokens,
            message.finish_reason != "length",
        )

    async def _ask(self, body: dict[str, Any], config: EndpointConfig) -> Message:
        clock = SystemClock()
        async with http_session(1) as session:
            for tries in itertools.count(1):
                reply = await post(
                    session,
                    f"{self._url}/chat/completions",
                    body,
                    headers=self._headers,
                    deadline_seconds=self._deadline_seconds,
                )
                verdict, why = verdict_of(reply)
                message = message_of(reply.body) if verdict == "answered" else None
                if message is not None:
                    return message
                why = why or "HTTP 200 whose body is no chat completion"
                if verdict in ("endpoint_refuses", "request_refused"):
                    raise EndpointError(
                        f"{self._url} refuses: {why}; see to --endpoint, --model and --api-key-environment"
                    )
                if tries == MOST_TRIES:
                    break
                asked = retry_after_seconds(reply, clock.now())
                wait = config.backoff_seconds * 2.0 ** (tries - 1) if asked is None else asked
                wait = min(wait, config.max_backoff_seconds)
                self._say(f"{self._url}: {why}; trying again in {wait:g} s")
                await clock.sleep(wait)
        raise EndpointError(
            f"{self._url} gave no answer in {tries} tries, the last one: {why}; see to --endpoint, or "
            "give it more time with --deadline-seconds"
        )
