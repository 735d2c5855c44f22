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
_CONNECTIVE = re.compile(
    r"^(?:(?:additionally|furthermore|moreover|also|lastly|last(?: but not least)?|finally|first(?:ly)?|"
    r"second(?:ly)?|third(?:ly)?|fourth(?:ly)?|in "
    r"addition|however|but|and|overall|besides|similarly|likewise|again|"
    r"next|further|nevertheless|nonetheless|conversely|alternatively|accordingly|consequently|therefore|thus|"
    r"hence|in particular|specifically|in general|generally|in summary|in short|in conclusion|to summarize|"
    r"on the (?:other|one|positive|negative) (?:hand|side)|at the same time|that said|for "
    r"(?:example|instance))"
    r"(?:,\s*|\s+(?=the\b|we\b|i\b|authors?\b|it\b|there\b|please\b|this\b)))+",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^(?:(?:we|i|the reviewers?|this reviewer|reviewers?)\s+(?:would\s+|also\s+|strongly\s+|"
    r"further\s+)*(?:recommend|suggest|advise|encourage|think|believe|feel|find|found|note|wonder)(?:ing|"
    r"s)?\s+(?:that\s+|if\s+|whether\s+)?(?:the\s+authors?\s+(?:to\s+|should\s+|also\s+)?)?|"
    r"(?:the\s+)?authors?\s+(?:should|could|may|might|need to|must|are (?:encouraged|"
    r"advised) to)\s+(?:also\s+|further\s+)?|(?:it\s+(?:would|might|could)\s+(?:also\s+)?be\s+\w+\s+(?:to|"
    r"if)\s+)|(?:there\s+(?:is|are)\s+(?:also\s+)?(?:an?\s+)?)|(?:please\s+)|(?:this|"
    r"the)\s+(?:paper|work|study|manuscript|article)\s+(?:also\s+)?(?:presents?|proposes?|introduces?|"
    r"provides?|offers?|addresses|tackles)?\s*|the\s+authors?\s+)?(?:also\s+)?",
    re.IGNORECASE,
)
_VERB_FIRST = re.compile(
    r"(?:is|are|was|were|has|have|had|be|do|does|can|could|may|might|would|should|will|to|in|of|on|and)\b",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_WORD = re.compile(r"\\\(.*?\\\)|\\\[.*?\\\]|\$[^$]{1,120}\$|\S+")
_WEAK_WORDS = (
    "a an the of to in on at by for from with and or but nor as that which who whose is are was were be "
    "been being am this these those its their our your his into onto over under between among against "
    "about more most less such not no some any each every than then when where how what why if whether "
    "can could would should may might will do does did has have had having it they we both also only "
    "very e.g. i.e. including include includes included using use uses utilizing utilizes through "
    "across within without toward towards upon all other various several multiple different because "
    "since while particularly especially specifically via per aimed aiming aims designed based called "
    "named given made seems appears says there compared comparing associated related relevant regarding "
    "concerning presents presenting present represents becomes shows showing show demonstrates "
    "demonstrate demonstrating indicates indicate outperforms provides provide providing introduces "
    "introduce offers offer enables enable allows allow leads leading requires require needs need lacks "
    "depends depend relies rely focuses focus results fails fail tends tend due able likely according "
    "similar specific proposed existing further thereby making raising resulting consists suffers "
    "relying those"
)
_WEAK_END = frozenset(_WEAK_WORDS.split())
"""Words that no phrase ends with: more is to follow."""
_BREAK_WORDS = (
    "and or but by for from with in on at to into within without through across via using regarding "
    "concerning which who whose while when where because since although though if unless until as than "
    "particularly especially specifically including such between against toward towards during under "
    "over compared based aimed thereby rather beyond given making leading resulting designed so due"
)
_BREAKS = frozenset(_BREAK_WORDS.split())
"""Words before which a phrase may end."""
_ADVERB = re.compile(r"(?i)(?!(?:assembly|family|anomaly|supply|reply|only|early)\b)\w{3,}ly")
_OF_A_NOUN = re.compile(r"(?i)[\w-]+(?:ical|tial|nal|ral|ous|ive|ful|able|ible|less|[dst]ic|ary|'s|’s)")
_GIST_WORDS, _LONGEST_GIST_WORDS = 9, 12


def gist_of(text: str) -> tuple[str, str]:
    """Return ``(gist, detail)`` of a point: a label that it begins with, else its leading phrase.

    The phrase leaves out words that say nothing of the matter ("Additionally, we recommend that the
    authors"). It is the whole clause where that is short, else it ends before a word that begins another
    phrase; never in the middle of a formula, on a word that wants another, or on an adjective without its
    noun. Only the first letter may change its case.

    >>> gist_of("Clarity: The proofs are easy to follow.")
    ('Clarity', 'The proofs are easy to follow.')
    >>> gist_of("We recommend that the authors compare with older baselines, and report the variance.")[0]
    'Compare with older baselines'
    """
    label = _LABEL.match(text)
    if label and len(label[1].split()) <= 7 and len(text[label.end() :].split()) >= 4:
        return _capital(label[1].strip("*_ “”\"'")), text[label.end() :]
    matter = _CONNECTIVE.sub("", text)
    opening = _OPENING.match(matter)
    rest = matter[opening.end() :] if opening and len(matter) - opening.end() > 12 else matter
    if _VERB_FIRST.match(rest):
        # "The paper is well written" without its subject is no phrase.
        rest = matter
    words = _leading_phrase(_ARTICLE.sub("", rest))
    gist = " ".join(words).rstrip(",;:.?!—–- ")
    for opened, closed in (("(", ")"), ("[", "]"), ("“", "”"), ('"', '"')):
        if gist.count(opened) % 2 if opened == closed else gist.count(opened) > gist.count(closed):
            shorter = gist.rpartition(opened)[0].rstrip(" ,;:—–-\\")
            gist = shorter or gist
    return _capital(gist), text


def _leading_phrase(text: str) -> list[str]:
    """Return the words of a text's first clause, or of as much of it as is a phrase."""
    words: list[str] = []
    whole = True
    for found in _WORD.finditer(text):
        if len(words) == _LONGEST_GIST_WORDS:
            whole = False
            break
        words.append(word := found[0])
        if word[-1] in ",;:.?!" and not _ABBREVIATION.search(word) and len(words) >= 3:
            break
    if not whole:
        words = _cut_at_phrase(words)
    while len(words) > 2 and _bare(words[-1]) in _WEAK_END:
        words.pop()
    return words


def _cut_at_phrase(words: list[str]) -> list[str]:
    """Return the beginning of a long clause, as far as the last phrase that ends within the bound."""
    for place in range(_GIST_WORDS + 1, 2, -1):
        if _bare(words[place]) in _BREAKS and _ends_phrase(words[place - 1]):
            return words[:place]
    for place in range(_GIST_WORDS - 1, 2, -1):
        if _ends_phrase(words[place - 1]):
            return words[:place]
    return words[: _GIST_WORDS - 1]


def _ends_phrase(word: str) -> bool:
    bare = _bare(word)
    return not (bare in _WEAK_END or _ADVERB.fullmatch(bare) or _OF_A_NOUN.fullmatch(bare))


def _bare(word: str) -> str:
    return word.strip(",;:.?!()\"'").lower()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].islower() else text
