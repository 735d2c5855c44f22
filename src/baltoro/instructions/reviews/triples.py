"""The final examples: instruction, paper, merged review.

:func:`review_prompt` is what training and serving share: the same renderer, the same words, the same
truncation to the same length, so that a model is asked in service exactly as it was taught.

The truncation rule: only the paper is ever cut, never the instruction and never the response. Title, abstract
and captions are kept first; the content is cut at its end, after the last whole paragraph that fits, or
within a long paragraph after the last whole sentence. If the head alone is too long, captions go from their
end, then the abstract's end. The prompt always leaves ``response_room_tokens`` free, also for a short review,
since in service nobody knows how long the response will be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baltoro.instructions.example import Example, Turn
from baltoro.instructions.reviews.aspects import ASPECTS, MergedReview, to_brackets
from baltoro.instructions.reviews.config import ReviewsConfig
from baltoro.instructions.reviews.points import sentences
from baltoro.instructions.reviews.readers import STAGE
from baltoro.papers.renderers import render
from baltoro.papers.schema import Paper, Reject

TASK = "review"
SOURCE = "reviews"

INSTRUCTION = (
    "You are a referee for a scientific venue. Read the paper below, given as title, abstract, captions and "
    "content, and review it under four headings: "
    + ", ".join(f"[{aspect}]" for aspect in ASPECTS)
    + ". Under each heading write one point per line: its gist in angle brackets, then the detail."
)
"""What the model is asked, in training and in service."""

_FROM_CONTENT = "\n\n[CONTENT]\n"
_WORTH_CUTTING_WORDS = 12

TokenCount = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class ReviewPrompt:
    """What a model gets to review one paper.

    Attributes:
        instruction: the task.
        input: the paper, rendered in the style ``review`` and cut to the room there is.
        input_tokens: tokens of ``input``.
        cut: what was cut: ``""``, ``content``, ``captions`` or ``abstract``.
    """

    instruction: str
    input: str
    input_tokens: int
    cut: str


def review_prompt(paper: Paper, config: ReviewsConfig, count_tokens: TokenCount) -> ReviewPrompt | None:
    """Return the prompt for a paper; ``None`` if it has neither abstract nor content to review.

    Args:
        paper: cleaned or as read; training and serving must agree on which.
        config: its ``cutoff_tokens``, ``response_room_tokens`` and ``template_room_tokens`` rule.
        count_tokens: counts tokens without special ones, with the tokenizer of the model.
    """
    text = render(paper, "review")
    if "[ABSTRACT]" not in text and "[CONTENT]" not in text:
        return None
    room = (
        config.cutoff_tokens
        - config.response_room_tokens
        - config.template_room_tokens
        - count_tokens(INSTRUCTION)
    )
    if len(text) <= room * _CHARACTERS_A_TOKEN:
        tokens = count_tokens(text)
        if tokens <= room:
            return ReviewPrompt(INSTRUCTION, text, tokens, "")
    kept, tokens, cut = _cut(text, room, count_tokens)
    return ReviewPrompt(INSTRUCTION, kept, tokens, "" if kept == text else cut)


_CHARACTERS_A_TOKEN = 6
"""Longer text hardly ever fits, so it is not counted as a whole first; if it does, cutting cuts nothing."""


def review_example(
    paper: Paper, merged: MergedReview, count_tokens: TokenCount, config: ReviewsConfig
) -> tuple[Example, ReviewPrompt, int] | Reject:
    """Return the example of a paper, its prompt and the tokens of its response; or why there is none.

    Args:
        paper: with title and abstract filled from the reviews where it had none.
        merged: its merged review.
        count_tokens: counts tokens without special ones.
        config: the settings.
    """
    prompt = review_prompt(paper, config, count_tokens)
    if prompt is None:
        detail = "neither abstract nor content to review"
        return Reject(paper.paper_id, paper.uri, STAGE, "paper_without_text", detail)
    if not merged.count():
        detail = "the merged review has no point"
        return Reject(paper.paper_id, paper.uri, STAGE, "empty_review", detail)
    response = to_brackets(merged)
    response_tokens = count_tokens(response)
    used = config.template_room_tokens + count_tokens(prompt.instruction) + prompt.input_tokens
    if used + response_tokens > config.cutoff_tokens:
        detail = (
            f"the response has {response_tokens} tokens and {config.cutoff_tokens - used} are left of "
            f"{config.cutoff_tokens}; a response is never cut: raise cutoff_tokens or response_room_tokens"
        )
        return Reject(paper.paper_id, paper.uri, STAGE, "response_too_long", detail)
    turns = [Turn("user", prompt.instruction), Turn("input", prompt.input), Turn("assistant", response)]
    example = Example(f"{paper.paper_id}#{TASK}", TASK, SOURCE, paper.paper_id, turns)
    return example, prompt, response_tokens


# --- truncation --------------------------------------------------------------------------------------


def _cut(text: str, room: int, count_tokens: TokenCount) -> tuple[str, int, str]:
    """Return a rendered paper cut to ``room`` tokens, its tokens, and which part was cut."""
    # The style's tags never occur in a paper's own text, so the first one is the part's beginning.
    head, mark, content = text.partition(_FROM_CONTENT)
    if not mark and text.startswith("[CONTENT]\n"):
        head, mark, content = "", "[CONTENT]\n", text.removeprefix("[CONTENT]\n")
    kept, tokens = _fitted(head, mark, content, room, count_tokens)
    if tokens <= room:
        return kept, tokens, "content"
    before, mark, captions = head.partition("\n\n[CAPTIONS]\n")
    kept, tokens = _fitted(before, mark, captions, room, count_tokens)
    if tokens <= room:
        return kept, tokens, "captions"
    title, mark, abstract = before.partition("[ABSTRACT]\n")
    kept, tokens = _fitted(title.rstrip(), f"\n\n{mark}" if title else mark, abstract, room, count_tokens)
    return kept, tokens, "abstract"


def _fitted(before: str, mark: str, part: str, room: int, count_tokens: TokenCount) -> tuple[str, int]:
    """Return ``before`` with as much of a part as fits, and its tokens; those exceed ``room`` if nothing
    does."""
    alone = count_tokens(before)
    left = room - count_tokens(before + mark)
    while left > 0:
        kept = _first_that_fit(part, left, count_tokens)
        if not kept:
            break
        tokens = count_tokens(before + mark + kept)
        if tokens <= room:
            return before + mark + kept, tokens
        # Tokens of pieces do not add up exactly: a seam may cost one.
        left -= tokens - room
    return before, alone


def _first_that_fit(text: str, room: int, count_tokens: TokenCount) -> str:
    """Return the first paragraphs that fit, and of the next one its first sentences."""
    paragraphs = text.split("\n\n")
    kept: list[str] = []
    used = 0
    for paragraph in paragraphs:
        tokens = count_tokens(paragraph + "\n\n")
        if used + tokens > room:
            if first := _first_sentences(paragraph, room - used, count_tokens):
                kept.append(first)
            break
        used += tokens
        kept.append(paragraph)
    return "\n\n".join(_without_loose_end(kept))


def _first_sentences(paragraph: str, room: int, count_tokens: TokenCount) -> str:
    """Return the first whole sentences of a paragraph that fit; nothing of tables, formulas, code, "
    "headings."""
    if paragraph.startswith(("|", "\\[", "```", "#")) or len(paragraph.split()) < _WORTH_CUTTING_WORDS:
        return ""
    kept: list[str] = []
    used = 0
    for sentence in sentences(paragraph):
        used += count_tokens(f" {sentence}")
        if used > room:
            break
        kept.append(sentence)
    return " ".join(kept) if len(kept) < len(sentences(paragraph)) else paragraph


def _without_loose_end(paragraphs: Sequence[str]) -> list[str]:
    """Drop headings without text and code without end from the end of cut content."""
    kept = list(paragraphs)
    fences = [index for index, paragraph in enumerate(kept) if paragraph.count("```") % 2]
    if len(fences) % 2:
        del kept[fences[-1] :]
    while kept and kept[-1].startswith("#") and "\n" not in kept[-1]:
        kept.pop()
    return kept
