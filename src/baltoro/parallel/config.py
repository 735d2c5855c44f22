"""Settings of the parallel layout; they never change what comes out."""

from __future__ import annotations

from baltoro.core.config import StrictModel, execution


class ParallelConfig(StrictModel):
    """Degrees of data parallelism; their product is the number of workers."""

    dp_replicate: int = execution(
        1, "groups of workers that each hold a whole copy of the model (hybrid sharding)", ge=1
    )
    dp_shard: int | None = execution(
        None, "workers one copy of the model is sharded over; null uses all that remain", ge=1
    )
