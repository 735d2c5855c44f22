import pytest
from pydantic import ValidationError

from baltoro.core.config import result_fields
from baltoro.core.errors import ConfigError
from baltoro.data.order import StepOrder
from baltoro.train.config import TrainConfig, total_steps

ORDER = StepOrder(total_rows=103, sequence_length=10, global_batch_tokens=50)


def steps(**settings):
    return total_steps(TrainConfig(global_batch_tokens=50, **settings), ORDER)


def test_the_length_is_given_in_steps_or_tokens_or_is_the_whole_dataset():
    assert steps(steps=7) == 7
    assert steps(tokens=399) == 7
    assert steps() == 20
    # Passes are laid out when the dataset is built: they do not repeat its rows here.
    assert steps(epochs=3) == 20


def test_two_lengths_are_refused():
    with pytest.raises(ValidationError, match="steps=3 and tokens=100 each set the length"):
        TrainConfig(steps=3, tokens=100)


def test_a_length_beyond_its_own_limit_is_refused():
    assert steps(steps=7, max_steps=7) == 7
    with pytest.raises(
        ValidationError, match=r"steps=8 is above max_steps=7, .*raise max_steps to at least 8"
    ):
        TrainConfig(steps=8, max_steps=7)


def test_the_best_checkpoints_need_a_validation_loss():
    TrainConfig(checkpoint={"keep_best": 2}, evaluation={"every_steps": 100})
    with pytest.raises(ValidationError, match=r"keep_best=2 .*evaluation.every_steps=null measures none"):
        TrainConfig(checkpoint={"keep_best": 2}, evaluation={"every_steps": None})


def test_every_checkpoint_that_is_ranked_has_a_validation_loss_of_its_own():
    TrainConfig(checkpoint={"keep_best": 2, "every_steps": 30}, evaluation={"every_steps": 10})
    with pytest.raises(
        ValidationError, match=r"every_steps=25 is no multiple of evaluation.every_steps=10, .* make it a"
    ):
        TrainConfig(checkpoint={"keep_best": 2, "every_steps": 25}, evaluation={"every_steps": 10})


def test_less_than_one_step_is_refused():
    with pytest.raises(ConfigError, match="tokens=49 is less than one step of global_batch_tokens=50"):
        steps(tokens=49)
    with pytest.raises(ConfigError, match=r"103 rows of 10 tokens, less than one step .*\(200 rows\)"):
        total_steps(TrainConfig(global_batch_tokens=2000), StepOrder(103, 10, 2000))


def test_more_steps_than_the_dataset_has_are_refused():
    with pytest.raises(ConfigError, match="21 steps of 5 rows need 105 rows"):
        steps(steps=21)


def test_how_the_work_is_spread_is_not_fingerprinted():
    fields = result_fields(TrainConfig())
    assert "optimizer.learning_rate" in fields
    assert "schedule.shape" in fields
    assert not {"micro_batch", "strategy", "parallel.dp_shard", "checkpoint.keep_last"} & fields.keys()


def test_the_latest_end_cuts_a_long_run_and_leaves_a_short_one():
    assert steps(max_steps=7) == 7
    assert steps(max_steps=70) == 20
    assert steps(tokens=450, max_steps=7) == 7
