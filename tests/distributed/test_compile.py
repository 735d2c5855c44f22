import pytest

from baltoro.data.collate import collate
from baltoro.models.load import build_model, decoder_blocks, load_weights
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.optimizer import build_optimizer
from baltoro.parallel.build import build_strategy
from baltoro.parallel.config import ParallelConfig
from baltoro.parallel.timing import PhaseTimer
from baltoro.testing.distributed import run_distributed
from baltoro.testing.tiny import tiny_plan, tiny_rows
from baltoro.train.loss import next_token_loss_sum

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]

LAYERS = 10


def trained(name, mode, compiled):
    import torch._dynamo

    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    plan = tiny_plan(layers=LAYERS)
    strategy = build_strategy(
        name,
        ParallelConfig(activation_checkpointing=mode, compile=compiled),
        device=torch.device("cpu"),
        precision="float32",
        max_gradient_norm=1.0,
        timer=PhaseTimer(torch.device("cpu")),
    )
    model = build_model(plan)
    strategy.setup(
        model,
        blocks=decoder_blocks(model),
        load=lambda spread, assign: load_weights(spread, plan, assign),
        build_optimizer=lambda spread: build_optimizer(spread, OptimizerConfig()),
        loss_sum=next_token_loss_sum,
    )
    inputs = collate(tiny_rows(2, 32))
    losses = []
    for step in range(3):
        for last in (False, True):
            losses.append(float(strategy.forward_backward(inputs, denominator=500, last=last)))
        strategy.clip_and_step(1e-3)
        if step == 1:
            losses.append(float(strategy.evaluate(inputs)))
    state = strategy.state_dict()
    names = [*state["model"], *state["optimizer"]["state"]]
    return losses, names, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def all_trained(name, mode):
    return trained(name, mode, False), trained(name, mode, True)


@pytest.mark.parametrize(
    ("name", "mode"), [("fsdp2", "none"), ("ddp", "none"), ("fsdp2", "selective"), ("ddp", "full")]
)
def test_compiled_blocks_give_the_same_losses_under_the_same_names_from_one_compilation(name, mode):
    for plain, compiled in run_distributed(all_trained, 2, name, mode, timeout_seconds=800):
        assert compiled[0] == pytest.approx(plain[0], rel=1e-5)
        assert compiled[1] == plain[1]
        assert plain[2] == 0
        # All blocks share one graph for training and one for evaluation, without a hole in it.
        assert compiled[2:] == (2, 0)
