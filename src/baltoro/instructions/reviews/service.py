"""Reviewing a paper in service: asking a model exactly as it was taught, and reading what it answers.

A folder of a model that was taught to review carries ``baltoro_review.json``: what was asked, how papers were
cleaned and cut, and in which format. With it the ids that the model is shown in service are those that its
training example of the same paper begins with.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ValidationError, model_validator

from baltoro.core.config import StrictModel, result, section
from baltoro.core.errors import InputError, StorageError
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.formats import Writer
from baltoro.instructions.formats_config import FormatConfig
from baltoro.instructions.reviews.aspects import (
    ASPECTS,
    AspectsError,
    MergedReview,
    merged_review,
    read_generated,
)
from baltoro.instructions.reviews.config import ReviewsConfig
from baltoro.instructions.reviews.prompt import parse_answer
from baltoro.instructions.reviews.triples import (
    INSTRUCTION,
    SOURCE,
    TASK,
    ReviewPrompt,
    TokenCount,
    review_prompt,
)
from baltoro.papers.renderers import render
from baltoro.papers.schema import Paper

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SERVICE_FILE = "baltoro_review.json"
"""Beside a model's weights: how it was taught to review."""

_LEAST_PROMPT_TOKENS = 256
_CUTOFF, _RESPONSE_ROOM, _TEMPLATE_ROOM = (
    ReviewsConfig.model_fields[name].default
    for name in ("cutoff_tokens", "response_room_tokens", "template_room_tokens")
)


class ReviewService(StrictModel):
    """What of a recipe decides what a model is shown of a paper."""

    schema_version: Literal[1] = result(1, "of this file")
    instruction: str = result(INSTRUCTION, "what is asked", min_length=1)
    cutoff_tokens: int = result(_CUTOFF, "most tokens of prompt and response", ge=1)
    response_room_tokens: int = result(_RESPONSE_ROOM, "tokens that the prompt leaves free", ge=1)
    template_room_tokens: int = result(_TEMPLATE_ROOM, "tokens left free for the format's own text", ge=0)
    format: FormatConfig = section(FormatConfig, "how the prompt is written")
    clean: dict[str, Any] = result({}, "how papers are cleaned: the recipe's corpus.clean")

    @model_validator(mode="after")
    def _room_is_left(self) -> Self:
        least = least_cutoff_tokens(self.response_room_tokens, self.template_room_tokens)
        if self.cutoff_tokens < least:
            raise ValueError(
                f"cutoff_tokens {self.cutoff_tokens} is too few for a prompt beside the room for the "
                f"response; at least {least}"
            )
        return self


def least_cutoff_tokens(
    response_room_tokens: int = _RESPONSE_ROOM, template_room_tokens: int = _TEMPLATE_ROOM
) -> int:
    """Return the shortest context in which a paper can be reviewed at all."""
    return response_room_tokens + template_room_tokens + _LEAST_PROMPT_TOKENS


def service_of(
    reviews: ReviewsConfig, format: FormatConfig, clean: dict[str, Any], *, sequence_length: int
) -> ReviewService:
    """Return what a model is taught by a stage that trains on reviews.

    Args:
        reviews: how the examples were made.
        format: how they were written.
        clean: how papers were cleaned, as plain values.
        sequence_length: tokens of a training row. Where it is shorter than the examples may be, papers are
            cut to it: the model has seen nothing longer. (Not where it has no room for any prompt; such rows
            hold short papers alone, and their prompts are cut nowhere.)
    """
    least = least_cutoff_tokens(reviews.response_room_tokens, reviews.template_room_tokens)
    cutoff = min(reviews.cutoff_tokens, sequence_length)
    return ReviewService(
        cutoff_tokens=cutoff if cutoff >= least else reviews.cutoff_tokens,
        response_room_tokens=reviews.response_room_tokens,
        template_room_tokens=reviews.template_room_tokens,
        format=format,
        clean=clean,
    )


# --- the file ----------------------------------------------------------------------------------------


