"""What a language model is asked in order to merge a paper's reviews, and how its answer is read.

The request asks for JSON twice, in the words of the prompt and by ``response_format``, and allows an aspect
to stay empty, which keeps models from inventing; both after the July recipe. The wording is our own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from baltoro.instructions.reviews.aspects import ASPECTS, AspectsError, MergedReview, from_json
from baltoro.instructions.reviews.config import EndpointConfig

PROMPT_VERSION = 1
"""Raised when the wording changes: saved answers to the old wording are then not taken for the new one."""

_SYSTEM = (
    "You merge the peer reviews of one scientific paper into a single review. You use only what the reviews "
    "say, and you answer with one JSON object and nothing else."
)
_TASK = """Below are all reviews of the paper "{title}". Merge them into one review, returned as JSON.

The JSON object has exactly these four keys:
{keys}
The value of each key is an object whose keys are gists (a phrase of two to eight words) and whose
values are details (one to three full sentences).

Rules:
- A point that several reviewers make stands once, with what each of them adds.
- Where reviewers contradict each other, keep both views and say that they differ.
- Take every point from the reviews. Do not add points, names or numbers of your own.
- Leave out greetings, scores, talk about the review process, and anything about authors as persons.
- If the reviews say nothing about an aspect, its value is an empty object.

{reviews}"""
_REPAIR = (
    "That answer cannot be used: {error}. Send the whole corrected JSON object with the four keys {keys}, "
    "and nothing else."
)


def merge_messages(title: str, reviews: str) -> list[dict[str, str]]:
    """Return the chat messages that ask for one paper's merged review.

    Args:
        title: the paper's title.
        reviews: all its reviews as one text (:func:`~baltoro.instructions.reviews.stringify.stringify_all`).
    """
    keys = "\n".join(f"- {json.dumps(aspect)}" for aspect in ASPECTS)
    task = _TASK.format(title=" ".join(title.split()) or "untitled", keys=keys, reviews=reviews)
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": task}]


def request_body(messages: Sequence[Mapping[str, str]], config: EndpointConfig) -> dict[str, Any]:
    """Return the JSON body of a chat completion request."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [dict(message) for message in messages],
        "temperature": config.temperature,
        "max_tokens": config.max_answer_tokens,
    }
    if config.json_mode:
        body["response_format"] = {"type": "json_object"}
    if config.seed is not None:
        body["seed"] = config.seed
    return body


def request_key(body: Mapping[str, Any]) -> str:
    """Return the name under which answers to a request are saved: a hash of prompt, model and settings."""
    canonical = json.dumps([PROMPT_VERSION, body], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def repair_messages(
    messages: Sequence[Mapping[str, str]], answer: str, error: str
) -> list[Mapping[str, str]]:
    """Return the messages that send a wrong answer back with what is wrong about it."""
    keys = ", ".join(json.dumps(aspect) for aspect in ASPECTS)
    return [
        *messages,
        {"role": "assistant", "content": answer or "(no answer)"},
        {"role": "user", "content": _REPAIR.format(error=error, keys=keys)},
    ]


def parse_answer(content: str, finish_reason: str | None) -> MergedReview:
    """Return the merged review of a model's answer; a code fence around the JSON is forgiven.

    Raises:
        AspectsError: it was cut off, is no JSON, or not of the four-aspect form; the message is fit for the
            repair request.
    """
    if finish_reason == "length":
        raise AspectsError("the answer was cut off at the token limit; write fewer and shorter points")
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", content, re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else content, object_pairs_hook=_without_twice)
    except ValueError as error:
        if isinstance(error, AspectsError):
            raise
        raise AspectsError(f"it is not valid JSON ({error})") from None
    except RecursionError:
        raise AspectsError("it is nested too deeply") from None
    return from_json(value)


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise AspectsError(f"the key {name!r} stands twice; join its contents or name them differently")
        found[name] = value
    return found
