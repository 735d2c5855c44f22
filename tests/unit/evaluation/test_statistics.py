import math

import numpy as np
import pytest

from baltoro.evaluation.statistics import ratio_interval, student_quantile, wilson_interval


def test_wilson_interval_of_known_cases():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_successes_than_trials_are_refused():
    with pytest.raises(ValueError, match="3 successes in 2 trials: give a number from 0 to 2"):
        wilson_interval(3, 2)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (10_000, 1.9602)],
)
def test_student_quantiles_are_those_of_the_tables(degrees, quantile):
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, rel=2e-3)


def test_interval_of_equal_clusters_is_that_of_a_mean():
    values = [2.0, 3.0, 4.0, 5.0, 6.0]
    low, high = ratio_interval([10 * value for value in values], [10] * 5)
    half = 2.7764 * np.std(values, ddof=1) / math.sqrt(5)
    assert (low, high) == pytest.approx((4 - half, 4 + half), rel=1e-3)


def test_interval_holds_the_true_mean_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        counts = random.integers(1, 30, 12)
        sums = counts * (3.0 + random.normal(0, 0.5, 12))
        low, high = ratio_interval(sums.tolist(), counts.tolist())
        held += low <= 3.0 <= high
    assert 0.88 <= held / 400 <= 0.99


def test_one_cluster_has_no_interval():
    assert ratio_interval([3.0, 0.0], [2, 0]) is None
