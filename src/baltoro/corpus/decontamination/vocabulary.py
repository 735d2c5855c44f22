"""How much a word says: what tells one question from another, and from ordinary text.

Function words and the phrases that examinations are made of ("which of the following best describes")
say nothing; a question that consists of little else cannot be told from ordinary text by itself.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from baltoro.corpus.words import Hashes, Words, words_of

_FUNCTION_WORDS = """
a about above according after again against al all also although always am among an and another any
are around as at away be because become becomes been before being below between both but by can
cannot cf could did do does doing done down due during each eg either else eq et etc even ever every
few fig figure figures for from further get gets give given gives go goes had has have having he
hence her here hers him his how however i ie if in into is it its itself just least less let like
likely made make makes making many may me might more moreover most much must my near need neither
never no nor not now of off often on once one ones only onto or other others our ours out over own
per rather s said same say section see seen several shall she should show shown shows since so some
such t table tables take taken than that the their them then there therefore these they this those
three through thus to together too toward towards two under until up upon us use used uses using
usually very was we well were what when where whereas whether which while who whom whose why will
with within without would yet you your
"""

_EXAMINATION_WORDS = """
answer answers best choose compare correct correctly define describe described describes describing
discuss except explain explains explanation false find following identify incorrect known list main
mainly mean means name named option options question questions refer refers right select statement
statements true called wrong belong belongs include includes including example examples
"""

# By character, since words are not set apart: particles, prepositions, 下列关于…的说法正确的是 and its kin.
_CJK_CHARACTERS = (
    "的了是在和与及或之于以为由被把将而且但并其此这那该各每也都就不没未无有中上下列内外前后时间"
    "所者等即若如因从到对个种类项些哪何什么怎样几多少最较更很可能会要应当主要正确错误说法叙述"
    "描述关选择题答案属包括の을를은는이가의에도와과로다하고"
)
_HIRAGANA = range(0x3041, 0x3097)

SINGLE_CHARACTER_WEIGHT = 0.5
"""A Chinese, Japanese or Korean character: their words have about two."""

NUMBER_WEIGHT = 0.5
"""A number: examinations change them, and any paper has many."""


def weights_of(words: Words) -> npt.NDArray[np.float32]:
    """Return what each word says, 0 (nothing) to 1; float32 per word."""
    weights = np.where(words.single, SINGLE_CHARACTER_WEIGHT, 1.0).astype(np.float32)
    weights[~words.has_letter] = NUMBER_WEIGHT
    empty = _empty_words()
    places = np.searchsorted(empty, words.hashes)
    weights[empty[np.minimum(places, len(empty) - 1)] == words.hashes] = 0.0
    # A lone letter is a symbol, a label or what an apostrophe left.
    weights[(words.lengths == 1) & words.has_letter & ~words.single] = 0.0
    return weights


@lru_cache(maxsize=1)
def _empty_words() -> Hashes:
    characters = " ".join([*_CJK_CHARACTERS, *map(chr, _HIRAGANA)])
    return np.unique(words_of(f"{_FUNCTION_WORDS} {_EXAMINATION_WORDS} {characters}").hashes)
