"""A trained model reviews one paper: read, cleaned, rendered, cut and written as its training examples were.

The model is a folder on this machine or stands behind an OpenAI-compatible endpoint. The prompt ends where in
training the response began; the response is read leniently, and what cannot be read of it is kept.
"""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from baltoro.core.errors import ConfigError, InputError
from baltoro.core.storage import Storage, absolute_uri, is_local
from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.instructions.formats import ExampleReject
from baltoro.instructions.reviews.ask import (
    DEADLINE_SECONDS,
    DEFAULT_SAMPLING,
    ChatEndpoint,
    Reviewer,
    Sampling,
    Say,
)
from baltoro.instructions.reviews.page import review_page
from baltoro.instructions.reviews.service import (
    SERVICE_FILE,
    PaperReview,
    ReviewService,
    printable,
    read_answer,
    service_of,
    service_prompt,
)
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.review_model import Device, LocalModel
from baltoro.papers.config import InputFormat
from baltoro.papers.reader import make_paper_id, read
from baltoro.papers.schema import Paper, Reject

_SOURCE = "papers"
_RECORDS_NAMED = 5
_GENERAL: InputFormat = "records"


def review_paper(
    submitted: SubmittedPaper,
    reviewer: Reviewer,
    *,
    say: Say,
    sampling: Sampling = DEFAULT_SAMPLING,
) -> PaperReview:
    """Return a model's review of one paper.

    Args:
        submitted: the paper, as it was read; it is cleaned in place.
        reviewer: the model.
        say: tells a person what should be known about the review.
        sampling: how the response is drawn.

    Raises:
        InputError: the paper has nothing to review.
        ConfigError: the settings do not fit the model.
        EndpointError: the endpoint does not answer, or refuses.
    """
    found, uri, service = submitted.paper, submitted.uri, reviewer.service
    clean_paper(found, clean_config(service, reviewer.name))
    prompt = service_prompt(found, service, reviewer.count_tokens)
    if prompt is None:
        raise InputError(f"{uri}: has neither abstract nor content to review; was it parsed as a whole?")
    if prompt.cut_sentence:
        say(prompt.cut_sentence)
    try:
        answer = reviewer.answer(prompt.example(found.paper_id), sampling)
    except ExampleReject as reject:
        raise InputError(
            f"{reviewer.name}: a prompt cannot be written in the format {service.format.format}: "
            f"{reject.detail}"
        ) from reject
    response = printable(answer.text)
    review, unparsed = read_answer(response)
    reviewed = PaperReview(
        paper_id=found.paper_id,
        title=found.title,
        uri=uri,
        model=reviewer.name,
        prompt=prompt,
        response=response,
        review=review,
        unparsed=unparsed,
        finished=answer.finished,
        prompt_tokens=answer.prompt_tokens,
        response_tokens=answer.tokens,
        taught=reviewer.taught,
    )
    if not answer.finished:
        say(f"the response was stopped after {answer.tokens:,} tokens; --max-new-tokens allows more")
    if not reviewed.found:
        why = (
            "the model was tuned on reviews and still missed the form; another --seed or --temperature draws "
            "another response, and a longer --max-new-tokens ends one that was stopped"
            if reviewer.taught
            else "nothing says that the model was tuned on reviews, and others seldom keep the form; give "
            f"one that was (its folder holds {SERVICE_FILE})"
        )
        say(f"the response holds no review under any of the four headings and is shown as it came: {why}")
    elif unparsed:
        say("some of the response is no point of any aspect; it is shown under Unparsed")
    return reviewed


def reviewer_of(
    model: str,
    *,
    say: Say,
    base: str | None = None,
    device: Device | None = None,
    endpoint: str | None = None,
    api_key_environment: str | None = None,
    tokenizer: str | None = None,
    deadline_seconds: float | None = None,
) -> Reviewer:
    """Return the model that the options of the command name; without ``endpoint`` one on this machine.

    Raises:
        ConfigError: options do not go together, or one cannot be.
        InputError: a folder is not what it should be.
    """
    here = {"--base": base, "--device": device}
    there = {
        "--api-key-environment": api_key_environment,
        "--tokenizer": tokenizer,
        "--deadline-seconds": deadline_seconds,
    }
    for name, value in (here if endpoint is not None else there).items():
        if value is not None:
            only = "a model on this machine" if endpoint is not None else "a model behind --endpoint"
            raise ConfigError(f"{name} is for {only} only; leave it out")
    if endpoint is None:
        return LocalModel(model, say=say, base=base, device=device or "auto")
    return ChatEndpoint(
        endpoint,
        model,
        say=say,
        api_key_environment=api_key_environment,
        tokenizer=tokenizer,
        deadline_seconds=DEADLINE_SECONDS if deadline_seconds is None else deadline_seconds,
    )


