"""Templates: how a task's values are put into words, read from data files.

A file ``TASK.yaml`` is a list of paraphrases, each with ``instruction``, ``input`` (may be left out) and
``output``; a slot stands in brackets:

    - instruction: Suggest a title for the paper with this abstract.
      input: "[input]"
      output: A fitting title is "[output]".

Each paraphrase holds every slot of its task: those of the question in ``instruction`` or ``input``, those of
the answer in ``output``. Brackets around anything but a lower-case word are text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from baltoro.core.config import parse_yaml
from baltoro.core.errors import ConfigError, InputError
from baltoro.instructions.example import Turn
from baltoro.instructions.signals.tasks import TASKS, Task, nearest_task

if TYPE_CHECKING:
    from baltoro.core.storage import Storage

_SLOT = re.compile(r"\[([a-z_]+)\]")
_FIELDS = ("instruction", "input", "output")

USUAL_PARAPHRASES = 5
"""Paraphrases of each built-in task; a model taught with fewer learns their words rather than the task."""

Pieces = tuple[str, ...]
"""A text cut at its slots: text, slot, text, slot … text."""


@dataclass(frozen=True, slots=True)
class Template:
    """One paraphrase, cut at its slots."""

    instruction: Pieces
    input: Pieces
    output: Pieces

    def turns(self, slots: Mapping[str, str]) -> list[Turn]:
        """Return the dialogue with these values; a value is never searched for slots."""
        turns = [Turn("user", _filled(self.instruction, slots))]
        material = _filled(self.input, slots)
        if material:
            turns.append(Turn("input", material))
        turns.append(Turn("assistant", _filled(self.output, slots)))
        return turns


Templates = Mapping[str, tuple[Template, ...]]
"""The paraphrases of each task."""


@lru_cache(maxsize=1)
def builtin_templates() -> Templates:
    """Return the templates that come with the package, five for each task."""
    folder = resources.files(__package__).joinpath("templates")
    return {
        name: parse_templates(
            folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name, origin=f"templates/{name}.yaml"
        )
        for name in TASKS
    }


def load_templates(uri: str | None, storage: Storage | None = None) -> Templates:
    """Return the built-in templates, replaced task by task by the files of a folder.

    Args:
        uri: folder with ``TASK.yaml`` files; ``None`` for the built-in ones alone.
        storage: where to read from; the default reads local paths and S3.

    Raises:
        InputError: nothing is there, or no file of it is a template file.
        ConfigError: a file is named like no task or is not a list of paraphrases; a slot is missing or
            unknown; the message names file, paraphrase and slot.
    """
    if uri is None:
        return builtin_templates()
    from baltoro.core.storage import Storage

    storage = storage or Storage()
    files = [info for info in storage.list(uri) if info.key.endswith((".yaml", ".yml"))]
    if not files:
        raise InputError(
            f"instructions.signals.templates: {uri} holds no .yaml file; give a folder with files named "
            "after tasks, for example title_from_abstract.yaml"
        )
    replaced: dict[str, tuple[Template, ...]] = {}
    for info in files:
        name = info.key.rpartition("/")[2].rpartition(".")[0]
        if name not in TASKS:
            raise ConfigError(
                f"{info.uri}: no task is called {name}, did you mean {nearest_task(name)}? Name the file "
                f"after one of {', '.join(TASKS)}"
            )
        if name in replaced:
            raise ConfigError(f"{info.uri}: a second file for the task {name}; keep one")
        try:
            text = storage.read_bytes(info.uri).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{info.uri}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
        replaced[name] = parse_templates(text, name, origin=info.uri)
    return {**builtin_templates(), **replaced}


def parse_templates(text: str, task: str, *, origin: str) -> tuple[Template, ...]:
    """Return the paraphrases of one file.

    Args:
        text: the YAML.
        task: whose slots they must hold.
        origin: the file, for messages.

    Raises:
        ConfigError: as :func:`load_templates` says.
    """
    value = parse_yaml(text, origin)
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{origin}: holds no list of templates; write items with {', '.join(_FIELDS)}")
    templates: list[Template] = []
    for number, item in enumerate(value, 1):
        template = _parse(item, TASKS[task], f"{origin}: template {number}")
        if template in templates:
            raise ConfigError(
                f"{origin}: template {number} says what template {templates.index(template) + 1} says; word "
                "it otherwise or remove it"
            )
        templates.append(template)
    return tuple(templates)


def few_paraphrases(templates: Templates) -> dict[str, int]:
    """Return the number of paraphrases of each task that has fewer than the built-in ones have."""
    return {task: len(own) for task, own in templates.items() if len(own) < USUAL_PARAPHRASES}


def _parse(item: object, task: Task, where: str) -> Template:
    if not isinstance(item, dict):
        raise ConfigError(f"{where} is not a mapping; write {', '.join(_FIELDS)}")
    for key, value in item.items():
        if key not in _FIELDS:
            nearest = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{where}: unknown key {key!r}, did you mean {nearest}? Allowed: {', '.join(_FIELDS)}"
            )
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {key} is {value!r}, which is no text; put it in quotes")
    for key in ("instruction", "output"):
        if not item.get(key, "").strip():
            raise ConfigError(f"{where}: {key} is missing or empty; every template has one")
    pieces = {key: tuple(_SLOT.split(item.get(key, "").strip())) for key in _FIELDS}
    slots = {key: set(pieces[key][1::2]) for key in _FIELDS}
    asked = slots["instruction"] | slots["input"]
    for slot in sorted(asked | slots["output"]):
        if slot not in task.slots:
            nearest = difflib.get_close_matches(slot, sorted(task.slots), n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{where}: unknown slot [{slot}], did you mean [{nearest}]? "
                f"This task has {_slot_list(sorted(task.slots))}"
            )
    for slot in task.answer:
        if slot in asked:
            raise ConfigError(f"{where}: the slot [{slot}] is the answer and stands in the question; move it")
        if slot not in slots["output"]:
            raise ConfigError(f"{where}: the slot [{slot}] is missing in output; put it there")
    for slot in task.question:
        if slot not in asked:
            raise ConfigError(
                f"{where}: the slot [{slot}] is missing in instruction and input; add it to one"
            )
    return Template(**pieces)


def _slot_list(names: list[str]) -> str:
    return ", ".join(f"[{name}]" for name in names)


def _filled(pieces: Pieces, slots: Mapping[str, str]) -> str:
    if len(pieces) == 1:
        return pieces[0]
    if len(pieces) == 3 and not pieces[0] and not pieces[2]:
        return slots[pieces[1]]
    return "".join(slots[piece] if place % 2 else piece for place, piece in enumerate(pieces))
