"""Questions about a whole paper: its title, abstract, keywords and main sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator

from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.signals.text import PaperTexts, one_line, sentence_spans, sentences

_SUMMARY_HEADING = re.compile(
    r"(?:author |editor'?s |executive |lay |plain language )?summary|abstract|elife digest|highlights"
    r"|significance(?: statement)?|impact statement|key ?words|key points|abbreviations",
    re.IGNORECASE,
)
_NO_KEYWORDS = frozenset(("none", "other", "n/a", "keywords", "key words"))

_CUES: tuple[tuple[re.Pattern[str], int], ...] = (
    (
        re.compile(
            r"\b(?:we|this (?:paper|article|work|study|review|report|manuscript)"
            r"|the (?:present|current) study)(?: (?:here|also|thus|first|therefore|then))? "
            r"(?:proposes?|introduces?|presents?|describes?|reports?|develop(?:s|ed)?|show(?:s|ed)? that"
            r"|demonstrates?|demonstrated|investigates?|investigated|examines?|examined|found|find"
            r"|reviews?|reviewed|explores?|explored|aims?|aimed|provides?|offers?|assess(?:es|ed)?"
            r"|devises?|devised|stud(?:y|ies|ied)|combine[sd]?|designs?|designed|derive[sd]?|identif(?:y|ies|ied)"
            r"|evaluates?|evaluated|analy[sz]e[ds]?|address(?:es)?|argues?|propose)\b",
            re.IGNORECASE,
        ),
        3,
    ),
    (re.compile(r"\b(?:here,? we|in this (?:paper|work|study|article|review))\b", re.IGNORECASE), 3),
    (
        re.compile(
            r"\b(?:the (?:aim|purpose|goal|objective)s? of (?:this|the|our)|was to (?:assess|determine"
            r"|evaluate|investigate|examine|compare))\b",
            re.IGNORECASE,
        ),
        2,
    ),
    (
        re.compile(
            r"\b(?:(?:our|these|the) (?:results?|findings?|data|analys[ei]s) (?:show|suggest|indicate"
            r"|demonstrate|reveal)|we conclude|in conclusion)\b",
            re.IGNORECASE,
        ),
        2,
    ),
)
"""What marks the sentence of a paper's contribution, with its weight: what the paper does goes first, what it
aims at and what it concludes after that; the weights fall."""


def title_from_abstract(texts: PaperTexts) -> Iterator[Candidate]:
    """Yield the abstract with the title it belongs to."""
    title = one_line(texts.paper.title)
    if title and texts.abstract:
        yield Candidate({"input": texts.abstract, "output": title})


def keywords(texts: PaperTexts) -> Iterator[Candidate]:
    """Yield title and abstract with the paper's keywords, those of no meaning left out."""
    words = dict.fromkeys(
        word
        for keyword in texts.paper.keywords
        if (word := one_line(keyword).strip(" .;,")) and word.casefold() not in _NO_KEYWORDS
    )
    if not words or not texts.abstract:
        return
    slots = {"input": titled_abstract(texts), "output": ", ".join(words)}
    if len(words) < 2:
        yield Candidate(slots, "too_short", "one keyword alone")
    elif longest := next((word for word in words if len(word) > 80), None):
        yield Candidate(slots, "too_long", f"keyword {longest[:100]!r}")
    else:
        yield Candidate(slots)


def one_sentence_summary(texts: PaperTexts) -> Iterator[Candidate]:
    """Yield the abstract with its own sentence that says what the paper does or finds.

    It is the sentence with the strongest cue, the first of equal ones. Extracted, not written anew, so that
    nothing is invented; without a cue there is no telling, and the candidate is refused.
    """
    best = ""
    best_weight = 0
    for block in texts.paper.abstract:
        if block.kind != "paragraph":
            continue
        for sentence in sentences(texts.text(block)):
            for cue, weight in _CUES:
                if weight <= best_weight:
                    break
                if cue.search(sentence):
                    best, best_weight = sentence, weight
                    break
    if best:
        yield Candidate({"input": texts.abstract, "output": best})
    elif texts.abstract:
        yield Candidate({"input": texts.abstract}, "no_cue", texts.abstract[:80])


def abstract_from_full_text(texts: PaperTexts, *, characters: int) -> Iterator[Candidate]:
    """Yield the opening of the paper's body with its abstract.

    Args:
        texts: the paper.
        characters: the opening is cut after the last sentence that ends within so many.
    """
    if not texts.abstract:
        return
    opening = full_text_opening(texts, characters)
    if opening:
        yield Candidate({"input": opening, "output": texts.abstract})


def titled_abstract(texts: PaperTexts) -> str:
    """Return title and abstract, with a blank line between them."""
    return f"{one_line(texts.paper.title)}\n\n{texts.abstract}".strip()


def full_text_opening(texts: PaperTexts, characters: int) -> str:
    """Return headings and paragraphs from the start of the body, cut at the end of a sentence.

    Summaries that a source keeps among the sections are left out: they say what the abstract says.
    """
    parts: list[str] = []
    left = characters
    for section in texts.paper.sections:
        heading = one_line(section.heading)
        if _SUMMARY_HEADING.fullmatch(heading):
            continue
        for block in section.blocks:
            if block.kind not in ("paragraph", "list"):
                continue
            text = texts.text(block)
            if not text:
                continue
            if heading:
                text = f"{heading}\n{text}"
            if len(text) > left:
                ends = [end for _, end in sentence_spans(text) if end <= left]
                # A heading with nothing behind it tells nothing.
                if ends and ends[-1] > len(heading) + 1:
                    parts.append(text[: ends[-1]])
                return "\n\n".join(parts)
            heading = ""
            parts.append(text)
            left -= len(text) + 2
    return "\n\n".join(parts)
