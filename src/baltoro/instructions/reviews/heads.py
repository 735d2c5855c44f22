"""Heads inside the text of a review: which lines are heads, and what they announce.

Reviews are printed forms: ``SUMMARY:``, ``### Strengths and Weaknesses``, ``**Weaknesses:** The proof …``,
``1. Questions``. A line is taken for a head only if its words are known, so that no sentence becomes one.
"""

from __future__ import annotations

import re

from baltoro.instructions.reviews.records import Part

_KINDS: dict[str, tuple[str, ...]] = {
    "summary": (
        *("summary", "paper summary", "summary of the paper", "brief summary", "summary and contributions"),
        *("key points", "overview", "short summary", "summary of paper", "what is this paper about"),
        *("summary of the review", "summary of review", "main review", "review summary", "synopsis"),
        *("summary of contributions", "paper summary and contributions", "main ideas", "overall summary"),
    ),
    "novelty": (
        *("contribution", "contributions", "main contributions", "novelty", "originality", "significance"),
        *("significance and novelty", "novelty and significance", "originality and significance", "impact"),
        *("technical novelty and significance", "significance and impact", "main contribution"),
        *("novelty and originality", "importance", "potential impact", "originality novelty"),
    ),
    "strengths": (
        *("strengths", "strength", "pros", "pro", "positives", "positive aspects", "strong points", "merits"),
        *(
            "major strengths",
            "main strengths",
            "reasons to accept",
            "reasons for acceptance",
            "strong aspects",
        ),
        *("potential reasons for acceptance", "paper strengths", "strengths of the paper", "positive points"),
        *("advantages", "minor strengths", "key strengths", "general strengths", "what i liked"),
    ),
    "weaknesses": (
        *(
            "weaknesses",
            "weakness",
            "cons",
            "con",
            "negatives",
            "negative aspects",
            "weak points",
            "drawbacks",
        ),
        *(
            "major weaknesses",
            "main weaknesses",
            "reasons to reject",
            "reasons for rejection",
            "weak aspects",
        ),
        *(
            "potential reasons for rejection",
            "paper weaknesses",
            "weaknesses of the paper",
            "negative points",
        ),
        *("concerns", "main concerns", "major concerns", "major issues", "major comments", "limitations"),
        *("limitation", "shortcomings", "disadvantages", "major points", "minor weaknesses", "key concerns"),
        *("limitations and societal impact", "critical issues", "main issues", "issues", "major concern"),
        *("specific concerns", "substantive concerns", "main criticisms", "criticism", "criticisms"),
    ),
    "suggestions": (
        *("questions", "question", "suggestions", "suggestions for improvement", "minor comments"),
        *("questions for authors", "questions for the authors", "questions to the authors", "minor points"),
        *("minor issues", "minor concerns", "minor", "recommendations", "requested changes", "requests"),
        *("questions and suggestions", "questions suggestions", "comments and questions", "minor edits"),
        *("additional feedback", "suggestions and questions", "detailed questions", "other suggestions"),
        *("typos", "typos and minor issues", "minor remarks", "specific questions"),
        *("suggested revisions", "required revisions", "essential revisions"),
        *("minor revisions", "questions for rebuttal", "suggestions to authors", "suggestions for authors"),
    ),
    "mixed": (
        *(
            "strengths and weaknesses",
            "pros and cons",
            "comments",
            "detailed comments",
            "review",
            "evaluation",
        ),
        *("general comments", "other comments", "specific comments", "additional comments", "assessment"),
        *("comments to the author", "comments to the authors", "comments for the author", "justification"),
        *("main comments", "quality", "clarity", "soundness", "presentation", "correctness", "relevance"),
        *("technical quality", "technical soundness", "reproducibility", "related work", "prior work"),
        *("relation to prior work", "experiments", "empirical evaluation", "writing", "clarity and quality"),
        *("quality and clarity", "strengths weaknesses", "overall assessment", "overall", "conclusion"),
        *("overall recommendation", "additional editor comments", "the review", "detailed review"),
        *("clarity quality novelty and reproducibility", "strength and weaknesses", "strength and weakness"),
    ),
    "ignored": (
        *("rating", "confidence", "score", "overall score", "ethics", "ethics review", "code of conduct"),
        *(
            "ethical concerns",
            "ethics flag",
            "references",
            "reference",
            "bibliography",
            "recommendation score",
        ),
        *("reviewer confidence", "details of ethics concerns", "references cited", "best regards", "signed"),
    ),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}

_DECORATION = re.compile(r"^[\s#>*_•\-–—=]*(?:\(?(?:\d{1,2}|[A-Za-z]|[IVX]{1,4})[.):]\s+)?[\s*_]*")
_HEAD = re.compile(r"(?P<words>[A-Za-z][A-Za-z &/,'’\-]{2,58}?)\s*(?P<end>\*{0,2}_{0,2}[:：]\s*\*{0,2}|$)")
_OPTIONAL = re.compile(r"\s*\((?:optional|required|if any|major|minor)\)", re.IGNORECASE)


def kind_of(head: str) -> str | None:
    """Return what a head announces, ``None`` if it is not known.

    One of ``summary``, ``novelty``, ``strengths``, ``weaknesses``, ``suggestions``, ``mixed`` (anything may
    follow) and ``ignored``.

    >>> kind_of("STRENGTHS"), kind_of("Pros & Cons"), kind_of("Dear authors")
    ('strengths', 'mixed', None)
    """
    words = re.sub(r"[^a-z]+", " ", _OPTIONAL.sub("", head.lower().replace("&", " and ").replace("_", " ")))
    return _KIND_OF.get(words.strip())


def split_heads(text: str) -> list[Part]:
    """Return text as parts under its heads, in order; without heads one part of all of it.

    A known head counts at the start of a line, alone on it or followed by a colon; what follows the colon
    stays with the part.
    """
    parts = [Part("", "")]
    lines: list[list[str]] = [[]]
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        head, rest = _head_of(line)
        if head is None:
            lines[-1].append(line)
        else:
            parts.append(Part(head, ""))
            lines.append([rest] if rest else [])
    for part, own in zip(parts, lines, strict=True):
        part.text = "\n".join(own).strip()
    return [part for part in parts if part.text]


def _head_of(line: str) -> tuple[str | None, str]:
    start = _DECORATION.match(line)
    body = line[start.end() if start else 0 :]
    found = _HEAD.match(body)
    if found is None or kind_of(found["words"]) is None:
        return None, ""
    rest = body[found.end() :].strip().strip("*_").strip()
    alone = not rest and (not found["end"] or found["end"].strip("*_") != "")
    bulleted = line.lstrip()[:1] in "*-•–" and not line.lstrip().startswith("**")
    # "- Clarity: the text is easy" is a point with a label of its own, not a head for what follows it.
    if bulleted and not alone:
        return None, ""
    # A bare lower-case word at a line's end ("…\nwriting") is a wrapped sentence, not a head.
    if not found["end"].strip("*_ ") and line[:1].islower() and not line.lstrip().startswith("#"):
        return None, ""
    return found["words"].strip(), rest
