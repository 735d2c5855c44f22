"""One spelling per licence: SPDX identifiers for what sources write in a dozen ways.

The same licence reaches a corpus as an address, as a title, as a short name with spaces or hyphens, from
files and from metadata tables. Counting and selecting by licence needs one spelling, so each paper's is
normalised once, after it was read and joined. Only what is certain is changed: a statement in words, two
licences in one text or a version that does not exist stay as they stand.

Identifiers are those of the SPDX License List (https://spdx.org/licenses/), with one addition: a Creative
Commons licence whose version the source does not state is written without one (``CC-BY``), because
versions differ in what they allow.
"""

from __future__ import annotations

import re

from baltoro.papers.schema import UNKNOWN_LICENSE

_LONGEST_NAME = 200
"""Characters; what is longer is a statement in words, not a name or an address."""

_VERSIONS = {"1.0", "2.0", "2.5", "3.0", "4.0"}
_RIGHTS = {"by", "by-nc", "by-nd", "by-sa", "by-nc-nd", "by-nc-sa"}
# Versions before 4.0 were also adapted to the law of a country; these have identifiers of their own.
_PORTED = {
    identifier.lower(): identifier
    for identifier in (
        *("CC-BY-2.5-AU", "CC-BY-3.0-AT", "CC-BY-3.0-AU", "CC-BY-3.0-DE", "CC-BY-3.0-IGO", "CC-BY-3.0-NL"),
        *("CC-BY-3.0-US", "CC-BY-NC-3.0-DE", "CC-BY-NC-ND-3.0-DE", "CC-BY-NC-ND-3.0-IGO"),
        *("CC-BY-NC-SA-2.0-DE", "CC-BY-NC-SA-2.0-FR", "CC-BY-NC-SA-2.0-UK", "CC-BY-NC-SA-3.0-DE"),
        *("CC-BY-NC-SA-3.0-IGO", "CC-BY-ND-3.0-DE", "CC-BY-SA-2.0-UK", "CC-BY-SA-2.1-JP", "CC-BY-SA-3.0-AT"),
        *("CC-BY-SA-3.0-DE", "CC-BY-SA-3.0-IGO"),
    )
}
_OTHERS = {
    "apache-2.0": "Apache-2.0",
    "apache2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-2-clause": "BSD-2-Clause",
    "2-clause-bsd": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "3-clause-bsd": "BSD-3-Clause",
    "odc-by-1.0": "ODC-By-1.0",
    "odbl-1.0": "ODbL-1.0",
    "pddl-1.0": "PDDL-1.0",
}
_ADDRESSES = {
    "apache.org/licenses/license-2.0": "Apache-2.0",
    "opensource.org/licenses/mit": "MIT",
    "opensource.org/license/mit": "MIT",
    "opensource.org/licenses/apache-2.0": "Apache-2.0",
    "opensource.org/licenses/bsd-2-clause": "BSD-2-Clause",
    "opensource.org/licenses/bsd-3-clause": "BSD-3-Clause",
    "opendatacommons.org/licenses/by/1.0": "ODC-By-1.0",
    "opendatacommons.org/licenses/by/1-0": "ODC-By-1.0",
    "opendatacommons.org/licenses/odbl/1.0": "ODbL-1.0",
    "opendatacommons.org/licenses/odbl/1-0": "ODbL-1.0",
    "opendatacommons.org/licenses/pddl/1.0": "PDDL-1.0",
    "opendatacommons.org/licenses/pddl/1-0": "PDDL-1.0",
}

