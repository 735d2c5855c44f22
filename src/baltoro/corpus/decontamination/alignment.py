"""Which words of a question a place in a document has, whatever the two cut or misprint otherwise."""

from __future__ import annotations

import difflib
import itertools
import unicodedata

from baltoro.corpus.words import Words

_MISPRINT_LETTERS = 5


def consistent_blocks(wanted: list[int], present: list[int], allowed: int) -> list[tuple[int, int, int]]:
    """Return the common runs (position, place, length) in order, without those that stand apart."""
    matcher = difflib.SequenceMatcher(None, wanted, present, autojunk=False)
    blocks = [(b.a, b.b, b.size) for b in matcher.get_matching_blocks() if b.size]
    if not blocks:
        return []
    main = max(range(len(blocks)), key=lambda i: blocks[i][2])
    # Of a word before the longest run the first occurrence was taken, which may belong to another sentence.
    for i in range(main - 1, -1, -1):
        position, _, size = blocks[i]
        run = wanted[position : position + size]
        nearest = blocks[i + 1][1] - size
        while present[nearest : nearest + size] != run:
            nearest -= 1
        blocks[i] = (position, nearest, size)
    shift = blocks[main][1] - blocks[main][0]
    blocks = [block for block in blocks if abs(block[1] - block[0] - shift) <= allowed]
    while len(blocks) > 1:
        gaps = [
            (after[1] - before[1] - before[2]) - (after[0] - before[0] - before[2])
            for before, after in itertools.pairwise(blocks)
        ]
        if sum(gap for gap in gaps if gap > 0) <= allowed:
            break
        if blocks[0][2] <= blocks[-1][2]:
            blocks.pop(0)
        else:
            blocks.pop()
    return blocks


class Letters:
    """The letters and digits of a text by word: do two texts differ only in where words are cut?"""

    def __init__(self, text: str, words: Words, offset: int = 0) -> None:
        self._text = text
        self._words = words
        self._offset = offset

    def of(self, span: slice) -> str:
        """Return the letters of some words, numbered from the offset on; none for an empty span."""
        if span.start >= span.stop:
            return ""
        start = int(self._words.starts[self._offset + span.start])
        return letters_of(self._text[start : int(self._words.ends[self._offset + span.stop - 1])])

    def ending(self, end: int, letters: str) -> int:
        """Return how many words right before ``end`` have these letters, 0 if none do."""
        for count in range(1, min(end + self._offset, len(letters)) + 1):
            tried = self.of(slice(end - count, end))
            if alike(letters, tried):
                return count
            if len(tried) > len(letters):
                return 0
        return 0

    def starting(self, first: int, letters: str) -> int:
        """Return how many words from ``first`` on have these letters, 0 if none do."""
        for count in range(1, min(len(self._words) - self._offset - first, len(letters)) + 1):
            tried = self.of(slice(first, first + count))
            if alike(letters, tried):
                return count
            if len(tried) > len(letters):
                return 0
        return 0


def letters_of(text: str) -> str:
    """Return the letters and digits of a text, without case; accents and ligatures taken apart."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    return "".join(filter(str.isalnum, text.casefold()))


def alike(letters: str, others: str) -> bool:
    """Whether two runs of letters are equal, or, if long enough, differ by a misprint of one letter."""
    if letters == others:
        return True
    if min(len(letters), len(others)) < _MISPRINT_LETTERS or abs(len(letters) - len(others)) > 1:
        return False
    same = 0
    while same < min(len(letters), len(others)) and letters[same] == others[same]:
        same += 1
    rest, other_rest = letters[same:], others[same:]
    return rest[1:] in (other_rest[1:], other_rest) or rest == other_rest[1:]
