"""The driver's side of training that needs no workers."""

import os
import signal
import threading
import time

import pytest

from baltoro.jobs.training.workers import call_interruptibly


def test_what_a_call_returns_or_raises_comes_through():
    assert call_interruptibly(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_interruptibly(lambda: 1 / 0)


@pytest.fixture
def interrupts():
    """Ctrl-C as in a terminal; a process in the background may have been started without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_raised_at_once_whatever_the_call_does(interrupts):
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call_interruptibly(lambda: time.sleep(20))
    assert time.monotonic() - started < 10
