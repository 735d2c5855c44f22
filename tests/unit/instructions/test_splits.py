import pytest

from baltoro.instructions.splits import split_of


def test_about_the_asked_part_is_held_out():
    sides = [split_of(f"geo/{n}", seed=0, validation_fraction=0.1) for n in range(5000)]
    assert 400 < sides.count("validation") < 600


def test_an_origin_keeps_its_side_and_another_seed_draws_others():
    first = [split_of(f"geo/{n}", seed=0, validation_fraction=0.5) for n in range(50)]
    assert first == [split_of(f"geo/{n}", seed=0, validation_fraction=0.5) for n in range(50)]
    assert first != [split_of(f"geo/{n}", seed=1, validation_fraction=0.5) for n in range(50)]


@pytest.mark.parametrize("smaller", [0.0, 0.05, 0.1])
def test_a_larger_hold_out_contains_the_smaller_one(smaller):
    for n in range(300):
        if split_of(f"p{n}", seed=3, validation_fraction=smaller) == "validation":
            assert split_of(f"p{n}", seed=3, validation_fraction=0.2) == "validation"
