import pytest

from baltoro.instructions.splits import HoldOut, vague_stems


def split_of(origin, *, seed, validation_fraction, source="files"):
    return HoldOut(seed, validation_fraction).split_of(source, origin)


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


def test_a_paper_is_on_one_side_whatever_part_format_or_folder_it_comes_from():
    for n in range(200):
        sides = {
            split_of(origin, seed=1, validation_fraction=0.5, source=source)
            for source, origin in (
                ("signals", f"tei/2023/paper-{n}.tei.xml"),
                ("reviews", f"/paper-{n}.mmd"),
                ("signals", f"s2orc/part.jsonl.gz#paper-{n}"),
            )
        }
        assert len(sides) == 1
    whole = [split_of(f"k/{n}.owl", seed=1, validation_fraction=0.5, source="knowledge") for n in range(50)]
    assert whole == [split_of(f"k/{n}.owl", seed=1, validation_fraction=0.5) for n in range(50)]


def test_a_stem_that_many_papers_share_tells_none_of_them():
    names = [("signals", f"geo/{n}/paper.tei.xml") for n in range(60)]
    names += [("signals", "geo/basalt.tei.xml"), ("reviews", "/basalt.mmd"), ("knowledge", "k/paper.owl")]
    stems = vague_stems(names + names)
    assert stems == {"paper"}
    told = HoldOut(1, 0.5, stems)
    assert {told.split_of(*name) for name in names[:60]} == {"train", "validation"}
    assert len({HoldOut(1, 0.5).split_of(*name) for name in names[:60]}) == 1
    assert told.split_of(*names[60]) == told.split_of(*names[61])
