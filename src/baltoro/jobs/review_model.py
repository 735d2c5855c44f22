"""A model in a folder of this machine, asked for a review."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from baltoro.core.errors import ConfigError, InputError, PlatformError
from baltoro.instructions.example import Example
from baltoro.instructions.formats_config import FormatConfig
from baltoro.instructions.reviews.ask import Answer, Sampling, Say, local_folder
from baltoro.instructions.reviews.service import (
    SERVICE_FILE,
    ReviewService,
    answer_frame,
    least_cutoff_tokens,
    read_service_file,
    token_counter,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedModel

Device = Literal["auto", "cpu", "cuda"]


class LocalModel:
    """A model in a folder of this machine.

    Args:
        folder: a plain Hugging Face folder, or an adapter's.
        base: folder of the model that the adapter was trained on.
        device: where it runs; ``auto`` takes a GPU if there is one.
        say: tells a person what is assumed.

    Raises:
        InputError: the folder holds no such model, or an adapter's base is missing.
    """

    def __init__(
        self,
        folder: str,
        *,
        say: Say,
        base: str | None = None,
        device: Device = "auto",
    ) -> None:
        from baltoro.data.tokenizer import load_tokenizer
        from baltoro.models.lineage import OWN_FILE
        from baltoro.models.rope_scaling import context_positions

        self.name = folder
        self._folder = local_folder("--model", folder)
        self._base = local_folder("--base", base) if base is not None else None
        self._device = device
        self._say = say
        own = self._folder / OWN_FILE
        if own.is_file() and self._base is None:
            merged = self._folder / "merged"
            also = f", or take the merged model {merged}" if merged.is_dir() else ""
            raise InputError(
                f"{folder}: is an adapter; give the model that it was trained on with --base{also}"
            )
        if not own.is_file() and self._base is not None:
            raise InputError(f"--base goes with an adapter, and {folder} has no {OWN_FILE}; leave --base out")
        config = _json(own)["config"] if own.is_file() else _json(self._folder / "config.json")
        self._positions = context_positions(config)
        self._tokenizer = load_tokenizer(self._folder)
        self.count_tokens = token_counter(self._tokenizer)
        taught = read_service_file(self._folder)
        self.taught = taught is not None
        self.service = taught or self._assumed()

    def _assumed(self) -> ReviewService:
        default = ReviewService()
        cutoff = min(default.cutoff_tokens, self._positions or default.cutoff_tokens)
        if cutoff < least_cutoff_tokens():
            raise InputError(
                f"{self.name}: reads {cutoff} tokens, and a paper with its review needs "
                f"{least_cutoff_tokens()} at least; give a model with a longer context"
            )
        format = FormatConfig(format="chat") if self._tokenizer.chat_template else default.format
        self._say(
            f"{self.name}: this model was not tuned on reviews (its folder has no {SERVICE_FILE}), so it is "
            f"asked by the defaults: format {format.format}, at most {cutoff:,} tokens"
        )
        return default.model_copy(update={"cutoff_tokens": cutoff, "format": format})

    def answer(self, example: Example, sampling: Sampling) -> Answer:
        """Return the response to a question.

        Raises:
            ConfigError: prompt and response are longer than the model reads.
            InputError: the folder's files are not of one whole model.
            PlatformError: there is no GPU, or its memory is too small.
        """
        from baltoro.instructions.tokens import prompt_ids

        ids = prompt_ids(example, self.service.format, self._tokenizer)
        limit = sampling.max_new_tokens or self.service.response_room_tokens
        left = limit if self._positions is None else self._positions - len(ids)
        if sampling.max_new_tokens is None:
            limit = min(limit, left)
        if not 0 < limit <= left:
            raise ConfigError(
                f"--max-new-tokens: the prompt has {len(ids):,} of the {self._positions:,} tokens that "
                f"{self.name} reads, so a response of {limit:,} has no room; "
                + (f"lower it to at most {left:,}" if left > 0 else "give a model with a longer context")
            )
        frame = answer_frame(self.service.format, self._tokenizer)
        model = load_model(self._folder, self._base, self._device)
        rows = model.get_input_embeddings().weight.shape[0]
        if ids.max() >= rows:
            raise InputError(
                f"{self.name}: its tokenizer has ids up to {ids.max()} and the model {rows} rows; they are "
                "not of one model"
            )
        drawn = generate(model, ids, frame.stop_ids, limit, sampling)
        finished = bool(drawn) and drawn[-1] in frame.stop_ids
        text = self._tokenizer.decode(drawn[:-1] if finished else drawn)
        return Answer(text.removeprefix(frame.lead), len(drawn), len(ids), finished)


def load_model(folder: Path, base: Path | None, device: str) -> PreTrainedModel:
    """Return a model with its values, ready to answer.

    Args:
        folder: of the model, or of an adapter.
        base: of an adapter; it is made part of that, as training had it.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: the files are not of one whole model.
        PlatformError: there is no GPU, or its memory is too small.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    if device == "cuda" and not torch.cuda.is_available():
        raise PlatformError("--device cuda: there is no GPU that PyTorch can use here; take --device cpu")
    target = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    with ExitStack() as stack:
        if transformers_logging.is_progress_bar_enabled():
            transformers_logging.disable_progress_bar()
            stack.callback(transformers_logging.enable_progress_bar)
        if base is not None:
            from baltoro.jobs.merge import merge_folders

            adapter, folder = folder, Path(stack.enter_context(tempfile.TemporaryDirectory())) / "merged"
            merge_folders(adapter, base, folder)
        try:
            model, told = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, dtype="auto", output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            # So transformers says that files are missing, damaged or of an architecture it does not know.
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{folder}: no model can be loaded ({first})") from error
        if told["missing_keys"]:
            missing = sorted(told["missing_keys"])
            raise InputError(
                f"{folder}: {len(missing)} of the model's weights are not in its files, first {missing[0]}; "
                "copy the folder again, or export it anew"
            )
        try:
            model = model.to(target).eval()
        except torch.OutOfMemoryError as error:
            raise _too_small(folder) from error
    loaded: PreTrainedModel = model
    return loaded


def generate(
    model: PreTrainedModel,
    ids: npt.NDArray[np.int32],
    stop_ids: tuple[int, ...],
    max_new_tokens: int,
    sampling: Sampling,
) -> list[int]:
    """Return the ids that a model goes on with, the one that ended it included.

    Args:
        model: ready to answer.
        ids: the prompt, int32 [tokens].
        stop_ids: any of them ends the response.
        max_new_tokens: bound on the response.
        sampling: how it is drawn.

    Raises:
        PlatformError: the GPU's memory is too small.
    """
    import torch
    from transformers import GenerationConfig

    prompt = torch.from_numpy(ids.astype("int64"))[None].to(model.device)
    drawing = (
        {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        if sampling.temperature > 0
        else {"do_sample": False}
    )
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=stop_ids[0],
        num_beams=1,
        **drawing,
    )
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(sampling.seed or 0)
            whole: Any = model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=config
            )
    except torch.OutOfMemoryError as error:
        raise _too_small(model.name_or_path) from error
    drawn: list[int] = whole[0, len(ids) :].tolist()
    return drawn


def _too_small(folder: object) -> PlatformError:
    return PlatformError(
        f"{folder}: the model and this paper need more memory than the GPU has; take --device cpu, or serve "
        "the model elsewhere and give --endpoint"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path.parent}: is no model's folder: {path.name} cannot be read ({error})"
        ) from error
    return value
