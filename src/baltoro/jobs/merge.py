"""Adapters made part of their base: the plain Hugging Face model that servers and people load."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baltoro.core.artifacts import Artifact, ArtifactWriter
from baltoro.core.errors import ConfigError, InputError, StorageError
from baltoro.core.storage import Storage, is_local, local_path
from baltoro.data.tokenizer import load_tokenizer as load_tokenizer_folder
from baltoro.data.tokenizer import save_tokenizer
from baltoro.instructions.reviews.service import read_service_file, write_service_file
from baltoro.jobs.review import taught_to_review
from baltoro.jobs.stages import Context
from baltoro.jobs.tokenizer import load_tokenizer
from baltoro.jobs.training.preflight import Training
from baltoro.jobs.training.stage import StartingPoint
from baltoro.jobs.training.workers import RemoteFolder
from baltoro.models.adapters import Adapter, read_adapter
from baltoro.models.bases import check_base, check_chain, check_preset, refuse_quantized
from baltoro.models.presets import PRESETS
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


def merge_folders(
    adapter: Path, base: str | Path, output: Path, *, before: Sequence[Path] = (), dtype: str | None = None
) -> ModelPlan:
    """Write the plain model of an adapter's folder and its base's; what ``baltoro model merge`` does.

    Args:
        adapter: folder that a finetune run exported.
        base: folder of the model that it was trained on, or the name of a preset.
        output: folder to write; must not exist.
        before: folders of the adapters that were merged into the base before this one was trained, in order.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the written weights; ``None`` takes the run's, in
            which its own merged model is written, too.

    Raises:
        InputError: a folder is not what it should be, base or adapters are not those that the adapter was
            trained on, or the output exists.
        StorageError: the output cannot be written.
    """
    from baltoro.models.export import write_merged_folder

    if os.path.lexists(output):
        raise InputError(f"{output}: exists already; give a folder that does not, or remove it")
    known = read_adapter(adapter)
    check_chain(adapter, known, before)
    for folder in before:
        read_adapter(folder)
    service = read_service_file(adapter)
    tokenizer = load_tokenizer_folder(adapter)
    plan = replace(_base_plan(adapter, known, base, tokenizer), merged=(*before, adapter))
    try:
        output.mkdir(parents=True)
    except OSError as error:
        raise StorageError(
            f"{output}: cannot be created ({error.strerror}); give a folder where you may write"
        ) from error
    try:
        write_merged_folder(
            output,
            plan=plan,
            save_tokenizer=lambda folder: save_tokenizer(tokenizer, folder),
            dtype=dtype or known.dtype,
        )
        write_service_file(output, service)
        _open_like_the_folder(output)
    except BaseException as error:
        shutil.rmtree(output, ignore_errors=True)
        if isinstance(error, OSError):
            raise StorageError(
                f"{output}: the model cannot be written ({error}); free disk space there"
            ) from error
        raise
    return plan


def merge_output(value: str) -> Path:
    """Return the folder that an option names.

    Raises:
        ConfigError: it is not on this machine.
    """
    if not is_local(value):
        raise ConfigError(
            f"--output {value}: must be a folder of this machine; write it here and copy it there afterwards"
        )
    return Path(local_path(value))


def _base_plan(adapter: Path, known: Adapter, base: str | Path, tokenizer: Any) -> ModelPlan:
    """Return the plan of what an adapter was trained on, without adapters.

    Raises:
        InputError: the base is another one, or none.
    """
    from baltoro.models.load import ModelPlan, plan_model

    if str(base) in PRESETS and not Path(base).is_dir():
        check_preset(adapter, known, str(base))
        return ModelPlan(known.config, seed=known.trained_on.seed or 0)
    folder = Path(base)
    refuse_quantized(adapter, known, folder)
    try:
        plan = plan_model(
            folder, tokenizer, sequence_length=1, vocabulary_multiple=known.config["vocab_size"]
        )
    except (OSError, ValueError) as error:
        # So transformers says that configuration or tokenizer are missing or of no kind it knows.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{folder}: no model can be read ({first}); give the whole folder, tokenizer and all"
        ) from error
    check_base(adapter, known, plan)
    return replace(plan, config=known.config)


def _open_like_the_folder(folder: Path) -> None:
    """Give files the rights that the folder was made with: safetensors' are its owner's alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _local(storage: Storage, folder: RemoteFolder, scratch: Path) -> Path:
    """Return a folder of storage on this machine, downloaded if it is not."""
    if is_local(folder.uri):
        return Path(local_path(folder.uri))
    target = scratch / f"from-{folder.key}"
    if not target.exists():
        storage.download_folder(folder.uri, target)
    return target
