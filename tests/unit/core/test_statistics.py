import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.statistics import wilson_interval


@pytest.mark.parametrize(
    ("bad", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_it_gives_the_published_values(bad, n, low, high):
    assert wilson_interval(bad, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50, deadline=None)
def test_it_holds_the_rate_and_mirrors(pair):
    bad, n = pair
    low, high = wilson_interval(bad, n)
    assert 0 <= low <= bad / n <= high <= 1
    other_low, other_high = wilson_interval(n - bad, n)
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high))


def test_nothing_looked_at_tells_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("bad", "n"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(bad, n):
    with pytest.raises(ValueError, match=f"{bad} successes in {n} trials: give a number from 0 to {n}"):
        wilson_interval(bad, n)
