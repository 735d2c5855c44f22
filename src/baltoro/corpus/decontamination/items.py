"""Read evaluation sets: from the bytes of their files to the items that documents are searched for.

An item is a question with the options printed beside it, a written answer, a passage, or a plain line. A
record may give several: a question and its model answer leak independently of each other. Answers that say
nothing (a letter, a number, true or false) are no items; short ones are evidence beside their question.

Everything that is wrong with a set is one :class:`~baltoro.core.errors.InputError` here, so that a build can
read its sets first and refuse before any work starts: a benchmark that silently was not looked for is worse
than none.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from baltoro.core.errors import InputError
from baltoro.corpus.decontamination.config import EvaluationFields, EvaluationSetConfig
from baltoro.corpus.words import words_of

ItemKind = Literal["question", "answer", "passage", "line"]

ANSWER_ITEM_WORDS = 8
"""A written answer of so many words is an item of its own; a shorter one is evidence beside its question."""


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """One thing that must not be learned from.

    Attributes:
        set_name: the name of its set in the recipe.
        item_id: file and place, counted from 1 (``npee.json#choice/12``): ids in files are often not unique.
        text: the question without its options, or the whole answer, passage or line.
        kind: what it is.
        options: what a copy would print beside the text, without labels.
    """

    set_name: str
    item_id: str
    text: str
    kind: ItemKind
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The items of one set; ``empty_records`` are records that hold nothing to look for."""

    name: str
    items: tuple[EvaluationItem, ...]
    records: int
    empty_records: int


@dataclass(frozen=True, slots=True)
class _Raw:
    """What a record holds, before it is turned into items."""

    place: str
    stem: str = ""
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    kind: ItemKind = "question"


def load_evaluation_set(config: EvaluationSetConfig, files: Sequence[tuple[str, bytes]]) -> EvaluationSet:
    """Return the items of one evaluation set.

    Args:
        config: the set's settings.
        files: name (or path below the set's folder) and content of each of its files.

    Raises:
        InputError: no file, a file that cannot be read as the format says, a field that no record has, or
            no item at all; names set, file and what is allowed.
    """
    wanted = sorted((name, data) for name, data in files if len(files) == 1 or not _is_about(name))
    if not wanted:
        raise InputError(f"evaluation set {config.name!r}: {config.uri} holds no files; correct its uri")
    items: list[EvaluationItem] = []
    records = empty = 0
    passages: set[str] = set()
    for name, data in wanted:
        where = f"evaluation set {config.name!r}, {name}"
        before = len(items)
        for raw in _read(where, name, data, config):
            records += 1
            made = list(_items_of(raw, config.name, f"{name}#{raw.place}", passages))
            empty += not made
            items += made
        if len(items) == before and records == 0:
            raise InputError(f"{where}: no records in it; name a file with questions or take the set out")
    if not items:
        raise InputError(
            f"evaluation set {config.name!r}: {records} records, none with text to look for; check its fields"
        )
    return EvaluationSet(config.name, tuple(items), records, empty)


# --- files ---------------------------------------------------------------------------------------------

_SUFFIXES: dict[str, str] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "lines",
}
_CODECS = {".gz": "gzip", ".zst": "zstd"}
_ABOUT = re.compile(
    r"[._].*|(readme|licen[cs]e|notice|citation|changelog)\b.*|(dataset_infos?|dataset_dict|state)\.json",
    re.I,
)
_REVIEW_HEAD = "Aggregated Review:"


def _is_about(name: str) -> bool:
    """Whether a file of a folder describes the set instead of holding it."""
    return bool(_ABOUT.fullmatch(PurePosixPath(name).name))


def _read(where: str, name: str, data: bytes, config: EvaluationSetConfig) -> Iterator[_Raw]:
    path = PurePosixPath(name)
    if path.suffix.lower() in _CODECS:
        data = _unpacked(where, data, _CODECS[path.suffix.lower()])
        path = path.with_suffix("")
    form: str = config.format
    if form == "auto":
        form = _SUFFIXES.get(path.suffix.lower(), "")
        if not form:
            raise InputError(
                f"{where}: its format cannot be told from the suffix {path.suffix or '(none)'!r}; set "
                "format to one of geobench, json, jsonl, csv, tsv, parquet, lines, review"
            )
        if form == "lines" and _REVIEW_HEAD.encode() in data:
            form = "review"
    if form == "parquet":
        yield from _from_records(where, _parquet_records(where, data), config.fields)
        return
    text = _decoded(where, data)
    if form == "lines":
        yield from _from_lines(text)
    elif form == "review":
        yield _from_review(text)
    elif form == "jsonl":
        yield from _from_records(where, list(_json_lines(where, text)), config.fields)
    elif form in ("csv", "tsv"):
        yield from _from_records(where, _table_rows(where, text, form), config.fields)
    else:
        value = _json_value(where, text)
        if form == "geobench" or (
            config.format == "auto" and not config.fields.named and _is_geobench(value)
        ):
            yield from _from_geobench(where, value)
        else:
            yield from _from_records(where, _json_records(where, value), config.fields)


