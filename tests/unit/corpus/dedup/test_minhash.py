"""Signatures estimate how much two texts share, and bands bring together what shares enough."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.dedup.config import NearDuplicateConfig
from baltoro.corpus.dedup.minhash import (
    band_keys,
    bin_minima,
    chance_of_being_found,
    containment,
    shingles_of,
    signature_of,
    similarity,
    similarity_noise,
)
from baltoro.corpus.words import words_of

NEAR = NearDuplicateConfig()


def sets_with(rng, size, jaccard):
    """Two sets of random hashes of about this size each, with an overlap as near as whole numbers allow."""
    shared = round(2 * size * jaccard / (1 + jaccard))
    hashes = rng.integers(0, 2**64, 2 * size - shared, dtype=np.uint64)
    one, other = np.sort(hashes[:size]), np.sort(np.concatenate([hashes[:shared], hashes[size:]]))
    return one, other, shared / (2 * size - shared)


def sketch_of(hashes, bins=NEAR.bins):
    bits = (bin_minima(hashes, bins) & np.uint64(15)).astype(np.uint8)
    return bits[0::2] | bits[1::2] << 4


@pytest.mark.parametrize("size", [10, 40, 250, 6000])
@pytest.mark.parametrize("jaccard", [0.0, 0.2, 0.5, 0.8])
def test_the_estimate_is_unbiased_with_the_spread_that_theory_says(size, jaccard):
    rng = np.random.default_rng(size)
    trials = 200
    errors, exact = [], 0.0
    for _ in range(trials):
        one, other, exact = sets_with(rng, size, jaccard)
        errors.append(float(similarity(sketch_of(one), sketch_of(other))) - exact)
    equal = exact + (1 - exact) / 16
    spread = np.sqrt(equal * (1 - equal) / NEAR.bins) / (1 - 1 / 16)
    # A short text has no more to draw from than its own shingles.
    widest = spread + (np.sqrt(equal * (1 - equal) / size) if size < NEAR.bins else 0)
    assert abs(np.mean(errors)) <= 4 * np.std(errors) / np.sqrt(trials)
    assert np.std(errors) < 1.2 * widest
    if size > 4 * NEAR.bins:
        assert np.std(errors) > 0.85 * spread


@pytest.mark.parametrize("similar", [0.5, 0.6, 0.7])
def test_bands_meet_as_often_as_the_curve_says(similar):
    rng = np.random.default_rng(7)
    met = 0
    for _ in range(250):
        one, other, exact = sets_with(rng, 2000, similar)
        keys = [band_keys(bin_minima(hashes, NEAR.bins), NEAR.bands) for hashes in (one, other)]
        met += bool((keys[0] == keys[1]).any())
    expected, _, _ = chance_of_being_found(exact, NEAR)
    assert met / 250 == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 250) + 0.003)


def test_the_curve_is_the_one_the_documentation_shows():
    found = {j: chance_of_being_found(j, NEAR)[2] for j in (0.17, 0.3, 0.45, 0.5, 0.55, 0.6)}
    assert found == pytest.approx({0.17: 0, 0.3: 0, 0.45: 0.489, 0.5: 0.926, 0.55: 0.997, 0.6: 1}, abs=5e-4)


def test_a_text_of_few_words_is_one_shingle_of_what_it_has():
    assert len(shingles_of(words_of("only three words"), 5)) == 1
    assert len(shingles_of(words_of("five words are just enough"), 5)) == 1
    assert len(shingles_of(words_of("six words make two of them"), 5)) == 2
    assert len(shingles_of(words_of("-- ... --"), 5)) == 0
    assert shingles_of(words_of("one, two"), 5).tolist() == shingles_of(words_of("ONE two."), 5).tolist()


def test_a_text_without_words_has_no_keys():
    signature = signature_of(words_of("… — …"), NearDuplicateConfig(min_words=0))
    assert (len(signature.band_keys), signature.shingles) == (0, 0)
    assert not signature.sketch.any()


def test_a_short_notice_meets_nobody_but_can_be_compared():
    words = words_of("The authors correct the affiliation of the third author.")
    assert len(signature_of(words, NEAR).band_keys) == 0
    assert signature_of(words, NEAR).sketch.any()
    assert len(signature_of(words, NearDuplicateConfig(min_words=5)).band_keys) == NEAR.bands


def test_chinese_text_is_shingled_by_characters():
    assert len(shingles_of(words_of("冰川退缩导致湖泊扩张"), 5)) == 6


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40, unique=True))
@settings(max_examples=60)
def test_every_bin_is_filled_from_the_document_itself(values):
    hashes = np.sort(np.array(values, np.uint64))
    minima = bin_minima(hashes, 64)
    assert np.isin(minima, hashes).all()
    own = hashes >> np.uint64(58)
    for number in np.unique(own):
        assert minima[number] == hashes[own == number].min()


@given(st.text(alphabet="abc 中文 \n.", max_size=300), st.text(alphabet=" \n,.;“”", max_size=5))
def test_line_breaks_and_punctuation_do_not_change_a_signature(text, breaks):
    other = text.replace(" ", f" {breaks} ")
    one, two = signature_of(words_of(text), NEAR), signature_of(words_of(other), NEAR)
    assert one.band_keys.tolist() == two.band_keys.tolist()
    assert one.sketch.tolist() == two.sketch.tolist()


def test_a_signature_is_the_same_in_every_build():
    signature = signature_of(words_of(" ".join(f"word{n}" for n in range(300))), NEAR)
    assert signature.shingles == 296
    assert signature.band_keys[:2].tolist() == [12985899340505154590, 5363013899029688357]
    assert signature.sketch[:6].tolist() == [55, 195, 240, 125, 29, 58]


def test_containment_of_a_part_is_near_one(text):
    whole = text(1, 4000)
    part = whole[: len(whole) // 3]
    one, two = (signature_of(words_of(t), NEAR) for t in (whole, part))
    alike = similarity(one.sketch, two.sketch)
    assert alike == pytest.approx(1 / 3, abs=0.12)
    assert containment(alike, np.array(one.shingles), np.array(two.shingles)) > 0.75


def test_unrelated_texts_stay_within_the_noise(text):
    sketches = np.stack([signature_of(words_of(text(seed, 2000)), NEAR).sketch for seed in range(40)])
    estimates = similarity(sketches[:-1], sketches[1:])
    assert abs(estimates.mean()) < similarity_noise(NEAR.bins)
    assert np.abs(estimates).max() < 4 * similarity_noise(NEAR.bins)


def test_signatures_take_a_small_part_of_the_time_per_megabyte(text):
    words = [words_of(text(seed, 8000, 10**6)) for seed in range(5)]
    start = time.process_time()
    for entry in words:
        signature_of(entry, NEAR)
    megabytes = sum(int(entry.ends[-1]) for entry in words) / 1e6
    assert (time.process_time() - start) / megabytes < 0.1
