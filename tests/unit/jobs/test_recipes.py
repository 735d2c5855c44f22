"""The packaged recipes say what they claim: places to change, and figures that their settings give."""

import math
import re
from pathlib import Path

import pytest
import yaml
from click import Context as ClickContext

from baltoro.cli import main
from baltoro.core.errors import ConfigError
from baltoro.jobs.finetune import chain_of, training_of
from baltoro.jobs.layout import PUBLISHED_SHAPES, batch_of
from baltoro.jobs.recipe import load_recipe, packaged_recipes
from baltoro.jobs.runner import needed_stages
from baltoro.jobs.training.preflight import check_settings
from baltoro.models.import_base import base_kind
from baltoro.models.load import refuse_long_context
from baltoro.models.presets import PRESETS
from baltoro.models.rope_scaling import plan_stretch
from baltoro.models.shifted_sparse_attention import choose_group_len
from baltoro.models.windowed_layers import refuse_windowed_layers
from baltoro.optim.schedule import build_schedule

TUNED = [
    "geogalactica-sft",
    "k2-sft",
    "longlora-7b-32k",
    "longqlora-7b-8k",
    "review-24gb",
    "review-longqlora-12k",
]
"""Recipes that fine-tune; the others pretrain."""

LARGE = sorted(set(packaged_recipes()) - {"demo", *TUNED})
REPRODUCTIONS = sorted(set(LARGE) - {"domain-7b", "galactica"})
TUNED_REPRODUCTIONS = sorted(set(TUNED) - {"review-24gb"})
GIB = 1 << 30

