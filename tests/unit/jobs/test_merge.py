"""An adapter becomes a model only with what it was trained on, and says what that was."""

import contextlib
import json
import os
import re
import shutil
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from baltoro.cli import main
from baltoro.core.errors import ConfigError, InputError, StorageError
from baltoro.core.storage import Storage
from baltoro.data.tokenizer import save_tokenizer
from baltoro.jobs.merge import merge_folders, merge_output
from baltoro.jobs.review_model import load_model
from baltoro.models.adapters import OWN_FILE, Tuning, read_adapter, write_adapter_folder
from baltoro.models.bases import trained_on
from baltoro.models.config import AdapterConfig, QuantizationConfig
from baltoro.models.export import write_merged_folder
from baltoro.models.import_base import import_base_model
from baltoro.models.lineage import ADAPTER_FILE, weights_digest
from baltoro.models.load import ModelPlan, build_model, plan_model
from baltoro.models.presets import preset_config
from baltoro.models.rope_scaling_config import RopeScalingConfig
from baltoro.models.weights import weight_files, write_weights
from baltoro.testing.tiny import byte_tokenizer, tiny_plan

IDS = torch.arange(40)[None] % 200 + 3
STRETCH = RopeScalingConfig(method="linear", target_positions=512)

save = partial(save_tokenizer, byte_tokenizer())


def write_base(folder, **settings):
    write_merged_folder(folder, plan=tiny_plan(tied=False, **settings), save_tokenizer=save, dtype="float32")
    return folder


def plan_on(base, scaling=None):
    return plan_model(
        base, byte_tokenizer(), sequence_length=1, vocabulary_multiple=264, rope_scaling=scaling
    )


def write_adapter(folder, plan, *, name, merged=(), four_bits=False, train=(), seed=1, dtype="float32"):
    """Write an adapter that changes every logit, as a run on the plan would."""
    tuning = Tuning(
        AdapterConfig(rank=2, alpha=4, targets=("q_proj", "v_proj"), train=train),
        QuantizationConfig() if four_bits else None,
        dtype,
    )
    plan = replace(plan, merged=tuple(merged), tuning=tuning)
    model = build_model(plan)
    generator = torch.Generator().manual_seed(seed)
    values = [
        (name, torch.randn(value.shape, generator=generator) / 4)
        for name, value in model.named_parameters()
        if value.requires_grad
    ]
    write_adapter_folder(
        folder,
        model=model,
        tuning=tuning,
        parameters=values,
        trained_on=trained_on(plan, base=str(name)),
        config=plan.config,
        save_tokenizer=save,
    )
    return folder


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def chain(base, tmp_path_factory):
    """Two adapters, the second trained with the first in the base, and both as the run itself merges them."""
    folder = tmp_path_factory.mktemp("chain")
    general = write_adapter(folder / "general", plan_on(base), name=base)
    plan = plan_on(base, STRETCH)
    expert = write_adapter(folder / "expert", plan, name=base, merged=[general], four_bits=True, seed=2)
    both = replace(plan, merged=(general, expert))
    write_merged_folder(folder / "merged", plan=both, save_tokenizer=save, dtype="float32")
    return general, expert, folder / "merged"


def merge(*arguments):
    return CliRunner().invoke(main, ["model", "merge", *map(str, arguments)])


def told(result, exit_code=2):
    """Return the one sentence on standard error."""
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    (line,) = result.stderr.strip().splitlines()
    return line.removeprefix("error: ")


# --- what fits ---------------------------------------------------------------------------------------


def test_the_command_merges_a_chain_as_its_run_did(base, chain, tmp_path):
    general, expert, merged = chain
    result = merge(general, expert, "--base", base, "--output", tmp_path / "both")
    assert result.exit_code == 0, result.output
    assert torch.equal(logits(tmp_path / "both"), logits(merged))
    assert {path.name for path in (tmp_path / "both").iterdir()} == {path.name for path in merged.iterdir()}
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "both" / name).read_bytes() == (merged / name).read_bytes(), name


