"""Which parameters decay: matrices do; norms and biases never; embeddings as configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

MATRIX_DIMENSIONS = 2


def build_param_groups(
    model: nn.Module, *, weight_decay: float, decay_embeddings: bool
) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups, each parameter once, in the model's order.

    A tied output projection is the embedding's own parameter and follows ``decay_embeddings``. Vectors
    (norm scales and biases) are recognised by their dimension, which holds for sharded parameters too.

    Args:
        model: sharded or not.
        weight_decay: of the first group; the second has 0.
        decay_embeddings: put ``nn.Embedding`` weights into the first group.

    Returns:
        Groups with ``params`` and ``weight_decay``; a group without parameters is left out.
    """
    from torch import nn

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        is_embedding = id(parameter) in embeddings
        decays = parameter.dim() >= MATRIX_DIMENSIONS and (decay_embeddings or not is_embedding)
        (decayed if decays else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
