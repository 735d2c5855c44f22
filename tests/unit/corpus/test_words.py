"""Words as numbers: the same for every way of printing them, and always at their place in the text."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baltoro.corpus import words as words_module
from baltoro.corpus.words import Characters, mixed, ngram_hashes, ngram_hashes_at, words_of

PLAIN = st.text(alphabet=st.sampled_from("abz09 \n.,;-ÄéßΩж中文字かカ한글"), max_size=80)


def printed(text):
    words = words_of(text)
    return [text[start:end] for start, end in zip(words.starts, words.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" .,;—…“”\n", []),
        ("The  stop—“Müller” 3.5 km²", ["The", "stop", "Müller", "3", "5", "km²"]),
        ("地质学 is 3 层。", ["地", "质", "学", "is", "3", "层"]),
        ("カタカナ 한국어", ["カ", "タ", "カ", "ナ", "한", "국", "어"]),
        ("A中B", ["A", "中", "B"]),
        ("\U00020000\U0002000b x", ["\U00020000", "\U0002000b", "x"]),
        ("soft\u00adhyphen zero\u200bwidth", ["soft\u00adhyphen", "zero\u200bwidth"]),
        ("\U000e0041\U0010ffff a", ["a"]),
    ],
)
def test_words_stand_where_the_text_has_them(text, expected):
    assert printed(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Über Müller", "uber muller"),
        ("u\u0308ber", "über"),
        ("ＡＢＣ１", "abc1"),
        ("soft\u00adhyphen", "softhyphen"),
        ("𝑥 = 𝛼", "x α"),
        ("(a) b;\nc", "a b c"),
        ("ÅNGSTRÖM", "angstrom"),
    ],
)
def test_case_accents_compatibility_forms_and_punctuation_do_not_matter(one, other):
    assert words_of(one).hashes.tolist() == words_of(other).hashes.tolist()


@pytest.mark.parametrize(
    ("one", "other"), [("ab", "ba"), ("a", "aa"), ("a b", "ab"), ("1", "2"), ("aab", "aba")]
)
def test_other_words_have_other_hashes(one, other):
    assert words_of(one).hashes.tolist() != words_of(other).hashes.tolist()


def test_numbers_and_single_characters_are_told_apart():
    words = words_of("ice 42 中 b2")
    assert words.has_letter.tolist() == [True, False, True, True]
    assert words.single.tolist() == [False, False, True, False]
    assert words.lengths.tolist() == [3, 2, 1, 2]


@given(PLAIN)
@example("中")
@example("a")
def test_every_letter_and_digit_stands_in_one_word_and_nothing_else_does(text):
    words = words_of(text)
    covered = np.zeros(len(text), int)
    for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True):
        covered[start:end] += 1
    assert covered.tolist() == [int(character.isalnum()) for character in text]
    assert words.starts.tolist() == sorted(words.starts.tolist())


@given(PLAIN, PLAIN)
def test_a_text_in_another_context_has_the_same_words(text, around):
    whole = words_of(f"{around}. {text}. {around}")
    alone, margin = words_of(text), words_of(around)
    middle = slice(len(margin), len(margin) + len(alone))
    assert whole.hashes[middle].tolist() == alone.hashes.tolist()
    assert (whole.starts[middle] - len(around) - 2).tolist() == alone.starts.tolist()


@given(st.text(max_size=40))
def test_any_text_has_words(text):
    words = words_of(text)
    assert (words.ends > words.starts).all()
    assert (words.starts[1:] >= words.ends[:-1]).all()


def test_no_two_of_many_words_share_a_hash():
    text = " ".join(f"w{number:x}" for number in range(200_000))
    assert len(np.unique(words_of(text).hashes)) == 200_000


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 6))
def test_ngrams_are_equal_where_their_words_are(numbers, n):
    hashes = words_of(" ".join(map(str, numbers))).hashes
    grams = ngram_hashes(hashes, n)
    assert len(grams) == max(0, len(numbers) - n + 1)
    runs = [tuple(numbers[i : i + n]) for i in range(len(grams))]
    pairs = set(zip(runs, grams.tolist(), strict=True))
    assert len(pairs) == len(set(runs)) == len(set(grams.tolist()))


def test_an_ngram_of_no_words_is_refused():
    with pytest.raises(ValueError, match="n: 0 is not allowed"):
        ngram_hashes(words_of("a").hashes, 0)


def test_mixing_loses_nothing():
    assert len(np.unique(mixed(np.arange(100_000, dtype=np.uint64)))) == 100_000


@given(st.text(alphabet=st.sampled_from("ab9 é\u0301ж中\U0001d465"), max_size=60))
@example("")
@example("a")
@example("aé")
def test_characters_are_those_of_the_text(text):
    characters = Characters.of(text)
    assert characters.codes.tolist() == [ord(character) for character in text]
    assert characters.ascii.tolist() == [ord(c) if c.isascii() else 0 for c in text]
    assert characters.beyond.tolist() == [place for place, c in enumerate(text) if not c.isascii()]


@pytest.mark.parametrize("between", [" ", "  ", " é ", " 中 ", "中"])
def test_blocks_of_a_long_text_change_no_hash(between, monkeypatch):
    text = between.join(f"{'long' * (number % 9)}wörd{number}" for number in range(200))
    whole = words_of(text)
    words_module._powers.cache_clear()
    monkeypatch.setattr(words_module, "_BLOCK_CHARACTERS", 16)
    cut = words_of(text)
    words_module._powers.cache_clear()
    assert cut.hashes.tolist() == whole.hashes.tolist()
    assert len(whole) >= 200


def test_the_hash_of_a_word_is_its_polynomial():
    folded = [ord(character) + 1 for character in "geo9"]
    place, factor = 0xD6E8FEB86659FD93, 0x9E3779B97F4A7C15
    value = sum(code * factor * place**power for power, code in enumerate(folded)) % 2**64
    expected = mixed(np.array([value], np.uint64))[0]
    # At even and odd places, and after characters of other widths.
    for text in ("geo9", " Geo9", "…GEO9", "x géo9", "中geo9"):
        assert words_of(text).hashes[-1] == expected


@given(st.lists(st.integers(0, 5), min_size=6, max_size=30), st.integers(1, 4))
def test_ngrams_at_places_are_those_of_all(numbers, n):
    hashes = words_of(" ".join(map(str, numbers))).hashes
    grams = ngram_hashes(hashes, n)
    places = np.arange(0, len(grams), 2)
    assert ngram_hashes_at(hashes, n, places).tolist() == grams[places].tolist()
