"""The loss curve shows what was reported, and only that."""

from baltoro.train.metrics import LOSS, VALIDATION_LOSS
from baltoro.train.report import loss_curve

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
