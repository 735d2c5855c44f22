import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from baltoro.core.errors import ConfigError, PlatformError
from baltoro.optim.config import OptimizerConfig
from baltoro.optim.eight_bit import _Moment
from baltoro.optim.optimizer import build_optimizer

pytest.importorskip("bitsandbytes", reason="install the extra nf4")


class Tiny(nn.Module):
    """A quantised matrix of several blocks, the last one short, an embedding, and a small vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(80, 70)
        self.matrix = nn.Linear(70, 67)


def config_of(name="adamw_8bit", **fields):
    return OptimizerConfig(name=name, learning_rate=1e-2, **fields)


def train(model, optimizer, steps, *, first_step=0):
    for step in range(first_step, first_step + steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 80, (32,), generator=generator)
        loss = (model.matrix(model.embedding(ids)) - torch.randn(32, 67, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def moments(optimizer):
    return {
        (index, name): entry[name]
        for index, entry in optimizer.state_dict()["state"].items()
        for name in ("exp_avg", "exp_avg_sq")
    }


def test_eight_bits_follow_adamw_within_their_precision():
    losses = {}
    for name in ("adamw", "adamw_8bit"):
        model = Tiny()
        losses[name] = train(model, build_optimizer(model, config_of(name)), 30)
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.01)
    assert losses["adamw_8bit"] != losses["adamw"]


def test_only_large_matrices_are_quantised():
    model = Tiny()
    optimizer = build_optimizer(model, config_of())
    train(model, optimizer, 1)
    dtypes = {
        name: optimizer.state[value]["exp_avg"].values.dtype for name, value in model.named_parameters()
    }
    assert dtypes == {
        "embedding.weight": torch.float32,
        "matrix.weight": torch.uint8,
        "matrix.bias": torch.float32,
    }


def test_parameters_kept_in_float32_are_updated_as_by_adamw():
    one, other = Tiny(), Tiny()
    train(one, build_optimizer(one, config_of(decay_embeddings=False)), 1)
    train(other, build_optimizer(other, config_of("adamw", decay_embeddings=False)), 1)
    torch.testing.assert_close(one.embedding.weight, other.embedding.weight)
    torch.testing.assert_close(one.matrix.bias, other.matrix.bias)


def test_a_resumed_run_is_bitwise_the_uninterrupted_one():
    model = Tiny()
    optimizer = build_optimizer(model, config_of())
    train(model, optimizer, 7)
    saved_weights = {name: value.clone() for name, value in model.state_dict().items()}
    saved = optimizer.state_dict()
    train(model, optimizer, 5, first_step=7)

    resumed = Tiny()
    resumed.load_state_dict(saved_weights)
    again = build_optimizer(resumed, config_of())
    again.load_state_dict(saved)
    train(resumed, again, 5, first_step=7)
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(moments(again)[key], value) for key, value in moments(optimizer).items())


def test_the_saved_state_is_that_of_adamw_and_each_loads_the_others():
    model, plain = Tiny(), Tiny()
    optimizer, adamw = build_optimizer(model, config_of()), build_optimizer(plain, config_of("adamw"))
    train(model, optimizer, 3)
    train(plain, adamw, 3)
    ours, theirs = optimizer.state_dict(), adamw.state_dict()
    for index, entry in theirs["state"].items():
        assert set(ours["state"][index]) == set(entry) == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in entry.items():
            assert ours["state"][index][name].dtype == value.dtype == torch.float32
            assert ours["state"][index][name].shape == value.shape
        assert ours["state"][index]["step"] == 3.0
    optimizer.load_state_dict(theirs)
    adamw.load_state_dict(ours)
    loaded = moments(optimizer)
    for key, value in moments(adamw).items():
        assert torch.equal(value, moments_of(ours)[key])
        exact = moments_of(theirs)[key]
        assert float((loaded[key] - exact).norm()) <= 0.05 * float(exact.norm())


def moments_of(state):
    return {
        (index, name): entry[name]
        for index, entry in state["state"].items()
        for name in ("exp_avg", "exp_avg_sq")
    }


def test_a_saved_state_does_not_change_with_further_training():
    model = Tiny()
    optimizer = build_optimizer(model, config_of())
    train(model, optimizer, 2)
    saved = moments(optimizer)
    before = {key: value.clone() for key, value in saved.items()}
    train(model, optimizer, 2)
    assert all(torch.equal(saved[key], value) for key, value in before.items())


def test_a_state_of_other_groups_is_refused():
    optimizer = build_optimizer(Tiny(), config_of())
    state = optimizer.state_dict()
    state["param_groups"] = state["param_groups"][:1]
    with pytest.raises(ValueError, match="other parameter groups"):
        optimizer.load_state_dict(state)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 900),
    exponent=st.integers(-25, 3),
    signed=st.booleans(),
    zeros=st.booleans(),
)
def test_decoded_values_encode_to_themselves(seed, size, exponent, signed, zeros):
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    values = values if signed else values.square()
    if zeros:
        values[: size // 2] = 0.0
    moment = _Moment(values, signed=signed, quantised=True, paged=False)
    assert not moment.decoded().any(), "a fresh moment is zero"
    moment.encode(values)
    once = moment.decoded()
    moment.encode(once)
    assert torch.equal(moment.decoded(), once)
    assert not once[values == 0].any()
    # A code's width is at most 1.5 % of the block's largest value here (the map is finest near zero).
    assert float((once - values).abs().max()) <= 0.015 * float(values.abs().max()) + 1e-38


@pytest.mark.parametrize("name", ["paged_adamw", "paged_adamw_8bit"])
def test_paged_moments_without_a_gpu_are_refused(name):
    with pytest.raises(ConfigError, match=rf"optimizer\.name={name} pages .* parameters are on cpu; set"):
        build_optimizer(Tiny(), config_of(name))


def test_a_missing_library_names_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PlatformError, match=r"optimizer\.name=adamw_8bit needs bitsandbytes.*baltoro\[nf4\]"):
        build_optimizer(Tiny(), config_of())


def test_an_implementation_of_adamw_is_refused_with_another_name():
    with pytest.raises(ValidationError, match="implementation=foreach is of name=adamw"):
        config_of("adamw_8bit", implementation="foreach")