STEP = re.compile(
    r"What a step is: ([\d,]+) rows of ([\d,]+) tokens = ([\d,]+) tokens; ([\d,]+) (?:GPUs|devices?) × "
    r"micro-batch (\d+) × accumulation (\d+)"
)
LENGTH = re.compile(r"How long: ([\d,]+) steps = ([\d,]+) tokens")
SIZE_LINE = re.compile(r"^# ([\d.]+[mb]): (.*)$", re.MULTILINE)
SIZE_ROW = re.compile(
    r"^#   ([\d.]+[mb]) +(\d+) +([\d,]+) +(\d+) +([\d,]+) = +([\d,]+) tokens +(\S+) +([\d,]+) M tokens"
    r" +([\d,]+) steps",
    re.MULTILINE,
)
OVERRIDES = re.compile(r"(?:^#   (?:(?:finetune|instructions)\.[\w.]+=\S+ ?)+\n)+", re.MULTILINE)
"""Lines of a head that hold nothing but overrides: those of one block belong together."""
COMMAND = re.compile(r"^#   baltoro ((?:[a-z-]+ )+)(.*)$", re.MULTILINE)
TUNED_ROW = re.compile(
    r"^\| `([\w-]+)` \|[^|]*\|[^|]*\| (\w+)[^|]* \| (\d+) \| ([\d,]+) \| ([\d,]+) \|", re.MULTILINE
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


# --------------------------------------------------------------------------------------------------
# Fine-tuning


def head_of(name):
    return text_of(name).split("\n\nname: ")[0]


def stage_batch(recipe, index):
    stage = recipe.finetune.stages[index]
    return batch_of(stage, recipe.cluster.workers, stage.data.sequence_length)


def stage_schedule(stage, steps):
    return build_schedule(
        stage.schedule,
        learning_rate=stage.optimizer.learning_rate,
        steps=steps,
        global_batch_tokens=stage.global_batch_tokens,
    )


def warmup_steps(stage):
    return stage.schedule.warmup_tokens / stage.global_batch_tokens


def stretch_of(stage):
    llama2 = {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
        "rope_theta": 10_000.0,
    }
    return plan_stretch(llama2, stage.rope_scaling)


def group_of(stage):
    shifted = stage.settled().shifted_sparse_attention
    return choose_group_len(
        stage.data.sequence_length, ratio=shifted.group_fraction, group_len=shifted.group_len
    )


def mistral(window):
    return {
        "model_type": "mistral",
        "num_hidden_layers": 32,
        "max_position_embeddings": 32_768,
        "rope_theta": 10_000.0,
        "sliding_window": window,
    }


def test_the_tuned_recipes_are_those_with_stages(workplace):
    with_stages = [name for name in packaged_recipes() if name != "demo" and load(name).finetune.stages]
    assert with_stages == TUNED


@pytest.mark.parametrize("name", TUNED)
def test_every_stage_passes_the_checks_of_settings(workplace, name):
    recipe = load(name)
    for index in range(len(recipe.finetune.stages)):
        check_settings(training_of(recipe, index))


@pytest.mark.parametrize("name", TUNED)
def test_a_tuning_recipe_neither_pretrains_nor_builds_what_no_stage_reads(workplace, name):
    recipe = load(name)
    assert not recipe.pretrains
    stages = [stage.name for stage in needed_stages(recipe, f"finetune-{recipe.finetune.stages[-1].name}")]
    assert ("corpus" in stages) == name.startswith("long")
    assert ("instructions" in stages) != name.startswith("long")
    assert {"model", "tokenizer"} <= set(stages)
    assert "pretrain" not in stages


@pytest.mark.parametrize("name", TUNED_REPRODUCTIONS)
def test_every_place_of_a_tuning_recipe_is_a_placeholder_that_is_marked(workplace, name):
    recipe = load(name)
    instructions = recipe.instructions
    places = [recipe.storage.root, *(source.uri for source in recipe.corpus.sources)]
    places += [file.uri for file in instructions.files]
    places += [source.uri for source in instructions.signals.knowledge] if instructions.signals else []
    reviews = instructions.reviews
    places += [reviews.papers, reviews.reviews] if reviews else []
    places += [recipe.model.base] if base_kind(recipe.model.base) != "hub" else []
    assert all(place.startswith("s3://your-bucket/") for place in places)
    assert all(url.startswith("https://your-") for url in (reviews.endpoint.urls if reviews else ()))
    for line in text_of(name).splitlines():
        if "s3://" in line or "https://" in line:
            assert "# YOURS" in line, line


@pytest.mark.parametrize("name", TUNED)
def test_the_commands_of_a_tuning_recipes_head_exist_and_name_it(name):
    commands = COMMAND.findall(head_of(name))
    assert commands
    context = ClickContext(main)
    for words, rest in commands:
        group, *parts = words.split()
        if group in ("review", "init"):
            continue
        command = main.get_command(context, group)
        assert command is not None, words
        for part in parts:
            command = command.get_command(context, part)
            assert command is not None, words
        assert f"{name}.yaml" in rest, rest


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("k2-sft", 1), ("geogalactica-sft", 1), ("longqlora-7b-8k", 2), ("review-longqlora-12k", 2)],
)
def test_the_overrides_in_a_tuning_recipes_head_fit_together(workplace, name, blocks):
    found = OVERRIDES.findall(head_of(name) + "\n")
    assert len(found) == blocks
    for block in found:
        given = block.replace("#", " ").split()
        changed = load(name, *given)
        assert changed != load(name)
        check_settings(training_of(changed, 0))


@pytest.mark.parametrize("name", TUNED_REPRODUCTIONS)
def test_the_figures_in_a_tuning_recipes_head_are_those_of_every_stage(workplace, name):
    head, recipe = head_of(name), load(name)
    given = numbers(STEP.search(head))
    for index in range(len(recipe.finetune.stages)):
        found = stage_batch(recipe, index)
        assert given == [
            found.rows_per_step,
            found.sequence_length,
            found.global_batch_tokens,
            recipe.cluster.workers,
            found.micro_batch,
            found.accumulation,
        ]
    assert given[0] == given[3] * given[4] * given[5]
    length = LENGTH.search(head)
    assert (length is not None) == name.startswith("long")
    if length is not None:
        assert numbers(length) == [found.steps, found.tokens]


