"""The end of a training run: its export written, uploaded and published, or found where it was published."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baltoro.checkpoint.head import Claim, Finished, Head
from baltoro.checkpoint.state import TrainState
from baltoro.core.storage import join
from baltoro.data.tokenizer import save_tokenizer
from baltoro.models.adapters import write_adapter_folder
from baltoro.models.bases import trained_on
from baltoro.models.export import write_hf_folder
from baltoro.models.load import ModelPlan, build_model
from baltoro.models.weights import combined_digest, digest_folder, digest_stream
from baltoro.parallel.ranks import Ranks
from baltoro.parallel.strategy import Strategy
from baltoro.train.config import TrainConfig

_logger = logging.getLogger(__name__)

Export = tuple[str, dict[str, tuple[int, str]], str]
"""URI of an export, ``{name: (bytes, sha256)}`` of it, one digest over these."""


def published_export(claim: Claim, head: Head, state: TrainState) -> Export | None:
    """Return the export that the head names, if it is of this step and whole."""
    finished = head.finished
    if finished is None or finished.step != state.step:
        return None
    storage, export_uri = claim.storage, join(claim.run_uri, finished.export)
    files = {}
    for info in storage.list(export_uri, with_etag=False):
        with storage.open(join(export_uri, info.key)) as stream:
            files[info.key] = digest_stream(stream)
    if combined_digest(files) != finished.digest:
        _logger.warning("%s is not what was exported any more; the model is exported again", export_uri)
        return None
    return export_uri, {name: (file.size_bytes, file.sha256) for name, file in files.items()}, finished.digest


def write_export(
    *,
    strategy: Strategy,
    plan: ModelPlan,
    tokenizer: Any,
    config: TrainConfig,
    claim: Claim,
    state: TrainState,
    ranks: Ranks,
    scratch: Path,
    base_name: str,
    merged_names: Sequence[str],
    export_files: Mapping[str, bytes],
) -> Export:
    """Write, upload and publish the export; return its URI, files and digest, on every rank."""
    name = f"export-attempt-{claim.attempt:04d}"
    local = scratch / name
    export_uri = join(claim.run_uri, name)

    def write() -> None:
        parameters = strategy.full_parameters()
        try:
            if ranks.rank == 0:
                shutil.rmtree(local, ignore_errors=True)
            if plan.tuning is None:
                write_hf_folder(
                    local if ranks.rank == 0 else None,
                    plan=plan,
                    parameters=parameters,
                    save_tokenizer=lambda folder: save_tokenizer(tokenizer, folder),
                    dtype=config.precision,
                )
            elif ranks.rank == 0:
                write_adapter_folder(
                    local,
                    model=build_model(plan),
                    tuning=plan.tuning,
                    parameters=parameters,
                    trained_on=trained_on(plan, base=base_name, merged=merged_names),
                    config=plan.config,
                    save_tokenizer=lambda folder: save_tokenizer(tokenizer, folder),
                )
        finally:
            # If writing failed here, the other ranks still wait in the gathers that are left.
            for _ in parameters:
                pass

    def publish() -> tuple[dict[str, tuple[int, str]], str]:
        for file, data in export_files.items():
            (local / file).write_bytes(data)
        files = digest_folder(local)
        digest = combined_digest(files)
        claim.storage.upload_folder(local, export_uri)
        shutil.rmtree(local)
        claim.publish_finished(Finished(step=state.step, export=name, digest=digest))
        return {name: (file.size_bytes, file.sha256) for name, file in files.items()}, digest

    ranks.each(write)
    return export_uri, *ranks.first(publish)
