"""Adapters made part of their base: the plain Hugging Face model that servers and people load."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage, is_local, local_path
from baltoro.data.tokenizer import save_tokenizer
from baltoro.instructions.reviews.service import read_service_file, write_service_file
from baltoro.jobs.review import taught_to_review
from baltoro.jobs.stages import Context
from baltoro.jobs.tokenizer import load_tokenizer
from baltoro.jobs.training.preflight import Training
from baltoro.jobs.training.stage import StartingPoint
from baltoro.jobs.training.workers import RemoteFolder
from baltoro.models.adapters import OWN_FILE, read_adapter
from baltoro.models.weights import combined_digest, digest_folder

if TYPE_CHECKING:
    from baltoro.models.load import ModelPlan

MERGED_FOLDER = "merged"
"""Name of the whole model's folder beside the adapter's files."""


def write_merged(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    context: Context,
    tokenizer: Artifact,
    start: StartingPoint,
    adapter: RemoteFolder,
    training: Training,
    writer: ArtifactWriter,
) -> str:
    """Write the model that a finetune stage ended with, and name its files in the artifact.

    Args:
        context: the recipe and its storage.
        tokenizer: that it was trained with.
        start: what the stage started from.
        adapter: what it trained.
        training: the stage.
        writer: of the stage's artifact; the adapter's folder is the one it has adopted.

    Returns:
        Digest of the model's folder.

    Raises:
        StorageError: the disk or the store refuses or is full.
    """
    from baltoro.models.export import write_merged_folder
    from baltoro.models.load import plan_model

    recipe = context.recipe
    with tempfile.TemporaryDirectory(prefix="baltoro-merge-") as temporary:
        scratch = Path(temporary)
        loaded = load_tokenizer(context.storage, tokenizer, scratch / "tokenizer")
        # The adapter that was trained further is in the new one already.
        folders = [_local(context.storage, folder, scratch) for folder in (*start.merged, adapter)]
        plan = plan_model(
            start.base if start.folder is None else _local(context.storage, start.folder, scratch),
            loaded,
            sequence_length=training.config.data.sequence_length,
            vocabulary_multiple=recipe.tokenizer.pad_vocab_to_multiple,
            seed=recipe.model.init_seed,
            rope_scaling=training.rope_scaling,
        )
        target = scratch / MERGED_FOLDER
        write_merged_folder(
            target,
            plan=replace(plan, merged=tuple(folders)),
            save_tokenizer=lambda folder: save_tokenizer(loaded, folder),
            dtype=training.config.precision,
        )
        index = int(training.section.rpartition(".")[2])
        write_service_file(target, taught_to_review(recipe, index))
        files = digest_folder(target)
        context.storage.upload_folder(target, writer.uri_for(MERGED_FOLDER))
    for name, file in sorted(files.items()):
        writer.add_file(f"{MERGED_FOLDER}/{name}", rows=0, size_bytes=file.size_bytes, sha256=file.sha256)
    return combined_digest(files)


def merge_folders(adapter: Path, base: Path, output: Path, *, dtype: str) -> ModelPlan:
    """Write the plain model of an adapter's folder and its base's; what ``baltoro model merge`` does.

    Args:
        adapter: folder that a finetune run exported.
        base: folder of the model that it was trained on.
        output: folder to write; must not exist.
        dtype: ``float32`` or ``bfloat16``, of the written weights.

    Raises:
        InputError: a folder is not what it should be, they do not fit, or the output exists.
    """
    from transformers import AutoTokenizer

    from baltoro.models.export import write_merged_folder
    from baltoro.models.load import plan_model

    if output.exists():
        raise InputError(f"{output}: exists already; give a folder that does not, or remove it")
    known = read_adapter(adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter, local_files_only=True)
    plan = plan_model(base, tokenizer, sequence_length=1, vocabulary_multiple=known.config["vocab_size"])
    if plan.config["model_type"] != known.config["model_type"]:
        raise InputError(
            f"{adapter / OWN_FILE}: was trained on a {known.config['model_type']} model ({known.base}), and "
            f"{base} is a {plan.config['model_type']} model; give the base it was trained on"
        )
    plan = replace(plan, config=known.config, merged=(adapter,))
    try:
        write_merged_folder(
            output, plan=plan, save_tokenizer=lambda folder: save_tokenizer(tokenizer, folder), dtype=dtype
        )
        write_service_file(output, read_service_file(adapter))
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return plan


def _local(storage: Storage, folder: RemoteFolder, scratch: Path) -> Path:
    """Return a folder of storage on this machine, downloaded if it is not."""
    if is_local(folder.uri):
        return Path(local_path(folder.uri))
    target = scratch / f"from-{folder.key}"
    if not target.exists():
        storage.download_folder(folder.uri, target)
    return target