def test_the_documents_table_of_tuning_recipes_is_what_they_say(workplace):
    table = TUNED_ROW.findall((Path(__file__).parents[3] / "docs/recipes.md").read_text(encoding="utf-8"))
    assert sorted(row[0] for row in table) == TUNED
    for name, method, *figures in table:
        recipe = load(name)
        for stage in recipe.finetune.stages:
            found = [recipe.cluster.workers, stage.global_batch_tokens, stage.data.sequence_length]
            assert [int(figure.replace(",", "")) for figure in figures] == found
            assert stage.method == method


@pytest.mark.parametrize("name", TUNED)
def test_comments_of_a_tuning_recipe_stay_readable(name):
    for line in text_of(name).splitlines():
        assert len(line) <= 120, line


# K2: recipes of the reference, 6.2


@pytest.mark.parametrize("index", [0, 1])
def test_k2_tunes_as_its_script_does(workplace, index):
    stage = load("k2-sft").finetune.stages[index]
    assert stage.method == "lora"
    adapter = stage.adapter
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (8, 16, 0.05)
    assert adapter.targets == ("q_proj", "k_proj", "v_proj")
    assert adapter.train == ()
    assert stage.global_batch_tokens == 128 * 512
    assert (stage.micro_batch, stage.epochs, stage.seed) == (4, 1, 42)
    assert stage.optimizer.learning_rate == 3e-4
    assert warmup_steps(stage) == 100
    assert (stage.evaluation.every_steps, stage.checkpoint.every_steps) == (200, 200)
    form = stage.data.format
    assert (form.format, form.learn, form.eos, form.overlong) == ("alpaca", "everything", True, "reject")


def test_k2_goes_from_the_general_to_the_expert_with_one_adapter(workplace):
    recipe = load("k2-sft")
    assert [stage.data.sources for stage in recipe.finetune.stages] == [
        ("instructions.files.alpaca_gpt4",),
        ("instructions.signals",),
    ]
    assert chain_of(recipe, 0).carried is None
    assert chain_of(recipe, 1).carried == "finetune-general"
    assert chain_of(recipe, 1).merged == ()


def test_k2s_published_rows_make_the_steps_that_its_head_tells(workplace):
    assert (39_749 - 2_000) // 128 == 294
    assert "294 of GeoSignal's 39,749 rows" in text_of("k2-sft").replace("\n# ", " ")
    assert load("k2-sft").instructions.validation_fraction == pytest.approx(2_000 / 39_749, abs=5e-4)
    rates = stage_schedule(load("k2-sft").finetune.stages[1], 294)
    assert rates.learning_rate(98) < 3e-4
    assert rates.learning_rate(100) == pytest.approx(3e-4, rel=0.01)
    assert rates.learning_rate(293) < 1e-6


# GeoGalactica: 6.4


@pytest.mark.parametrize("index", [0, 1])
def test_geogalactica_tunes_as_its_report_tells(workplace, index):
    stage = load("geogalactica-sft").finetune.stages[index]
    optimizer = stage.optimizer
    assert stage.method == "full"
    assert (optimizer.learning_rate, optimizer.beta1, optimizer.beta2) == (1e-5, 0.9, 0.999)
    assert (optimizer.weight_decay, optimizer.epsilon) == (0.05, 1e-8)
    assert stage.data.sequence_length == 512
    assert stage.global_batch_tokens == 512 * 512
    assert warmup_steps(stage) == 100
    assert stage.epochs == 3


def test_geogalactica_tunes_the_general_first(workplace):
    recipe = load("geogalactica-sft")
    assert [stage.data.sources[0] for stage in recipe.finetune.stages] == [
        "instructions.files",
        "instructions.signals",
    ]
    assert chain_of(recipe, 1).whole == "finetune-general"
    assert f"100,000 of GeoSignal are {3 * 100_000 // 512} steps" in text_of("geogalactica-sft")


# LongLoRA and LongQLoRA: 7.1 to 7.3


def test_longlora_trains_as_published(workplace):
    (stage,) = load("longlora-7b-32k").finetune.stages
    adapter, optimizer = stage.adapter, stage.optimizer
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (8, 16, 0.0)
    assert adapter.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert adapter.train == ("embeddings", "norms")
    assert (stage.method, stage.steps, stage.global_batch_tokens) == ("lora", 1000, 64 * 32_768)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (2e-5, 0.0)
    assert stage.precision == "bfloat16"
    assert stretch_of(stage).factor == math.ceil(32_768 / 4096) == 8
    assert stretch_of(stage).positions == 32_768
    assert group_of(stage) == 32_768 // 4


