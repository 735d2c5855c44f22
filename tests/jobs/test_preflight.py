"""What training would fail of ends the command at once: one error, and no worker has started."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from baltoro.cli import main
from baltoro.core.errors import BaltoroError
from baltoro.jobs.cluster import check_resources, connected
from baltoro.jobs.stages import Context
from baltoro.jobs.training.preflight import check_workers, pretraining
from baltoro.testing.papers import write_papers
from baltoro.testing.training_jobs import tiny_recipe

pytestmark = [pytest.mark.jobs, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "pretrain.global_batch_tokens=500",
            "global_batch_tokens=500 is not a multiple of sequence_length=64",
        ),
        ("cluster.workers=3", "global_batch_tokens=512 is 8 rows of 64 tokens, which 3 data ranks"),
        ("cluster.min_workers=3", "min_workers=3 is more than workers=2"),
        ("pretrain.parallel.dp_shard=3", "dp_replicate=1 × dp_shard=3 does not make 2 workers"),
        ("pretrain.strategy=ddp pretrain.parallel.dp_shard=2", "set it to null, or strategy=fsdp2"),
        ("pretrain.schedule.warmup_tokens=1000000", "warmup_tokens=1,000,000 do not fit into the run"),
        ("pretrain.optimizer.learning_rate=2", "learning_rate"),
        (
            "model.base=opt-tiny pretrain.data.sequence_length=8192 pretrain.global_batch_tokens=32768",
            "sequence_length=8192 is longer than the",
        ),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_built(recipe_file, tmp_path, override, expected):
    papers, root = tmp_path / "papers", tmp_path / "root"
    write_papers(papers, 4, formats=("markdown",))
    settings = [f"storage.root={root}", f"corpus.sources.0.uri={papers}", *override.split()]
    result = CliRunner().invoke(main, ["pretrain", str(recipe_file), *settings])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert expected in " ".join(result.stderr.split())
    assert not any((root / kind).exists() for kind in ("corpus", "tokens", "run"))


def test_a_node_that_may_not_write_into_the_run_s_folder_is_named(ray_session, tmp_path: Path):
    recipe = tiny_recipe(str(tmp_path), cluster={"workers": 2, "address": ray_session})
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(BaltoroError, match=str(tmp_path / "run")) as caught, connected(recipe):
        check_workers(Context(recipe), pretraining(recipe), str(tmp_path / "run" / "tiny"))
    assert "Traceback" not in caught.value.message
    check_workers(Context(recipe), pretraining(recipe), str(tmp_path / "elsewhere"))


def test_too_few_cpus_or_gpus_are_refused_and_elastic_workers_need_only_the_least(ray_session, tmp_path):
    many = {"workers": 40, "address": ray_session}
    with pytest.raises(BaltoroError, match=r"logical CPUs, cluster.workers=40 needs 42"):
        check_resources(tiny_recipe(str(tmp_path), cluster=many))
    check_resources(tiny_recipe(str(tmp_path), cluster={**many, "min_workers": 2}))
    with pytest.raises(BaltoroError, match=r"cluster.min_workers=2, but the Ray cluster has 0 GPUs"):
        check_resources(tiny_recipe(str(tmp_path), cluster={**many, "min_workers": 2, "use_gpu": True}))
