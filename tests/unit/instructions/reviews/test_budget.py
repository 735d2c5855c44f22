"""Requests and tokens per minute and day, on a clock."""

from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.instructions.reviews.budget import Budget


def test_nothing_waits_without_limits():
    budget = Budget()
    budget.spend(0.0, 10**9)
    assert budget.delay_seconds(0.0, 10**9) == 0


def test_a_request_larger_than_its_limit_waits_for_an_empty_window():
    budget = Budget(tokens_per_minute=100)
    assert budget.delay_seconds(0.0, 500) == 0
    budget.spend(0.0, 500)
    assert budget.delay_seconds(10.0, 1) == 50


def test_what_was_really_taken_replaces_the_estimate():
    budget = Budget(tokens_per_minute=100)
    use = budget.spend(0.0, 100)
    assert budget.delay_seconds(1.0, 50) == 59
    use.tokens = 20
    assert budget.delay_seconds(1.0, 50) == 0


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=25),
    st.integers(1, 6),
    st.integers(60, 200),
    st.sampled_from([0.0, 1.8e9]),
)
def test_no_minute_ever_holds_more_than_its_limits(steps, max_requests, max_tokens, start):
    budget = Budget(requests_per_minute=max_requests, tokens_per_minute=max_tokens)
    now, sent = start, []
    for pause, tokens in steps:
        now += pause
        now += budget.delay_seconds(now, tokens)
        assert budget.delay_seconds(now, tokens) == 0
        budget.spend(now, tokens)
        sent.append((now, tokens))
    for start, _ in sent:
        window = [tokens for at, tokens in sent if start - 60 + 2e-6 < at <= start]
        assert len(window) <= max_requests
        assert sum(window) <= max_tokens
