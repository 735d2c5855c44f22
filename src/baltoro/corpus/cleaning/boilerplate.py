"""Legal and production texts that publishers, repositories and templates add to a paper.

Sentences are told by how they begin: the standard wordings of Creative Commons statements as PLOS, Springer
Nature, Frontiers, MDPI, Elsevier and Wiley print them, copyright lines, publisher's notes, and the
stamps of arXiv, bioRxiv, JSTOR, IEEE Xplore and of submission templates. A block goes if it consists of such
sentences and nothing else; at the start or the end of a block that says more, only they go. In the middle, in
captions and in tables nothing is touched: "Reproduced with permission" there belongs to a picture.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from baltoro.corpus.cleaning.back_matter import without_emptied_headings
from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import words_in
from baltoro.papers.schema import Block, Paper, Section

# What every wording begins with, or holds near its end; a block with neither is not looked at closely.
_FIRST_WORDS: Final = words_in(
    """
    open licensed licenced distributed permits licensee este cet dieser copyright c copy copyrights
    abstracting authorized restrictions downloaded reprints reprint asm disclaimer publisher publishers
    springer mdpi arxiv biorxiv medrxiv preprint manuscript proceedings received submitted st nd rd th
    annual
    """
)
_FIRST_PAIRS: Final = words_in(
    """
    this_article this_is this_work this_paper this_open this_content this_manuscript this_preprint
    this_publication the_article the_work the_paper the_manuscript the_image the_images the_creative the_use
    the_copyright the_authors the_statements the_author the_open to_view to_copy to_appear if_material
    no_use all_rights all_use all_claims any_product see_the it_is is_made is_licensed which_permits
    made_available published_by published_as production_and peer_review personal_use permission_from
    permission_to publication_rights request_permissions please_contact under_review under_double
    currently_under accepted_as accepted_at accepted_by accepted_to do_not article_history contents_lists
    journal_homepage
    """
)
_FIRST_CHARACTERS: Final = frozenset("©版本收开0123456789")
_LAST_WORDS: Final = (
    "©", "ommons", "opyright", "eserved", "redited", "ermission", "hese terms", "ffiliations", "ublisher",
    "lsevier", "nder review", "rXiv", "NeurIPS", "PMLR", "Xplore", "Wiley", "istribute", "for reuse", "版权",
)  # fmt: skip
_TAIL_CHARACTERS: Final = 130
_FIRST_WORD = re.compile(r"[^\w©]{0,3}(?:\d{1,4})?([^\W\d_]+)(?:\W{1,3}([^\W\d_]+))?")
_LICENCE_NAME = r"(?:creative commons|cc[ -](?:by|0)\b|licen[cs]e|licencia|licença|lizenz)"
_SENTENCES: Final = (
    # Creative Commons statements
    rf"open access\.?(?:$|\W{{1,3}}(?:this|the|©).{{0,700}}{_LICENCE_NAME})",
    rf"(?:©.{{0,80}})?(?:this|the) (?:is an|article is(?: an)?|paper is(?: an)?|work is(?: an)?|manuscript "
    rf"is(?: an)?) open[- ]access"
    rf" (?:article|paper|publication|document|work).{{0,200}}(?:under|{_LICENCE_NAME})",
    rf"this (?:article|work|paper|publication|manuscript|preprint|open[- ]access article) (?:is|has been) "
    rf"(?:\w+ )?"
    rf"(?:licen[cs]ed|distributed|published|made available|available|released) (?:to you "
    rf")?under.{{0,160}}{_LICENCE_NAME}",
    rf"(?:it is )?(?:licen[cs]ed|made available|distributed) under (?:an?|the) .{{0,120}}{_LICENCE_NAME}",
    r"the (?:images?|article) or other third[- ]party materials? in this (?:article|book|chapter) (?:is"
    r"|are) included in",
    r"if material is not included in the (?:article|book|chapter).s creative commons",
    r"to view a copy of this licen[cs]e,? visit",
    r"the creative commons public domain dedication waiver",
    r"the use, distribution or reproduction in other forums is permitted",
    r"no use, distribution or reproduction is permitted which does not comply",
    r"which permits (?:unrestricted|non-commercial|any) (?:non-commercial )?(?:use|re-use|reuse)",
    r"permits unrestricted (?:non-commercial )?(?:use|re-use), distribution,? and reproduction",
    r"licensee (?:mdpi|biomed central|springer|intechopen|hindawi|dove)",
    r"este (?:es un|é um) artículo de acceso abierto|este (?:es un|é um) artigo de acesso aberto|este "
    r"(?:artículo|artigo) (?:es|é|está)"
    r" .{0,60}licen",
    r"cet article est (?:distribué|publié|mis à disposition) .{0,60}(?:licence|creative commons)",
    r"dieser (?:artikel|beitrag) (?:ist|wird|steht) .{0,60}(?:lizenz|creative commons)",
    r"本文(?:章)?(?:遵循|采用|依据|是).{0,60}(?:许可|开放获取)",
    # copyright lines
    r"(?:copyright\W{0,3})?(?:©|\(c\)|&copy;)\W{0,3}(?:the )?(?:author\W{0,3}s?\W{0,3})?(?:19"
    r"|20)\d\d\b.{0,160}$",
    r"(?:copyright\W{0,3})?(?:©|\(c\)|&copy;)\W{0,3}(?:the author|crown|elsevier|springer|ieee|wiley|owned"
    r"|copyright).{0,160}$",
    r"copyright\W{0,3}(?:19|20)\d\d\W{1,3}(?:by )?(?:the )?[\w ,.&’'()-]{0,60}$",
    r"all rights reserved\W*$",
    r"(?:published|production and hosting) by (?:elsevier|springer|wiley|john wiley|oxford university press"
    r"|taylor|mdpi|sage"
    r"|cambridge university press|iop|bmj|plos|frontiers|hindawi|nature|blackwell)\b.{0,120}$",
    r"peer[- ]review under (?:the )?responsibility of",
    r"(?:personal use of this material is permitted|permission from ieee must be obtained|publication "
    r"rights licensed to)",
    r"permission to make digital or hard copies of",
    r"copyrights for (?:third-party )?components of this work",
    r"abstracting with credit is permitted",
    r"to copy otherwise, or republish",
    r"request permissions from",
    r"authorized licensed use limited to",
    r"restrictions apply\W*$",
    r"downloaded (?:on|from) .{0,200}(?:\d{4}|https?:|www\.|by |ieee|library|university)",
    r"this content downloaded from",
    r"all use subject to",
    r"see the terms and conditions",
    r"reprints and permissions? (?:information )?(?:is|are) available",
    r"asm does not own the copyrights? to supplemental material",
    r"the authors have granted asm a non-exclusive",
    r"please contact the corresponding author directly for reuse",
    r"版权所有|©?\s?(?:19|20)\d\d\s?.{0,20}版权",
    # publisher's notes
    r"(?:disclaimer\s?/\s?)?publisher.?s.? note\W*(?:$|:?\s?(?:springer|the statements|all claims|frontiers"
    r"|mdpi|nature|wiley|taylor"
    r"|the publisher|biomed|remains))",
    r"springer nature remains neutral",
    r"springer nature or its licensor",
    r"all claims expressed in this article are solely those of the authors",
    r"any product that may be evaluated in this article",
    r"the statements, opinions and data contained in all publications are solely",
    r"mdpi and/or the editor\(s\) disclaim responsibility",
    r"mdpi stays neutral with regard to",
    # stamps
    r"arxiv:\s?(?:\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v\d+)?(?:\s*\[[\w.-]+\])?(?:\s+\d{1,2}\s+\w{3,9}\s+\d{4})?\W*$",
    r"(?:bio|med)rxiv preprint (?:first posted|doi)",
    r"the copyright holder (?:for|has placed) this (?:version )?(?:preprint|version)",
    r"(?:it|this preprint|this article) is made available under an? cc",
    r"(?:preprint|manuscript) submitted to .{2,120}$",
    r"(?:preprint\W{0,3})?(?:currently )?under (?:double-blind )?review(?: as a (?:conference|workshop) "
    r"paper)?(?: at [\w ]{2,40}\d{4})?\W*$",
    r"(?:published|accepted|to appear|submitted) as an? (?:conference|workshop|journal) paper at .{2,60}$",
    r"(?:submitted to |accepted (?:at|to|by) )?(?:the )?\d{1,3}(?:st|nd|rd|th) (?:annual )?conference on "
    r"neural information processing systems"
    r".{0,60}$",
    r"proceedings of the .{5,120}pmlr.{0,40}$",
    r"do not distribute\W*$",
    r"(?:article history\W{0,3})?(?:received|manuscript received|submitted)\W{0,3}(?:in revised "
    r"form\W{0,3})?(?:on )?"
    r"(?:\d{1,2}\W{1,2}\w{3,9}|\w{3,9}\W{1,2}\d{1,2}|\d{1,2}\W\d{1,2}|\d{4})\W{1,3}(?:\d{2,4})?"
    r"(?:\W{1,4}(?:(?:first )?(?:received|revised|accepted|published|available|in revised form|revision "
    r"received|online|issue|form|date|on|and|manuscript)\b|"
    r"\d{1,4}|jan\w*|feb\w*|mar\w*|apr\w*|may|june?|july?|aug\w*|sep\w*|oct\w*|nov\w*|dec\w*))*\W*$",
    r"收稿日期.{0,80}$",
    r"\d{4}-\d{3}[\dx]\s?/.{0,80}(?:©|copyright|elsevier|\$)",
    r"(?:contents lists available at|journal homepage\s?:).{0,120}$",
)
_BOILERPLATE = re.compile(rf"\W{{0,3}}(?:{'|'.join(_SENTENCES)})", re.I | re.S)
_BREAK = re.compile(r"(?<=[.!?)。])\s+(?=[A-Z©(\"“])|(?<=。)")
_KINDS: Final = frozenset({"paragraph", "note", "list"})
_HEADINGS = re.compile(
    r"\W*(?:(?:disclaimer\s?/\s?)?publisher.?s.? note|rights and permissions|reprints and permissions|open "
    r"access|copyright(?: notice| statement)?"
    r"|licen[cs]e(?: statement)?|copyright and licen[cs]e|版权声明)\W*",
    re.I,
)
_LONGEST_STAMP_CHARACTERS: Final = 200


def drop_boilerplate(paper: Paper, effects: Effects) -> None:
    """Remove boilerplate sentences, paragraphs and headings (``boilerplate``)."""
    emptied: set[int] = set()
    paper.abstract = [block for block in paper.abstract if not _clear(block, effects)]
    for section in paper.sections:
        before = len(section.blocks)
        section.blocks = [block for block in section.blocks if not _clear(block, effects)]
        if before and not section.blocks and _HEADINGS.fullmatch(section.heading):
            emptied.add(id(section))
    if emptied:
        paper.sections = without_emptied_headings(paper.sections, emptied)
    if any(_may_be_stamp(section.heading) for section in paper.sections):
        _drop_stamp_headings(paper, effects)


def is_boilerplate(sentence: str) -> bool:
    """Tell whether a sentence is one of the standard wordings."""
    return _BOILERPLATE.match(sentence) is not None


def _may_begin(text: str) -> bool:
    if not _FIRST_CHARACTERS.isdisjoint(text[:3]):
        return True
    words = _FIRST_WORD.match(text)
    if words is None:
        return False
    first = words[1].lower()
    return first in _FIRST_WORDS or (words[2] is not None and f"{first}_{words[2].lower()}" in _FIRST_PAIRS)


def _may_end(text: str) -> bool:
    tail = text[-_TAIL_CHARACTERS:]
    # A generator would double the time of the whole rule.
    for word in _LAST_WORDS:  # noqa: SIM110
        if word in tail:
            return True
    return False


def _clear(block: Block, effects: Effects) -> bool:
    """Cut boilerplate at the edges of a block; return whether nothing is left."""
    if block.kind not in _KINDS or not block.inlines:
        return False
    begins = _may_begin(block.inlines[0].text) and is_boilerplate(
        _BREAK.split(block.printed(), maxsplit=1)[0]
    )
    if not begins and not (block.inlines[-1].kind == "text" and _may_end(block.inlines[-1].text)):
        return False
    text = block.printed()
    bounds = [0, *(match.end() for match in _BREAK.finditer(text)), len(text)]
    sentences = [(start, end) for start, end in pairwise(bounds) if end > start]
    flags = [is_boilerplate(text[start:end].strip()) for start, end in sentences]
    if not any(flags):
        return False
    if all(flags):
        effects.add("boilerplate", text, "")
        return True
    leading = flags.index(False)
    trailing = flags[::-1].index(False)
    if trailing and block.inlines[-1].kind == "text":
        cut = len(text) - sentences[-trailing][0]
        if cut < len(block.inlines[-1].text):
            block.inlines[-1].text = block.inlines[-1].text[:-cut].rstrip()
    if leading and block.inlines[0].kind == "text":
        cut = sentences[leading][0]
        if cut < len(block.inlines[0].text):
            block.inlines[0].text = block.inlines[0].text[cut:]
    after = block.printed()
    if after != text:
        effects.add("boilerplate", text, after)
    return False


def _may_be_stamp(heading: str) -> bool:
    return 0 < len(heading) <= _LONGEST_STAMP_CHARACTERS and _may_begin(heading)


def _drop_stamp_headings(paper: Paper, effects: Effects) -> None:
    """Remove headings that are stamps; what a parser put below them belongs to the section before."""
    kept: list[Section] = []
    for section in paper.sections:
        heading = section.heading
        if _may_be_stamp(heading) and not _HEADINGS.fullmatch(heading) and is_boilerplate(heading):
            effects.add("boilerplate", heading, "")
            if kept:
                kept[-1].blocks += section.blocks
            elif section.blocks:
                section.heading = ""
                section.number = None
                kept.append(section)
        else:
            kept.append(section)
    paper.sections = kept
