"""GROBID TEI: the XML that GROBID (0.5 and later) makes of a PDF.

GROBID promises well-formed XML, not schema-valid XML, so the tree is read leniently: known elements by
meaning, unknown ones for their text, and every part of the body exactly once. Element paths follow
GROBID's "TEI encoding of results"; what real files do beyond that is noted where it is handled.

Figures, tables and linked footnotes stand at the end of ``<body>``, far from where they are discussed.
Each becomes a block once, after the block that mentions it first, or at the end of the last section of
the part it stands in if nothing mentions it.

One module per part of a document: :mod:`.document` (the whole), :mod:`.service` (what is no document but an
answer of the service), :mod:`.header`, :mod:`.text` (running text, with :mod:`.floats` for figures, tables
and notes), :mod:`.references`; :mod:`.elements` holds the names that several of them need.
"""

from baltoro.papers.readers.tei.document import looks_like_tei, parse_tei
from baltoro.papers.readers.tei.service import service_error

__all__ = ["looks_like_tei", "parse_tei", "service_error"]
