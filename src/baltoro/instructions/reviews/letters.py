"""Decision letters to single referees: what a journal's letter says about the paper, without its postage.

eLife merges all referees into one letter; PLOS adds e-mail text, journal requirements and a form whose
questions are printed again for each referee. What is taken out is wording of the journal, never of a referee.
"""

from __future__ import annotations

import re

_REVIEWER = re.compile(
    r"^\W{0,3}(?P<who>(?:Reviewer|Referee)\s*(?:#|No\.?|Number)?\s*\d{1,2})\b(?:\s*\([^)]{0,60}\)|"
    r"\s+\(?(?:minor |major |general )?comments?\)?)?\s*[:.\-–—]?\s*(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_FORM_COMMENTS = re.compile(r"^\W*\d{1,2}\.\s*Review Comments to the Author\b", re.IGNORECASE)
_FORM_END = re.compile(r"^\W*\*{5,}\W*$")
_MARKUP = re.compile(
    r"-->|<!--|\[Note: HTML markup[^\]]*\]|\s*\[Editors?[’']?s?[’']? note[^\]]*\]", re.IGNORECASE
)

_BOILERPLATE = re.compile(
    "|".join(
        (
            r"eLife posts the editorial decision letter",
            r"In the interests of transparency, eLife",
            r"Thank you for (?:sending|submitting|choosing to send|resubmitting) your",
            r"(?:Your|The) (?:manuscript|article|work|submission|paper)\b.{0,200}(?:has been|"
            r"was) (?:\w+ )?(?:reviewed|evaluated|favou?rably)",
            r"The following individuals?(?:\(s\))? (?:responsible|involved)",
            r"The (?:Reviewing )?[Ee]ditors? and the (?:other )?reviewers? (?:have )?discussed",
            r"The reviewers have discussed the reviews with one another",
            r"We (?:are|’re|'re) (?:happy|pleased|delighted) to (?:tell|inform)",
            r"(?:Please|We) .{0,40}(?:look forward|revise the manuscript as you see fit)",
            r"We look forward to receiving",
            r".{0,250}\b(?:comments|reviews) (?:are|is) (?:appended|included|shown|given) below",
            r"Dear (?:Dr|Prof|Professor|Mr|Ms|Mrs|Authors?|Colleagues?|Editors?)\b",
            r"(?:Kind|Best|Warm|With best|Yours) (?:regards|wishes|sincerely)",
            r"Academic Editor\s*$",
            r"PLOS (?:ONE|One|[A-Z]\w+)\s*$",
            r"\[?Editors?[’']?s?[’']? note",
            r"(?:Reviewers?[’']? [Cc]omments|Reviewer[’']s Responses to Questions|"
            r"Comments to the Author)\W*$",
            r"Additional Editor Comments[^\n]{0,20}$",
            r"No accompanying comment",
            r"\(?No Response\)?\.?\s*$",
            r"(?:Here|Below|Following) (?:are|is) (?:the|our) comments?\W*$",
            r"\S*https?://\S+\s*$",
            r"\d{1,2} [A-Z][a-z]{2,8} \d{4}\s*$",
        )
    )
)
"""Paragraphs that begin so are the journal's, whoever wrote the letter."""


def split_letter(text: str) -> list[tuple[str | None, str]]:
    """Return ``(referee, text)`` of every referee whom a letter quotes, in order, without empty ones.

    ``referee`` is ``None`` for what the letter says before the first one (the editors' joint comments). A
    letter of a form keeps only the answers to its question for comments.
    """
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", _MARKUP.sub("", text))]
    form = next((index for index, part in enumerate(paragraphs) if _FORM_COMMENTS.match(part)), None)
    if form is not None:
        end = next(
            (index for index in range(form + 1, len(paragraphs)) if _FORM_END.match(paragraphs[index])),
            len(paragraphs),
        )
        paragraphs = paragraphs[form + 1 : end]
    referees: list[tuple[str | None, list[str]]] = [(None, [])]
    for paragraph in paragraphs:
        found = _REVIEWER.match(paragraph)
        if found and (
            form is not None or len(found["rest"]) == 0 or paragraph[found.start("rest") - 1] in ": "
        ):
            who = " ".join(found["who"].split())
            referees.append((who, []))
            paragraph = found["rest"].strip()  # noqa: PLW2901  (what stands behind the name)
        if paragraph and not _BOILERPLATE.match(paragraph) and not _FORM_END.match(paragraph):
            referees[-1][1].append(paragraph)
    if form is not None:
        # Before the first referee stands only the form's own explanation of its question.
        referees = referees[1:]
    return [(who, "\n\n".join(own)) for who, own in referees if own]


def without_boilerplate(text: str) -> str:
    """Return a text without the paragraphs that are the journal's wording."""
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", _MARKUP.sub("", text)))
    return "\n\n".join(part for part in paragraphs if part and not _BOILERPLATE.match(part))
