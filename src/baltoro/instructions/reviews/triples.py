"""The final examples: instruction, paper, merged review.

:func:`review_prompt` is what training and serving share: the same renderer, the same words, the same
truncation to the same length, so that a model is asked in service exactly as it was taught.

The truncation rule: only the paper is ever cut, never the instruction and never the response. Content has
half of the paper's room, or as much as it is where that is less. Title, abstract and captions share the rest
in this order, so captions are cut first, to nothing if need be, and the abstract only after them. What they
leave is content's, too. Each is cut at its end, after the last whole paragraph that fits, or within a long
paragraph after the last whole sentence. The prompt always leaves ``response_room_tokens`` free, also for a
short review, since in service nobody knows how long the response will be.
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

EXAMPLE_REASONS = ("paper_without_text", "empty_review", "response_too_long")
"""Why a paper with a merged review gives no example."""

INSTRUCTION = (
    "You are a referee for a scientific venue. Read the paper below, given as title, abstract, captions and "
    "content, and review it under four headings: "
    + ", ".join(f"[{aspect}]" for aspect in ASPECTS)
    + ". Under each heading write one point per line: its gist in angle brackets, then the detail."
)
"""What the model is asked, in training and in service."""

_FROM_ABSTRACT, _FROM_CAPTIONS, _FROM_CONTENT = (
    f"\n\n[{part}]\n" for part in ("ABSTRACT", "CAPTIONS", "CONTENT")
)
_WORTH_CUTTING_WORDS = 12

TokenCount = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class ReviewPrompt:
    """What a model gets to review one paper.

    Attributes:
        instruction: the task.
        input: the paper, rendered in the style ``review`` and cut to the room there is.
        input_tokens: tokens of ``input``.
        cut: what was cut of ``abstract``, ``captions`` and ``content``, joined for people; ``""`` if nothing.
    """

    instruction: str
    input: str
    input_tokens: int
    cut: str

    @property
    def content_lost(self) -> bool:
        """Whether the paper was cut so that nothing of its content is left."""
        return bool(self.cut) and "[CONTENT]\n" not in self.input


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
    """Return a rendered paper cut to ``room`` tokens, its tokens, and which parts were cut."""
    # The style's tags never occur in a paper's own text, so the first one is the part's beginning.
    head, content_mark, content = f"\n\n{text}".partition(_FROM_CONTENT)
    head, captions_mark, captions = head.partition(_FROM_CAPTIONS)
    title, abstract_mark, abstract = head.partition(_FROM_ABSTRACT)
    # A text of so many characters has more tokens than its share; it need not be counted.
    share = room // 2
    if len(content) <= share * _CHARACTERS_A_TOKEN:
        share = min(share, count_tokens(content_mark + content))
    kept = title.removeprefix("\n\n")
    cut: list[str] = []
    for name, mark, part, left in (
        ("abstract", abstract_mark, abstract, room - share),
        ("captions", captions_mark, captions, room - share),
        ("content", content_mark, content, room),
    ):
        opened = mark if kept else mark.removeprefix("\n\n")
        longer = _fitted(kept, opened, part, left, count_tokens)
        if longer != kept + opened + part:
            cut.append(name)
        kept = longer
    return kept, count_tokens(kept), " and ".join([*([", ".join(cut[:-1])] if cut[1:] else []), *cut[-1:]])


def _fitted(before: str, mark: str, part: str, room: int, count_tokens: TokenCount) -> str:
    """Return ``before`` with as much of a part as fits; alone if nothing does."""
    left = room - count_tokens(before + mark)
    while left > 0:
        kept = _first_that_fit(part, left, count_tokens)
        if not kept:
            break
        tokens = count_tokens(before + mark + kept)
        if tokens <= room:
            return before + mark + kept
        # Tokens of pieces do not add up exactly: a seam may cost one.
        left -= tokens - room
    return before


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
    """Return the first whole sentences of a paragraph that fit; none of tables, formulas, code, headings."""
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
