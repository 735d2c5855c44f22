"""From the text of a review to its points: bullets, numbered items and sentences, each a span of the text.

A point is what one referee says about one thing. It is the review's own wording: runs of white space become
one space, marks of lists and of emphasis at its ends go, nothing else changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ITEM = re.compile(
    r"^\s*(?:[-*•–—+▪◦‣●○■]|\(?\d{1,2}[.)]|\([a-z]\)|[a-z]\)|\([ivx]{1,4}\)|[SWQCPR]\d{1,2}[.:)]?|"
    r"\[[SWQ]?\d{1,2}\])\s+"
)
_RULE = re.compile(r"^\s*(?:[-*_=#]\s*){3,}$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’')\]]*\s+(?=[\"“‘'(\[]*[A-Z0-9\\$])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|cf|vs|resp|Fig|Figs|Eq|Eqs|Sec|Secs|Ref|Refs|Tab|Thm|Lem|Prop|Dr|Prof|Mr|Mrs|"
    r"Ms|No|approx|ca|pp|Vol|Ch|App|Appx|Def|Alg|St|w\.r\.t|a\.k\.a|etc)|\b[A-Z])\.[\"”’')\]]*$"
)
_GOES_ON = re.compile(
    r"(?:for (?:example|instance)|e\.g|i\.e|this|that|these|those|it|they|such|in particular|specifically|"
    r"also,? (?:it|this|they)|otherwise|hence|thus|therefore|then|because|since|as a result|indeed|which|"
    r"here|perhaps|if (?:yes|so|not|this|that))\b",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$[^$\n]{1,120}\$", re.DOTALL)
_NO_POINT = re.compile(
    r"\W*(?:n/?a|none|no|nil|yes|see (?:above|below)|as above|not applicable|no (?:comment|concern|"
    r"issue)s?|same as above|nothing(?: to add)?|please see (?:above|below))\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A point's text and whether it was an item of a list (then it is one point whatever its length)."""

    text: str
    is_item: bool


def pieces(text: str) -> Iterator[Piece]:
    """Yield the list items and paragraphs of a text in order."""
    block: list[str] = []
    is_item = False
    for line in [*text.split("\n"), ""]:
        starts_item = _ITEM.match(line)
        if starts_item or not line.strip() or _RULE.match(line):
            if piece := _tidy(" ".join(block)):
                yield Piece(piece, is_item)
            block, is_item = ([line[starts_item.end() :]], True) if starts_item else ([], False)
        else:
            block.append(line)
    # The empty line at the end has closed the last block.


def _tidy(text: str) -> str:
    text = " ".join(text.split())
    # Emphasis that wraps the whole piece, or a mark left over at an end.
    text = text.strip("*_").strip() if text.count("**") % 2 or text.startswith(("**", "__")) else text
    # What ends in a colon announces the next lines, and says nothing without them.
    return (
        "" if text.endswith(":") or _NO_POINT.fullmatch(text) or not re.search(r"[A-Za-z]{2}", text) else text
    )


def sentences(text: str) -> list[str]:
    """Return the sentences of one paragraph; ``et al.``, ``Fig.`` and formulas end none."""
    protected = [found.span() for found in _FORMULA.finditer(text)]
    parts: list[str] = []
    start = 0
    for found in _SENTENCE_END.finditer(text):
        if _ABBREVIATION.search(text[start : found.start() + len(found[0].rstrip())]):
            continue
        if any(low < found.start() < high for low, high in protected):
            continue
        parts.append(text[start : found.end()].strip())
        start = found.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def statements(text: str) -> list[str]:
    """Return the sentences of one paragraph, each with those that only go on about it."""
    grouped: list[str] = []
    for sentence in sentences(text):
        if grouped and _GOES_ON.match(sentence):
            grouped[-1] = f"{grouped[-1]} {sentence}"
        else:
            grouped.append(sentence)
    return grouped


