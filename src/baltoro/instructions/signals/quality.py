"""What is noise: rules on the values of a candidate's slots and on the response made of them.

The rules follow what GeoGalactica states about its signals (garbled, unmatched or too short text is dropped)
and what filters of the released GeoSignal throw away: responses of fewer than 15 characters, ``… means that
5``, "no corresponding information", lists of related papers (``related_paper`` here names one).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping

from baltoro.instructions.signals.config import QualityConfig
from baltoro.instructions.signals.tasks import Task, TextKind

REASONS: dict[str, str] = {
    "garbled": "replacement or private characters, letters run together or set apart: an extraction fault",
    "few_letters": "more figures and signs than letters where prose should be",
    "too_short": "below the bound for this kind of text",
    "too_long": "above the bound for this kind of text",
    "fragment": "not a whole sentence: it begins small or ends without a stop",
    "address": "a web address where a title or sentence should be",
    "not_a_title": "volume, pages, a publisher or 'et al.' where a title should be",
    "no_title": "the cited entry has no title",
    "unlinked": "a citation that leads to no entry of the reference list",
    "ambiguous_mark": "one mark in a sentence for two different entries",
    "few_mentions": "no entry is cited often enough to be called the closest",
    "beyond_count": "the number of a figure or table that this paper does not have",
    "other_paper": "followed by 'of': another paper's figure or table",
    "several_floats": "the sentence mentions several figures or tables",
    "no_caption": "a figure or table without caption",
    "no_cue": "no sentence of the abstract says what the paper does or finds",
    "unclear_header": "a table whose first row does not name each column once",
    "unclear_rows": "a table without two rows that the first column tells apart",
    "answer_in_input": "the answer stands in the question word for word",
    "no_answer": "says that there is no answer",
    "bare_number": "says that something is or means a number, and not of what",
    "uninformative": "most objects have the same value",
    "no_negative": "no concept that is surely false here",
    "circular": "a definition that begins with what it defines",
    "value_name": "a number or quantity that a knowledge file treats as a concept",
    "unnamed_concept": "a concept without a readable name",
    "malformed": "a knowledge file or row that cannot be read",
    "over_paper_cap": "more examples of this task than one paper or concept gives",
    "not_drawn": "left out by the task's weight",
    "over_cap": "beyond the task's cap",
}
"""Every reason a candidate does not become an example, with its meaning."""

CAP_REASONS = frozenset(("over_paper_cap", "not_drawn", "over_cap"))
"""Reasons that say nothing against a candidate: there are enough others."""

_ODD_CHARACTERS = re.compile("[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_CID = re.compile(r"\(cid:\d")
_MOJIBAKE = re.compile("[ÃÂ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ¡-¿]|â€")
_GLUED_LETTERS = re.compile(r"(?<![\\/.\w])[A-Za-z]{31,}")
# Written out six times: a counted group is tried many times slower at every space.
_SPACED_LETTERS = re.compile(" [A-Za-z]" * 6 + r"(?!\S)")
_LONGEST_WORD = 30
_NOT_ASCII = re.compile("[^\x00-\x7f]+")
_NO_ASCII_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())
_LETTERS = re.compile(r"[^\W\d_]+")
_MATHS = re.compile(r"\$[^$]*\$")
_ADDRESS = re.compile(r"https?:|www\.|arxiv|\bdoi\b", re.IGNORECASE)
_ADDRESS_PARTS = ("http", "www.", "arxiv", "doi")
_NOT_A_TITLE = re.compile(
    r"\bet al\b|\bpp?\. ?\d|\bvol\. ?\d|\bpreprint\b|\bisbn\b|\baccessed\b|\bin press\b"
    r"|\d\s*\(\d+\)\s*:\s*\d",
    re.IGNORECASE,
)
_WHOLE_ENTRY = re.compile(r"[^\W\d_][\w'’-]+ [A-Z]{1,3}\b.{0,200}\((?:19|20)\d\d\)")
_NO_INFORMATION = "no corresponding information"
_NO_ANSWER = re.compile(r"(?:unknown|none|n/?a|not applicable|tbd)\W*$", re.IGNORECASE)
_BARE_NUMBER = re.compile(r"\b(?:is|means)(?: that)? [-+]?\d[\d.,]*\W*$")
_ONLY_NUMBER = re.compile(r"[-+]?\d[\d\W]*")
_SENTENCE_START = re.compile(r"[\"'“‘(\[]*(?:[^\W\d_a-zß-öø-ÿ]|\d|\$|[a-z]{1,3}[A-Z0-9-])")
_CUT_OFF = re.compile(r"\b(?:the|an?|of|and|or|in|to|with|for|by|from|on|is|are)$")
_SENTENCE_STOP = re.compile(r"[.!?][\"'”’)\]]*(?:\s?\[[\d,;\s–-]+\])*\Z")

Finding = tuple[str, str]
"""A reason and its detail."""

Findings = MutableMapping[tuple[str, TextKind], Finding | None]
"""What was found of a text as a kind of text."""


def check_candidate(
    task: Task, slots: Mapping[str, str], config: QualityConfig, known: Findings | None = None
) -> Finding | None:
    """Return why the values of a candidate are noise, ``None`` if they are not.

    Args:
        task: whose slots they are.
        slots: a value for each.
        config: the bounds.
        known: what was found before with the same bounds, which grows; the tasks of one paper share many of
            its texts.
    """
    known = {} if known is None else known
    for slot, kind in (*task.answer.items(), *task.question.items()):
        text = slots[slot]
        if (text, kind) not in known:
            known[text, kind] = check_text(text, kind, config)
        if finding := known[text, kind]:
            return finding
    if not task.copied:
        answer = " ".join(slots[slot] for slot in task.answer)[:80].casefold()
        if any(answer in slots[slot].casefold() for slot in task.question):
            return "answer_in_input", answer
    return None


def check_text(text: str, kind: TextKind, config: QualityConfig) -> Finding | None:
    """Return why a text is noise as this kind of text, ``None`` if it is not."""
    shortest, longest = _bounds(kind, config)
    if len(text) < shortest:
        return "too_short", f"{kind} of {len(text)} characters, at least {shortest}"
    if len(text) > longest:
        return "too_long", f"{kind} of {len(text)} characters, at most {longest}"
    if found := garbled_at(text):
        return "garbled", found
    match kind:
        case "cell" | "table":
            return None
        case "term":
            return None if _LETTERS.search(text) else ("few_letters", text[:60])
        case "definition":
            if _ONLY_NUMBER.fullmatch(text):
                return "bare_number", text[:60]
        case "caption":
            if _CUT_OFF.search(text[-20:]):
                return "fragment", f"… {text[-40:]}"
        case "title":
            if _has_address(text):
                return "address", text[:120]
            if _NOT_A_TITLE.search(text) or _WHOLE_ENTRY.match(text):
                return "not_a_title", text[:120]
        case "sentence":
            if _has_address(text):
                return "address", text[:120]
            if not _SENTENCE_START.match(text) or not _SENTENCE_STOP.search(text):
                return "fragment", f"{text[:40]} … {text[-40:]}"
    # Titles are full of years and formulas.
    least = config.min_letter_fraction / 2 if kind == "title" else config.min_letter_fraction
    if letter_fraction(text) < least:
        return "few_letters", text[:60]
    return None


def check_response(text: str, config: QualityConfig) -> Finding | None:
    """Return why a whole response is noise, ``None`` if it is not."""
    if len(text) < config.min_output_characters:
        return "too_short", f"response of {len(text)} characters, at least {config.min_output_characters}"
    if _NO_ANSWER.match(text) or _NO_INFORMATION in text.lower():
        return "no_answer", text[:60]
    if "means that" in text[-60:] and _BARE_NUMBER.search(text[-60:]):
        return "bare_number", text[-60:]
    return None


def garbled_at(text: str) -> str | None:
    """Return the first place where an extractor got the text wrong, ``None`` if there is none."""
    # Each search runs only where a look at the whole text has not ruled it out: most text is sound.
    plain = text.replace("\n", "").isprintable() and "\ufffd" not in text
    match = (
        (None if plain else _ODD_CHARACTERS.search(text))
        or (_MOJIBAKE.search(text) if "Ã" in text or "Â" in text or "â€" in text else None)
        or (_CID.search(text) if "(cid:" in text else None)
        or _SPACED_LETTERS.search(text)
        or _glued(text)
    )
    return ascii(text[max(match.start() - 10, 0) : match.end() + 10][:80]) if match else None


def _glued(text: str) -> re.Match[str] | None:
    """Return a word too long to be one; sequences of bases are in capitals, LaTeX has words of its own."""
    if "$" in text or "\\" in text or max(map(len, text.split()), default=0) <= _LONGEST_WORD:
        return None
    return next((match for match in _GLUED_LETTERS.finditer(text) if not match.group().isupper()), None)


def _has_address(text: str) -> bool:
    # Plain words are found many times faster than a pattern that takes both cases.
    lowered = text.lower()
    return any(part in lowered for part in _ADDRESS_PARTS) and _ADDRESS.search(text) is not None


def letter_fraction(text: str) -> float:
    """Return the part of letters among the characters that print; formulas are not looked at."""
    prose = _MATHS.sub("", text) if "$" in text else text
    printed = len(prose) - prose.count(" ")
    if not printed:
        return 0.0
    letters = len(prose.encode("ascii", "ignore").translate(None, _NO_ASCII_LETTERS))
    if not prose.isascii():
        letters += sum(map(str.isalpha, "".join(_NOT_ASCII.findall(prose))))
    return letters / printed


def _bounds(kind: TextKind, config: QualityConfig) -> tuple[int, int]:
    match kind:
        case "title":
            return config.min_output_characters, config.max_title_characters
        case "abstract":
            return config.min_abstract_characters, config.max_abstract_characters
        case "full_text":
            return config.min_full_text_characters, 1 << 40
        case "context":
            return config.min_sentence_characters, 2 * config.max_sentence_characters
        case "paragraph":
            return config.min_paragraph_characters, config.max_paragraph_characters
        case "sentence":
            return config.min_sentence_characters, config.max_sentence_characters
        case "caption":
            return config.min_sentence_characters, config.max_caption_characters
        case "term":
            return 2, 600
        case "definition":
            return config.min_output_characters, config.max_paragraph_characters
        case "cell":
            return 1, 120
        case "table":
            return config.min_output_characters, config.max_table_characters
