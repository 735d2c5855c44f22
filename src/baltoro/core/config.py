"""Strict, frozen configuration: YAML, environment and dotted overrides decoded into pydantic models.

A config class stands beside the code it configures and derives from :class:`StrictModel`. Every leaf
field is declared with :func:`result` (it changes what comes out, so it is fingerprinted) or
:func:`execution` (workers, cadences, places: it never is), nested models with :func:`section`:

>>> class Demo(StrictModel):
...     steps: int = result(10, "optimizer updates", gt=0)
...     workers: int = execution(1, "processes", gt=0)
>>> result_fields(Demo(steps=3))
{'steps': 3}

Decoding (:func:`decode`) answers every mistake with the full path, the value, what is allowed and the
nearest valid name. Values are never converted between kinds: ``"10"`` is not a number here.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from baltoro.core.errors import ConfigError

ENVIRONMENT_PREFIX = "BALTORO__"
"""``BALTORO__PRETRAIN__STEPS=20`` sets ``pretrain.steps``, between the file and the command line."""


class StrictModel(BaseModel):
    """Base of every config class: unknown keys are errors, instances cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, validate_by_name=True, validate_by_alias=True
    )


def result(default: Any, description: str, **constraints: Any) -> Any:
    """Declare a field that changes what comes out; it enters the stage's fingerprint.

    Args:
        default: the default, or ``...`` for a required field.
        description: one sentence for people, with the unit.
        **constraints: passed on to ``pydantic.Field`` (``gt``, ``le``, ``alias`` …).
    """
    return Field(default, description=description, json_schema_extra={"affects": "result"}, **constraints)


def execution(default: Any, description: str, **constraints: Any) -> Any:
    """Declare a field that changes only how, where or how fast; it is never fingerprinted."""
    return Field(default, description=description, json_schema_extra={"affects": "execution"}, **constraints)


def section(factory: Callable[[], Any], description: str, **constraints: Any) -> Any:
    """Declare a nested model whose own fields carry the marks; ``factory`` makes the default."""
    return Field(default_factory=factory, description=description, **constraints)


def affects(field: FieldInfo) -> str | None:
    """Return ``"result"``, ``"execution"`` or ``None`` (a section) for a model field."""
    extra = field.json_schema_extra
    return str(extra["affects"]) if isinstance(extra, dict) and "affects" in extra else None


def result_fields(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return every fingerprinted field of a config as ``{dotted path: JSON value}``, defaults included.

    Raises:
        TypeError: a leaf field carries no mark (a defect of the config class).
    """
    found: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        path = f"{prefix}{field.alias or name}"
        value = getattr(model, name)
        mark = affects(field)
        if mark == "execution":
            continue
        nested = list(_nested_models(path, value))
        if nested:
            for nested_path, nested_model in nested:
                found |= result_fields(nested_model, f"{nested_path}.")
        elif mark == "result":
            found[path] = json.loads(json.dumps(value, default=_plain))
        elif value is not None and not _is_empty_container(value):
            raise TypeError(f"{type(model).__name__}.{name} is neither marked result nor execution")
    return found


def _nested_models(path: str, value: Any) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nested_models(f"{path}.{key}", item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, item in enumerate(value):
            yield from _nested_models(f"{path}.{index}", item)


def _is_empty_container(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) and not value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a config value of type {type(value).__name__} has no JSON form")


# --------------------------------------------------------------------------------------------------
# YAML


_MOST_VALUES = 100_000


class _RecipeLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, reads ``1e-5`` as a number and leaves dates as text."""


_RecipeLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _RecipeDumper(yaml.SafeDumper):
    """SafeDumper whose output the loader reads back: text like ``1e-5`` is quoted, odd line ends escaped."""


def _represent_text(dumper: _RecipeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line separators as they are, and folds them away when it reads.
    style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_RecipeDumper.add_representer(str, _represent_text)


for _side in (_RecipeLoader, _RecipeDumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+0123456789."),
    )


def _construct_mapping(loader: _RecipeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise ConfigError(
                f"line {key_node.start_mark.line + 1}: the key {key!r} is not text; put it in quotes"
            )
        if key in seen:
            raise ConfigError(
                f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice "
                f"(first on line {seen[key]}); remove one"
            )
        seen[key] = key_node.start_mark.line + 1
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_RecipeLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str, origin: str) -> Any:
    """Return the value of a YAML text; what an alias repeats is a copy, so that each can be overridden alone.

    Args:
        text: the YAML.
        origin: the file or option it came from, for messages.

    Raises:
        ConfigError: not YAML, a duplicate key, or a value with no JSON form; names line and column, or the
            value's path.
    """
    try:
        return _json_copy(yaml.load(text, Loader=_RecipeLoader), "", [_MOST_VALUES])
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error.message}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{origin}{where}: not valid YAML: {error.problem}; correct that line") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: is nested too deeply for a recipe; flatten it") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ConfigError(f"{origin}: a value cannot be read ({error}); correct it") from None


