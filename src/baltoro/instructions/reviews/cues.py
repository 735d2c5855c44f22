"""Words that tell what a referee's sentence does: praise, object, ask, or name what is new.

Rules, not a model: they are short enough to be read, and a sentence that none of them knows is left out
rather than guessed.
"""

from __future__ import annotations

import re
from typing import Literal

Stance = Literal["novelty", "praise", "objection", "request"]

_REQUEST = re.compile(
    r"\?\s*$|(?:^|[,;:(]\s*|\band |\byou |\bauthors )please\b|(?<!not )(?<!n't )(?<!n’t )\b(?:recommend|"
    r"suggest|advise|encourage) (?!reject|accept)|\b(?:authors?|paper|manuscript|it|they|there|this|that|"
    r"work|section|figure|table|discussion|you)\b[^.?!]{0,60}\b(?:should|need(?:s)? to|must|ought to)\b|"
    r"\b(?:could|would|might|may|can) (?:also )?(?:be (?:\w+ )?(?:improved|clarified|helpful|useful|good|"
    r"great|nice|better|beneficial|interesting|valuable|informative|strengthened|enhanced|included|added|"
    r"discussed)|benefit|consider|help(?:ful)?|include|add|clarify|explain|strengthen|improve|enhance|"
    r"like to (?:see|know))\b|\bwould like (?:to (?:see|know)|the authors)\b|\bit would\b|\bneeds? to be\b|"
    r"\b(?:must|should) be\b|\b(?:are|is) (?:encouraged|advised|invited|urged) to\b|\bwhy not\b|"
    r"\bconsider (?:adding|\w+ing)\b|\bmore (?:details?|discussion|experiments?|analysis|"
    r"explanation)\b[^.]{0,40}\b(?:needed|required|welcome)|^(?:add|clarify|explain|discuss|define|provide|"
    r"include|cite|compare|fix|correct|consider|rephrase|remove|replace|move|specify|state|describe|show|"
    r"report|avoid|acknowledge|reword|rewrite|reframe)\b",
    re.IGNORECASE,
)
_OBJECTION = re.compile(
    r"\b(?:lacks?|lacking|missing|absen(?:t|ce)|unclear|not (?:\w+ )?(?:clear|convinc\w+|addressed|"
    r"explained|discussed|justified|sufficient\w*|enough|novel|new|supported|provided|shown|compared|"
    r"evaluated|sure|obvious|correct|accurate|true|realistic|surprising|fair|well)|insufficient\w*|"
    r"inadequate\w*|weak(?:ness|nesses|ly|er)?|limited|limitations?|fails?|failed|confus\w+|difficult to|"
    r"hard to|too (?:\w+ )?(?:small|simple|strong|short|long|brief|limited|few|vague|dense)|overstat\w+|"
    r"over-?claim\w*|unconvincing|unsupported|unjustified|questionable|problem(?:s|atic)?|concern(?:s|ed|"
    r"ing)?|incremental|flaw\w*|incorrect\w*|wrong|misleading|inconsisten\w+|ambigu\w+|vague\w*|"
    r"poor(?:ly)?|marginal\w*|unfair|(?:does not|do not|did not|doesn['’]t|don['’]t|cannot|"
    r"can['’]t) (?:\w+ )?(?:address|provide|explain|discuss|compare|show|consider|support|include|convince|"
    r"seem|appear|buy|understand|see|believe|justify|mention|report|demonstrate|evaluate|clarify|connect|"
    r"follow|suggest|recommend|extract|meet|encapsulate|convey|establish|capture|reflect|suffice|warrant|"
    r"test|cover|account|offer|make|prove|hold|think|agree|find|have|go)\w*|no (?:\w+ )?(?:comparison|"
    r"experiments?|evidence|discussion|analysis|explanation|baselines?|ablation|clear)|drawback\w*|"
    r"shortcoming\w*|unfortunately|deficienc\w+|speculati\w+|outdated|narrow|unrealistic|typos?|awkward|"
    r"undermin\w+|unanswered|little|only (?:one|two|a few|on|tested|evaluated)|under-?explored|"
    r"disappoint\w+)\b",
    re.IGNORECASE,
)
_PRAISE = re.compile(
    r"\b(?:well[- ](?:written|organi[sz]ed|structured|motivated|presented|designed|executed|explained|done|"
    r"supported)|clear(?:ly)? (?:\w+ )?(?:written|presented|explained|and|motivated|structured|exposition|"
    r"presentation)|easy to (?:read|follow|understand)|strong (?:\w+ )?(?:results?|performance|empirical|"
    r"evidence|points?|paper|contribution)|strengths?|convincing(?:ly)?|interesting|impressive|"
    r"thorough(?:ly)?|comprehensive(?:ly)?|elegant|sound|solid|rigorous\w*|extensive|valuable|useful|"
    r"excellent|good|nice(?:ly)?|appreciat\w+|commend\w*|enjoyed|promising|outperform\w*|superior|"
    r"state[- ]of[- ]the[- ]art|important|timely|careful(?:ly)?|effective(?:ly)?|robust|reproducib\w+|"
    r"beneficial|applaud|praise\w*|worthwhile|innovative|merit\w*|positive|improve[sd]? (?:over|upon|"
    r"performance)|supported by|in agreement with|largely ready)\b",
    re.IGNORECASE,
)
_NOVELTY = re.compile(
    r"\b(?:novel(?:ty|ties)?|original(?:ity)?|first (?:to|time|work|study|paper|attempt|systematic|large)|"
    r"new (?:\w+ )?(?:method|approach|model|dataset|data set|framework|problem|task|perspective|idea|"
    r"algorithm|benchmark|direction|insights?|theory|technique|paradigm|measure|class)|significan(?:ce|"
    r"t (?:contribution|advance\w*|step|impact|problem|gap)s?)|contribut(?:es?|ions?) (?:to|of|is|are|a|"
    r"in)|(?:major|key|main|important|potential) (?:contribution|advance|step|impact)s?|"
    r"advance[sd]? (?:the|our|in|upon)|breakthrough|ground-?breaking|pioneering|innovative|innovation|"
    r"impact(?:ful)?|importan(?:t|ce) (?:problem|question|topic|of the (?:problem|topic|work))|"
    r"foundational|fills? (?:a|the|an) (?:\w+ )?gap|unexplored|unprecedented|(?:paper|work|study|authors?|"
    r"manuscript|article) (?:\w+ )?(?:presents?|proposes?|introduces?|investigates?|develops?|studies|"
    r"addresses|tackles|explores?|examines?|reports?|describes?))\b",
    re.IGNORECASE,
)
_NOT_NEW = re.compile(
    r"\b(?:not|n['’]t|lack\w*|limited|little|without|no|incremental|question\w*|overstat\w*|unclear|minor|"
    r"weak)\b[^.]{0,50}\b(?:novel\w*|original\w*|new|significan\w+|contribution\w*)|\bincremental\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"^(?:however|but|nevertheless|nonetheless|unfortunately|yet|while|although|though)\b", re.IGNORECASE
)
_TURN = re.compile(r"\b(?:but|however|although|though|while|yet|except|unfortunately)\b", re.IGNORECASE)


