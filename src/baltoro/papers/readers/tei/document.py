"""The whole document: header, text and references put together into one paper."""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

from baltoro.papers.readers._xml import all_text, element_text, parse_xml
from baltoro.papers.readers.tei.elements import NS, XML_ID, XML_LANG
from baltoro.papers.readers.tei.header import read_header
from baltoro.papers.readers.tei.references import read_references
from baltoro.papers.readers.tei.service import service_error
from baltoro.papers.readers.tei.text import TextReader
from baltoro.papers.schema import Block, Inline, Paper, ReadReject

_HYPHENATED = re.compile(r"([^\W\d_]+)- ?([^\W\d_]+)")
_ERROR_ROOTS: Final = frozenset({"html", "error", "fault"})


def looks_like_tei(root_tag: str) -> bool:
    """Whether a root element (``{namespace}name`` or a bare name) is that of a TEI document."""
    return root_tag in (NS + "TEI", "TEI")


def parse_tei(data: bytes) -> Paper:
    """Read one GROBID TEI document.

    Identity fields and ``format`` stay empty. ``extra`` gets ``arxiv_id`` (the paper's own identifier) and
    ``parser`` (GROBID and its version) where the header states them. A citation keeps its printed text;
    its target is set when the reference list holds the entry. Lettering of a picture that GROBID put
    before a figure's label is dropped where the description repeats the label; no other text is. Back matter
    without a head gets one from its type ("Acknowledgements", "Appendix").

    Args:
        data: the bytes of one file.

    Raises:
        ReadReject: ``error_page``, ``unknown_format`` (XML with another root), ``no_text``, or any reason of
            :func:`~baltoro.papers.readers._xml.parse_xml`.
    """
    message = service_error(data)
    if message is not None:
        raise ReadReject("error_page", message)
    root = parse_xml(data)
    if not looks_like_tei(root.tag):
        name = etree.QName(root).localname
        if name.lower() in _ERROR_ROOTS:
            raise ReadReject("error_page", f"an XML answer <{name}>: {element_text(root)[:200]}")
        raise ReadReject("unknown_format", f"the root element is <{name}>, not <TEI>")
    if root.tag == "TEI":
        _qualify(root)
    return _read_paper(root)


def _qualify(root: etree._Element) -> None:
    """Put a document without namespace into TEI's, so that the reader knows one name per element."""
    for element in root.iter():
        if not element.tag.startswith("{"):
            element.tag = NS + element.tag


def _read_paper(root: etree._Element) -> Paper:
    paper = Paper()
    for bibliography in root.iter(NS + "listBibl"):
        read_references(bibliography, paper.references)
    citation_keys = {reference.key for reference in paper.references}
    header: etree._Element | None = None
    texts: list[etree._Element] = []
    for child in root:
        if child.tag == NS + "teiHeader" and header is None:
            header = child
        elif child.tag == NS + "text":
            texts.append(child)

    float_ids = {
        identifier
        for text in texts
        for element in text.iter(NS + "figure", NS + "note")
        if (identifier := element.get(XML_ID)) and all_text(element).strip()
    }
    reader = TextReader(citation_keys, float_ids)
    for text in texts:
        paper.language = paper.language or text.get(XML_LANG)
        reader.read_text(text)
    paper.sections = reader.finish()
    if header is not None:
        paper.language = paper.language or header.get(XML_LANG)
        read_header(header, paper)
        abstract = header.find(f"{NS}profileDesc/{NS}abstract")
        if abstract is not None:
            paper.abstract = _read_abstract(abstract, citation_keys)
    if not paper.sections and not paper.abstract and not paper.title:
        raise ReadReject("no_text", "the TEI has neither title, abstract nor body text")
    if "-" in paper.title:
        paper.title = _rejoin_cut_words(paper.title, paper)
    return paper


def _rejoin_cut_words(title: str, paper: Paper) -> str:
    """Undo a line-break hyphen in a title ("PROMPT-ING") where the paper itself shows the right form.

    A pair is joined only if the text has the joined word and nowhere the hyphenated one.
    """
    body = ""

    def join(match: re.Match[str]) -> str:
        nonlocal body
        if not body:
            blocks = (*paper.abstract, *paper.blocks())
            # Piece by piece, because ASCII is put into lower case many times faster than other text.
            body = "\n".join([inline.text.lower() for block in blocks for inline in block.inlines])
        joined = (match.group(1) + match.group(2)).lower()
        hyphenated = f"{match.group(1)}-{match.group(2)}".lower()
        if hyphenated in body or joined not in body or not re.search(rf"\b{joined}\b", body):
            return match.group()
        return match.group(1) + match.group(2)

    return _HYPHENATED.sub(join, title)


def _read_abstract(abstract: etree._Element, citation_keys: set[str]) -> list[Block]:
    reader = TextReader(citation_keys, set())
    reader.read_flow(abstract)
    blocks: list[Block] = []
    for section in reader.finish():
        heading = " ".join(part for part in (section.number, section.heading) if part)
        if heading and heading.lower().strip(" .:") != "abstract":
            if section.blocks and section.blocks[0].label is None:
                section.blocks[0].label = heading
            else:
                blocks.append(Block("paragraph", [Inline("text", heading)]))
        blocks += section.blocks
    return blocks