def check_page(uri: str, *, paper: str) -> None:
    """Refuse a place that no page can be written to, before anybody is asked and paid for a review.

    Args:
        uri: path or ``s3://`` URI of the page.
        paper: of the paper, which a page must not replace.

    Raises:
        ConfigError: it is a folder, or the paper.
        StorageError: the place refuses or is full.
    """
    place, storage = absolute_uri(uri), Storage()
    if place == absolute_uri(paper):
        raise ConfigError(f"--html {uri}: is the paper itself; name another file")
    if is_local(place) and Path(place).is_dir():
        raise ConfigError(f"--html {uri}: is a folder; name a file in it")
    # Not the page itself: an older one stays until there is a new one.
    tried = f"{place}.{secrets.token_hex(4)}"
    storage.create(tried, b"")
    storage.delete(tried)


def write_page(found: PaperReview, uri: str) -> None:
    """Write a review as a page, dated today.

    Args:
        found: the review.
        uri: path or ``s3://`` URI of the file; one that exists is replaced.

    Raises:
        StorageError: the place refuses or is full.
    """
    page = review_page(found, reviewed_on=datetime.now(UTC).date().isoformat())
    Storage().write_bytes(absolute_uri(uri), page.encode())


def taught_to_review(recipe: Recipe, index: int) -> ReviewService | None:
    """Return how the model of a finetune stage was taught to review; ``None`` if it was not.

    Args:
        recipe: its stages run in order, and what one taught the later ones build on.
        index: of the stage whose model it is.
    """
    reviews = recipe.instructions.reviews
    if reviews is None:
        return None
    clean = recipe.corpus.clean.model_dump(mode="json")
    for stage in reversed(recipe.finetune.stages[: index + 1]):
        if {"instructions", "instructions.reviews"} & set(stage.data.sources):
            return service_of(reviews, stage.data.format, clean, sequence_length=stage.data.sequence_length)
    return None


# --- the paper ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubmittedPaper:
    """A paper that is to be reviewed, and where it is."""

    paper: Paper
    uri: str


def read_one(
    paper: str,
    *,
    record: str | None = None,
    input_format: InputFormat = "auto",
    text_column: str | None = None,
) -> SubmittedPaper:
    """Return the one paper of a file, or the one of several that is named.

    Args:
        paper: file of one parsed paper: a path, ``file://`` or ``s3://`` URI.
        record: which paper of a file that holds several.
        input_format: format of the paper; ``auto`` looks at it.
        text_column: column with the text of general JSONL and Parquet tables.

    Raises:
        InputError: it cannot be read, or it is not said which paper is meant.
        ConfigError: it is no table that has a text column.
    """
    uri, storage = absolute_uri(paper), Storage()
    info = storage.stat(uri)
    if info is None:
        raise InputError(f"{uri}: is no file; give the file of one parsed paper, or an s3:// URI of it")
    records = read(uri, source=_SOURCE, format=input_format, storage=storage, text_column=text_column)
    if record is not None:
        wanted = make_paper_id(_SOURCE, info.key, record)
        named = (one for one in records if one.paper_id == wanted)
        found = next(named, None)
        if found is None:
            raise InputError(f"{uri}: holds no record {record!r}; `baltoro papers show {uri}` lists them")
    else:
        first = list(itertools.islice(records, _RECORDS_NAMED))
        if len(first) > 1:
            names = ", ".join(one.paper_id.partition("#")[2] or one.paper_id for one in first)
            raise InputError(
                f"{uri}: holds several papers; name one with --record KEY, where KEY is one of {names} …"
            )
        found = first[0]
    if isinstance(found, Reject):
        raise InputError(f"{uri}: is rejected: {found.reason}: {found.detail}")
    if text_column is not None and found.format != _GENERAL:
        raise ConfigError(
            f"--text-column: {uri} is read as {found.format}, which has columns of its own; leave it out, or "
            f"give --format {_GENERAL} to take the column {text_column} alone"
        )
    return SubmittedPaper(found, uri if record is None else f"{uri}#{record}")


def clean_config(service: ReviewService, name: str) -> CleanConfig:
    """Return how papers were cleaned when the model was taught.

    Raises:
        InputError: the settings are not those of this version.
    """
    try:
        return CleanConfig.model_validate(service.clean)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{name}: clean.{'.'.join(map(str, first['loc']))} of its {SERVICE_FILE} is not as this version "
            f"of Baltoro writes it ({first['msg']}); export the model again"
        ) from None
