"""Cut the loops that a text decoder falls into: one phrase, name or footnote repeated for kilobytes.

A loop is a stretch of text with a period ``p``: every character equals the one ``p`` before it. Cutting
whole periods leaves exactly the first occurrence, whichever rotation of the phrase the stretch starts
with; of the rotations, one that starts a sentence is taken, so that what is left ends with a whole one.
A loop that counts ("Footnote 12: …", "Footnote 13: …") has a period once every number is read as the
same. Tables, arrays and listings repeat themselves for good reasons and are left alone as long as they
are closed; one that never closes is a loop too.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

_PROBE_CHARACTERS = 32
_PROBE_STEP_CHARACTERS = 96
_LONGEST_PERIOD_CHARACTERS = 2000
_CANDIDATE_PERIODS = 4
_SHORTEST_LOOP_CHARACTERS = 250
_FEWEST_COPIES = 4
_PHRASE_LETTERS = 8
_SHORTEST_LETTER_LOOP_CHARACTERS = 1000
_SHORTEST_SYMBOL_LOOP_CHARACTERS = 3000
_LONGEST_COUNT_DIGITS = 6

_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"\d+")
_DECIMAL_POINT = re.compile(r"[.,]\d")
_FRACTION = re.compile(r"\d[.,]$")
_LINE_START = re.compile(r"(?<=\n)(?=\S)")
_SENTENCE_START = re.compile(r"(?:^|(?<!\b[A-Z])[.!?][\"”'’)\]]*\s+)(?=\S)")
_ENVIRONMENT = re.compile(
    r"\\(begin|end)\{(tabular|array|matrix|[bpvBV]matrix|table|longtable|cases|aligned)\*?\}"
)
_PIPE_ROW = re.compile(r"^\|.*\|[ \t]*$", re.MULTILINE)


def cut_repetitions(text: str) -> tuple[str, int]:
    """Return the text with each loop cut down to its first occurrence, and the characters cut.

    A stretch counts as a loop from four copies and 250 characters on if the repeated phrase has at
    least eight letters, from 1,000 characters on if it has a letter, and from 3,000 if it has none
    (dot leaders and rulers are shorter). Copies may differ in their numbers if the phrase has at least
    eight letters and, from copy to copy, each number stays or goes up by one; decimals must stay, so that
    measured values are not taken for a count. Periods up to 2,000 characters are found. The time is
    linear in the length of the text.
    """
    if len(text) < _SHORTEST_LOOP_CHARACTERS:
        return text, 0
    kept = _without(text, _exact_loops(text))
    kept = _without(kept, _counting_loops(kept))
    return kept, len(text) - len(kept)


def _without(text: str, cuts: Iterable[tuple[int, int]]) -> str:
    pieces: list[str] = []
    kept_from = 0
    for start, end in cuts:
        pieces.append(text[kept_from:start])
        kept_from = end
    return "".join([*pieces, text[kept_from:]]) if kept_from else text


def _exact_loops(text: str) -> Iterator[tuple[int, int]]:
    """Yield what to cut of each loop: all copies but the first."""
    for start, end, period in _runs(text, _is_loop):
        first = _phrase_start(text, start, period)
        yield first + period, _cut_end(text, first, end, period)


def _counting_loops(text: str) -> Iterator[tuple[int, int]]:
    """Yield what to cut of each loop whose copies differ in a count."""
    # One digit stands for each number, so that 9 and 10 take the same room.
    view = _NUMBER.sub("0", text)
    numbers: _Numbers | None = None
    for start, end, period in _runs(view, _is_loop_of_words):
        numbers = numbers or _Numbers(text)
        first = _phrase_start(view, start, period)
        bounds = list(range(first, end + 1, period))
        begin = 0
        copies = len(bounds) - 1
        values = [numbers.between(bounds[copy], bounds[copy + 1]) for copy in range(copies)]
        for copy in range(1, copies + 1):
            if copy < copies and _counts_on(values[copy - 1], values[copy]):
                continue
            length = bounds[copy] - bounds[begin]
            if copy - begin >= _FEWEST_COPIES and length >= _SHORTEST_LOOP_CHARACTERS:
                cut_end = bounds[copy] if copy < copies else _cut_end(view, first, end, period)
                yield numbers.source(bounds[begin + 1]), numbers.source(cut_end)
            begin = copy


class _Numbers:
    """The numbers of a text, and where they stand in its view with one digit for each."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans = [match.span() for match in _NUMBER.finditer(text)]
        self._places: list[int] = []
        surplus = 0
        for start, end in self._spans:
            self._places.append(start - surplus)
            surplus += end - start - 1

    def source(self, position: int) -> int:
        """Return the place in the text of a place in the view."""
        before = bisect_left(self._places, position) - 1
        return position + (self._spans[before][1] - self._places[before] - 1 if before >= 0 else 0)

    def between(self, start: int, end: int) -> list[int | str]:
        """Return the numbers of a stretch of the view: whole ones as such, parts of decimals as digits."""
        spans = self._spans[bisect_left(self._places, start) : bisect_left(self._places, end)]
        return [self._value(*span) for span in spans]

    def _value(self, start: int, end: int) -> int | str:
        digits = self._text[start:end]
        is_fraction = _FRACTION.search(self._text, max(start - 2, 0), start) is not None
        if is_fraction or _DECIMAL_POINT.match(self._text, end) or len(digits) > _LONGEST_COUNT_DIGITS:
            return digits
        return int(digits)