def test_longqlora_trains_as_published(workplace):
    (stage,) = load("longqlora-7b-8k").finetune.stages
    adapter, optimizer = stage.adapter, stage.optimizer
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (64, 16, 0.05)
    assert (adapter.targets, adapter.train) == ("all-linear", ())
    assert (stage.method, stage.quantization.double) == ("longqlora", True)
    assert (stage.steps, stage.micro_batch, stage.global_batch_tokens) == (1000, 1, 16 * 8192)
    assert (optimizer.name, optimizer.learning_rate) == ("paged_adamw", 2e-4)
    assert (optimizer.weight_decay, optimizer.max_gradient_norm) == (0.0, 0.3)
    assert stage.precision == "float16"
    assert stage.data.document_boundary == "none"
    assert stretch_of(stage).factor == 2
    assert group_of(stage) == 2048


@pytest.mark.parametrize("name", ["longlora-7b-32k", "longqlora-7b-8k", "review-longqlora-12k"])
def test_long_rows_are_learned_at_a_constant_rate_after_20_steps(workplace, name):
    (stage,) = load(name).finetune.stages
    assert warmup_steps(stage) == 20
    rates = stage_schedule(stage, stage.steps or 953)
    peak = stage.optimizer.learning_rate
    assert rates.learning_rate(18) < peak
    assert rates.learning_rate(20) == rates.learning_rate(952) == peak


# The July recipe: 6.5 and 7.5


@pytest.mark.parametrize(("cutoff", "group"), [(12_288, 3072), (11_264, 2816)])
def test_the_july_recipe_knows_both_cut_offs(workplace, cutoff, group):
    (block,) = [found for found in OVERRIDES.findall(head_of("review-longqlora-12k")) if "cutoff" in found]
    recipe = load("review-longqlora-12k", *(block.replace("#", " ").split() if cutoff == 11_264 else ()))
    (stage,) = recipe.finetune.stages
    assert recipe.instructions.reviews.cutoff_tokens == stage.data.sequence_length == cutoff
    assert stage.global_batch_tokens == 16 * cutoff
    assert warmup_steps(stage) == 20
    assert group_of(stage) == group


def test_the_july_recipe_tunes_as_longqlora_does(workplace):
    (stage,) = load("review-longqlora-12k").finetune.stages
    assert (stage.adapter.rank, stage.adapter.alpha, stage.adapter.dropout) == (64, 16, 0.05)
    assert (stage.method, stage.adapter.targets, stage.epochs) == ("longqlora", "all-linear", 1)
    assert (stage.optimizer.learning_rate, stage.optimizer.max_gradient_norm) == (1e-4, 0.3)
    assert stage.data.format.learn == "responses"


def test_the_july_recipe_merges_within_a_context_of_16_k(workplace):
    endpoint = load("review-longqlora-12k").instructions.reviews.endpoint
    assert (endpoint.model, endpoint.json_mode) == ("gpt-3.5-turbo-1106", True)
    assert endpoint.max_review_tokens + endpoint.max_answer_tokens + 1024 <= 16 * 1024


def test_the_july_recipe_leaves_out_the_share_that_was_left_out(workplace):
    tail = load("review-longqlora-12k").instructions.reviews.long_tail
    kept = (1 - tail.input_low_quantile) * (1 - tail.response_low_quantile)
    assert kept == pytest.approx(15_566 / 22_319, abs=1e-3)
    validation = load("review-longqlora-12k").instructions.validation_fraction
    assert round(15_566 * (1 - validation) / 16, -1) == 950


