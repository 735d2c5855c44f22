import pytest

from baltoro.core.errors import ConfigError
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.mesh import resolve_degrees


@pytest.mark.parametrize(
    ("replicate", "shard", "world", "expected"),
    [(1, None, 8, (1, 8)), (2, None, 8, (2, 4)), (4, 2, 8, (4, 2)), (1, 1, 1, (1, 1))],
)
def test_the_free_degree_follows_from_the_workers(replicate, shard, world, expected):
    assert resolve_degrees(ParallelConfig(dp_replicate=replicate, dp_shard=shard), world) == expected


@pytest.mark.parametrize(("replicate", "shard", "world"), [(3, None, 8), (2, 2, 8), (16, None, 8)])
def test_degrees_that_do_not_make_the_workers_are_refused(replicate, shard, world):
    with pytest.raises(ConfigError, match=f"does not make {world} workers"):
        resolve_degrees(ParallelConfig(dp_replicate=replicate, dp_shard=shard), world)