_LABEL = re.compile(r"^\W{0,3}([A-Z][^:.?!]{2,60}?)\W{0,3}:\W{0,3}\s+(?=\S)")
_OPENING = re.compile(
    r"^(?:(?:additionally|furthermore|moreover|also|lastly|finally|first(?:ly)?|second(?:ly)?|third(?:ly)?|"
    r"in addition|however|but|overall|besides|similarly|likewise|again|next|further|at the same time|"
    r"that said),?\s+)*(?:(?:we|i|the reviewers?|this reviewer)\s+(?:would\s+|also\s+|strongly\s+|"
    r"further\s+)*(?:recommend|suggest|advise|encourage|think|believe|feel|find|found|note|wonder)(?:ing|"
    r"s)?\s+(?:that\s+|if\s+|whether\s+)?(?:the\s+authors?\s+(?:to\s+|should\s+|also\s+)?)?|"
    r"(?:the\s+)?authors?\s+(?:should|could|may|might|need to|must|are (?:encouraged|"
    r"advised) to)\s+(?:also\s+|further\s+)?|(?:it\s+(?:would|might|could)\s+(?:also\s+)?be\s+\w+\s+(?:to|"
    r"if)\s+)|(?:there\s+(?:is|are)\s+(?:also\s+)?(?:an?\s+|no\s+(?=\0))?)|(?:please\s+)|(?:this|"
    r"the)\s+(?:paper|work|study|manuscript|article)\s+(?:also\s+)?(?:presents?|proposes?|introduces?|"
    r"provides?|offers?|addresses|tackles)?\s*|the\s+authors?\s+)?",
    re.IGNORECASE,
)
_VERB_FIRST = re.compile(r"(?:is|are|was|were|has|have|had|be|do|does|can|to|in|of|on|and)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_WORD = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$[^$]{1,120}\$|\S+")
_WEAK_WORDS = (
    "a an the of to in on at by for from with and or but as that which who whose is are was were be "
    "been being "
    "this these those its their into over under between more most such not no some any than then when where "
    "how what why if whether can could would should may might will do does did has have had it they we about "
    "both also only very e.g. i.e. including using through across within without all other because "
    "since while "
    "particularly especially including via per aimed designed presents represents becomes shows show "
    "utilizes "
    "outperforms made given seems appears says there"
)
_WEAK_END = frozenset(_WEAK_WORDS.split())
_GIST_WORDS = 8


def gist_of(text: str) -> tuple[str, str]:
    """Return ``(gist, detail)`` of a point: a label that it begins with, else its leading words.

    The leading words leave out phrases that say nothing of the matter ("We recommend that the authors"), end
    before a clause mark, and never in the middle of a formula or on a weak word. Only the first letter may
    change its case.

    >>> gist_of("Clarity: The proofs are easy to follow.")
    ('Clarity', 'The proofs are easy to follow.')
    >>> gist_of("We recommend that the authors compare with older baselines, and report the variance.")[0]
    'Compare with older baselines'
    """
    label = _LABEL.match(text)
    if label and len(label[1].split()) <= 7 and len(text[label.end() :].split()) >= 4:
        return _capital(label[1].strip("*_ “”\"'")), text[label.end() :]
    opening = _OPENING.match(text)
    rest = text[opening.end() :] if opening and len(text) - opening.end() > 12 else text
    if _VERB_FIRST.match(rest):
        # "The paper is well written" without its subject is no phrase.
        rest = text
    rest = _ARTICLE.sub("", rest)
    words: list[str] = []
    for found in _WORD.finditer(rest):
        word = found[0]
        words.append(word)
        ends_clause = word[-1] in ",;:.?!" and not _ABBREVIATION.search(word)
        if (ends_clause and len(words) >= 3) or len(words) == _GIST_WORDS:
            break
    while len(words) > 2 and words[-1].strip(",;:.?!()\"'").lower() in _WEAK_END:
        words.pop()
    if len(words) > 5 and words[-2].lower() == "to":
        del words[-2:]
    gist = " ".join(words).rstrip(",;:.?!—–- ")
    for opened, closed in (("(", ")"), ("[", "]"), ("“", "”"), ('"', '"')):
        if gist.count(opened) % 2 if opened == closed else gist.count(opened) > gist.count(closed):
            shorter = gist.rpartition(opened)[0].rstrip(" ,;:—–-\\")
            gist = shorter or gist
    return _capital(gist), text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].islower() else text
