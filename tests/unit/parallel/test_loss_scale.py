import torch

from baltoro.parallel.loss_scale import GROWTH_STEPS, INITIAL_SCALE, DynamicLossScale


def test_an_overflow_halves_the_scale_and_counting_starts_again():
    scale = DynamicLossScale()
    scale.good_step()
    scale.overflow()
    assert (scale.scale, scale.good_steps) == (INITIAL_SCALE / 2, 0)


def test_two_thousand_good_steps_in_a_row_double_it():
    assert GROWTH_STEPS == 2000
    scale = DynamicLossScale()
    for _ in range(1999):
        scale.good_step()
    assert scale.scale == INITIAL_SCALE
    scale.overflow()
    for _ in range(1999):
        scale.good_step()
    assert scale.scale == INITIAL_SCALE / 2
    scale.good_step()
    assert (scale.scale, scale.good_steps) == (INITIAL_SCALE, 0)


def test_it_stays_a_power_of_two_that_float16_gradients_can_use():
    scale = DynamicLossScale()
    for _ in range(20 * GROWTH_STEPS):
        scale.good_step()
    assert scale.scale == 2.0**24
    for _ in range(30):
        scale.overflow()
    assert scale.scale == 2.0**-6


def test_its_state_is_tensors_that_give_the_same_scale_back():
    scale = DynamicLossScale()
    scale.overflow()
    scale.good_step()
    state = scale.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = DynamicLossScale()
    other.load_state_dict(state)
    assert (other.scale, other.good_steps) == (scale.scale, scale.good_steps) == (2.0**15, 1)
