import math

import numpy as np
import pytest

from baltoro.evaluation.statistics import ratio_interval


def test_interval_of_equal_clusters_is_that_of_a_mean():
    values = [2.0, 3.0, 4.0, 5.0, 6.0]
    low, high = ratio_interval([10 * value for value in values], [10] * 5)
    half = 2.776445 * np.std(values, ddof=1) / math.sqrt(5)
    assert (low, high) == pytest.approx((4 - half, 4 + half), rel=1e-6)


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