def test_a_window_of_4096_is_refused_with_the_remedies_that_the_july_recipe_names():
    with pytest.raises(ConfigError) as caught:
        refuse_windowed_layers(mistral(4096), context_tokens=12_288, base="Mistral-7B-v0.1")
    for remedy in ("sliding_window: 12288", "null"):
        assert remedy in caught.value.message
        assert remedy in head_of("review-longqlora-12k")
    with pytest.raises(ConfigError, match="attention window of 4096"):
        refuse_long_context(mistral(4096), 12_288, "Mistral-7B-v0.1")
    for window in (12_288, None):
        refuse_windowed_layers(mistral(window), context_tokens=12_288, base="mended")
        refuse_long_context(mistral(window), 12_288, "mended")


# One card of 24 GB


def test_what_a_newcomer_changes_is_marked(workplace):
    marked = [line.split("#")[0].strip() for line in text_of("review-24gb").splitlines() if "# YOURS" in line]
    assert [line for line in marked if line] == [
        "name: review-24gb",
        "root: ./workspace",
        "papers: ./papers",
        "reviews: ./reviews",
        "decisions: null",
    ]
    reviews = load("review-24gb").instructions.reviews
    assert (reviews.papers, reviews.reviews) == (str(workplace / "papers"), str(workplace / "reviews"))
    assert reviews.merger == "extractive"


def test_the_settings_that_a_newcomer_may_uncomment_exist(workplace):
    text = text_of("review-24gb")
    for key in ("papers_metadata: ", "join: ", "merger: endpoint", "endpoint:", "  urls: ", "  model: "):
        assert f"    # {key}" in text
        text = text.replace(f"    # {key}", f"    {key}")
    text = text.replace("    #   api_key", "      api_key").replace("    merger: extractive", "")
    text = text.replace("    #   urls: ", "      urls: ").replace("    #   model: ", "      model: ")
    Path("mine.yaml").write_text(text, encoding="utf-8")
    reviews = load_recipe("mine.yaml", (), {}).instructions.reviews
    assert (reviews.merger, reviews.endpoint.urls) == ("endpoint", ("http://localhost:8000/v1",))
    assert reviews.join.metadata_column == "forum"


def test_its_base_reads_a_whole_paper(workplace):
    recipe = load("review-24gb")
    config = PUBLISHED_SHAPES[recipe.model.base].config
    tokens = recipe.finetune.stages[0].data.sequence_length
    assert tokens == recipe.instructions.reviews.cutoff_tokens == max(recipe.evaluation.passkey.lengths)
    refuse_long_context(config, tokens, recipe.model.base)
    refuse_windowed_layers(config, context_tokens=tokens, base=recipe.model.base)


def test_the_memory_that_its_head_tells_follows_from_the_shape(workplace):
    recipe = load("review-24gb")
    (stage,) = recipe.finetune.stages
    shape = PUBLISHED_SHAPES[recipe.model.base].config
    width, inner, blocks = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]
    linear = [(width, width), (width, keys), (width, keys), (width, width)] + 3 * [(width, inner)]
    # Four bits a weight, eight for the scale of 64 weights, 32 for the scale of 256 scales.
    four_bits = blocks * sum(a * b for a, b in linear) * (1 / 2 + 1 / 64 + 4 / (64 * 256))
    embeddings = 2 * shape["vocab_size"] * width * 2
    trained = blocks * sum(stage.adapter.rank * (a + b) for a, b in linear)
    # Master weights, gradients and two moments in float32, and a copy to compute with.
    states = trained * (4 + 4 + 8 + 2)
    inputs = blocks * stage.data.sequence_length * width * 2
    told = re.search(
        r"base\s+(\S+), adapter with gradients and moments (\S+), inputs of the blocks (\S+), "
        r"one block at work (\S+)\.",
        head_of("review-24gb").replace("\n# ", " "),
    )
    *given, block = [float(figure) for figure in told.groups()]
    counted = [(four_bits + embeddings) / GIB, states / GIB, inputs / GIB]
    assert given == pytest.approx(counted, abs=0.051)
    whole = float(re.search(r"# Memory: (\S+) GiB", head_of("review-24gb"))[1])
    assert sum(counted) + block == pytest.approx(whole, abs=0.1)
    assert whole < 24 * 0.92
