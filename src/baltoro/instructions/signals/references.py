"""Questions about citations: what a mark refers to, what is cited next, what is cited most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.signals.text import Flow, PaperTexts, one_line
from baltoro.instructions.signals.titles import titled_abstract
from baltoro.papers.schema import Reference

_SHORTEST_CONTEXT = 80
_SHORTEST_STATEMENT = 25
_LONGEST_ENDING = 40
_FEWEST_MENTIONS = 3
_MARK_EDGES = "[]();, "
_BRACKETED_NOTE = re.compile(r"\s*\[[^\]]{1,40}\]\.?$")
_OPENING_BRACKETS = "[({,;"
_OPENING_WORDS = ("e.g.", "i.e.", "see also", "see", "cf.")
_AUTHORS_OPENING = re.compile(r"\((?:[A-Z][\w.’'-]*,? ?(?:and |& )?){1,3}$")
_PART_LIST = """
by in of from to as with and or the a an that than on for at like following using via while whereas both work
paper papers study studies ref ref. refs refs. reference references
"""
_PARTS_OF_SENTENCE = (*_PART_LIST.split(), "et al", "et al.", "et al,", "et al.,")
"""The citation is a word of the sentence, not its evidence: what stands before it says nothing yet."""

_YEAR = re.compile(r"(?:1[89]|20)\d\d[a-z]?")
_AUTHORS = r"(?:[^\W\d_][\w'’.-]+(?:,? (?:and|&|et) [^\W\d_][\w'’-]+\.?)?,? ?[(\[]?)"
_AFTER_ANOTHER = re.compile(r"^[\s,;&–—\])-]*(?:and|see|also|e\.g\.,?)?[\s,;]*$")


def title_of(reference: Reference) -> str:
    """Return a reference's title on one line, without ``[online]`` or a full stop at its end."""
    title = one_line(reference.title)
    return (_BRACKETED_NOTE.sub("", title) if "[" in title else title).rstrip(" .")


def reference_resolution(titles: Mapping[str, str], cited: Sequence[Flow]) -> Iterator[Candidate]:
    """Yield each sentence with a citation mark, and the title of the entry that the mark refers to.

    Args:
        titles: by the key of the reference.
        cited: texts of the paragraphs that cite.
    """
    for flow in cited:
        by_sentence: dict[int, list[tuple[str, str | None]]] = {}
        for span in flow.spans:
            if span.inline.kind == "citation":
                mark = flow.text[span.start : span.end].strip(_MARK_EDGES)
                if any(map(str.isalnum, mark)):
                    sentence = flow.sentence_at(span.start)
                    by_sentence.setdefault(sentence, []).append((mark, span.inline.target))
        for number, marks in by_sentence.items():
            start, end = flow.sentence_spans[number]
            sentence_text = flow.text[start:end]
            targets: dict[str, set[str | None]] = {}
            for mark, target in marks:
                targets.setdefault(mark, set()).add(target)
            for mark, found in targets.items():
                slots = {"input": sentence_text}
                if len(found) > 1:
                    yield Candidate(slots, "ambiguous_mark", mark)
                else:
                    named = partial(_named, mark, sentence_text)
                    yield _answered(slots, titles, next(iter(found)), mark, named)


def citation_prediction(titles: Mapping[str, str], cited: Sequence[Flow]) -> Iterator[Candidate]:
    """Yield the text before each citation, and the cited title.

    Of several citations side by side the first one only: before the others stands no text. A sentence that
    has said little yet brings the one before it along.
    """
    for flow in cited:
        previous_end = 0
        for span in flow.spans:
            if span.inline.kind != "citation":
                continue
            between = flow.text[previous_end : span.start]
            follows_another = previous_end > 0 and _AFTER_ANOTHER.match(between)
            previous_end = span.end
            if follows_another:
                continue
            number = flow.sentence_at(span.start)
            start = own_start = flow.sentence_spans[number][0]
            if span.start - start < _SHORTEST_CONTEXT and number > 0:
                start = flow.sentence_spans[number - 1][0]
            context = _without_opening(flow.text[start : span.start])
            slots = {"input": context}
            if len(context) < _SHORTEST_CONTEXT or span.start - own_start < _SHORTEST_STATEMENT:
                detail = f"{len(context)} characters before the citation"
                yield Candidate(slots, "too_short", detail)
            elif _ends_with_word(context[-_LONGEST_ENDING:].lower(), _PARTS_OF_SENTENCE):
                yield Candidate(slots, "fragment", context[-60:])
            else:
                yield _answered(slots, titles, span.inline.target, span.inline.text)


def related_paper(texts: PaperTexts, titles: Mapping[str, str], cited: Sequence[Flow]) -> Iterator[Candidate]:
    """Yield title and abstract with the one title that the paper cites most, at least three times."""
    counts = Counter(
        inline.target
        for flow in cited
        for inline in (span.inline for span in flow.spans)
        if inline.kind == "citation" and titles.get(inline.target or "")
    )
    if not counts or not texts.abstract:
        return
    # Of equal counts the first cited one: Counter keeps the order in which keys came.
    (target, count) = counts.most_common(1)[0]
    slots = {
        "input": titled_abstract(texts),
        "output": titles[target or ""],
    }
    if count < _FEWEST_MENTIONS:
        yield Candidate(slots, "few_mentions", f"cited {count} times, at least {_FEWEST_MENTIONS}")
    else:
        yield Candidate(slots)


def _without_opening(context: str) -> str:
    """Return what stands before a citation without the bracket, ``see`` or authors that open it."""
    ending = context[-_LONGEST_ENDING:].rstrip()
    while ending:
        if ending[-1] in _OPENING_BRACKETS:
            ending = ending[:-1].rstrip()
        elif word := _ends_with_word(ending, _OPENING_WORDS):
            ending = ending.removesuffix(word).rstrip()
        else:
            break
    place = ending.rfind("(")
    if place >= 0 and _AUTHORS_OPENING.match(ending, place):
        ending = ending[:place]
    return (context[:-_LONGEST_ENDING] + ending).rstrip()


def _ends_with_word(text: str, words: tuple[str, ...]) -> str:
    """Return which of the words a text ends with, the first that fits, and empty if with none."""
    if not text.endswith(words):
        return ""
    return next((word for word in words if text.endswith(word) and not _goes_on(text, len(word))), "")


def _goes_on(text: str, length: int) -> bool:
    before = text[-length - 1 : -length]
    return before.isalnum() or before == "_"


def _named(mark: str, sentence: str) -> dict[str, str]:
    return {"mark": _shown(mark, sentence)}


def _shown(mark: str, sentence: str) -> str:
    """Return a mark as a question names it: a number in brackets, a year with the authors before it."""
    if _YEAR.fullmatch(mark):
        found = re.search(rf"{_AUTHORS}{mark}", sentence)
        return f"{found.group()})" if found and "(" in found.group() else found.group() if found else mark
    return f"[{mark}]" if mark.isdigit() else mark


def _answered(
    slots: dict[str, str],
    titles: Mapping[str, str],
    target: str | None,
    mark: str,
    costly: Callable[[], dict[str, str]] | None = None,
) -> Candidate:
    title = titles.get(target or "")
    if title is None:
        return Candidate(slots, "unlinked", mark)
    if not title:
        return Candidate(slots, "no_title", f"{mark} → {target}")
    slots["output"] = title
    return Candidate(slots, costly=costly)