def service_file(service: ReviewService) -> bytes:
    """Return the content of :data:`SERVICE_FILE`."""
    text = json.dumps(service.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()


def write_service_file(folder: Path, service: ReviewService | None) -> None:
    """Write how a model was taught into its folder; ``None``, of a model that was not, writes nothing.

    Raises:
        StorageError: the disk refuses or is full.
    """
    if service is None:
        return
    try:
        (folder / SERVICE_FILE).write_bytes(service_file(service))
    except OSError as error:
        raise StorageError(
            f"{folder / SERVICE_FILE}: cannot be written ({error}); free disk space there"
        ) from error


def read_service_file(folder: Path) -> ReviewService | None:
    """Return how the model of a folder was taught; ``None`` if the folder does not say.

    Raises:
        InputError: the file cannot be read, or is of another version.
    """
    path = folder / SERVICE_FILE
    remedy = "export the model again, or remove the file to use the defaults"
    try:
        return ReviewService.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{path}: is not as this version of Baltoro writes it ({what}); {remedy}") from None


# --- asking ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServicePrompt:
    """What a model gets to review one paper.

    Attributes:
        shown: instruction and paper, cut to the room there is.
        paper_tokens: tokens of the whole paper as it is rendered, of which ``shown.input_tokens`` are shown.
    """

    shown: ReviewPrompt
    paper_tokens: int

    @property
    def cut_sentence(self) -> str:
        """What of the paper the model was not shown, in one sentence; empty if it read all."""
        part = self.shown.cut
        if not part:
            return ""
        left_out = ", nothing of the content is left" if self.shown.content_lost else ""
        shown, whole = self.shown.input_tokens, self.paper_tokens
        return f"{part} cut to {shown:,} of {whole:,} tokens of the paper{left_out}"

    def example(self, paper_id: str) -> Example:
        """Return the question as an example without a response."""
        turns = [Turn("user", self.shown.instruction), Turn("input", self.shown.input)]
        return Example(f"{paper_id}#{TASK}", TASK, SOURCE, paper_id, turns)


def service_prompt(paper: Paper, service: ReviewService, count_tokens: TokenCount) -> ServicePrompt | None:
    """Return the prompt for a paper as the model was taught; ``None`` if there is nothing to review.

    Args:
        paper: cleaned as ``service.clean`` says.
        service: how the model was taught.
        count_tokens: as in training (:func:`token_counter`).
    """
    own = service.instruction
    # The room is counted with the instruction of this version; the model may have been taught with another.
    difference = 0 if own == INSTRUCTION else count_tokens(own) - count_tokens(INSTRUCTION)
    settings = ReviewsConfig.model_construct(
        cutoff_tokens=service.cutoff_tokens - difference,
        response_room_tokens=service.response_room_tokens,
        template_room_tokens=service.template_room_tokens,
    )
    prompt = review_prompt(paper, settings, count_tokens)
    if prompt is None:
        return None
    whole = count_tokens(render(paper, "review")) if prompt.cut else prompt.input_tokens
    return ServicePrompt(replace(prompt, instruction=own), whole)


def token_counter(tokenizer: PreTrainedTokenizerFast) -> TokenCount:
    """Return what counts the tokens of a text without special ones, for prompts in training and service."""

    def count_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count_tokens


@dataclass(frozen=True, slots=True)
class AnswerFrame:
    """What a format puts around a response.

    Attributes:
        lead: the text that the model writes before it (``Final Answer: `` in ReAct); mostly empty.
        stop_ids: tokens that end it, sorted.
    """

    lead: str
    stop_ids: tuple[int, ...]


def answer_frame(config: FormatConfig, tokenizer: PreTrainedTokenizerFast) -> AnswerFrame:
    """Return what a model was taught to write around a response.

    Raises:
        ConfigError: the format does not work with this tokenizer.
        ExampleReject: the format cannot write a review.
    """
    mark = "response"
    example = Example("", TASK, SOURCE, "", [Turn("user", "Review."), Turn("assistant", mark)])
    # What follows a response is learned in some sets; where the response ends is wanted here.
    writer = Writer(config.model_copy(update={"learn": "responses"}), tokenizer)
    learned = [piece for piece in writer.pieces(example) if piece.learned and piece.text]
    ends = {str(tokenizer.eos_token)}
    if learned[-1].control:
        ends.add(learned[-1].text)
    ids = sorted(int(tokenizer.convert_tokens_to_ids(token)) for token in ends)
    return AnswerFrame("".join(piece.text for piece in learned).partition(mark)[0], tuple(ids))


# --- the answer --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PaperReview:
    """A paper, and what a model says about it.

    Attributes:
        paper_id: of the paper.
        title: of the paper; may be empty.
        uri: where the paper is.
        model: as people named it.
        prompt: what the model was shown.
        response: all that it answered, as it came.
        review: what could be read of that; without a point if nothing could.
        unparsed: lines of the response that are not in ``review``, as they came.
        finished: the model ended by itself, not at the limit of tokens.
        prompt_tokens: tokens of the whole prompt.
        response_tokens: tokens of the response.
        taught: the model's folder says how it was taught; else the defaults were used.
    """

    paper_id: str
    title: str
    uri: str
    model: str
    prompt: ServicePrompt
    response: str
    review: MergedReview
    unparsed: str
    finished: bool
    prompt_tokens: int
    response_tokens: int
    taught: bool

    @property
    def found(self) -> bool:
        """Whether the response holds a review at all."""
        return self.review.count() > 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        prompt = self.prompt.shown
        return {
            "paper_id": self.paper_id,
            "title": self.title,
            "uri": self.uri,
            "model": self.model,
            "review": self.review.as_dict(),
            "unparsed": self.unparsed,
            "response": self.response,
            "finished": self.finished,
            "cut": {
                "part": prompt.cut or None,
                "shown_tokens": prompt.input_tokens,
                "paper_tokens": self.prompt.paper_tokens,
                "content_left_out": prompt.content_lost,
            },
            "prompt_tokens": self.prompt_tokens,
            "response_tokens": self.response_tokens,
            "taught": self.taught,
        }


_NAMES = {aspect.casefold(): aspect for aspect in ASPECTS}
_HEADING = re.compile(
    rf"[ ]?[#*_]*\s*(?:\d\.\s+)?[*_]*\[?({'|'.join(map(re.escape, ASPECTS))})[\]*_:\s]*", re.IGNORECASE
)
_BULLET = re.compile(r"(?:[-*•]|\d+[.)])[ \t]+(?=<)")


def read_answer(text: str) -> tuple[MergedReview, str]:
    """Return what can be read of an answer, and the lines of it that are not in that.

    A text of :func:`~baltoro.instructions.reviews.aspects.to_brackets` is read without loss. Models that were
    not taught the form write headings in stars or with a colon, and points as a list, or answer in JSON; that
    is read too.
    """
    if text.lstrip().startswith(("{", "```")):
        try:
            return parse_answer(text, None), ""
        except AspectsError:
            pass  # not JSON of that form: whatever brackets it holds are read, the rest is shown
    lines = [_plain_line(line) for line in text.split("\n")]
    review = read_generated("\n".join(lines))
    if not review.count():
        return merged_review({}), text
    headings = {f"[{aspect}]" for aspect in ASPECTS}
    unparsed: list[str] = []
    for number, (line, as_it_came) in enumerate(zip(lines, text.split("\n"), strict=True)):
        if not line.strip() or line in headings:
            continue
        # A line that nothing was made of is one without which the same would have been read.
        if read_generated("\n".join(lines[:number] + lines[number + 1 :])) == review:
            unparsed.append(as_it_came)
    return review, "\n".join(unparsed)


def _plain_line(line: str) -> str:
    """Return a heading or point in the form that is read; any other line as it is."""
    if line.startswith("  "):
        return line
    if heading := _HEADING.fullmatch(line):
        return f"[{_NAMES[heading[1].casefold()]}]"
    return _BULLET.sub("", line) if _BULLET.match(line) else line


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text that no terminal and no page takes for a command; line ends become ``\\n``."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
