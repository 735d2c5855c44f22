"""The pictures show what was reported, and only that."""

import pytest

from baltoro.train.goodput import CAUSES, Goodput, Span
from baltoro.train.metrics import LOSS, VALIDATION_LOSS
from baltoro.train.report import _columns, _kept_and_lost, goodput_picture, loss_curve

PNG = b"\x89PNG\r\n\x1a\n"


def test_same_history_gives_the_same_picture_and_another_another():
    history = [(0, {VALIDATION_LOSS: 8.0}), (1, {LOSS: 7.9, "train/grad_norm": 1.0}), (2, {LOSS: 7.0})]
    picture = loss_curve(history, title="demo")
    assert picture.startswith(PNG)
    assert picture == loss_curve(history, title="demo")
    assert picture != loss_curve([*history, (3, {LOSS: 6.5})], title="demo")


def test_other_metrics_do_not_change_the_picture():
    assert loss_curve([(1, {LOSS: 2.0, "x": 1.0})], title="t") == loss_curve([(1, {LOSS: 2.0})], title="t")


def test_a_run_that_reported_nothing_still_has_a_picture():
    assert loss_curve([], title="t").startswith(PNG)


def test_attempts_after_the_first_are_marked():
    history = [(step, {LOSS: 1.0 / step}) for step in range(1, 9)]
    plain = loss_curve(history, title="t")
    assert loss_curve(history, title="t", attempts=[(1, 0)]) == plain
    assert loss_curve(history, title="t", attempts=[(1, 0), (2, 4)]) != plain


def test_steps_taken_anew_replace_the_lost_ones():
    points = [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0), (3, 3.5), (4, 2.5), (5, 2.0)]
    kept, lost = _kept_and_lost(points)
    assert kept == [(1, 5.0), (2, 4.0), (3, 3.5), (4, 2.5), (5, 2.0)]
    assert lost == [[(2, 4.0), (3, 3.0), (4, 2.0)]]


def test_a_run_that_began_anew_has_lost_all_of_the_first_curve():
    assert _kept_and_lost([(1, 5.0), (2, 4.0), (1, 5.5)]) == ([(1, 5.5)], [[(1, 5.0), (2, 4.0)]])


def test_every_column_of_the_goodput_picture_is_as_high_as_there_are_devices():
    spans = (
        Span(0.0, 10.0, "restart", 4),
        Span(10.0, 33.3, "useful", 4),
        Span(33.3, 50.0, "replay", 4),
        Span(60.0, 97.0, "useful", 2),
    )
    goodput = Goodput(0.0, 100.0, 4, spans, ((1, 0.0), (2, 55.0)))
    edges, columns = _columns(goodput)
    width = edges[1] - edges[0]
    for heights in zip(*columns.values(), strict=True):
        assert sum(heights) == pytest.approx(4.0)
        assert min(heights) >= 0.0
    for cause, seconds in goodput.device_seconds().items():
        assert sum(columns[cause]) * width == pytest.approx(seconds)
    assert set(columns) == set(CAUSES)


def test_the_goodput_picture_shows_the_time_line():
    goodput = Goodput(0.0, 100.0, 2, (Span(0.0, 90.0, "useful", 2),), ((1, 0.0), (2, 50.0)))
    picture = goodput_picture(goodput, title="geo")
    assert picture.startswith(PNG)
    assert picture == goodput_picture(goodput, title="geo")
    shorter = Goodput(0.0, 100.0, 2, (Span(0.0, 60.0, "useful", 2),), ((1, 0.0), (2, 50.0)))
    assert picture != goodput_picture(shorter, title="geo")


def test_a_run_of_no_time_has_a_goodput_picture():
    assert goodput_picture(Goodput(0.0, 0.0, 1, (), ()), title="geo").startswith(PNG)