def test_an_adapter_says_what_it_was_trained_on(base, chain):
    general, expert, _ = chain
    first, second = read_adapter(general).trained_on, read_adapter(expert).trained_on
    assert first.digest == second.digest == weights_digest(base, weight_files(base))[0]
    assert (first.base, first.dtype, first.rows, first.adapters) == (str(base), "float32", 264, ())
    (before,) = second.adapters
    assert (before.folder, before.four_bits) == (str(general), False)
    assert json.loads((expert / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


def test_a_copy_of_the_base_in_other_files_and_with_a_tied_weight_twice_is_the_base(tmp_path):
    plan = tiny_plan(tied=True)
    base = tmp_path / "base"
    write_merged_folder(base, plan=plan, save_tokenizer=save, dtype="float32")
    adapter = write_adapter(tmp_path / "adapter", plan_on(base), name="org/model")
    copy = shutil.copytree(base, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    (copy / "model.safetensors").unlink()
    sizes = {name: value.numel() * 4 for name, value in tensors.items()}
    write_weights(copy, tensors.items(), sizes, max_file_bytes=20_000)
    assert len(list(copy.glob("*.safetensors"))) > 1
    staged = tmp_path / "staged"
    import_base_model(str(copy), staged, storage=Storage(), scratch=tmp_path / "scratch")
    for number, folder in enumerate((base, copy, staged)):
        merge_folders(adapter, folder, tmp_path / f"merged-{number}")
    first, *others = [logits(tmp_path / f"merged-{number}") for number in range(3)]
    assert all(torch.equal(first, other) for other in others)


def test_an_adapter_on_a_preset_is_merged_into_the_preset(base, tmp_path):
    config = preset_config(
        "llama-tiny", vocabulary_size=264, sequence_length=64, bos_token_id=0, eos_token_id=2, pad_token_id=1
    )
    plan = ModelPlan(config.to_dict(), seed=7)
    adapter = write_adapter(tmp_path / "adapter", plan, name="llama-tiny")
    result = merge(adapter, "--base", "llama-tiny", "--output", tmp_path / "merged")
    assert result.exit_code == 0, result.output
    whole = replace(plan, merged=(adapter,))
    write_merged_folder(tmp_path / "own", plan=whole, save_tokenizer=save, dtype="float32")
    assert torch.equal(logits(tmp_path / "merged"), logits(tmp_path / "own"))
    card = (adapter / "README.md").read_text()
    assert "the preset `llama-tiny`, random weights of seed 7" in card
    assert "Not possible with the same result: no folder holds the base's random weights" in card
    trained = rf"{adapter}: was trained on the preset llama-tiny with seed 7, not on "
    with pytest.raises(InputError, match=trained + rf"{base}; give --base llama-tiny$"):
        merge_folders(adapter, base, tmp_path / "other")
    with pytest.raises(InputError, match=trained + r"llama-1b; give --base llama-tiny$"):
        merge_folders(adapter, "llama-1b", tmp_path / "other")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_the_runs_unless_another_is_named(base, tmp_path, dtype):
    adapter = write_adapter(tmp_path / "adapter", plan_on(base), name=base, dtype=dtype)
    merge_folders(adapter, base, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == dtype
    result = merge(adapter, "--base", base, "--output", tmp_path / "named", "--dtype", "float32")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "named" / "config.json").read_text())["dtype"] == "float32"


def test_others_may_read_what_they_may_read_elsewhere(base, chain, tmp_path):
    before = os.umask(0o022)
    try:
        merge_folders(chain[0], base, tmp_path / "merged")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "merged").rglob("*") if path.is_file()}
    assert modes == {0o644}


# --- what does not -----------------------------------------------------------------------------------


def test_an_adapter_without_those_before_it_is_refused(base, chain, tmp_path):
    general, expert, merged = chain
    output = tmp_path / "out"
    command = f"`baltoro model merge {general} {expert} --base {base} --output FOLDER`"
    assert told(merge(expert, "--base", base, "--output", output)) == (
        f"{expert}: was trained on {base} after 1 adapter was merged into it, and none given; give "
        f"their folders before it, in this order: {command}"
    )
    # The model that has them merged already is none of these bits, either.
    assert "after 1 adapter was merged into it" in told(merge(expert, "--base", merged, "--output", output))
    other = write_adapter(tmp_path / "other", plan_on(base), name=base, seed=3)
    assert f"{other}: is not the adapter that was merged into the base before {expert} was trained" in told(
        merge(other, expert, "--base", base, "--output", output)
    )
    assert (
        f"with no adapter merged into it before; leave {other} out: `baltoro model merge {general} "
        in told(merge(other, general, "--base", base, "--output", output))
    )
    assert not output.exists()


