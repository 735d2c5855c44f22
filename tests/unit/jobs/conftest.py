"""A small recipe on a small folder of papers, for tests of the wiring without Ray."""

from collections.abc import Callable
from pathlib import Path

import pytest

from baltoro.jobs.recipe import Recipe, load_recipe

RECIPE = """\
name: geo
corpus:
  sources:
    - {name: papers, uri: papers}
tokenizer: {vocab_size: 512}
pretrain:
  data: {sequence_length: 64}
  global_batch_tokens: 256
"""

PAPERS = {
    "basalt.md": "# Basalt columns\n\nColumns form as basalt cools from its surfaces inward.\n",
    "gneiss.md": "# Banded gneiss\n\nBands of quartz and mica record the stretching of the rock.\n",
    "till.md": "# Till beneath ice\n\nWater pressure decides how fast the ice slides over its till.\n",
}

LoadRecipe = Callable[..., Recipe]


@pytest.fixture
def papers(workplace: Path) -> Path:
    """A folder of three papers in the current folder."""
    folder = workplace / "papers"
    folder.mkdir()
    for name, text in PAPERS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def load(workplace: Path, papers: Path) -> LoadRecipe:
    """Load ``recipe.yaml`` of the current folder with overrides."""
    (workplace / "recipe.yaml").write_text(RECIPE, encoding="utf-8")

    def load_with(*overrides: str) -> Recipe:
        return load_recipe("recipe.yaml", overrides)

    return load_with


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    """A model of a few thousand parameters with a byte tokenizer, as a Hugging Face folder."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from baltoro.testing.tiny import byte_tokenizer, tiny_plan

    tokenizer = byte_tokenizer()
    config = LlamaConfig(**{**dict(tiny_plan().config), "vocab_size": len(tokenizer)})
    folder = tmp_path / "tiny-base"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
