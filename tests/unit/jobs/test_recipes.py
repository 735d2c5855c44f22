"""The packaged recipes say what they claim: places to change, and figures that their settings give."""

import re

import pytest
import yaml

from baltoro.jobs.layout import PUBLISHED_SHAPES, batch_of
from baltoro.jobs.recipe import load_recipe, packaged_recipes
from baltoro.models.import_base import base_kind
from baltoro.models.presets import PRESETS
from baltoro.optim.schedule import build_schedule

LARGE = sorted(set(packaged_recipes()) - {"demo"})
REPRODUCTIONS = sorted(set(LARGE) - {"domain-7b", "galactica"})

STEP = re.compile(
    r"What a step is: ([\d,]+) rows of ([\d,]+) tokens = ([\d,]+) tokens; ([\d,]+) (?:GPUs|devices) × "
    r"micro-batch (\d+) × accumulation (\d+)"
)
LENGTH = re.compile(r"How long: ([\d,]+) steps = ([\d,]+) tokens")
SIZE_LINE = re.compile(r"^# ([\d.]+[mb]): (.*)$", re.MULTILINE)
SIZE_ROW = re.compile(
    r"^#   ([\d.]+[mb]) +(\d+) +([\d,]+) +(\d+) +([\d,]+) = +([\d,]+) tokens +(\S+) +([\d,]+) M tokens"
    r" +([\d,]+) steps",
    re.MULTILINE,
)


def text_of(name):
    return packaged_recipes()[name].read_text(encoding="utf-8")


def load(name, *overrides):
    return load_recipe(name, overrides, {})


def numbers(match):
    return [int(text.replace(",", "")) for text in match.groups()]


def batch(recipe):
    return batch_of(recipe.pretrain, recipe.cluster.workers, recipe.pretrain.data.sequence_length)


def schedule(recipe):
    config = recipe.pretrain
    return build_schedule(
        config.schedule,
        learning_rate=config.optimizer.learning_rate,
        steps=batch(recipe).steps,
        global_batch_tokens=config.global_batch_tokens,
    )


def galactica_sizes():
    """The overrides of each size that the comments of the recipe name; none for the one it is."""
    return {"6.7b": [], **{name: line.split() for name, line in SIZE_LINE.findall(text_of("galactica"))}}


def test_there_is_a_recipe_for_each_system_and_one_to_start_from():
    assert LARGE == ["academicgpt-70b", "domain-7b", "galactica", "geogalactica-30b", "k2-7b"]


@pytest.mark.parametrize("name", LARGE)
def test_every_place_is_a_placeholder_that_is_marked(workplace, name):
    recipe = load(name)
    places = [recipe.storage.root, *(source.uri for source in recipe.corpus.sources)]
    places += [source.metadata.uri for source in recipe.corpus.sources if source.metadata]
    assert all(place.startswith("s3://your-bucket/") for place in places)
    for line in text_of(name).splitlines():
        if re.match(r" *(- )?(uri|root): s3://", line):
            assert "# YOURS" in line, line


@pytest.mark.parametrize("name", LARGE)
def test_the_head_shows_the_command_that_dry_runs_it(name):
    head = text_of(name).split("\n\n")[0]
    assert f"baltoro layout {name} " in head
    assert "pretrain.data." not in head


@pytest.mark.parametrize("name", LARGE)
def test_the_mixture_names_sources_of_the_corpus(workplace, name):
    recipe = load(name)
    assert recipe.pretrain.data.mixture.sources.keys() <= {source.name for source in recipe.corpus.sources}


@pytest.mark.parametrize("name", LARGE)
def test_the_shape_of_its_base_is_known_offline(workplace, name):
    base = load(name).model.base
    assert base in PRESETS or (base_kind(base) == "hub" and base in PUBLISHED_SHAPES)


