"""The device mesh: which rank is which coordinate of ``dp_replicate × dp_shard``.

Strategies reach the ranks they talk to by the names of axes, never by the shape of the mesh. A further kind
of parallelism (tensor, context) is one more axis behind these two: ranks that differ only in it are fed the
same rows, and are neighbours, since its traffic is the heaviest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baltoro.core.errors import ConfigError
from baltoro.parallel.config import ParallelConfig

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

REPLICATE_AXIS, SHARD_AXIS = "dp_replicate", "dp_shard"


def resolve_degrees(config: ParallelConfig, world_size: int) -> tuple[int, int]:
    """Return ``(dp_replicate, dp_shard)`` whose product is ``world_size``.

    Raises:
        ConfigError: the degrees do not multiply to the number of workers.
    """
    shard = config.dp_shard or world_size // config.dp_replicate
    if config.dp_replicate * shard != world_size:
        given = f"dp_replicate={config.dp_replicate}"
        given += f" × dp_shard={config.dp_shard}" if config.dp_shard else ""
        raise ConfigError(
            f"parallel: {given} does not make {world_size} workers; dp_replicate × dp_shard must equal "
            "cluster.workers, set dp_shard to null to let it follow"
        )
    return config.dp_replicate, shard


def build_mesh(config: ParallelConfig, device_type: str) -> DeviceMesh:
    """Return the mesh over the initialised process group, with named axes ``dp_replicate`` and ``dp_shard``.

    Neighbouring ranks share a copy of the model, so the heavier traffic (gather and scatter of shards) stays
    within a node where it fits one.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    degrees = resolve_degrees(config, dist.get_world_size())
    return init_device_mesh(device_type, degrees, mesh_dim_names=(REPLICATE_AXIS, SHARD_AXIS))