def rewritten(base, folder, **changes):
    """Return a copy of a base with another configuration."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def stretched(base, folder):
    plan = plan_on(base, STRETCH)
    write_merged_folder(folder, plan=plan, save_tokenizer=save, dtype="float32")


def padded(base, folder):
    rewritten(base, folder, vocab_size=320)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.zeros(56, tensors[name].shape[1])])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def halved(base, folder):
    write_merged_folder(folder, plan=plan_on(base), save_tokenizer=save, dtype="bfloat16")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (
            lambda _, folder: write_base(folder, seed=1),
            "it holds other weights (another seed or revision, or trained or merged since; SHA-256 ",
        ),
        (stretched, "it has other rotary positions in its config.json (stretched since?); "),
        (padded, "it has an embedding of 320 rows, not 264 (padded since?); "),
        (halved, "it has weights in bfloat16, not in float32; "),
        (
            lambda base, folder: rewritten(
                base, folder, quantization_config={"quant_method": "bitsandbytes"}
            ),
            "it is quantised on disk, which the trained one was not; ",
        ),
        (
            lambda base, folder: rewritten(base, folder, model_type="mistral"),
            "is a mistral model, not a llama",
        ),
    ],
    ids=["seed", "positions", "padding", "dtype", "quantised", "architecture"],
)
def test_another_base_is_refused_and_the_right_one_named(base, chain, tmp_path, make, what):
    general = chain[0]
    make(base, tmp_path / "other")
    line = told(merge(general, "--base", tmp_path / "other", "--output", tmp_path / "out"))
    assert line.startswith(f"{tmp_path / 'other'}: is not the base that {general} was trained on, {base}: ")
    assert what in line
    assert line.endswith("; give that model, unchanged, with --base")
    assert not (tmp_path / "out").exists()


def test_a_model_that_has_the_adapter_already_is_refused(base, chain, tmp_path):
    merge_folders(chain[0], base, tmp_path / "once")
    with pytest.raises(InputError, match=r"it holds other weights .*or trained or merged since"):
        merge_folders(chain[0], tmp_path / "once", tmp_path / "twice")


def test_a_review_refuses_the_same(base, chain, tmp_path):
    general, expert, _ = chain
    with pytest.raises(
        InputError, match=r"it holds other weights .*; give that model, unchanged, with --base"
    ):
        load_model(general, write_base(tmp_path / "other", seed=1), "cpu")
    with pytest.raises(InputError, match=rf"in this order: `baltoro model merge {general} {expert} --base"):
        load_model(expert, base, "cpu")


def test_another_tokenizer_beside_a_base_whose_embedding_was_carried_over_is_refused(base, tmp_path):
    grown = byte_tokenizer()
    grown.add_tokens([" serac", " moraine", " firn", " karst", " loess", " gneiss"])
    plan = plan_model(base, grown, sequence_length=1, vocabulary_multiple=8)
    assert plan.vocabulary is not None
    adapter = write_adapter(tmp_path / "adapter", plan, name=base, train=("embeddings",))
    save_tokenizer(grown, adapter)
    merge_folders(adapter, base, tmp_path / "merged")
    assert "the base's embedding was carried over" in (adapter / "README.md").read_text()
    other = shutil.copytree(base, tmp_path / "other")
    save_tokenizer(grown, other)
    with pytest.raises(InputError, match="it has another tokenizer beside the same weights"):
        merge_folders(adapter, other, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda own: [], "Input should be an object"),
        (lambda own: own | {"quantized_layers": None}, "quantized_layers: Input should be a valid "),
        (
            lambda own: own | {"adapter": own["adapter"] | {"rank": 0}},
            "adapter.rank: Input should be greater than or equal to 1",
        ),
        (lambda own: own | {"config": {}}, "config: Value error, model_type is missing"),
    ],
    ids=["list", "null", "rank", "config"],
)
def test_a_changed_record_is_told_in_one_sentence(base, chain, tmp_path, change, what):
    folder = shutil.copytree(chain[0], tmp_path / "adapter")
    (folder / OWN_FILE).write_text(json.dumps(change(json.loads((folder / OWN_FILE).read_text()))))
    line = told(merge(folder, "--base", base, "--output", tmp_path / "out"))
    assert line.startswith(f"{folder / OWN_FILE}: is not as this version of Baltoro writes it ({what}")
    assert line.endswith("that a finetune run exported, unchanged, or export the adapter again")


def test_files_that_are_missing_are_told_in_one_sentence(base, chain, tmp_path):
    adapter = shutil.copytree(chain[0], tmp_path / "adapter")
    for path in adapter.glob("*token*"):
        path.unlink()
    line = told(merge(adapter, "--base", base, "--output", tmp_path / "out"))
    assert f"{adapter}: no tokenizer can be loaded" in line
    (adapter / ADAPTER_FILE).unlink()
    assert "is no adapter that can be read" in told(
        merge(adapter, "--base", base, "--output", tmp_path / "out")
    )
    hollow = shutil.copytree(base, tmp_path / "hollow")
    for path in hollow.glob("*token*"):
        path.unlink()
    line = told(merge(chain[0], "--base", hollow, "--output", tmp_path / "out"))
    assert line.startswith(f"{hollow}: no model can be read (")
    (hollow / "config.json").unlink()
    line = told(merge(chain[0], "--base", hollow, "--output", tmp_path / "out"))
    assert f"{hollow}: is no model's folder: config.json cannot be read" in line
    assert "is no folder" in told(merge(chain[0], "--base", tmp_path / "none", "--output", tmp_path / "out"))


def test_an_output_that_cannot_be_is_told_in_one_sentence(base, chain, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for place in (file / "below", Path("/proc/baltoro")):
        line = told(merge(chain[0], "--base", base, "--output", place))
        assert line.startswith(f"{place}: cannot be created (")
        assert line.endswith("; give a folder where you may write")
    assert f"{file}: exists already" in told(merge(chain[0], "--base", base, "--output", file))
    with pytest.raises(ConfigError, match="--output s3://b/x: must be a folder of this machine"):
        merge_output("s3://b/x")
    assert merge_output(f"file://{file}") == file
    assert "--output s3://b/x" in told(merge(chain[0], "--base", base, "--output", "s3://b/x"))


def test_a_full_disk_is_told_and_nothing_stays(base, chain, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("baltoro.jobs.merge.save_tokenizer", full)
    with pytest.raises(StorageError, match=r"the model cannot be written .*No space left"):
        merge_folders(chain[0], base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what people read --------------------------------------------------------------------------------


def snippet_logits(adapter):
    (code,) = re.findall(r"```python\n(.*?)```", (adapter / "README.md").read_text(), re.DOTALL)
    names = {}
    with contextlib.chdir(adapter):
        exec(code, names)
    assert isinstance(names["model"], PeftModel)
    with torch.no_grad():
        return names["model"](IDS).logits


@pytest.mark.parametrize("train", [(), ("norms",), ("embeddings", "norms")], ids=["none", "norms", "both"])
def test_the_card_has_code_and_a_command_that_give_the_trained_model(base, tmp_path, train):
    general = write_adapter(tmp_path / "general", plan_on(base), name=base)
    plan = plan_on(base, STRETCH)
    adapter = write_adapter(tmp_path / "adapter", plan, name=base, merged=[general], train=train, seed=2)
    card = (adapter / "README.md").read_text()
    command = f"baltoro model merge {general} . --base {base} --output FOLDER"
    assert command in card
    assert "Stretched positions: " in card
    assert "LoRA of rank 2, alpha 4, on q_proj, v_proj" in card
    with contextlib.chdir(adapter):
        result = CliRunner().invoke(main, [*command.split()[1:-1], str(tmp_path / "merged-model")])
    assert result.exit_code == 0, result.output
    expected = logits(tmp_path / "merged-model")
    assert float((snippet_logits(adapter) - expected).abs().max()) < 1e-5
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        without = PeftModel.from_pretrained(plain, adapter).eval()(IDS).logits
    assert float((without - expected).abs().max()) > 1e-2


def test_the_card_says_why_peft_alone_would_be_wrong(chain, tmp_path):
    card = (chain[1] / "README.md").read_text()
    assert "The base's linear layers were in four bits (NF4)" in card
    assert (
        "Not possible with the same result: it would add the adapter to weights that were not rounded" in card
    )
    assert "```python" not in card
    tied = tmp_path / "tied"
    write_merged_folder(tied, plan=tiny_plan(tied=True), save_tokenizer=save, dtype="float32")
    adapter = write_adapter(tmp_path / "adapter", plan_on(tied), name=tied, train=("embeddings",))
    assert "the trained embedding is the output projection as well" in (adapter / "README.md").read_text()