def test_published_shapes_name_presets_that_exist():
    for shape in PUBLISHED_SHAPES.values():
        assert (shape.preset in PRESETS) != (shape.config is not None)


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_the_figures_in_the_head_are_those_of_the_settings(workplace, name):
    head, recipe = text_of(name).split("\n\n")[0], load(name)
    given = numbers(STEP.search(head))
    found = batch(recipe)
    assert given == [
        found.rows_per_step,
        found.sequence_length,
        found.global_batch_tokens,
        recipe.cluster.workers,
        found.micro_batch,
        found.accumulation,
    ]
    assert given[0] == given[3] * given[4] * given[5]
    assert numbers(LENGTH.search(head)) == [found.steps, found.tokens]


def test_domain_7b_counts_its_steps_right(workplace):
    recipe = load("domain-7b", "pretrain.tokens=1000000000")
    match = re.search(
        r"# (\d+) rows a step, (\d+) a worker: 1 B tokens are ([\d,]+) steps", text_of("domain-7b")
    )
    found = batch(recipe)
    assert numbers(match) == [found.rows_per_step, found.rows_per_worker, found.steps]
    assert f"(here {found.accumulation})" in text_of("domain-7b")


def test_k2_warms_up_over_the_steps_it_says(workplace):
    rates = schedule(load("k2-7b"))
    assert "0.03 of one pass, 904 steps" in text_of("k2-7b")
    assert rates.learning_rate(902) < 1e-5
    assert rates.learning_rate(904) == 1e-5
    assert rates.learning_rate(30_139) == 1e-5


def test_geogalactica_warms_up_over_100_steps_and_ends_at_1e_7(workplace):
    rates = schedule(load("geogalactica-30b"))
    assert rates.learning_rate(98) < 1e-5
    assert rates.learning_rate(100) == pytest.approx(1e-5, rel=1e-3)
    assert rates.learning_rate(7323) == pytest.approx(1e-7, rel=0.02)


def test_geogalactica_takes_no_more_than_its_corpus_gives_at_the_shares(workplace):
    recipe = load("geogalactica-30b")
    tokens = {"geocorpus": 52_721_798_004, "arxiv": 13_704_981_558, "code": 12_424_652_670}
    shares = recipe.pretrain.data.mixture.sources
    one_epoch = min(tokens[name] / share.weight for name, share in shares.items())
    assert one_epoch == pytest.approx(65.9e9, rel=1e-3)
    assert batch(recipe).tokens < one_epoch


def test_galactica_is_the_size_without_overrides(workplace):
    assert load("galactica").model.base == "galactica-6.7b"
    assert set(galactica_sizes()) == {"125m", "1.3b", "6.7b", "30b", "120b"}


@pytest.mark.parametrize("size", sorted(galactica_sizes()))
def test_each_row_of_galacticas_table_is_what_its_overrides_give(workplace, size):
    table = {row[0]: row[1:] for row in SIZE_ROW.findall(text_of("galactica"))}
    layers, width, heads, rows, tokens, rate, warmup, steps = table[size]
    recipe = load("galactica", *galactica_sizes()[size])
    preset, found = PRESETS[recipe.model.base], batch(recipe)
    assert recipe.name == recipe.model.base == f"galactica-{size}"
    plain = [int(text.replace(",", "")) for text in (layers, width, heads, rows, tokens, steps)]
    assert plain == [
        preset.layers,
        preset.hidden_size,
        preset.heads,
        found.rows_per_step,
        found.global_batch_tokens,
        found.steps,
    ]
    assert recipe.pretrain.optimizer.learning_rate == float(rate)
    assert recipe.pretrain.schedule.warmup_tokens == int(warmup.replace(",", "")) * 1_000_000
    rates = schedule(recipe)
    assert rates.learning_rate(found.steps - 1) == pytest.approx(0.1 * float(rate), rel=1e-3)


@pytest.mark.parametrize("name", LARGE)
def test_comments_stay_readable(name):
    assert yaml.safe_load(text_of(name))
    for line in text_of(name).splitlines():
        assert len(line) <= 120 or SIZE_LINE.match(line), line