_SCHEME = re.compile(r"(?:https?:)?//(?:www\.)?", re.IGNORECASE)
_CC_ADDRESS = re.compile(
    r"creativecommons\.org/licen[sc]es/(?P<rights>by(?:-(?:nc|nd|sa))*)"
    r"(?:/(?P<version>\d\.\d)(?:/(?P<place>(?!deed|legalcode)[a-z]{2,3}))?)?(?:/(?:deed|legalcode)[\w.\-]*)?/?"
)
_CC_ZERO_ADDRESS = re.compile(
    r"creativecommons\.org/publicdomain/zero(?:/1\.0(?:/(?:deed|legalcode)[\w.\-]*)?)?/?"
)
_CC_NAME = re.compile(
    r"(?:the )?(?:(?:cc|creative commons)[ \-_]*)(?:by|attribution)"
    r"(?P<rights>(?:[ \-_/]*(?:nc|nd|sa|non-?commercial|no-?deriv(?:ative)?s?(?: works)?|share-?alike)\b)*)"
    r"(?:[ \-_,]*(?:version |v\.? ?)?(?P<version>\d\.\d))?"
    r"(?: international| unported| generic)?(?: public)?(?: licen[sc]e)?\.?"
)
_CC_ZERO_NAME = re.compile(
    r"(?:cc[ \-_]?0|cc[ \-_]zero|creative commons(?: cc[ \-_]?0| zero))(?:[ \-_,]*(?:v\.? ?)?1\.0)?"
    r"(?: universal)?(?: public domain dedication)?(?: licen[sc]e)?\.?"
)
_NAME_TWICE = re.compile(
    r"(?P<first>[^()]+) \((?P<second>[^()]+)\)(?: licen[sc]e| public domain dedication)?\.?"
)
_RIGHT_WORDS = ((r"nc|non-?commercial", "nc"), (r"nd|no-?deriv", "nd"), (r"sa|share-?alike", "sa"))
_FILLING = {"license", "licence", "version", "the"}


def normalise_license(text: str) -> str:
    """Return the SPDX identifier of a licence, or its text where that is not certain.

    Args:
        text: an address, a title, a short name or a statement, as the source has it.

    Returns:
        An identifier such as ``CC-BY-4.0``, ``CC0-1.0`` or ``MIT``; ``CC-BY`` and the like where no version
        is stated; :data:`UNKNOWN_LICENSE` for a blank text; any other text with its white space collapsed.
        The result is its own normal form.

    >>> normalise_license("https://creativecommons.org/licenses/by-nc-nd/4.0/")
    'CC-BY-NC-ND-4.0'
    >>> normalise_license("CC BY"), normalise_license("All rights reserved")
    ('CC-BY', 'All rights reserved')
    """
    text = " ".join(text.split())
    if not text or text.lower() == UNKNOWN_LICENSE:
        return UNKNOWN_LICENSE
    if len(text) > _LONGEST_NAME:
        return text
    return _identifier(text.lower()) or text


def _identifier(text: str) -> str | None:
    """Return the identifier that a text in lower case states, ``None`` in doubt."""
    scheme = _SCHEME.match(text)
    address = text[scheme.end() :] if scheme else text
    if scheme or address.startswith("creativecommons.org/"):
        return _identifier_at(address)
    if text in _PORTED:
        return _PORTED[text]
    if _CC_ZERO_NAME.fullmatch(text):
        return "CC0-1.0"
    match = _CC_NAME.fullmatch(text)
    if match:
        rights = "-".join(
            ["by", *(name for words, name in _RIGHT_WORDS if re.search(words, match["rights"]))]
        )
        return _creative_commons(rights, match["version"])
    twice = _NAME_TWICE.fullmatch(text)
    if twice:
        return _agreed(_identifier(twice["first"]), _identifier(twice["second"]))
    words = [word for word in text.rstrip(".").replace(",", "").split() if word not in _FILLING]
    return _OTHERS.get(re.sub(r"[ _-]+", "-", " ".join(words)).replace("-v", "-"))


def _identifier_at(address: str) -> str | None:
    """Return the identifier of the licence at an address without scheme, in lower case."""
    if _CC_ZERO_ADDRESS.fullmatch(address):
        return "CC0-1.0"
    match = _CC_ADDRESS.fullmatch(address)
    if match is None:
        return _ADDRESSES.get(re.sub(r"(?:\.html|\.txt|\.php)?/?$", "", address))
    rights, version, place = match["rights"], match["version"], match["place"]
    if place:
        return _PORTED.get(f"cc-{rights}-{version}-{place}")
    # The first version named its parts in another order.
    return _creative_commons("by-nc-nd" if rights == "by-nd-nc" else rights, version)


def _creative_commons(rights: str, version: str | None) -> str | None:
    if rights not in _RIGHTS or (version is not None and version not in _VERSIONS):
        return None
    return f"CC-{rights.upper()}-{version}" if version else f"CC-{rights.upper()}"


def _agreed(first: str | None, second: str | None) -> str | None:
    """Return the more precise of two names of one licence, ``None`` if they name different ones."""
    if first is None or second is None:
        return None
    shorter, longer = sorted((first, second), key=len)
    return longer if longer == shorter or re.fullmatch(re.escape(shorter) + r"-\d\.\d", longer) else None
