"""Names of persons on a title page, and the lines around them that are no names."""

from __future__ import annotations

import re

from baltoro.papers.readers._builder.draft import Draft
from baltoro.papers.readers._builder.entries import is_name
from baltoro.papers.readers._text import collapse

SUPERSCRIPT = re.compile(
    r"""\\\(\s*(?:\{\}|~)?\s*\^[^()]*\\\) | \(?\\\((?:\\boxtimes)?\\\)\)?
      | <sup>[^<>]{0,40}</sup> | \^\{?[\d*†‡§¶,\ \\]{1,20}\}?\^? | [¹²³⁰⁴-⁹]+(?:\s?,\s?[¹²³⁰⁴-⁹]+)*
      | \$\s*(?:\{\})?\^[^$]{1,40}\$ | [†‡§¶]+""",
    re.VERBOSE | re.I,
)
_AUTHOR_SPLIT = re.compile(r"\0|\s{2,}|\s*[,;&|·•]\s*|\s+and\s+|(?<=[^\W\d_])\s?\d[\d,*†‡§]*")
AUTHOR_LEAD = re.compile(r"[*_]*(?:(?:written\s+)?by\s+|authors?\s*:[*_]*\s*)", re.I)
_AUTHOR_NOISE = " *_†‡§¶.,()[]\t\n"
_DEGREE = re.compile(r"(?:Ph\.?\s?D|M\.?\s?D|M\.?\s?Sc|B\.?\s?Sc|D\.?\s?Sc|FR\.?S|Jr|Sr|II|III)\.?$")
_ODD_NAME = re.compile(r"[^\W\d_a-z][\w.'’\- ]{1,40}$")
INSTITUTION = re.compile(
    r"\buniv\b|universit|institut|school|depart|college|laborator|\blabs?\b|research|center|centre|academy|faculty|hospital"
    r"|compan|\binc\b|\bltd\b|corporation|technolog|scienc|engineering|polytech|ministry|group|network|systems|street"
    r"|google|microsoft|meta\b|openai|nvidia|\bAI\b|intelligence|state|national|\bUC\b|\bETH\b|\bMIT\b"
    r"|France|China|Germany|Italy|Switzerland|Netherlands|\bUSA\b|\bUK\b"
    r"|anonymous|author|affiliation|address|equal|contribut|correspond|submission|work done|email",
    re.I,
)


def is_address(text: str) -> bool:
    """Tell whether a line under a title names a place of work, an e-mail address or a contribution."""
    return "@" in text or SUPERSCRIPT.match(text.strip()) is not None or INSTITUTION.search(text) is not None


def has_mail_of(part: str, mail: str) -> bool:
    """Tell whether the next e-mail address has the start of one of this line's words before its ``@``."""
    user = mail.partition("@")[0].lower()
    return any(word[:5].lower() in user for word in re.findall(r"[^\W\d_]{3,}", part))


def names_in(draft: Draft, line: str) -> list[str]:
    """Return the persons of a line, or nothing if any part of it is not surely a person's name."""
    line = line.strip(" &\n")
    lead = AUTHOR_LEAD.match(line)
    marked = line[lead.end() :] if lead else line
    marked = SUPERSCRIPT.sub("\0", marked.strip("*_ "))
    if marked.startswith("\0") or "@" in marked or INSTITUTION.search(marked):
        return []
    for line_break in ("\0", " "):
        joined = marked.replace("\n", line_break).replace("**", "\0")
        if not draft.is_nougat:
            joined = "".join(span.text for span in draft.inlines(joined))
        parts = [part.strip(_AUTHOR_NOISE) for part in _AUTHOR_SPLIT.split(joined)]
        names = [part for part in parts if part and not _DEGREE.match(part)]
        strange = [name for name in names if not (2 <= len(name.split()) <= 5 and is_name(name))]
        # One odd name in a long list is still a name.
        if names and 3 * len(strange) < len(names) and all(map(_ODD_NAME.match, strange)):
            return [collapse(name) for name in names]
    return []
