"""What each element of running text means, by its tag."""

from __future__ import annotations

from typing import Final

from baltoro.papers.readers.jats.floats import FLOAT_HANDLERS
from baltoro.papers.readers.jats.formulas import FORMULA_HANDLERS
from baltoro.papers.readers.jats.inline import INLINE_HANDLERS
from baltoro.papers.readers.jats.lists import LIST_HANDLERS
from baltoro.papers.readers.jats.walker import Handler, Walker, skip

HANDLERS: Final[dict[str, Handler]] = {
    **INLINE_HANDLERS,
    **FORMULA_HANDLERS,
    **FLOAT_HANDLERS,
    **LIST_HANDLERS,
    **dict.fromkeys(
        ("disp-formula-group", "fn-group", "boxed-text", "statement", "verse-group", "speech", "sec"),
        Walker.boxed,
    ),
    **dict.fromkeys(
        ("td", "th", "tr", "entry", "row", "list-item", "def-item", "term", "def", "caption", "attrib"),
        Walker.separated,
    ),
    **dict.fromkeys(("verse-line", "speaker", "subtitle", "sig", "address", "addr-line"), Walker.separated),
    **dict.fromkeys(
        ("graphic", "inline-graphic", "inline-media", "object-id", "alt-text", "long-desc", "permissions"),
        skip,
    ),
    **dict.fromkeys(("sec-meta", "ref-list", "kwd-group", "processing-meta", "colgroup"), skip),
}
"""The handlers of every element that is more than markup around text, for :class:`Walker`."""