def _counts_on(left: list[int | str], right: list[int | str]) -> bool:
    """Tell whether each number of a copy is that of the copy before or the next one."""
    return all(
        old == new or (isinstance(old, int) and isinstance(new, int) and new == old + 1)
        for old, new in zip(left, right, strict=True)
    )


def _runs(text: str, is_loop: Callable[[str, int, int], bool]) -> Iterator[tuple[int, int, int]]:
    """Yield ``(start, end, period)`` of each periodic stretch that is a loop, outside tables and listings."""
    protected = _protected_regions(text)
    starts = [start for start, _ in protected]
    floor = 0
    position = 0
    last_probe = len(text) - _PROBE_CHARACTERS
    while position <= last_probe:
        region = bisect_right(starts, position) - 1
        if region >= 0 and position < protected[region][1]:
            position = protected[region][1]
            continue
        run, searched = _run_at(text, position, floor, is_loop)
        if run is None:
            # Looking again inside a long stretch that is no loop would cost quadratic time.
            position = max(position + _PROBE_STEP_CHARACTERS, searched)
            continue
        yield run
        floor = run[1]
        position = max(floor, position + 1)


def _phrase_start(text: str, start: int, period: int) -> int:
    """Return where in its first period a loop is cut: at a line, else at a sentence, else at a word."""
    for pattern in (_LINE_START, _SENTENCE_START):
        # What ends the sentence before may stand left of the loop.
        for match in pattern.finditer(text, max(start - 4, 0), start + period):
            if match.end() >= start:
                return match.end()
    for place in range(start, start + period):
        if place == 0 or not (text[place - 1].isalnum() and text[place].isalnum()):
            return place
    return start


def _cut_end(text: str, first: int, end: int, period: int) -> int:
    """Return the end of a loop's last whole copy, or of the loop if it breaks off at a line's end."""
    # Where a line or the text ends, the decoder ran out of tokens in the middle of a copy.
    if end == len(text) or text[end] == "\n":
        return end
    return first + (end - first) // period * period


def _run_at(
    text: str, position: int, floor: int, is_loop: Callable[[str, int, int], bool]
) -> tuple[tuple[int, int, int] | None, int]:
    """Return ``(start, end, period)`` of the loop through ``position``, and the end of what is none.

    The loop does not reach left of ``floor``.
    """
    probe = text[position : position + _PROBE_CHARACTERS]
    limit = position + _LONGEST_PERIOD_CHARACTERS + _PROBE_CHARACTERS
    following = searched = position
    for _ in range(_CANDIDATE_PERIODS):
        following = text.find(probe, following + 1, limit)
        if following < 0:
            break
        period = following - position
        end = following + _common_prefix(text, position, following)
        if end - position < (_FEWEST_COPIES - 1) * period:
            continue
        if is_loop(text[position : position + period], end - floor, period):
            start = _extend_left(text, position, period, floor)
            if is_loop(text[start : start + period], end - start, period):
                return (start, end, period), searched
        searched = max(searched, end)
        if end - position > _LONGEST_PERIOD_CHARACTERS:
            break
    return None, searched


def _is_loop(phrase: str, length: int, period: int) -> bool:
    if _is_loop_of_words(phrase, length, period):
        return True
    if length < _FEWEST_COPIES * period:
        return False
    has_letter = _LETTER.search(phrase) is not None
    return length >= (_SHORTEST_LETTER_LOOP_CHARACTERS if has_letter else _SHORTEST_SYMBOL_LOOP_CHARACTERS)


def _is_loop_of_words(phrase: str, length: int, period: int) -> bool:
    return (
        length >= max(_SHORTEST_LOOP_CHARACTERS, _FEWEST_COPIES * period)
        and len(_LETTER.findall(phrase)) >= _PHRASE_LETTERS
    )


def _common_prefix(text: str, left: int, right: int) -> int:
    """Return how many characters from ``right`` on equal those from ``left`` on, by doubling slices."""
    total = len(text)
    length = 0
    step = _PROBE_CHARACTERS
    while right + length < total:
        step = min(step, total - right - length)
        if text[left + length : left + length + step] == text[right + length : right + length + step]:
            length += step
            step *= 2
        elif step == 1:
            break
        else:
            step //= 2
    return length


def _extend_left(text: str, position: int, period: int, floor: int) -> int:
    """Return where the loop through ``position`` starts."""
    # A probe looks every 96 characters, so a loop starts at most a few probes to the left.
    while position > floor and text[position - 1] == text[position - 1 + period]:
        position -= 1
    return position


def _protected_regions(text: str) -> list[tuple[int, int]]:
    """Return the sorted, merged spans of closed environments, closed fences and pipe table rows."""
    spans: list[tuple[int, int]] = []
    if "\\begin{" in text:
        stack: list[tuple[str, int]] = []
        for match in _ENVIRONMENT.finditer(text):
            if match[1] == "begin":
                stack.append((match[2], match.start()))
            elif stack and stack[-1][0] == match[2]:
                spans.append((stack.pop()[1], match.end()))
            else:
                stack.clear()
    opened: int | None = None
    fence = text.find("```")
    while fence >= 0:
        if opened is not None:
            spans.append((opened, fence + 3))
            opened = None
        elif not text[text.rfind("\n", 0, fence) + 1 : fence].strip():
            opened = fence
        fence = text.find("```", fence + 3)
    if text.startswith("|") or "\n|" in text:
        spans.extend(match.span() for match in _PIPE_ROW.finditer(text))
    spans.sort()
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
