"""Ray is given enough CPUs, an absent cluster is refused at once, errors come out of Ray as they are."""

import os
import time

import pytest

from baltoro.core.errors import ConfigError, InputError, PlatformError
from baltoro.core.storage import MissingError
from baltoro.jobs.cluster import connected, given_address, local_cpus, required_cpus
from baltoro.jobs.stages import Context


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [([], 3), (["cluster.workers=4"], 6), (["cluster.workers=2", "cluster.cpus_per_worker=3"], 8)],
)
def test_a_run_needs_its_workers_and_two_more(load, overrides, needed):
    recipe = load(*overrides)
    assert required_cpus(recipe) == needed
    assert local_cpus(recipe) == max(os.cpu_count(), needed)
    assert local_cpus(load(*overrides, f"cluster.local_cpus={needed}")) == needed
    with pytest.raises(ConfigError, match=f"give at least {needed}, or leave it empty"):
        local_cpus(load(*overrides, f"cluster.local_cpus={needed - 1}"))


def test_the_recipe_s_address_wins_over_the_variable(load, monkeypatch):
    assert given_address(load()) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert given_address(load()) == "10.0.0.1:6379"
    assert given_address(load("cluster.address=auto")) == "auto"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "'[::1]:1'"])
def test_a_cluster_that_is_not_there_is_refused_at_once(load, address):
    started = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        connected(load(f"cluster.address={address}")).__enter__()
    address = address.strip("'")
    assert caught.value.message.startswith(f"the Ray cluster at {address} cannot be reached (")
    assert "start one with `ray start --head`, correct cluster.address or RAY_ADDRESS" in caught.value.message
    assert time.monotonic() - started < 30


@pytest.mark.jobs
def test_a_paper_that_vanishes_while_it_is_read_ends_the_build_with_its_name(load, papers):
    from baltoro.corpus.pipeline import build_documents

    recipe = load("corpus.objects_per_task=1", "corpus.filters.min_characters=1")
    context = Context(recipe)
    assert len(context.listings[0].objects) == 3
    (papers / "till.md").unlink()
    with (
        pytest.raises(InputError) as caught,
        context.store.begin("corpus", "geo", "0" * 16) as writer,
        connected(recipe),
    ):
        build_documents(recipe.corpus, context.listings, context.storage, {}, None, writer)
    assert caught.value.message == f"{papers}/till.md does not exist; check the URI"
    assert type(caught.value) is MissingError, "Ray's wrapper has been taken off"


def test_what_trains_nothing_needs_one_cpu_whatever_the_workers(load):
    recipe = load("cluster.workers=4", "cluster.local_cpus=1")
    assert required_cpus(recipe, training=False) == local_cpus(recipe, training=False) == 1
    assert local_cpus(load("cluster.workers=4"), training=False) == os.cpu_count()
    with pytest.raises(ConfigError, match="give at least 6"):
        local_cpus(recipe)
