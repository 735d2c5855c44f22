"""The licence of an article: an address where one is given, else what its licence statement says."""

from __future__ import annotations

import re

from lxml import etree

from baltoro.papers.readers._xml import element_text
from baltoro.papers.readers.jats.elements import XLINK_HREF
from baltoro.papers.schema import UNKNOWN_LICENSE

_LICENSE_REF = "{http://www.niso.org/schemas/ali/1.0/}license_ref"
_CC_MODIFIERS = r"((?:[\s\-–/,]*(?:non-?\s?commercial|no-?\s?deriv\w*|share-?\s?alike|nc|nd|sa)\b)*)"
_CC_LICENSE = re.compile(
    rf"(?:creative\s+commons[\s:]+attribution|\bcc[\s\-]by\b){_CC_MODIFIERS}", re.IGNORECASE
)
_CC_VERSION = re.compile(r"\b([1-4]\.0)\b")
_CC_ZERO = re.compile(r"\bCC0\b|public[\s-]domain[\s-]dedication", re.IGNORECASE)
_PUBLIC_DOMAIN = re.compile(r"public[\s-]domain", re.IGNORECASE)
_NONCOMMERCIAL_USE = re.compile(r"non-?\s?commercial", re.IGNORECASE)


def license_of(meta: etree._Element) -> str:
    """Return a licence's address, else its short name recognised in words, else the words.

    Args:
        meta: the ``article-meta`` element.
    """
    addresses: list[str] = []
    texts: list[str] = []
    for permissions in meta.iterfind("permissions"):
        for element in permissions.iter("license", _LICENSE_REF):
            if element.tag == _LICENSE_REF:
                addresses.append(element_text(element))
            else:
                addresses.append((element.get(XLINK_HREF) or "").strip())
                texts.append(_statement(element))
                links = (link.get(XLINK_HREF) or "" for link in element.iter("ext-link", "uri"))
                addresses.extend(link for link in links if "creativecommons.org/" in link)
        # NLM 2 articles state it in the copyright line; a plain copyright line is not a licence.
        statement = permissions.find("copyright-statement")
        if statement is not None and not texts:
            texts.append(license_in_words(element_text(statement)) or "")
    addresses = [address for address in addresses if address]
    for address in addresses:
        if "creativecommons.org/" in address:
            return address
    if addresses:
        return addresses[0]
    for text in filter(None, texts):
        return license_in_words(text) or text
    return UNKNOWN_LICENSE


def _statement(license_element: etree._Element) -> str:
    paragraphs = [child for child in license_element if child.tag != _LICENSE_REF]
    return " ".join(filter(None, map(element_text, paragraphs))) or element_text(license_element)


def license_in_words(text: str) -> str | None:
    """Return the short name of a licence described in a sentence, or ``None`` when in doubt."""
    match = _CC_LICENSE.search(text)
    if match:
        modifiers = match.group(1).lower()
        short = "CC BY"
        for pattern, name in ((r"non|\bnc", "-NC"), (r"deriv|\bnd", "-ND"), (r"share|\bsa", "-SA")):
            if re.search(pattern, modifiers):
                short += name
        if "-NC" not in short and _NONCOMMERCIAL_USE.search(text):
            return None
        version = _CC_VERSION.search(text, match.end(), match.end() + 80)
        return f"{short} {version.group(1)}" if version else short
    if _CC_ZERO.search(text):
        return "CC0"
    # Not the same: a work may be in the public domain by law, without any dedication.
    return "public domain" if _PUBLIC_DOMAIN.search(text) else None
