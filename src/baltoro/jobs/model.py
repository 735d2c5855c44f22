"""The model stage: a base model is staged once under the storage root, checksummed, for all ranks to read."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from baltoro.core.artifacts import Artifact, ArtifactStore, ArtifactWriter, fingerprint_of
from baltoro.core.errors import InputError
from baltoro.core.storage import Storage, digest_of, join
from baltoro.jobs.stages import Context, Stage, StageOutput
from baltoro.models.import_base import ImportedModel, base_kind, import_base_model, missing_base
from baltoro.tracking.mlflow import StageRun

MODEL_FOLDER = "model"
"""Folder of the Hugging Face model inside the artifact's writer folder."""

_NAME_CHARACTERS = 100


def is_preset(base: str) -> bool:
    """Return whether ``model.base`` names a preset, which has no weights to stage."""
    return base_kind(base) == "preset"


def artifact_name(base: str) -> str:
    """Return the name a base model's artifact has, whatever recipe asked for it."""
    last_parts = (
        base.rstrip("/").split("/")[-2:] if base_kind(base) == "hub" else [base.rstrip("/").split("/")[-1]]
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(last_parts))
    return name.lstrip("-._")[:_NAME_CHARACTERS].rstrip("-.") or "model"


def content_inputs(base: str, storage: Storage) -> dict[str, Any]:
    """Return what identifies a base model at a path or URI: its files, wherever they stand.

    Raises:
        InputError: nothing is there.
    """
    objects = list(storage.list(base))
    if not objects:
        raise InputError(
            f"model.base={base}: does not exist or is empty; give a Hugging Face model folder, a GGUF file, "
            "an s3:// prefix or a hub id"
        )
    return {"model.content": digest_of(objects)}


def find_hub_copy(base: str, store: ArtifactStore) -> Artifact | None:
    """Return the latest staged copy of a hub id, or ``None``; planning never asks a hub."""
    copies = [
        artifact
        for artifact in store.list("model", artifact_name(base))
        if artifact.manifest.inputs.get("model.hub_id") == base
    ]
    return max(copies, key=lambda artifact: artifact.manifest.created_at, default=None)


def model_inputs(context: Context) -> dict[str, Any]:
    """Return what identifies the recipe's base model: for a hub id, the content of its staged copy.

    Raises:
        InputError: a path or URI holds nothing, or a hub id was not imported; told before anything is built.
    """
    base = context.recipe.model.base
    if base_kind(base) != "hub":
        return content_inputs(base, context.storage)
    staged = find_hub_copy(base, context.store)
    if staged is None:
        raise missing_base(base)
    return {key: value for key, value in staged.manifest.inputs.items() if key != "stage.version"}


def base_config(context: Context) -> dict[str, Any] | None:
    """Return the ``config.json`` of the recipe's base, staged or not; ``None`` of a preset and of one file.

    Raises:
        InputError: it is no JSON object.
    """
    return _base_json(context, "config.json")


def base_lacks_chat_template(context: Context) -> bool:
    """Return whether the tokenizer of the recipe's base is there to look at, and has no chat template."""
    template = _base_file(context, "chat_template.jinja")
    if template is not None and context.storage.stat(template) is not None:
        return False
    settings = _base_json(context, "tokenizer_config.json")
    return settings is not None and not settings.get("chat_template")


def _base_file(context: Context, name: str) -> str | None:
    """Return where a file of the recipe's base would be; ``None`` of a preset and of what is not staged."""
    base = context.recipe.model.base
    kind = base_kind(base)
    if kind == "hub":
        staged = find_hub_copy(base, context.store)
        return None if staged is None else staged.uri_of(f"{MODEL_FOLDER}/{name}")
    return None if kind == "preset" else join(base, name)


def _base_json(context: Context, name: str) -> dict[str, Any] | None:
    uri = _base_file(context, name)
    if uri is None or context.storage.stat(uri) is None:
        return None
    try:
        return dict(json.loads(context.storage.read_bytes(uri)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{uri}: is no JSON object ({error}); restore it") from None


def describe_staged(base: str, imported: ImportedModel) -> StageOutput:
    """Return what the manifest keeps of an imported model."""
    return StageOutput(
        counts={"parameters": imported.parameters},
        summary={
            "source": imported.source,
            "architecture": imported.architecture,
            "parameters": imported.parameters,
        },
        extra={"folder": MODEL_FOLDER, "digest": imported.digest, "base": base},
    )


def upload_model(imported: ImportedModel, writer: ArtifactWriter) -> None:
    """Put the files of an imported model into an artifact."""
    for path in sorted(imported.folder.rglob("*")):
        if path.is_file():
            writer.upload_file(f"{MODEL_FOLDER}/{path.relative_to(imported.folder)}", path)


def build_model_stage(
    context: Context, parents: Mapping[str, Artifact], writer: ArtifactWriter, run: StageRun
) -> StageOutput:
    """Stage a path or URI; a hub id must have been imported before, since training never downloads."""
    del parents
    base = context.recipe.model.base
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        imported = import_base_model(
            base, scratch / "model", storage=context.storage, scratch=scratch, allow_download=False
        )
        upload_model(imported, writer)
    output = describe_staged(base, imported)
    run.log_metrics({"model/parameters": float(output.counts["parameters"])})
    return output


def import_model(storage: Storage, root_uri: str, base: str, *, say: Callable[[str], None]) -> Artifact:
    """Stage a base model, downloading it from a hub if it is an id; done once, then found.

    Raises:
        InputError: it is a preset, nothing usable is there, or the hub refuses.
    """
    kind = base_kind(base)
    if kind == "preset":
        raise InputError(
            f"model.base={base}: is a preset, trained from random weights; there is nothing to stage"
        )
    storage.probe(root_uri)
    store = ArtifactStore(storage, root_uri)
    name = artifact_name(base)
    inputs: dict[str, Any] = {"stage.version": MODEL.version}
    if kind == "hub":
        found = find_hub_copy(base, store)
    else:
        inputs |= content_inputs(base, storage)
        found = store.find("model", name, fingerprint_of(inputs))
    if found is not None:
        say(f"{base} is already staged")
        return found
    say(f"staging {base} under {root_uri}")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        imported = import_base_model(base, scratch / "model", storage=storage, scratch=scratch)
        if kind == "hub":
            # What an id names may change with time; what was trained from must not.
            inputs |= {"model.hub_id": base, "model.content": imported.digest[:16]}
        with store.begin("model", name, fingerprint_of(inputs)) as writer:
            upload_model(imported, writer)
            output = describe_staged(base, imported)
            return writer.publish(
                inputs=inputs,
                stage_version=MODEL.version,
                counts=output.counts,
                extra={**output.extra, "summary": dict(output.summary)},
            )


MODEL = Stage(
    name="model",
    kind="model",
    version=1,
    parents=(),
    inputs=model_inputs,
    build=build_model_stage,
    needs_ray=False,
    artifact_name=lambda context: artifact_name(context.recipe.model.base),
)
