"""The paid answers of an endpoint, each an object of its own that nobody ever overwrites.

An answer is written the moment it is whole, by a create that succeeds once, before anything reads it;
whatever kills the run, the next one finds it and does not pay for it again. A request that is sent leaves a
mark first. A mark without an answer is a request that was under way when a run was killed: the endpoint may
have charged it and the answer is lost. That is at most one per request under way, it cannot be known from
this side, and :attr:`AnswerStore.lost` counts it.

Layout below the root: ``{key[:2]}/{key}/{number}.json`` with ``number`` counting all answers to a
request, repairs and those of asking again included, and ``{number}.sent-{try}`` for the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from baltoro.core.errors import ArtifactError
from baltoro.core.storage import AlreadyExistsError, Storage, join

_NAME = re.compile(
    r"[0-9a-f]{2}/(?P<key>[0-9a-f]{64})/(?P<number>\d+)\.(?:(?P<answer>json)|sent-(?P<sent>\d+))"
)

_READERS = 16
"""Answers are small objects: reading them takes a store's latency, not its rate."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer of an endpoint, as it came.

    Attributes:
        content: the text of the message.
        finish_reason: why the model stopped (``stop``, ``length``), if the server says.
        prompt_tokens: tokens charged for the request.
        completion_tokens: tokens charged for the answer.
        tokens_reported: whether the server said how many; else they are estimates.
        endpoint: the base URL that answered.
        key_name: the environment variable that the key was from; with the URL it names the budget.
        repair: 0 for the answer to a request that was put anew, 1, 2 … for the corrections asked after it.
        finished_at: seconds since 1970; budgets of a day count from here after a restart.
    """

    content: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    tokens_reported: bool
    endpoint: str
    key_name: str | None
    repair: int
    finished_at: float


class AnswerStore:
    """Saved answers by request key.

    Args:
        storage: where to read and write.
        root_uri: the folder of the answers; one for any number of runs and recipes.

    Attributes:
        lost: marks without an answer when the store was listed: requests that may have been paid for nothing.
    """

    def __init__(self, storage: Storage, root_uri: str) -> None:
        self._storage = storage
        self._root = root_uri
        self._answered: dict[str, set[int]] = {}
        self._sent: dict[tuple[str, int], int] = {}
        self._read: dict[tuple[str, int], Answer] = {}
        for info in storage.list(root_uri, with_etag=False):
            name = _NAME.fullmatch(info.key)
            if name is None:
                continue
            slot = (name["key"], int(name["number"]))
            if name["answer"]:
                self._answered.setdefault(slot[0], set()).add(slot[1])
            else:
                self._sent[slot] = self._sent.get(slot, 0) + 1
        self.lost = sum(max(count - (slot in self), 0) for slot, count in self._sent.items())

    def listed_again(self) -> AnswerStore:
        """Return the store as it is now, with what other processes have saved."""
        return AnswerStore(self._storage, self._root)

    def __contains__(self, slot: tuple[str, int]) -> bool:
        return slot[1] in self._answered.get(slot[0], ())

    def saved(self, key: str) -> list[Answer]:
        """Return the answers to a request in order: the first, its repairs, those of asking it again.

        Raises:
            ArtifactError: a saved answer cannot be read; removing the named file asks and pays anew.
        """
        answers: list[Answer] = []
        while (key, len(answers)) in self:
            answers.append(self._load(key, len(answers)))
        return answers

    def count(self, key: str) -> int:
        """Return how many answers to a request are saved, without reading them."""
        return len(self._answered.get(key, ()))

    def saved_to(self, keys: Sequence[str]) -> list[list[Answer]]:
        """Return :meth:`saved` of many requests, many at a time.

        Raises:
            ArtifactError: a saved answer cannot be read.
        """
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(self.saved, keys))

    def all_answers(self) -> list[Answer]:
        """Return every saved answer, for budgets that go on over a restart."""
        slots = [(key, number) for key in sorted(self._answered) for number in sorted(self._answered[key])]
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(lambda slot: self._load(*slot), slots))

    def mark_sent(self, key: str, number: int) -> None:
        """Note that a request is about to be sent."""
        count = self._sent.get((key, number), 0)
        while True:
            try:
                self._storage.create(self._uri(key, f"{number}.sent-{count}"), b"")
                break
            except AlreadyExistsError:
                count += 1
        self._sent[key, number] = count + 1

    def unmark(self, key: str, number: int) -> None:
        """Take the newest mark back: the endpoint refused the request, so nothing was charged."""
        self._sent[key, number] -= 1
        self._storage.delete(self._uri(key, f"{number}.sent-{self._sent[key, number]}"))

    def save(self, key: str, number: int, paper_id: str, answer: Answer) -> Answer:
        """Write an answer that has just come; of two runs that ask the same, both go on with the first.

        Raises:
            StorageError: the store refuses or is full.
        """
        record = {"key": key, "number": number, "paper_id": paper_id, **asdict(answer)}
        data = json.dumps(record, ensure_ascii=True, sort_keys=True).encode()
        try:
            self._storage.create(self._uri(key, f"{number}.json"), data)
        except AlreadyExistsError:
            self._answered.setdefault(key, set()).add(number)
            return self._load(key, number)
        self._answered.setdefault(key, set()).add(number)
        self._read[key, number] = answer
        return answer

    def _load(self, key: str, number: int) -> Answer:
        if (key, number) not in self._read:
            uri = self._uri(key, f"{number}.json")
            try:
                record: dict[str, Any] = json.loads(self._storage.read_bytes(uri))
                fields = {name: record[name] for name in Answer.__dataclass_fields__}
            except (ValueError, KeyError, TypeError) as error:
                raise ArtifactError(
                    f"{uri}: is no saved answer ({error}); restore it, or remove it and the request is sent "
                    "and paid again"
                ) from None
            self._read[key, number] = Answer(**fields)
        return self._read[key, number]

    def _uri(self, key: str, name: str) -> str:
        return join(self._root, key[:2], key, name)
