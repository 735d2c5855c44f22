import pytest
import torch

from baltoro.models.load import build_model, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.optim.param_groups import build_param_groups
from baltoro.testing.tiny import tiny_plan


def named_groups(model, **settings):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in build_param_groups(model, weight_decay=0.1, **settings)
    }


@pytest.mark.parametrize("tied", [True, False])
def test_norms_never_decay_and_every_parameter_stands_in_one_group(tied):
    model = build_model(tiny_plan(tied=tied))
    groups = named_groups(model, decay_embeddings=True)
    assert all("norm" in name for name in groups[0.0])
    assert groups[0.1] | groups[0.0] == {name for name, _ in model.named_parameters()}
    assert not groups[0.1] & groups[0.0]


def test_embeddings_can_be_kept_from_decay_and_an_untied_output_still_decays():
    groups = named_groups(build_model(tiny_plan(tied=False)), decay_embeddings=False)
    assert "model.embed_tokens.weight" in groups[0.0]
    assert "lm_head.weight" in groups[0.1]


def test_frozen_parameters_are_left_out():
    model = build_model(tiny_plan())
    model.model.embed_tokens.weight.requires_grad_(False)
    assert "model.embed_tokens.weight" not in named_groups(model, decay_embeddings=True)[0.1]


def test_decay_moves_only_the_decayed_group_when_the_gradient_is_zero():
    plan = tiny_plan()
    model = build_model(plan)
    model.to_empty(device="cpu")
    load_weights(model, plan)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if "norm" in name else 1 - 0.1 * 0.5
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
