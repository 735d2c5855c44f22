"""Which kind of section a paragraph stands in, by what its heading means."""

from __future__ import annotations

import re
from collections.abc import Iterator

from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.signals.text import PaperTexts, one_line

SECTION_KINDS: dict[str, str] = {
    "introduction": r"(?:general )?introduction",
    "related work": r"related (?:work|works|research|literature|studies)|literature review|prior work"
    r"|previous work",
    "methods": r"(?:(?:materials?|subjects?|patients?|participants|data|study design|experimental|online)"
    r"(?: and|,)? )?(?:methods?|methodology|methodologies|procedures)"
    r"|methods? and materials?|our (?:method|approach)|proposed (?:method|approach|framework)",
    "experiments": r"(?:numerical |empirical )?experiments?|experimental (?:setup|set-up|settings?)"
    r"|experiment setup",
    "results": r"(?:main |experimental |empirical )?results?|findings",
    "discussion": r"(?:general )?discussions?",
    "conclusion": r"(?:concluding remarks|conclusions?)"
    r"(?: and (?:future (?:work|directions?|perspectives?)|outlook|perspectives?))?",
}
"""Kind of section → pattern of the headings that mean it, in lower case and whole; it captures no group."""

KIND_LIST = ", ".join(SECTION_KINDS)

_HEADING = re.compile("|".join(f"({pattern})" for pattern in SECTION_KINDS.values()))
_KINDS = tuple(SECTION_KINDS)
_NUMBERING = re.compile(r"^(?:[0-9]+(?:\.[0-9]+)*|[IVX]+|[A-Z])[.):]?\s+")
_KEEPS_KIND = frozenset(("introduction", "methods", "results", "experiments"))


def kind_of_heading(heading: str) -> str | None:
    """Return which kind of section a heading announces, ``None`` if it is not one of the usual words."""
    plain = one_line(heading)
    for candidate in dict.fromkeys((plain, _NUMBERING.sub("", plain))):
        match = _HEADING.fullmatch(candidate.lower().strip(" .:"))
        if match and match.lastindex:
            return _KINDS[match.lastindex - 1]
    return None


def section_classification(texts: PaperTexts) -> Iterator[Candidate]:
    """Yield the paragraphs of sections of a known kind.

    A sub-section is of its top section's kind unless its own heading says otherwise. That holds only where
    the source has levels, and only for kinds whose parts stay what they are: of a sub-section of the
    discussion nothing is known.
    """
    paper = texts.paper
    has_levels = any(section.level > 1 for section in paper.sections)
    top: str | None = None
    for section in paper.sections:
        own = kind_of_heading(section.heading)
        if section.level <= 1:
            top = own
        kind = own or (top if has_levels and section.level > 1 and top in _KEEPS_KIND else None)
        if kind is None or "checklist" in section.heading.lower():
            continue
        for block in section.blocks:
            if block.kind == "paragraph" and (text := texts.text(block)):
                yield Candidate({"input": text, "kinds": KIND_LIST, "output": kind})
