"""Which language a paper is written in, judged by its prose.

Chinese, Japanese and Korean are told by their script. Any other text is given to py3langid (a naive Bayes
model over byte n-grams, Lui and Baldwin 2011, offline; retrained in version 0.4) as a bounded sample of
words from several places of the document: formulas, tables, cited titles, reference entries, numbers and
single letters are left out, since to a byte model they look like any language. With too few words left
the answer is ``und`` with confidence 0, which no rule rejects.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from baltoro.corpus.filters.parts import Parts
from baltoro.corpus.words import Words

UNDETERMINED = "und"

_SAMPLED_PLACES = 6
_WORDS_PER_PLACE = 16
_FEWEST_WORDS = 20
_FEWEST_CHARACTERS = 100
_FEWEST_CHARACTERS_IN_FEW_WORDS = 300
_LONGEST_WORD = 60
_LONGEST_NGRAM_BYTES = 6
_FEWEST_IDEOGRAPHS = 30
_CJK_FRACTION = 0.3
_KANA_FRACTION = 0.05
_HANGUL_FRACTION = 0.3

_SAME_LANGUAGE = {
    **{"nn": "no", "yue": "zh", "wuu": "zh", "arz": "ar", "ary": "ar", "sdh": "ku", "uzs": "uz"},
    **{"gug": "gn", "kik": "ki", "hbo": "he", "grc": "el", "zxx": UNDETERMINED},
}
"""Labels of the model by the ISO 639-1 code that people name; ``zxx`` is "no linguistic content"."""

_LABELS = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr "
    "ht hu hy id ig is it ja jv ka kk km kn ko ku ky la lg ln lo lt lv mg mk ml mn mr ms my ne nl no om "
    "or pa pl ps pt qu ro ru sa si sk sl so sq sr sv sw ta te th tl tr ug uk ur uz vi xh yo zh zu zxx "
    "ace bcl dz ext gcf gom grc gug hbo kik nso pcm rw se sn st an ary crh fo fuv gcr guw kab lb lij "
    "ltg uzs wa sdh arz ba mt nn oc tg tk tt vec vo wuu yue"
)
LANGUAGE_CODES: frozenset[str] = frozenset(_SAME_LANGUAGE.get(label, label) for label in _LABELS.split())
"""Every code :func:`language_of` can return, ``und`` included; the model's own list, without loading it."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language and how sure that is.

    Attributes:
        code: ISO 639-1 code; the three letters of ISO 639-3 for the few languages without one; ``und``.
        confidence: 0 to 1; 0 where the language is undetermined.
    """

    code: str
    confidence: float


def language_of(text: str, words: Words, parts: Parts) -> Language:
    """Return the language of a document's prose.

    Args:
        text: the rendered document.
        words: its words.
        parts: which of them are prose.
    """
    by_script = _by_script(words, parts)
    if by_script is not None:
        return by_script
    sample = sample_of(text, words, parts)
    if not sample:
        return Language(UNDETERMINED, 0.0)
    label, confidence = _identifier().classify(sample)
    code = _SAME_LANGUAGE.get(label, label)
    if code == UNDETERMINED:
        return Language(UNDETERMINED, 0.0)
    # Rounded, since the last digits of a matrix product differ between machines.
    return Language(code, round(float(confidence), 3))


def sample_of(text: str, words: Words, parts: Parts) -> str:
    """Return words from several places of the prose, empty if there are too few."""
    usable = (parts.prose & words.has_letter & ~words.single & (words.lengths >= 2)).nonzero()[0]
    if len(usable) > _SAMPLED_PLACES * _WORDS_PER_PLACE:
        last = len(usable) - _WORDS_PER_PLACE
        firsts = [int(place * (last / (_SAMPLED_PLACES - 1))) for place in range(_SAMPLED_PLACES - 1)]
        usable = np.concatenate([usable[first : first + _WORDS_PER_PLACE] for first in (*firsts, last)])
    ends = np.minimum(words.ends[usable], words.starts[usable] + _LONGEST_WORD)
    spans = zip(words.starts[usable].tolist(), ends.tolist(), strict=True)
    sample = " ".join([text[start:end] for start, end in spans])
    # Thai and its like have few spaces, hence few "words".
    least = _FEWEST_CHARACTERS if len(usable) >= _FEWEST_WORDS else _FEWEST_CHARACTERS_IN_FEW_WORDS
    return sample if len(sample) >= least else ""


def _by_script(words: Words, parts: Parts) -> Language | None:
    if np.count_nonzero(words.single) < _FEWEST_IDEOGRAPHS:
        return None
    single = words.single & parts.prose
    count = int(np.count_nonzero(single))
    if count < _FEWEST_IDEOGRAPHS:
        return None
    others = parts.prose & words.has_letter & ~single
    fraction = count / (count + int(words.lengths[others].sum()))
    if fraction < _CJK_FRACTION:
        return None
    codes = parts.codes[words.starts[single]]
    kana = int(np.count_nonzero((codes >= 0x3040) & (codes < 0x3100)))
    hangul = int(np.count_nonzero((codes >= 0xAC00) & (codes < 0xD7B0)))
    han = int(np.count_nonzero((codes >= 0x3400) & (codes < 0xA000)))
    if kana + hangul + han < count // 2:
        return None
    if kana >= _KANA_FRACTION * count:
        code = "ja"
    elif hangul >= _HANGUL_FRACTION * count:
        code = "ko"
    else:
        code = "zh"
    return Language(code, round(fraction, 3))


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """Return the process's one identifier; loading its model takes about a second.

    It is py3langid's own but for two things that change no result and make it three times faster. Its
    automaton, which finds the longest n-gram that ends at each byte, walks over all bytes at once: no n-gram
    is longer than six, so the state after a byte depends on no more than six of them. And the weights are
    kept as the 32-bit numbers they are multiplied as.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    class Identifier(LanguageIdentifier):  # type: ignore[misc]  # the library has no types
        def _raw_score(self, text: bytes) -> Any:
            features = found[_states(text, moves, rows)]
            visits = Counter(features[features >= 0].tolist())
            return self._sparse_score(visits, self.nb_ptc) if visits else super()._raw_score(text)

    read = LanguageIdentifier.from_model_file(MODEL_FILE)
    moves = np.asarray(read.tk_nextmove, np.uint32)
    rows = np.array(read.tk_row, np.int64) << 8
    found = np.array(read.tk_output, np.int32)
    return Identifier(
        read.nb_ptc.astype(np.float32),
        read.nb_pc,
        read.nb_classes,
        read.tk_nextmove,
        read.tk_output,
        norm_probs=True,
        tk_row=read.tk_row,
    )


def _states(text: bytes, moves: npt.NDArray[np.uint32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the automaton's state after each byte.

    Args:
        text: what it reads.
        moves: the state that follows, at the row of the state before plus the byte.
        rows: where each state's row begins.
    """
    steps = np.frombuffer(text, np.uint8).astype(np.int64)
    states = np.zeros(len(steps), np.int64)
    for back in range(min(_LONGEST_NGRAM_BYTES, len(steps)) - 1, -1, -1):
        states[back:] = moves.take(rows.take(states[back:]) + steps[: len(steps) - back])
    return states
