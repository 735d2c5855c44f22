"""Recall by injection: disguised items planted in copies of the build's own documents, then looked for.

A matcher that finds nothing looks the same as a clean corpus. So every build plants some items, chosen and
disguised by a seed: other line breaks with words hyphenated across them, other punctuation and case, options
relabelled, shuffled, in lines or in one, blanks filled, the question mark gone. The planted copies exist only
inside :func:`try_canaries`; no document of the corpus ever holds one.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from baltoro.core.errors import ArtifactError
from baltoro.corpus.decontamination.config import CanaryConfig
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.decontamination.matcher import ITEM_CLASSES, ItemIndex
from baltoro.corpus.words import words_of

LENGTH_CLASSES: tuple[tuple[str, int], ...] = (
    ("words_4_to_7", 4),
    ("words_8_to_12", 8),
    ("words_13_to_31", 13),
    ("words_32_and_more", 32),
)
"""Names of the length classes, and the words that the shortest item of each has (options not counted)."""

_BOUND_FROM_WORDS = 8
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class MissedCanary:
    """A planted item that was not found, as it was planted (cut to some characters)."""

    set_name: str
    item_id: str
    length_class: str
    planted: str


@dataclass(frozen=True, slots=True)
class CanaryCounts:
    """How many planted items were found, by length class; the counts of chunks add up with ``+``."""

    planted: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    missed: tuple[MissedCanary, ...] = ()

    def __add__(self, other: CanaryCounts) -> CanaryCounts:
        return CanaryCounts(
            _added(self.planted, other.planted),
            _added(self.found, other.found),
            tuple(sorted((*self.missed, *other.missed), key=lambda m: (m.set_name, m.item_id, m.planted))),
        )

    def recall(self, length_class: str | None = None) -> float | None:
        """Return the part that was found, ``None`` if nothing was planted.

        Args:
            length_class: a name of :data:`LENGTH_CLASSES`; without, all items of 8 or more words together.
        """
        names = [
            name
            for name, shortest in LENGTH_CLASSES
            if name == length_class or (length_class is None and shortest >= _BOUND_FROM_WORDS)
        ]
        planted = sum(self.planted.get(name, 0) for name in names)
        return sum(self.found.get(name, 0) for name in names) / planted if planted else None


def choose_canaries(index: ItemIndex, config: CanaryConfig) -> tuple[int, ...]:
    """Return the numbers of the items to plant, of all length classes alike, in an order the seed decides.

    The choice depends on the items' content and the seed, not on the order of the items. What is too short
    to be told apart is never looked for, so it is not planted either: its number is ``len(index.too_short)``.
    """
    by_class: dict[str, list[tuple[int, int]]] = {name: [] for name, _ in LENGTH_CLASSES}
    for number in np.flatnonzero(index.classes != ITEM_CLASSES.index("too_short")).tolist():
        draw = _random(config.seed, index.items[number], "choose").getrandbits(64)
        by_class[_length_class(index.word_count(number))].append((draw, number))
    queues = [sorted(drawn) for drawn in by_class.values()]
    turns = max(map(len, queues))
    mixed = [queue[turn][1] for turn in range(turns) for queue in queues if turn < len(queue)]
    return tuple(mixed[: config.number])


def canaries_of_chunk(chosen: Sequence[int], chunk: int, chunks: int) -> tuple[int, ...]:
    """Return the share of one chunk; the shares of all chunks together are ``chosen``, none twice."""
    return tuple(chosen[chunk::chunks])


def try_canaries(
    index: ItemIndex, chosen: Sequence[int], texts: Sequence[str], config: CanaryConfig
) -> CanaryCounts:
    """Plant items in copies of documents, look for them and count.

    Args:
        index: the items.
        chosen: numbers of the items to plant, from :func:`choose_canaries` or :func:`canaries_of_chunk`.
        texts: documents of the run to plant them in; without any, nothing is planted or counted.
        config: the seed decides document, place and disguise.
    """
    planted: dict[str, int] = {}
    found: dict[str, int] = {}
    missed: list[MissedCanary] = []
    for number in chosen if texts else ():
        item = index.items[number]
        draw = _random(config.seed, item, "plant")
        copy = disguise(item, draw, options_always=ITEM_CLASSES[index.classes[number]] == "short")
        text, start = plant(copy, texts[draw.randrange(len(texts))], draw)
        end = start + len(copy)
        name = _length_class(index.word_count(number))
        planted[name] = planted.get(name, 0) + 1
        hit = any(
            match.item == item and min(match.end, end) - max(match.start, start) > 0
            for match in index.find(words_of(text), text)
        )
        found[name] = found.get(name, 0) + hit
        if not hit:
            missed.append(MissedCanary(item.set_name, item.item_id, name, copy[:_SHOWN_CHARACTERS]))
    return CanaryCounts(planted, found, tuple(missed))


def judge_recall(counts: CanaryCounts, config: CanaryConfig) -> str | None:
    """Return a warning if fewer planted items were found than the recipe demands, ``None`` if all is well.

    Raises:
        ArtifactError: the same, where ``on_low_recall`` is ``fail``.
    """
    recall = counts.recall()
    if recall is None or recall >= config.min_recall_fraction:
        return None
    first = next(m for m in counts.missed if m.length_class != LENGTH_CLASSES[0][0])
    message = (
        f"decontamination found {recall:.3f} of the planted evaluation items of {_BOUND_FROM_WORDS} or more "
        "words; corpus.decontaminate.canaries.min_recall_fraction demands "
        f"{config.min_recall_fraction}. Missed was for example {first.item_id} of {first.set_name!r}, "
        f"planted as {first.planted[:120]!r}. Look at the thresholds under corpus.decontaminate.match"
    )
    if config.on_low_recall == "fail":
        raise ArtifactError(message)
    return message


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def _length_class(words: int) -> str:
    return next(
        (name for name, shortest in reversed(LENGTH_CLASSES) if words >= shortest), LENGTH_CLASSES[0][0]
    )


def _random(seed: int, item: EvaluationItem, purpose: str) -> random.Random:
    key = "\0".join([str(seed), purpose, item.set_name, item.item_id, item.text])
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


# --- disguises -----------------------------------------------------------------------------------------

_LABELS: tuple[tuple[str, str], ...] = (
    ("{}. ", "ABCDEFGHIJKLMNOP"),
    ("({}) ", "abcdefghijklmnop"),
    ("{}) ", "123456789"),
    ("[{}] ", "123456789"),
    ("{}、", "①②③④⑤⑥⑦⑧⑨"),
    ("选项{}：", "甲乙丙丁戊己庚辛"),
    ("{} ", "-"),
    ("{} ", "•"),
)
_INVITATIONS = ("", "", "Choose from:", "Options", "Select the best answer below.", "Answer choices:")
_OTHER_MARKS = (
    {"'": "’", '"': "”", "-": "–", "?": "", ",": ""},
    {"?": " ?", ":": "", ";": ",", ",": " ,", "—": " - "},
    {"?": ".", "'": "", "(": "[", ")": "]", "/": " / "},
    {"-": " ", "“": '"', "”": '"', ".": "", "？": "", "，": "、", "。": ""},
    {"？": "?", "，": ", ", "（": "(", "）": ")", "：": ":", "?": "？", "-": "-\n"},
)
_FILLINGS = ("( )", "（ ）", "........", "____________", "[blank]")
_WIDE = r"\u2e80-\u9fff\uac00-\ud7a3\uff00-\uffef"
_PIECES = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+|\s+")
_BLANK = re.compile(r"_{2,}|\(\s*\)|（\s*）|…{2,}")


def disguise(item: EvaluationItem, draw: random.Random, *, options_always: bool = False) -> str:
    """Return an item as another source might print it.

    Args:
        item: the item.
        draw: decides everything.
        options_always: print the options; otherwise one copy in five goes without.
    """
    text = item.text
    if draw.random() < 0.7:
        text = _with_other_marks(text, draw)
    filling = draw.choice((*_FILLINGS, *item.options[:1]))
    text = _BLANK.sub(lambda _: f" {filling} ", text)
    text = _with_other_case(text, draw)
    parts = [text]
    if item.options and (options_always or draw.random() < 0.8):
        parts += [invitation for invitation in [draw.choice(_INVITATIONS)] if invitation]
        options = list(item.options)
        draw.shuffle(options)
        form, names = draw.choice(_LABELS)
        parts += [form.format(names[i % len(names)]) + option for i, option in enumerate(options)]
    text = draw.choice(("\n", "\n\n", "  ", "; ")).join(parts)
    return _wrapped(text, draw) if draw.random() < 0.8 else text


def plant(copy: str, document: str, draw: random.Random) -> tuple[str, int]:
    """Return the document with the copy at a place between two words or paragraphs, and where it starts."""
    pattern = r"\n\n" if "\n\n" in document and draw.random() < 0.5 else r"\s+|(?<=[。！？；，])"
    places = [match.end() for match in re.finditer(pattern, document)]
    at = draw.choice(places) if places else len(document)
    before = "" if at == 0 or document[at - 1].isspace() else " "
    after = "\n\n" if pattern == r"\n\n" else " "
    return f"{document[:at]}{before}{copy}{after}{document[at:]}", at + len(before)


def _with_other_marks(text: str, draw: random.Random) -> str:
    table = draw.choice(_OTHER_MARKS)
    return "".join(table.get(character, character) for character in text)


def _with_other_case(text: str, draw: random.Random) -> str:
    return draw.choice((str.lower, str.upper, str.title, str, str, str))(text)


def _wrapped(text: str, draw: random.Random) -> str:
    """Break lines anew: between words, inside long words with a hyphen, and anywhere in Chinese."""
    width = draw.randrange(30, 80)
    hyphenate = draw.random() < 0.5
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in _PIECES.findall(paragraph):
            if len(line) + len(piece) <= width or not line.strip():
                line += piece
                continue
            if hyphenate and len(piece) >= 8 and piece.isalpha():
                cut = draw.randrange(3, len(piece) - 3)
                lines.append(f"{line}{piece[:cut]}-")
                line = piece[cut:]
            else:
                lines.append(line.rstrip())
                line = piece.lstrip()
        lines.append(line)
    return "\n".join(lines)
