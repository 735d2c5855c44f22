"""The tokenizer stage: train on a sample of the corpus, or take the base model's and add the markers.

A tokenizer is an artifact of its own, since everything later (token datasets, exports, instruction data)
must share the very same one.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.config import result_fields
from baltoro.core.errors import ConfigError
from baltoro.core.storage import Storage, join
from baltoro.corpus.work import PartFile, open_part
from baltoro.jobs.extend import part_chain
from baltoro.jobs.model import is_preset
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.papers.renderers import special_tokens
from baltoro.tracking.mlflow import StageRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from baltoro.data.config import TokenizerConfig

_SOURCE_STYLE = re.compile(r"corpus\.sources\.(\d+)\.style")

TOKENIZER_FOLDER = "tokenizer"
"""Folder of the Hugging Face tokenizer inside the artifact's writer folder."""


def markers(context: Context) -> list[str]:
    """Return the markers of the rendering styles that the corpus uses, each once, in order."""
    styles = dict.fromkeys(corpus_styles(context))
    return list(dict.fromkeys(token for style in styles for token in special_tokens(style)))


def corpus_styles(context: Context) -> list[str]:
    """Return the rendering style of each source of the corpus.

    A pinned corpus knows it itself; later parts have no other styles than the first.
    """
    pin = context.recipe.pins.corpus
    if pin is not None:
        first = part_chain(context.store, context.store.open(pin, kind="corpus"))[0]
    elif context.extension is not None:
        first = context.extension.parts[0]
    else:
        return [source.style for source in context.recipe.corpus.sources]
    inputs = first.manifest.inputs
    found = {key: _SOURCE_STYLE.fullmatch(key) for key in inputs}
    by_source = {int(match[1]): str(inputs[key]) for key, match in found.items() if match is not None}
    return [style for _, style in sorted(by_source.items())]


def tokenizer_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies a tokenizer beyond its parents."""
    config = context.recipe.tokenizer
    if config.origin == "base" and is_preset(context.recipe.model.base):
        raise ConfigError(
            f"tokenizer.from: base, but model.base={context.recipe.model.base!r} is a preset without a "
            "tokenizer; set tokenizer.from=train, or give model.base a model that has one"
        )
    inputs = result_fields(config, "tokenizer.")
    if config.origin == "base":
        # What only training reads must not make a base model's tokenizer stale.
        inputs = {key: inputs[key] for key in ("tokenizer.from", "tokenizer.add_tokens")}
    inputs["tokenizer.markers"] = markers(context) if config.add_tokens == "renderer" else []
    return inputs


def build_tokenizer(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Train or take the tokenizer and publish it as a plain Hugging Face folder."""
    from baltoro.data import tokenizer as tokenizers

    config = context.recipe.tokenizer
    sample_bytes = 0
    if config.origin == "base":
        with tempfile.TemporaryDirectory() as temporary:
            base = download_folder(context.storage, parents["model"], Path(temporary))
            built = tokenizers.base_tokenizer(base, markers(context), config.add_tokens)
    else:
        sample = TokenizerSample(context.storage, parents["corpus"], config)
        added = markers(context) if config.add_tokens == "renderer" else []
        built = tokenizers.train_tokenizer(sample.texts(), config, added)
        sample_bytes = sample.size_bytes
    fingerprint = tokenizers.tokenizer_fingerprint(built)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizers.save_tokenizer(built, folder)
        for path in sorted(folder.iterdir()):
            writer.write_file(f"{TOKENIZER_FOLDER}/{path.name}", path.read_bytes())
    rows = tokenizers.padded_vocab_size(built, config.pad_vocab_to_multiple)
    run.log_metrics({"tokenizer/vocabulary_tokens": len(built), "tokenizer/sample_bytes": sample_bytes})
    return StageOutput(
        counts={"vocabulary": len(built), "sample_bytes": sample_bytes},
        summary={
            "vocabulary": len(built),
            **({"vocabulary_asked": config.vocab_size} if config.origin == "train" else {}),
            "embedding_rows": rows,
            "tokenizer_fingerprint": fingerprint[:16],
        },
        extra={
            "tokenizer_fingerprint": fingerprint,
            "folder": TOKENIZER_FOLDER,
            "embedding_rows": rows,
            "markers": markers(context) if config.add_tokens == "renderer" else [],
        },
    )


class TokenizerSample:
    """The texts that train a tokenizer: a stable sample of the corpus' training documents.

    Of each document only a hash and a length are held, 16 bytes.
    """

    def __init__(self, storage: Storage, corpus: Artifact, config: TokenizerConfig) -> None:
        from baltoro.data.tokenizer import sample_bound, sample_hashes

        self._storage = storage
        self._parts = corpus_parts(corpus)
        self._seed = config.seed
        hashes, lengths = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for part in self._parts:
            table = self._read(part, ["paper_id", "characters", "split"])
            hashes.append(sample_hashes(table.column("paper_id").to_pylist(), self._seed))
            lengths.append(table.column("characters").to_numpy())
        self._bound = sample_bound(
            np.concatenate(hashes),
            config.sample_fraction,
            lengths_characters=np.concatenate(lengths),
            min_characters=config.sample_min_characters,
        )
        self.size_bytes = 0

    def texts(self) -> Iterator[str]:
        """Yield the chosen texts in corpus order."""
        from baltoro.data.tokenizer import sample_hashes

        for part in self._parts:
            table = self._read(part, ["paper_id", "split", "text"])
            hashes = sample_hashes(table.column("paper_id").to_pylist(), self._seed)
            for text in table.column("text").filter(pa.array(hashes <= np.uint64(self._bound))).to_pylist():
                self.size_bytes += len(text.encode())
                yield text

    def _read(self, part: PartFile, columns: list[str]) -> pa.Table:
        table = open_part(self._storage, part).read(columns)
        return table.filter(pa.compute.equal(table.column("split"), "train"))


def corpus_parts(corpus: Artifact) -> list[PartFile]:
    """Return a corpus artifact's document parts, in order."""
    return [PartFile(corpus.uri_of(entry), entry.sha256) for entry in corpus.files("documents/part-")]


def download_folder(storage: Storage, artifact: Artifact, target: Path) -> Path:
    """Copy the folder that a tokenizer or model artifact holds to this machine."""
    storage.download_folder(
        join(artifact.uri, artifact.manifest.writer, artifact.manifest.extra["folder"]), target
    )
    return target


def load_tokenizer(storage: Storage, artifact: Artifact, target: Path) -> PreTrainedTokenizerFast:
    """Copy a tokenizer artifact to ``target`` and load it."""
    from baltoro.data.tokenizer import load_tokenizer as load

    return load(download_folder(storage, artifact, target))


TOKENIZER = Stage(
    name="tokenizer",
    kind="tokenizer",
    version=1,
    parents=("corpus", "model"),
    inputs=tokenizer_inputs,
    build=build_tokenizer,
    needs_ray=False,
)