def _unpacked(where: str, data: bytes, codec: str) -> bytes:
    import pyarrow as pa

    try:
        with pa.input_stream(pa.BufferReader(data), compression=codec) as stream:
            return bytes(stream.read())
    except OSError as error:
        raise InputError(f"{where}: cannot be unpacked as {codec} ({error}); replace the file") from None


def _decoded(where: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8; save it as UTF-8"
        ) from None


def _json_value(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}; correct the file "
            "or set format"
        ) from None
    except RecursionError:
        raise InputError(f"{where}: not a set of records: JSON nested too deep; correct the file") from None


def _json_lines(where: str, text: str) -> Iterator[Mapping[str, Any]]:
    # Only line feeds end a line of JSONL: U+2028 may stand inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            record = _json_value(f"{where}, line {number}", line)
            if not isinstance(record, dict):
                raise InputError(
                    f"{where}, line {number}: {type(record).__name__} where one JSON object per line is "
                    "wanted; correct it or set format"
                )
            yield record


def _json_records(where: str, value: Any) -> list[Mapping[str, Any]]:
    """Return the records of a JSON file: a list, the one list of an object, its values, or itself."""
    if isinstance(value, dict):
        lists = [item for item in value.values() if _is_objects(item)]
        if len(lists) == 1:
            value = lists[0]
        elif value and _is_objects(list(value.values())):
            value = list(value.values())
        else:
            value = [value]
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise InputError(
            f"{where}: a list of JSON objects is wanted, one per question; correct it or set format (lines "
            "for plain text)"
        )
    return value


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _table_rows(where: str, text: str, form: str) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if form == "tsv" else ",")
    try:
        # What stands beyond the header's columns has no name, and so cannot be asked for.
        return [{key: value for key, value in row.items() if key is not None} for row in reader]
    except csv.Error as error:
        raise InputError(
            f"{where}: line {reader.line_num} is no {form.upper()}: {error}; correct it"
        ) from None


def _parquet_records(where: str, data: bytes) -> list[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Mapping[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where}: not a Parquet file ({error}); replace it or set format") from None
    return rows


# --- layouts -------------------------------------------------------------------------------------------


def _is_geobench(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(part, dict)
            and isinstance(part.get("question"), list)
            and isinstance(part.get("answer"), list)
            for part in value.values()
        )
    )


def _from_geobench(where: str, value: Any) -> Iterator[_Raw]:
    """Read GeoBench's own layout: task kinds, each with parallel lists of questions and answers.

    Its other file, a list of ``{"question": {"stem", "choices"}}``, is read as usual records.
    """
    if isinstance(value, list):
        yield from _from_records(where, _json_records(where, value), EvaluationFields())
        return
    if not _is_geobench(value):
        raise InputError(
            f"{where}: not in GeoBench's layout, which is an object of task kinds with the lists 'question' "
            "and 'answer', or a list of questions with stem and choices; set format to json"
        )
    for kind, part in value.items():
        questions, answers = part["question"], part["answer"]
        if len(questions) != len(answers):
            raise InputError(
                f"{where}: {kind!r} has {len(questions)} questions and {len(answers)} answers; the lists "
                "must be parallel, so correct the file"
            )
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True), 1):
            yield _Raw(f"{kind}/{number}", stem=_text(question), answers=(_text(answer),))


def _from_lines(text: str) -> Iterator[_Raw]:
    """Read one item per line; lines that start with an option's label belong to the question above."""
    question: list[str] = []
    first = 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if question and _OPTION_LINE.match(line):
            question.append(line)
            continue
        if question:
            yield _Raw(str(first), stem="\n".join(question), kind="line")
        question, first = ([line], number) if line.strip() else ([], 0)


def _from_review(text: str) -> _Raw:
    return _Raw("1", passages=(text.partition(_REVIEW_HEAD)[2] if _REVIEW_HEAD in text else text,))