def _json_copy(value: Any, path: str, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ConfigError(
            f"holds more than {_MOST_VALUES:,} values once its aliases are written out; no recipe needs that"
        )
    if isinstance(value, dict):
        return {key: _json_copy(item, f"{path}.{key}" if path else key, left) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_copy(item, f"{path}.{index}", left) for index, item in enumerate(value)]
    where = f"{path}: " if path else ""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}{value} is not a number a recipe can hold; give a finite one")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    kind = type(value).__name__
    raise ConfigError(f"{where}{value!r} ({kind}) is not a value a recipe can hold; put it in quotes")


def load_mapping(path: Path) -> dict[str, Any]:
    """Return the top-level mapping of a YAML file.

    Raises:
        ConfigError: the file is missing, not text, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; give the path of a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        kind = "empty" if value is None else {"list": "a list"}.get(type(value).__name__, "one plain value")
        raise ConfigError(f"{path}: a recipe is a mapping of sections, this file is {kind}")
    return value


# --------------------------------------------------------------------------------------------------
# Overrides


def apply_override(data: dict[str, Any], assignment: str) -> None:
    """Set ``section.key=value`` in place; list items go by index, the value is YAML.

    Raises:
        ConfigError: no ``=``, an index that does not exist, or a path that leads through a plain value.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path or any(not part for part in path.split(".")):
        raise ConfigError(
            f"{assignment!r}: an override is written section.key=value, for example pretrain.steps=20"
        )
    set_path(data, path.split("."), parse_value(text, f"override {path}"), path)


def parse_value(text: str, origin: str) -> Any:
    """Return the value of an override or a variable: YAML in one line, nothing for an empty text.

    Raises:
        ConfigError: not YAML, or a part of it would be taken for a comment.
    """
    value = parse_yaml(text, origin)
    end = max(token.end_mark.index for token in yaml.scan(text) if not isinstance(token, yaml.StreamEndToken))
    if text[end:].strip():
        raise ConfigError(
            f"{origin}: {text[end:].strip()!r} would be a comment of the YAML value {text!r}; put the value "
            "in quotes, for example key='\"a #1\"'"
        )
    return value


def set_path(data: dict[str, Any], parts: Sequence[str], value: Any, path: str) -> None:
    """Set a value at a path of keys and list indices, creating missing mappings on the way."""
    node: Any = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        here = ".".join(parts[:depth]) or "the recipe"
        if isinstance(node, list):
            if not part.isdigit() or int(part) > len(node) - (0 if last else 1):
                raise ConfigError(
                    f"{path}: {here} is a list of {len(node)}; its items are addressed 0 to {len(node) - 1}"
                    + (f", and {len(node)} appends" if last else "")
                    + f", not {part!r}"
                )
            index = int(part)
            if last:
                node[index : index + 1] = [value]
            else:
                node = node[index]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            else:
                if node.get(part) is None:
                    node[part] = {}
                node = node[part]
        else:
            raise ConfigError(f"{path}: {here} is {node!r}, which has no keys below it")


def environment_overrides(environment: Mapping[str, str]) -> Iterator[tuple[list[str], str, str]]:
    """Yield ``(path parts, text, variable name)`` of every ``BALTORO__SECTION__KEY`` variable, sorted.

    Raises:
        ConfigError: a variable that names no key.
    """
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            parts = name[len(ENVIRONMENT_PREFIX) :].lower().split("__")
            if not all(parts):
                raise ConfigError(
                    f"{name}: such a variable is named {ENVIRONMENT_PREFIX}SECTION__KEY, for example "
                    f"{ENVIRONMENT_PREFIX}PRETRAIN__STEPS; rename or unset it"
                )
            yield parts, environment[name], name


