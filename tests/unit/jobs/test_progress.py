"""The line that people watch."""

import io
import logging

from tqdm import tqdm

from baltoro.jobs.progress import describe, update_bar
from baltoro.jobs.training.workers import WarningsTeller

LOSS = "train/loss_nats_per_token"


def bar_of(total):
    return tqdm(total=total, file=io.StringIO(), bar_format="{desc}{n}{postfix}")


def test_a_step_is_told_in_a_few_words():
    metrics = {
        LOSS: 2.34567,
        "throughput/tokens_per_second": 12345.6,
        "throughput/mfu_fraction": 0.412,
        "time/data_wait_fraction": 0.0013,
        "train/grad_norm": 1.0,
    }
    assert describe(metrics) == "loss 2.346, 12,346 tokens/s, MFU 41%, data wait 0.1%"


def test_what_is_not_known_is_not_told():
    assert describe({LOSS: 2.0, "throughput/tokens_per_second": 10.0}) == "loss 2.000, 10 tokens/s"


def test_the_rate_begins_with_the_first_step_of_an_attempt():
    with bar_of(1000) as bar:
        for step, (initial, shown) in {300: (300, 300), 302: (300, 302)}.items():
            update_bar(bar, step, {LOSS: 1.0})
            assert (bar.initial, bar.n) == (initial, shown)
        update_bar(bar, 250, {LOSS: 1.0})
        assert (bar.initial, bar.n) == (250, 250)


def test_a_validation_does_not_move_the_bar():
    with bar_of(10) as bar:
        update_bar(bar, 3, {"validation/loss_nats_per_token": 1.0})
        assert bar.n == 0


def test_a_worker_s_warnings_are_handed_on_and_what_it_notes_is_not():
    told = []
    teller, logger = WarningsTeller(told.append), logging.getLogger("baltoro.test")
    logger.addHandler(teller)
    try:
        logger.info("attempt %d", 1)
        logger.warning("port %d is taken: no metrics", 9090)
    finally:
        logger.removeHandler(teller)
    assert told == ["WARNING: port 9090 is taken: no metrics"]


def test_a_line_that_cannot_be_handed_on_does_not_end_training(capsys):
    def put(line):
        raise ConnectionError(line)

    record = logging.LogRecord("baltoro", logging.WARNING, "", 0, "a bad step", (), None)
    WarningsTeller(put).emit(record)
    assert "ConnectionError" in capsys.readouterr().err
