"""Cut the loops that a text decoder falls into: one phrase, name or footnote repeated for kilobytes.

A loop is a stretch of text with a period ``p``: every character equals the one ``p`` before it. Cutting
whole periods leaves exactly the first occurrence, whichever rotation of the phrase the stretch starts
with. Tables, arrays and listings repeat themselves for good reasons and are left alone as long as they
are closed; one that never closes is a loop too.
"""

from __future__ import annotations

import re
from bisect import bisect_right

_PROBE_CHARACTERS = 32
_PROBE_STEP_CHARACTERS = 96
_LONGEST_PERIOD_CHARACTERS = 2000
_CANDIDATE_PERIODS = 4
_SHORTEST_LOOP_CHARACTERS = 250
_FEWEST_COPIES = 4
_PHRASE_LETTERS = 8
_SHORTEST_LETTER_LOOP_CHARACTERS = 1000
_SHORTEST_SYMBOL_LOOP_CHARACTERS = 3000

_LETTER = re.compile(r"[^\W\d_]")
_ENVIRONMENT = re.compile(
    r"\\(begin|end)\{(tabular|array|matrix|[bpvBV]matrix|table|longtable|cases|aligned)\*?\}"
)
_PIPE_ROW = re.compile(r"^\|.*\|[ \t]*$", re.MULTILINE)


def cut_repetitions(text: str) -> tuple[str, int]:
    """Return the text with each loop cut down to its first occurrence, and the characters cut.

    A stretch counts as a loop from four copies and 250 characters on if the repeated phrase has at
    least eight letters, from 1,000 characters on if it has a letter, and from 3,000 if it has none
    (dot leaders and rulers are shorter). Periods up to 2,000 characters are found. The time is linear
    in the length of the text.
    """
    if len(text) < _SHORTEST_LOOP_CHARACTERS:
        return text, 0
    protected = _protected_regions(text)
    starts = [start for start, _ in protected]
    pieces: list[str] = []
    kept_from = 0
    cut_characters = 0
    position = 0
    last_probe = len(text) - _PROBE_CHARACTERS
    while position <= last_probe:
        region = bisect_right(starts, position) - 1
        if region >= 0 and position < protected[region][1]:
            position = protected[region][1]
            continue
        run = _run_at(text, position, kept_from)
        if run is None:
            position += _PROBE_STEP_CHARACTERS
            continue
        start, end, period = run
        copies = (end - start) // period
        cut_end = start + copies * period
        if end == len(text) or text[end] == "\n":
            cut_end = end  # the last copy was broken off where the decoder ran out of tokens
        pieces.append(text[kept_from : start + period])
        cut_characters += cut_end - (start + period)
        kept_from = cut_end
        position = max(cut_end, position + 1)
    if not cut_characters:
        return text, 0
    pieces.append(text[kept_from:])
    return "".join(pieces), cut_characters


def _run_at(text: str, position: int, floor: int) -> tuple[int, int, int] | None:
    """Return ``(start, end, period)`` of the loop through ``position``, not reaching left of ``floor``."""
    probe = text[position : position + _PROBE_CHARACTERS]
    limit = position + _LONGEST_PERIOD_CHARACTERS + _PROBE_CHARACTERS
    following = position
    for _ in range(_CANDIDATE_PERIODS):
        following = text.find(probe, following + 1, limit)
        if following < 0:
            return None
        period = following - position
        end = following + _common_prefix(text, position, following)
        if end - position < (_FEWEST_COPIES - 1) * period:
            continue
        start = _extend_left(text, position, period, floor)
        if _is_loop(text[start : start + period], end - start, period):
            return start, end, period
    return None


def _is_loop(phrase: str, length: int, period: int) -> bool:
    if length < max(_SHORTEST_LOOP_CHARACTERS, _FEWEST_COPIES * period):
        return False
    letters = len(_LETTER.findall(phrase))
    if letters >= _PHRASE_LETTERS:
        return True
    return length >= (_SHORTEST_LETTER_LOOP_CHARACTERS if letters else _SHORTEST_SYMBOL_LOOP_CHARACTERS)


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
    """Return where the loop through ``position`` starts, moved on to the start of a word."""
    # A probe looks every 96 characters, so a loop starts at most a few probes to the left.
    while position > floor and text[position - 1] == text[position - 1 + period]:
        position -= 1
    # The phrase may start anywhere in its period; at a word start no fragment is left behind.
    for start in range(position, position + period):
        if start == floor or not (text[start - 1].isalnum() and text[start].isalnum()):
            return start
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
