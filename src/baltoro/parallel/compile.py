"""``torch.compile`` of decoder blocks, one by one.

A block is compiled in place, inside the hooks that a strategy hangs on it: parameter names stay, gathering
and freeing of shards stays outside the compiled code, and blocks of one shape share one compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile the forward of each block; compilation itself happens at the first micro-batch.

    To be called after activation checkpointing and before sharding.

    Args:
        blocks: the decoder blocks.
    """
    import torch

    for block in blocks:
        block.forward = torch.compile(block.forward)