def stance_of(sentence: str) -> Stance | None:
    """Return what a sentence does, ``None`` if no rule knows it.

    A request wins over everything (it says what to do about an objection), an objection over praise that is
    turned by a word like "but": referees soften objections with praise, hardly ever the other way round.

    >>> stance_of("However, the comparison lacks recent baselines."), stance_of("Please define the loss.")
    ('objection', 'request')
    """
    if _REQUEST.search(sentence):
        return "request"
    if _CONTRAST.search(sentence) or _NOT_NEW.search(sentence) or _objects(sentence):
        return "objection"
    if _NOVELTY.search(sentence):
        return "novelty"
    return "praise" if _PRAISE.search(sentence) else None


def _objects(sentence: str) -> bool:
    """Return whether a sentence objects; after praise it does only if a word turns it round.

    "A convincing study of the lack of turnover" praises: the lack is the paper's subject.
    """
    objection = _OBJECTION.search(sentence)
    if objection is None:
        return False
    praise = _PRAISE.search(sentence)
    if praise is None or praise.start() > objection.start() or praise.end() > objection.start():
        return True
    return bool(_TURN.search(sentence, praise.end(), objection.start()))


def names_novelty(text: str) -> bool:
    """Return whether a positive point is about what is new or why it matters."""
    return bool(_NOVELTY.search(text)) and not _NOT_NEW.search(text)
