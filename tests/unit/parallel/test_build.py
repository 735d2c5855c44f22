import subprocess
import sys

import pytest
import torch

from baltoro.core.errors import ConfigError
from baltoro.parallel.build import refuse_contradictions, refuse_missing_dtype
from baltoro.parallel.config import ParallelConfig


def refuse(name, device_type="cuda", **settings):
    refuse_contradictions(name, ParallelConfig.model_validate(settings), device_type=device_type)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fsdp2", {"dp_replicate": 2, "dp_shard": 4, "fsdp2": {"cpu_offload": True}, "compile": True}),
        ("ddp", {"activation_checkpointing": "full"}),
        ("deepspeed", {"deepspeed": {"zero_stage": 3, "offload_parameters": True}}),
    ],
)
def test_settings_of_the_chosen_strategy_are_taken(name, settings):
    refuse(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "fsdp2",
            {"deepspeed": {"zero_stage": 3}},
            r"parallel\.deepspeed\.zero_stage=3: only strategy=deepspeed",
        ),
        (
            "ddp",
            {"deepspeed": {"offload_optimizer": True}},
            r"deepspeed\.offload_optimizer=true: only .* has strategy=ddp",
        ),
        (
            "ddp",
            {"fsdp2": {"reshard_after_forward": False}},
            r"fsdp2\.reshard_after_forward=false: only strategy=fsdp2",
        ),
        (
            "deepspeed",
            {"fsdp2": {"reshard_after_forward": False, "cpu_offload": True}},
            r"reshard_after_forward=false, parallel\.fsdp2\.cpu_offload=true: .*set strategy=fsdp2",
        ),
        (
            "deepspeed",
            {"compile": True, "deepspeed": {"zero_stage": 3}},
            r"parallel\.compile=true: .*zero_stage to 1 or 2",
        ),
        (
            "ddp",
            {"dp_replicate": 2},
            r"dp_replicate=2 asks for hybrid sharding, but strategy=ddp copies .* set it to 1",
        ),
        ("deepspeed", {"dp_replicate": 2}, r"dp_replicate=2 .* strategy=deepspeed shards over all workers"),
        (
            "ddp",
            {"dp_shard": 2},
            r"dp_shard=2 .* strategy=ddp copies the whole model.*null, or strategy=fsdp2",
        ),
        ("deepspeed", {"dp_shard": 8}, r"dp_shard=8 .* strategy=deepspeed"),
    ],
)
def test_a_setting_that_the_chosen_strategy_would_ignore_is_named(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        refuse(name, **settings)


def test_offloading_from_a_cpu_is_refused():
    with pytest.raises(
        ConfigError, match=r"cpu_offload=true .* this device is a CPU: there is nothing to offload"
    ):
        refuse("fsdp2", device_type="cpu", fsdp2={"cpu_offload": True})


def test_bfloat16_is_refused_where_a_gpu_would_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    device = torch.device("cuda", 0)
    with pytest.raises(
        ConfigError, match="bfloat16 is not among the dtypes of Tesla V100; set it to float16"
    ):
        refuse_missing_dtype("bfloat16", device)
    refuse_missing_dtype("float16", device)
    refuse_missing_dtype("bfloat16", torch.device("cpu"))


def test_asking_for_refusals_imports_neither_torch_nor_deepspeed():
    script = (
        "import sys; from baltoro.parallel.build import refuse_contradictions; "
        "from baltoro.parallel.config import ParallelConfig; "
        "refuse_contradictions('ddp', ParallelConfig(), device_type='cpu'); "
        "print(sorted({'torch', 'deepspeed'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert printed == "[]\n"
