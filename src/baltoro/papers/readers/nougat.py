"""Nougat ``.mmd``: Mathpix Markdown that a decoder wrote page by page.

Pages are decoded one by one and joined, so that a failed page leaves a marker, a stuck page repeats
itself, and headings, authors and captions are told apart only by their looks. Layout: the Nougat
project's README and post-processing; quirks: those of real outputs.
"""

from __future__ import annotations

import re
from collections import Counter

from baltoro.papers.readers._builder.build import build_paper
from baltoro.papers.readers._builder.draft import Source
from baltoro.papers.readers._markup.scanner import scan_blocks
from baltoro.papers.repetition import cut_repetitions
from baltoro.papers.schema import Paper, ReadReject

_MISSING_PAGE = re.compile(r"\[MISSING[_ ]PAGE(?:_[A-Z]{1,12})?(?::\s*\d{1,6})?\]")
_FLOAT_MARK = re.compile(r"\[(?:END)?(?:FIGURE|TABLE|FOOTNOTE|ALGORITHM)(?::[^\[\]\n]{0,80})?\]")
_LINE_END = re.compile(r"\r\n?|[\u2028\u2029\x0b\x0c]")


def parse_nougat(text: str) -> Paper:
    """Return the paper of a Nougat output.

    Failure markers are removed, also inside a sentence, whose halves stay apart by a space
    (``extra["missing_pages"]``); repetition loops are cut to their first occurrence
    (``extra["repetition_characters_cut"]``); ``footnotemark:`` remains are dropped
    (``extra["footnote_marks_removed"]``). Lines between title and abstract that are no names go to
    ``extra["front_matter"]``; a paragraph that floats or footnotes cut in two is whole before them.

    Args:
        text: the decoded file.

    Raises:
        ReadReject: ``empty_file`` for white space only, ``no_text`` if only failure markers are left.
    """
    if not text or text.isspace():
        raise ReadReject("empty_file", "the Nougat output is empty: the PDF could not be decoded")
    if "\r" in text or "\x0c" in text or "\x0b" in text or "\u2028" in text or "\u2029" in text:
        text = _LINE_END.sub("\n", text)
    counts: Counter[str] = Counter()
    if "[MISSING" in text:
        text, counts["missing_pages"] = _MISSING_PAGE.subn(" ", text)
    if "FIGURE" in text or "TABLE" in text or "FOOTNOTE" in text or "ALGORITHM" in text:
        text, counts["float_marks_removed"] = _FLOAT_MARK.subn(" ", text)
    text, counts["repetition_characters_cut"] = cut_repetitions(text)
    scanned = scan_blocks(text, "nougat")
    counts["comments_removed"] = scanned.comments.total()
    return build_paper(
        Source(
            scanned.blocks,
            "nougat",
            counts=counts,
            loose_lines_are_authors=True,
            bare_headings=True,
        )
    )
