import numpy as np
import pytest

from baltoro.data import encode_words
from baltoro.data.encode_words import WordTable


class Spelling:
    """A model whose tokens are the code points of a word; counts what it is asked."""

    class Token:
        def __init__(self, code):
            self.id = code

    def __init__(self):
        self.asked = []

    def tokenize(self, text):
        self.asked.append(text)
        return [self.Token(ord(character)) for character in text]


def lookup(table, words):
    raw = b"".join(words) + bytes(16)
    lengths = np.array(list(map(len, words)), np.int64)
    offsets, counts = table.lookup(raw, np.cumsum(lengths) - lengths, lengths)
    return [
        "".join(map(chr, table.ids[offset : offset + count])).encode("latin-1", "replace")
        for offset, count in zip(offsets.tolist(), counts.tolist(), strict=True)
    ]


WORDS = [b"a", b"ab", b"b", b"a", b"abcdefgh", b"abcdefghi", b"abcdefghijklmnop", b"abcdefghijklmnopq", b"ab"]


def test_each_distinct_word_is_asked_once():
    model = Spelling()
    table = WordTable(model, [7, 8], 1000)
    assert lookup(table, WORDS) == WORDS
    assert sorted(model.asked) == sorted({word.decode() for word in WORDS})
    assert lookup(table, WORDS[::-1]) == WORDS[::-1]
    assert len(model.asked) == len(table) == len(set(WORDS))
    assert table.ids[:2].tolist() == [7, 8]


def test_zero_bytes_at_the_end_of_a_word_count(monkeypatch):
    monkeypatch.setattr(encode_words, "_hashes", lambda first, *_: np.zeros(len(first), np.uint64))
    model = Spelling()
    table = WordTable(model, [], 9)
    words = [b"a", b"a\0", b"a\0\0"]
    first = lookup(table, words)
    assert [len(word) for word in first] == [1, 2, 3]
    assert lookup(table, words[::-1]) == first[::-1]
    assert sorted(model.asked) == ["a", "aĀ", "aĀĀ"]


def test_words_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(encode_words, "_hashes", lambda first, *_: np.full(len(first), 2**64 - 1, np.uint64))
    table = WordTable(Spelling(), [], 1000)
    words = [b"%d" % (number % 300) for number in range(900)]
    assert lookup(table, words) == words
    assert lookup(table, words[::-1]) == words[::-1]
    assert len(table) == 300


@pytest.mark.parametrize("distinct", [100, 70_000])
def test_a_table_grows_with_its_words(distinct):
    table = WordTable(Spelling(), [], 10**6)
    words = [b"%d" % number for number in range(distinct)]
    assert lookup(table, words) == words
    assert lookup(table, words) == words
    assert len(table) == distinct


def test_a_full_table_starts_anew():
    model = Spelling()
    table = WordTable(model, [9], 10)
    for start in range(0, 100, 20):
        words = [b"%d" % number for number in range(start, start + 20)] + [b"x" * 20]
        assert lookup(table, words) == words
        assert len(table) == 21
    assert table.ids[0] == 9
    assert len(model.asked) == 5 * 21


def test_endless_words_are_not_kept():
    table = WordTable(Spelling(), [], 100)
    assert lookup(table, [b"-" * 300, b"-" * 200]) == [b"-" * 300, b"-" * 200]
    assert len(table) == 1