# --------------------------------------------------------------------------------------------------
# Decoding

Model = TypeVar("Model", bound=BaseModel)
_NOTHING: Mapping[str, str] = types.MappingProxyType({})


def decode(
    model: type[Model], data: Mapping[str, Any], origin: str, given_by: Mapping[str, str] = _NOTHING
) -> Model:
    """Return ``model`` filled from plain data, strictly: no conversions, no unknown keys.

    Args:
        model: the config class.
        data: plain JSON values, as :func:`parse_yaml` returns them.
        origin: the recipe's name, for messages.
        given_by: where a value came from, by dotted path, if not from the recipe.

    Raises:
        ConfigError: one line per mistake: full path, value, what is allowed, nearest valid name.
    """
    try:
        # JSON mode is strict about kinds, yet takes a list where a tuple is declared.
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        lines = list(
            dict.fromkeys(
                describe_error(model, detail) + _origin_of(detail["loc"], given_by)
                for detail in error.errors()
            )
        )
        if len(lines) > 1:
            lines.insert(0, f"the recipe has {len(lines)} mistakes:")
        raise ConfigError(f"{origin}: " + "\n  ".join(lines)) from None


def _origin_of(location: Sequence[int | str], given_by: Mapping[str, str]) -> str:
    for depth in range(len(location), 0, -1):
        origin = given_by.get(".".join(str(part) for part in location[:depth]))
        if origin is not None:
            return f" (from {origin})"
    return ""


def describe_error(model: type[BaseModel], detail: ErrorDetails) -> str:
    """Return one sentence for a pydantic error: path, value, what is allowed, what to write instead."""
    location = detail["loc"]
    path = ".".join(str(part) for part in location)
    # A profile is where a secret may have been put by mistake; it must not end up in a log.
    secret = path.startswith("storage.profiles")
    kind, given = detail["type"], "this value" if secret else _short(detail.get("input"))
    if kind == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        names = sorted(field.alias or name for name, field in owner.model_fields.items()) if owner else []
        nearest = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
        hint = f", did you mean {'.'.join([*map(str, location[:-1]), nearest[0]])}?" if nearest else "."
        return f"{path}: unknown key{hint} Allowed here: {', '.join(names)}"
    if kind == "missing":
        return f"{path}: is required and not given; add it to the recipe"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        nearest = difflib.get_close_matches(str(detail.get("input")), re.findall(r"'([^']*)'", expected), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        return f"{path}: {given} is not allowed; it must be {expected}{hint}"
    if kind == "value_error":
        return f"{path}: {message}" if path and not message.startswith(path) else message
    return f"{path}: {given} is not allowed: {message[0].lower()}{message[1:]}"


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    current: Any = model
    inside_container = False
    for part in location:
        if inside_container:  # an index of a list, or a key that the recipe's author chose
            inside_container = False
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return None
        by_name = {field.alias or name: field for name, field in current.model_fields.items()}
        field = by_name.get(str(part))
        annotation = field.annotation if field else None
        current = _unwrap(annotation)
        inside_container = _is_container(annotation)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _is_container(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(_is_container(argument) for argument in typing.get_args(annotation))
    return origin in (list, tuple, dict, Sequence, Mapping)


def _unwrap(annotation: Any) -> Any:
    """Return the config class inside Optional, list, tuple or dict annotations, or the annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, tuple, dict, Sequence, Mapping, typing.Annotated):
        for argument in typing.get_args(annotation):
            inner = _unwrap(argument)
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner
    return annotation


def dump_yaml(model: BaseModel) -> str:
    """Return the resolved config as YAML in field order, aliases as people write them."""
    return to_yaml(model.model_dump(mode="json", by_alias=True))


def to_yaml(value: Any) -> str:
    """Return plain data as YAML that :func:`parse_yaml` reads back as the same."""
    return yaml.dump(value, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=100)


def first_repeated(names: Iterable[str]) -> str | None:
    """Return a name that stands more than once, the first by the alphabet; ``None`` if there is none."""
    counts = Counter(names)
    return min((name for name, count in counts.items() if count > 1), default=None)
