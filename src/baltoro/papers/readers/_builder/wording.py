"""Phrases by which several steps tell headings, captions and footnotes from running text."""

from __future__ import annotations

import re

NUMBERED = re.compile(
    r"""(?P<number>
          (?:Appendix|Annex)\s+[A-Z0-9]{1,3}(?:\.\d{1,3})*(?=[.:]?\s|[.:]?$)
        | \d{1,3}(?:\.\d{1,3})+(?=\.?\s|\.?[^\W\d]|\.$)
        | \d{1,3}(?=\.?\s|\.?$)
        | [A-Za-z](?:\.\d{1,3})+(?=\.?\s|\.$)
        | (?:[IVX]{1,6}|[A-Z])(?=\.\s)
        )[.:]?\s*""",
    re.VERBOSE,
)
ABSTRACT = re.compile(r"(?:abstract|summary)\W*$", re.I)
ABSTRACT_LEAD = re.compile(r"[*_]*abstract[*_]*\s*[.:—–-]+[*_]*\s*(?=\S)", re.I)
KNOWN_HEADING = re.compile(
    r"introduction|background|related works?|preliminaries|problem (?:definition|statement)|methods?"
    r"|methodology|materials and methods|experiments|experimental setup|results(?: and discussion)?"
    r"|discussion|conclusions?|conclusion and future work|limitations|acknowledge?ments?|appendix"
    r"|appendices|references|bibliography|supplementary material|(?:limitations and )?broader impact"
    r"|ethics statement|data availability|funding|author contributions",
    re.I,
)
CAPTION = re.compile(
    r"""[*_\s]*(?P<label>(?P<kind>(?:Supplementary\s+|Extended\s+Data\s+)?(?:Figure|Fig\.?|Table|Tab\.?|Scheme|Plate))\s*
        (?P<number>(?:[A-Z]{1,2}[.\-]?)?\d{1,3}(?:\.\d{1,3})*[a-z]?|[IVXL]{1,6}|[A-Z]))
        (?P<end>[*_]*\s*[:|]|[*_]*\s*[.–—](?=\s|$|[*_])|[*_]+)[*_\s]*""",
    re.VERBOSE | re.I,
)
FOOTNOTE = re.compile(r"Footnote\s+(?P<mark>[\w*†‡§¶]{1,4}|\\\([^()]{1,40}\\\))\s*:\s*")
FOOTNOTE_NOISE = re.compile(r"footnotemark:?\s*$", re.I)
