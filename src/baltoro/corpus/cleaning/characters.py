"""Repairs of single characters: wrong encodings, ligatures, control and zero-width characters.

Mojibake is told and repaired by ftfy (Speer, "ftfy", Zenodo 2591652), which looks for sequences that are
UTF-8 read in another encoding and are unlikely as text. Only texts in which such a sequence occurs are given
to it: ASCII never is. Formulas are left alone by all but the removal of control characters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import cycle

import ftfy
from ftfy.chardata import UTF8_DETECTOR_RE

from baltoro.corpus.cleaning.config import CleanConfig
from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import Survey, change_block_texts, change_other_texts
from baltoro.papers.schema import Paper

LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
_LIGATURE = re.compile(f"[{''.join(LIGATURES)}]")

SOFT_HYPHEN = "\u00ad"
_JOINERS = "\u200c\u200d"
# C0 and C1 controls except tab and line feed, soft hyphen, zero-width marks, byte order mark, and
# the "noncharacters" that some converters leave behind.
_INVISIBLE_CLASS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufffe\uffff"
)
# A joiner shapes the letters around it in Arabic and Indic scripts; elsewhere it is left over from layout.
_SHAPED = "[\u0600-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc]"
_INVISIBLE = re.compile(f"[{_INVISIBLE_CLASS}]|(?<!{_SHAPED})[{_JOINERS}]|[{_JOINERS}](?!{_SHAPED})")
_IS_INVISIBLE = re.compile(f"[{_INVISIBLE_CLASS}{_JOINERS}]")
_LINE_SEPARATORS = {"\u2028": "\n", "\u2029": "\n", "\r": "\n", "\x0b": "\n", "\x0c": "\n", "\x85": "\n"}

_C1_CONTROL = re.compile("[\x80-\x9f]")
# A-ring with a superscript, a dash or a quotation mark behind it is the unit ångström, not a letter, and a
# capital alone before a name is somebody's initial.
_REAL = re.compile(r"(?<![^\W\d_])(Å[¹²³°–—‘’“”…•·±×®™©]+(?![^\W\d_])|[À-Þ](?=[ .]{1,2}[A-ZÀ-Þ]))")
# What ftfy must be asked about: beside sequences of odd characters, a space that was a no-break space.
_SPOILT_SPACE = "Ã "
_HANGUL_PARTS = range(0x1161, 0x11C3)


def repair_characters(paper: Paper, config: CleanConfig, survey: Survey, effects: Effects) -> bool:
    """Apply the rules ``unicode_repair``, ``ligatures`` and ``control_characters`` to all text of a paper.

    A soft hyphen is left to :mod:`.hyphenation` where that is switched on. Returns whether anything was
    looked at closely, so that the survey may be out of date.
    """
    unusual = "".join(survey.unusual)
    mojibake = config.unicode_repair and (
        survey.mojibake
        or ("Ã" in unusual and _SPOILT_SPACE in survey.text)
        or _C1_CONTROL.search(unusual) is not None
    )
    compose = config.unicode_repair and any(map(_composes, unusual))
    ligatures = config.ligatures and _LIGATURE.search(unusual) is not None
    kept = SOFT_HYPHEN if config.hyphenation else ""
    controls = config.control_characters and _IS_INVISIBLE.search(
        unusual.replace(kept, "") if kept else unusual
    )
    if not (mojibake or compose or ligatures or controls):
        return False

    def without_controls(text: str) -> str:
        if controls and not (text.isascii() and text.isprintable()):
            cleaned = remove_invisible(text, keep=kept)
            if cleaned != text:
                effects.add("control_characters", text, cleaned, max(len(text) - len(cleaned), 1))
            return cleaned
        return text

    def repaired(text: str) -> str:
        if text.isascii():
            return without_controls(text)
        while True:
            before = text
            if mojibake or compose:
                text = repair_encoding(text) if mojibake else unicodedata.normalize("NFC", text)
                if text != before:
                    effects.add("unicode_repair", before, text)
            if ligatures and (found := len(_LIGATURE.findall(text))):
                written_out = expand_ligatures(text)
                effects.add("ligatures", text, written_out, found)
                text = written_out
            text = without_controls(text)
            if text == before:
                return text

    change_block_texts(paper, repaired)
    change_other_texts(paper, repaired)
    if controls:
        for block in [*paper.abstract, *paper.blocks()]:
            for inline in block.inlines:
                if inline.kind == "formula":
                    inline.text = without_controls(inline.text)
    return True


def repair_encoding(text: str) -> str:
    """Return text whose mojibake is undone and whose accents are composed with their letters (NFC).

    >>> repair_encoding("2.0Â°C near MÃ¼nchen")
    '2.0°C near München'
    """
    if text.isascii():
        return text
    if UTF8_DETECTOR_RE.search(text) or _C1_CONTROL.search(text) or _SPOILT_SPACE in text:
        pieces = _REAL.split(text)
        # Every second piece is what the pattern matched.
        text = "".join(
            [p if odd else ftfy.fix_encoding(p) for p, odd in zip(pieces, cycle((0, 1)), strict=False)]
        )
    return unicodedata.normalize("NFC", text)


def expand_ligatures(text: str) -> str:
    """Return text with typographic ligatures as letters.

    >>> expand_ligatures("ﬂuid inﬂow, coeﬃcient")
    'fluid inflow, coefficient'
    """
    return _LIGATURE.sub(lambda match: LIGATURES[match[0]], text)


def remove_invisible(text: str, keep: str = "") -> str:
    """Return text without control and zero-width characters; line separators become line feeds.

    Zero-width joiners stay between Arabic and Indic letters, whose form they decide.

    Args:
        text: any text.
        keep: characters to leave alone.
    """
    if text.isascii() and text.isprintable():
        return text
    while True:
        cleaned = _INVISIBLE.sub(
            lambda match: match[0] if match[0] in keep else _LINE_SEPARATORS.get(match[0], ""), text
        )
        # What stood between two joiners may be gone now.
        if cleaned == text:
            return text
        text = cleaned


@lru_cache(maxsize=1 << 16)
def _composes(character: str) -> bool:
    """Tell whether a character may change under NFC, alone or behind another one."""
    return (
        unicodedata.combining(character) != 0
        or ord(character) in _HANGUL_PARTS
        or unicodedata.normalize("NFC", character) != character
    )
