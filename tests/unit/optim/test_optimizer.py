import copy

import pytest
import torch
from torch import nn

from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer


def config_of(implementation):
    return OptimizerConfig(implementation=implementation, learning_rate=1e-2, weight_decay=0.0)


def step(model, optimizer, seed):
    inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(inputs).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("implementation", ["fused", "foreach"])
def test_both_implementations_do_what_adamw_does(implementation):
    one = nn.Linear(6, 5)
    other = copy.deepcopy(one)
    mine = build_optimizer(one, config_of(implementation))
    plain = torch.optim.AdamW(other.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    for seed in range(5):
        step(one, mine, seed)
        step(other, plain, seed)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=0)


def test_a_resumed_run_uses_the_kernels_it_is_told_not_those_of_the_checkpoint():
    one = nn.Linear(6, 5)
    fused = build_optimizer(one, config_of("fused"))
    step(one, fused, 0)
    other = copy.deepcopy(one)
    foreach = build_optimizer(other, config_of("foreach"))
    foreach.load_state_dict(copy.deepcopy(fused.state_dict()))
    assert {(group["fused"], group["foreach"]) for group in foreach.param_groups} == {(False, True)}
    step(one, fused, 1)
    step(other, foreach, 1)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=0)