_USUAL_STEMS = (
    "question",
    "stem",
    "question_stem",
    "query",
    "problem",
    "prompt",
    "instruction",
    "goal",
    "ctx",
)
_USUAL_OPTIONS = ("choices", "options", "endings", "candidates")
_USUAL_COLUMNS = (
    *(tuple("abcdefgh"[:count]) for count in range(8, 1, -1)),
    *(tuple(f"option_{letter}" for letter in "abcdefgh"[:count]) for count in range(8, 1, -1)),
    ("correct_answer", "distractor1", "distractor2", "distractor3"),
)
_USUAL_ANSWERS = ("answer", "answers", "output", "target", "solution", "correct_answer", "reference")
_USUAL_PASSAGES = ("passage", "context", "article", "document", "review", "reviews")
_USUAL_TEXT = ("text", "content", "sentence")

_MISSING = object()


def _from_records(
    where: str, records: Sequence[Mapping[str, Any]], fields: EvaluationFields
) -> Iterator[_Raw]:
    if not records:
        return
    extract = _named_fields(where, records, fields) if fields.named else _usual_fields(where, records)
    for number, record in enumerate(records, 1):
        yield extract(record, str(number))


def _named_fields(
    where: str, records: Sequence[Mapping[str, Any]], fields: EvaluationFields
) -> Callable[[Mapping[str, Any], str], _Raw]:
    for role in ("stems", "options", "answers", "passages"):
        for path in getattr(fields, role):
            if all(_at(record, path.split(".")) is _MISSING for record in records):
                raise InputError(
                    f"{where}: no record has the field {path!r} of fields.{role}; the first one has "
                    f"{', '.join(_paths(records[0])) or 'no field'}"
                )

    def texts(record: Mapping[str, Any], paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(text for path in paths for text in _texts(_at(record, path.split("."))))

    def extract(record: Mapping[str, Any], place: str) -> _Raw:
        return _Raw(
            place,
            stem="\n".join(texts(record, fields.stems)),
            options=texts(record, fields.options),
            answers=texts(record, fields.answers),
            passages=texts(record, fields.passages),
        )

    return extract


def _usual_fields(
    where: str, records: Sequence[Mapping[str, Any]]
) -> Callable[[Mapping[str, Any], str], _Raw]:
    usual = (*_USUAL_STEMS, *_USUAL_PASSAGES, *_USUAL_TEXT)
    if not any(str(name).lower() in usual for record in records for name in record):
        raise InputError(
            f"{where}: no record has one of the usual fields ({', '.join(usual)}); the first one has "
            f"{', '.join(_paths(records[0])) or 'no field'}. Name yours under fields"
        )
    return _extract_usual


def _extract_usual(record: Mapping[str, Any], place: str) -> _Raw:
    lowered = {str(name).lower(): value for name, value in record.items()}
    question = next((lowered[name] for name in _USUAL_STEMS if lowered.get(name)), "")
    if isinstance(question, dict):  # the layout of ARC and of GeoBench's second file
        lowered = {**lowered, **{str(name).lower(): value for name, value in question.items()}}
        question = next((question[name] for name in ("stem", "text", "question") if question.get(name)), "")
    stem = "\n".join(_texts(question))
    if lowered.get("instruction") and lowered.get("input"):
        stem = f"{stem}\n{_text(lowered['input'])}"
    options = next((_texts(lowered[name]) for name in _USUAL_OPTIONS if lowered.get(name)), [])
    if not options:
        columns = next((c for c in _USUAL_COLUMNS if all(name in lowered for name in c)), ())
        options = [text for name in columns for text in _texts(lowered[name])]
    passages = [text for name in _USUAL_PASSAGES for text in _texts(lowered.get(name))]
    kind: ItemKind = "question"
    if not stem and not passages:
        stem = "\n".join(next((_texts(lowered[name]) for name in _USUAL_TEXT if lowered.get(name)), []))
        kind = "line"
    answers = [text for name in _USUAL_ANSWERS for text in _texts(lowered.get(name))]
    return _Raw(place, stem, tuple(options), tuple(answers), tuple(passages), kind)


def _at(value: Any, path: Sequence[str]) -> Any:
    """Return what stands at a path, entering lists; ``_MISSING`` where nothing does."""
    for depth, name in enumerate(path):
        if isinstance(value, list):
            found = [_at(item, path[depth:]) for item in value]
            present = [item for item in found if item is not _MISSING]
            return present or _MISSING
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _paths(record: Mapping[str, Any], before: str = "") -> list[str]:
    """Return the paths of a record's fields, as ``fields`` would name them."""
    paths: list[str] = []
    for name, value in record.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            paths += _paths(inner, f"{before}{name}.")
        else:
            paths.append(f"{before}{name}")
    return paths


def _texts(value: Any) -> list[str]:
    """Return the texts of a field: itself, its list, ``{"text": …}``, or the values of ``{"A": …}``."""
    if value is None or value is _MISSING or isinstance(value, bool):
        return []
    if isinstance(value, str | int | float):
        return [text] if (text := str(value).strip()) else []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        for name in ("text", "content", "review", "stem"):
            if name in value:
                return _texts(value[name])
        if value and all(len(str(name)) == 1 for name in value):
            return [text for name in sorted(value, key=str) for text in _texts(value[name])]
    return []


def _text(value: Any) -> str:
    return "\n".join(_texts(value))


# --- from a record to items ----------------------------------------------------------------------------

_LABEL = r"(?:[(（\[]?[A-Ha-h][)）\].．、:：]|[(（]\d{1,2}[)）]|[①-⑩])"
_OPTION_LINE = re.compile(rf"\s*{_LABEL}\s*(?=\S)")
_NUMBERED_LINE = re.compile(r"\s*\d{1,2}[.)、]\s*(?=\S)")
_INLINE_LABEL = re.compile(r"(?:(?<=[\s(（。？?：:])|(?<=[\u4e00-\u9fff]))[(（]?([A-H])[.)．、）]\s*(?=\S)")
_CHOOSE_FROM = re.compile(
    r"\s*(choose (from|one)[^\n]*|options|choices|the answer is|answer|选项|答案)\s*[:：]?\s*$", re.I
)
_SAYS_NOTHING = re.compile(
    r"\W*(?:[A-Ha-h](?:\W+[A-Ha-h])*|[A-H]{1,8}|\d{1,2}"
    r"|true|false|yes|no|correct|incorrect|right|wrong|对|错|正确|错误|是|否)\W*",
    re.I,
)


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Return question and options of a text that prints both.

    The options stand on lines that start with a label (``A.``, ``(b)``, ``①``, ``1.``), or in one line under
    the labels A, B, C and so on, at least three. A text without comes back whole, without options.
    """
    lines = text.splitlines()
    for label in (_OPTION_LINE, _NUMBERED_LINE):
        labelled = [number for number, line in enumerate(lines) if label.match(line)]
        if len(labelled) > 1 and labelled[0] > 0:
            options: list[str] = []
            for number in range(labelled[0], len(lines)):
                if number in labelled:
                    options.append(label.sub("", lines[number], count=1).strip())
                elif lines[number].strip() and not _CHOOSE_FROM.match(lines[number]):
                    options[-1] = f"{options[-1]} {lines[number].strip()}"
            return _without_invitation(lines[: labelled[0]]), tuple(options)
    marks: list[re.Match[str]] = []
    for mark in _INLINE_LABEL.finditer(text):
        if mark[1] == "ABCDEFGH"[len(marks) : len(marks) + 1]:
            marks.append(mark)
    if len(marks) < 3:
        return text.strip(), ()
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return (
        _without_invitation(text[: marks[0].start()].splitlines()),
        tuple(text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)),
    )


def _without_invitation(lines: list[str]) -> str:
    stem = [line for line in lines if line.strip()]
    while len(stem) > 1 and _CHOOSE_FROM.match(stem[-1]):
        stem.pop()
    return re.sub(r"\s*choose from\s*:?\s*$", "", "\n".join(stem), flags=re.I).strip()


def _items_of(raw: _Raw, set_name: str, item_id: str, passages: set[str]) -> Iterator[EvaluationItem]:
    stem, options = raw.stem.strip(), list(raw.options)
    if not options:
        stem, embedded = split_options(stem)
        options = list(embedded)
    # Not one by one: "C. elegans" is no label.
    if all(map(_OPTION_LINE.match, options)):
        options = [_OPTION_LINE.sub("", option, count=1).strip() for option in options]
    known = {option.casefold() for option in options}
    written = [
        answer
        for answer in dict.fromkeys(raw.answers)
        if not _SAYS_NOTHING.fullmatch(answer) and answer.casefold() not in known
    ]
    long = [answer for answer in written if len(words_of(answer)) >= ANSWER_ITEM_WORDS]
    options += [answer for answer in written if answer not in long]
    if _has_words(stem):
        yield EvaluationItem(set_name, item_id, stem, raw.kind, tuple(filter(_has_words, options)))
    for number, answer in enumerate(long, 1):
        yield EvaluationItem(
            set_name, f"{item_id}:answer{'' if len(long) == 1 else number}", answer, "answer"
        )
    for number, passage in enumerate(raw.passages, 1):
        # Reading tests repeat a passage for each of its questions.
        if _has_words(passage) and passage not in passages:
            passages.add(passage)
            yield EvaluationItem(set_name, f"{item_id}:passage{number}", passage.strip(), "passage")


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)
