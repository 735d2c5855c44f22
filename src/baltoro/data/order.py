"""The order of training as index arithmetic.

Row ``i`` of a dataset is fed in step ``i // B`` with ``B = global_batch_tokens / sequence_length``, whatever
the number of workers, the micro-batch or the accumulation. Nothing here reads data.
"""

from __future__ import annotations

from dataclasses import dataclass

from baltoro.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Split:
    """How the rows of each step are cut for the ranks.

    Attributes:
        world_size: ranks that are fed different data.
        micro_batch: rows of a micro-batch, at most.
        accumulation: micro-batches of each rank per step.
    """

    world_size: int
    micro_batch: int
    accumulation: int


@dataclass(frozen=True, slots=True)
class StepOrder:
    """Which rows each step, rank and micro-batch consumes.

    Attributes:
        total_rows: rows of the dataset.
        sequence_length: tokens of a row.
        global_batch_tokens: tokens of a step over all ranks, padding included.

    Raises:
        ConfigError: ``global_batch_tokens`` is not a whole number of rows.
    """

    total_rows: int
    sequence_length: int
    global_batch_tokens: int

    def __post_init__(self) -> None:
        rows, rest = divmod(self.global_batch_tokens, self.sequence_length)
        if rest or rows < 1:
            valid = [count * self.sequence_length for count in (rows, rows + 1) if count]
            raise ConfigError(
                f"global_batch_tokens={self.global_batch_tokens} is not a multiple of "
                f"sequence_length={self.sequence_length}; the nearest valid "
                f"{'values are' if len(valid) > 1 else 'value is'} {' and '.join(map(str, valid))}"
            )

    @property
    def rows_per_step(self) -> int:
        """Rows of a step over all ranks."""
        return self.global_batch_tokens // self.sequence_length

    @property
    def steps(self) -> int:
        """Steps of one pass over the rows."""
        return self.total_rows // self.rows_per_step

    @property
    def dropped_rows(self) -> int:
        """Rows at the end that do not fill a step and are never fed."""
        return self.total_rows % self.rows_per_step

    def check_steps(self, steps: int) -> None:
        """Check that the dataset has the rows for so many steps.

        Raises:
            ConfigError: it has not; names rows, steps and the remedy.
        """
        if steps > self.steps:
            raise ConfigError(
                f"{steps} steps of {self.rows_per_step} rows need {steps * self.rows_per_step} rows, "
                f"the dataset has {self.total_rows}, enough for {self.steps} steps; lower steps or "
                "global_batch_tokens, or raise epochs: repeats are laid out when the dataset is built"
            )

    def rows_of_step(self, step: int) -> range:
        """Return the rows of a step, counted from 0.

        Raises:
            ConfigError: the step lies beyond the dataset.
        """
        self.check_steps(step + 1)
        return range(step * self.rows_per_step, (step + 1) * self.rows_per_step)

    def rows_of_rank(self, step: int, rank: int, split: Split) -> list[range]:
        """Return the rows of each micro-batch of one data rank; the ranks' rows in order are the step's.

        Args:
            step: from 0.
            rank: among the ranks that are fed different data.
            split: of this order's steps.

        Returns:
            As many ranges for every rank; in an uneven split some are shorter, or empty.

        Raises:
            ConfigError: the step lies beyond the dataset.
            ValueError: there is no such rank.
        """
        if not 0 <= rank < split.world_size:
            raise ValueError(f"rank {rank} is not among the {split.world_size} data ranks")
        rows = self.rows_of_step(step)
        mine = rows[len(rows) * rank // split.world_size : len(rows) * (rank + 1) // split.world_size]
        size = split.micro_batch
        return [mine[index * size : (index + 1) * size] for index in range(split.accumulation)]

    def split(self, world_size: int, micro_batch: int, *, uneven: bool = False) -> Split:
        """Return how a step's rows are cut for so many ranks.

        Args:
            world_size: ranks that are fed different data.
            micro_batch: rows of a micro-batch.
            uneven: some ranks may get a row less than others; elastic workers need that.

        Raises:
            ConfigError: ranks × micro-batch do not divide the rows of a step; names values that do.
        """
        if uneven:
            most_rows = -(-self.rows_per_step // world_size)
            return Split(world_size, micro_batch, -(-most_rows // micro_batch))
        return Split(world_size, micro_batch, self._accumulation(world_size, micro_batch))

    def _accumulation(self, world_size: int, micro_batch: int) -> int:
        together = world_size * micro_batch
        count, rest = divmod(self.rows_per_step, together)
        if not rest:
            return count
        valid = [value * together * self.sequence_length for value in (count, count + 1) if value]
        remedies = [f"set global_batch_tokens to {' or '.join(map(str, valid))}"]
        if self.rows_per_step % world_size == 0:
            per_rank = self.rows_per_step // world_size
            smaller = max(size for size in range(1, micro_batch + 1) if per_rank % size == 0)
            remedies.append(f"micro_batch to {smaller}")
        ranks = [
            number for number in range(1, 2 * world_size) if self.rows_per_step % (number * micro_batch) == 0
        ]
        if near := [*[number for number in ranks if number < world_size][-1:], *ranks[-1:]]:
            remedies.append(f"the number of data ranks to {' or '.join(map(str, dict.fromkeys(near)))}")
        raise ConfigError(
            f"global_batch_tokens={self.global_batch_tokens} is {self.rows_per_step} rows of "
            f"{self.sequence_length} tokens, which {world_size} data ranks × micro_batch {micro_batch} = "
            f"{together} rows do not divide; {', or '.join(remedies)}"
        )
