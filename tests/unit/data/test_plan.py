"""Groups, copies and places, from lengths alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.data import plan
from baltoro.data.config import DataConfig
from baltoro.data.mixture import MixtureConfig
from baltoro.data.plan import Documents, Exchange, group_tokens, place_rows, plan_blocks, taken_documents

WIDTH = 32


def documents(lengths, splits=None, sources=None, names=("a",)):
    count = len(lengths)
    return Documents(
        np.array(lengths, np.int64),
        np.array(splits if splits is not None else [0] * count, np.int8),
        np.array(sources if sources is not None else [0] * count, np.int32),
        names,
    )


@pytest.fixture
def group_size(monkeypatch):
    def resize(tokens):
        monkeypatch.setattr(plan, "GROUP_TOKENS", tokens)
        monkeypatch.setattr(plan, "_LEAST_ROWS", 0)

    return resize


@pytest.mark.parametrize("size", [1, 50, 100, 250])
def test_groups_are_consecutive_documents_cut_by_the_tokens_before_them(group_size, size):
    group_size(size)
    lengths = np.random.default_rng(0).integers(1, 90, 40)
    (block,) = plan_blocks(documents(lengths), "train", DataConfig(sequence_length=WIDTH), 1)
    groups = [group.documents.tolist() for group in block]
    assert list(itertools.chain(*groups)) == list(range(40))
    starts = np.cumsum(lengths) - lengths
    numbers = [{int(starts[document]) // size for document in group} for group in groups]
    assert all(len(number) == 1 for number in numbers)
    assert len({number.copy().pop() for number in numbers}) == len(groups)


def test_a_group_is_small_but_has_enough_rows_to_keep_the_bound():
    assert group_tokens(2048) == group_tokens(65_536) == 1 << 23
    assert group_tokens(131_072) == 128 * 131_072
    lengths = np.random.default_rng(1).integers(100, 9000, 6000)
    config = DataConfig(sequence_length=131_072)
    (block,) = plan_blocks(documents(lengths), "train", config, 1)
    groups = list(block)
    assert len(groups) > 1
    assert all(group.plan.padding_fraction <= config.max_padding_fraction for group in groups[:-1])


def test_a_split_without_documents_has_no_group():
    config = DataConfig(sequence_length=WIDTH)
    assert [list(block) for block in plan_blocks(documents([5, 6]), "validation", config, 1)] == [[]]
    assert [list(block) for block in plan_blocks(documents([]), "train", config, 2)] == [[], []]


def test_each_block_takes_its_sources_as_often_as_the_mixture_says():
    mixture = MixtureConfig.model_validate(
        {"sources": {"a": {"epochs": 2}, "b": {"epochs": 0.5}}, "curriculum": [["b"], ["a", "c"]]}
    )
    config = DataConfig(sequence_length=WIDTH, mixture=mixture)
    table = documents([10] * 8, [0] * 7 + [1], [0, 1, 0, 1, 1, 1, 0, 0], ("a", "b", "c"))
    first, second = taken_documents(table, "train", config, 0)
    assert len(first) == 2
    assert set(first.tolist()) < {1, 3, 4, 5}
    assert second.tolist() == [0, 0, 2, 2, 6, 6]
    assert [taken.tolist() for taken in taken_documents(table, "validation", config, 0)] == [[7]]
    assert table.tokens_by_source(second).tolist() == [60, 0, 0]


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(0, 99), st.integers(0, 9))
def test_places_of_a_block_are_its_stretch_of_rows_shuffled(rows, first, seed):
    places = place_rows(rows, seed, first)
    assert [len(part) for part in places] == rows
    together = np.concatenate([np.empty(0, np.int64), *places])
    assert sorted(together.tolist()) == list(range(first, first + sum(rows)))


@settings(max_examples=200)
@given(st.integers(1, 10**8), st.integers(1, 10**5), st.integers(1, 20_000))
def test_an_exchange_covers_every_row_and_group_once(rows, rows_per_shard, groups):
    exchange = Exchange(groups, rows, rows_per_shard)
    assert exchange.buckets <= plan.MOST_PARTITIONS
    assert (
        exchange.buckets * exchange.rows_per_bucket
        >= rows
        > (exchange.buckets - 1) * exchange.rows_per_bucket
    )
    shards = exchange.shards
    assert (shards - 1) * rows_per_shard + exchange.rows_of(shards - 1) == rows
    assert 1 <= exchange.rows_of(shards - 1) <= rows_per_shard
    if exchange.in_two_steps:
        runs = [exchange.groups_of(run) for run in range(exchange.runs)]
        assert list(itertools.chain(*runs)) == list(range(groups))
        assert all(runs)
    else:
        assert (exchange.runs, exchange.buckets) == (0, shards)


def test_the_figures_of_a_large_dataset_are_those_that_are_written_down():
    one, hundred = (Exchange(tokens // (1 << 23) + 1, tokens // 2048 + 1, 8192) for tokens in (10**9, 10**11))
    assert (one.groups, one.shards, one.in_two_steps) == (120, 60, False)
    assert (hundred.groups, hundred.shards, hundred.shards_per_bucket, hundred.buckets, hundred.runs) == (
        *(11_921, 5961),
        *(24, 249, 24),
    )
    assert hundred.groups_per_run == 498
    assert hundred.buckets * hundred.runs == 5976
