"""Sections around the science: references, thanks, funding, contributions, interests, data, checklists.

A section is known by its heading alone, which must consist of phrases of the lexicon below and nothing else
("Acknowledgments and Disclosure of Funding", "Danksagung", "参考文献"); one with several meanings goes only
if all of them are to go. A paragraph that begins with such a phrase as a run-in head ("Funding: …") counts as
well. What is conservative about it:

- in the first half of a paper only short statements in the usual words go ("Funding" may be its subject);
- only the section itself goes, never those below it: parsers put appendices there;
- its figures and tables stay, since a page's floats end up anywhere;
- in formats without reliable sections a part that is longer than such a statement ever is, or that holds
  displayed formulas or code, stays: the heading of what follows was lost;
- a reference section goes only if its text looks like references.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from baltoro.corpus.cleaning.config import BackMatterConfig
from baltoro.corpus.cleaning.effects import Effects
from baltoro.papers.schema import Block, Paper, Section

CATEGORIES: Final = tuple(BackMatterConfig.model_fields)
"""The kinds of sections, named as in the recipe; the rule's name is ``back_matter_`` and one of these."""

_LEXICON: Final[dict[str, str]] = {
    "references": """
        references|reference|reference list|list of references|bibliography|literature cited|works cited
        |literature
        |cited literature|references cited|references and notes|references and further reading
        |参考文献|参考资料|引用文献|參考文獻
        |literatur|literaturverzeichnis|literaturangaben|referenzen|quellen|quellenverzeichnis|bibliographie
        |références|références bibliographiques|bibliographie|liste de références
        |referencias|referencias bibliográficas|bibliografía|literatura citada
        |referências|referências bibliográficas|bibliografia|literatura citada
        |литература|список литературы|библиография|библиографический список|список использованных источников
        |список использованной литературы|использованная литература|источники""",
    "acknowledgements": """
        acknowledgements|acknowledgments|acknowledgement|acknowledgment|acknowledgement statement
        |致谢|致謝|鸣谢|谢辞|謝辞
        |danksagung|danksagungen|dank
        |remerciements|remerciement
        |agradecimientos|agradecimiento|reconocimientos
        |agradecimentos|agradecimento
        |благодарности|благодарность""",
    "funding": """
        funding|fundings|funding statement|funding information|funding sources|funding source
        |source of funding
        |sources of funding|funding acknowledgement|funding acknowledgements|funding acknowledgment
        |disclosure of funding
        |financial support|financial support statement|financial disclosure|financial disclosures
        |financial disclosure statement|funding and support|grant support|grants|grant sponsors
        |role of the funding source
        |role of funding source|role of the funder|support statement
        |基金项目|基金资助|资助项目|资助信息|经费支持|基金
        |finanzierung|förderung|förderhinweis|fördermittel
        |financement|financements|source de financement|sources de financement
        |financiación|financiamiento|fuentes de financiación|fuente de financiación|fuentes de financiamiento
        |financiamento|fontes de financiamento|fonte de financiamento|apoio financeiro
        |финансирование|источник финансирования|источники финансирования|финансовая поддержка""",
    "author_contributions": """
        author contributions|authors contributions|author contribution|authors contribution
        |author s contributions
        |author s contribution|contributions of authors|contributions of the authors|contribution of authors
        |contribution statement|author contribution statement|author contributions statement
        |authorship contribution statement|credit author statement|credit authorship contribution statement
        |credit author contribution statement|credit authorship contribution|credit statement
        |authorship statement|contributor roles|author roleshiphip statement
        |作者贡献|作者贡献声明|作者贡献说明|作者贡献度说明
        |autorenbeiträge|beiträge der autoren|autorenbeitrag|beiträge der autorinnen und autoren
        |contributions des auteurs|contribution des auteurs
        |contribuciones de los autores|contribución de los autores|contribución de autores
        |contribuciones de autoría
        |contribuição dos autores|contribuições dos autores|contribuição de autoria
        |вклад авторов|авторский вклад|участие авторов""",
    "competing_interests": """
        competing interests|competing interest|competing interests statement|competing interest statement
        |conflict of interest|conflicts of interest|conflict of interests|conflicts of interests
        |conflict of interest statement|conflicts of interest statement|conflict of interest disclosure
        |declaration of interest|declaration of interests|declarations of interest
        |declaration of competing interest
        |declaration of competing interests|declaration of conflicting interests
        |declaration of conflict of interest
        |declaration of conflicts of interest|declarations of competing interests
        |statement of competing interests
        |competing financial interests|conflict interests|disclosure of interest|disclosure of interests
        |disclosure of conflicts of interest|potential conflicts of interest|potential conflict of interest
        |disclosure|disclosures|disclosure statement|interest statement
        |利益冲突|利益冲突声明|利益衝突
        |interessenkonflikt|interessenkonflikte|erklärung zu interessenkonflikten
        |conflit d intérêts|conflits d intérêts|conflit d intérêt|déclaration d intérêts|liens d intérêts
        |déclaration de liens d intérêts
        |conflicto de intereses|conflictos de intereses|conflicto de interés|conflictos de interés
        |declaración de conflicto de intereses
        |conflito de interesses|conflitos de interesse|conflito de interesse|conflitos de interesses
        |конфликт интересов|сведения о конфликте интересов""",
    "data_availability": """
        data availability|data availability statement|data accessibility|data accessibility statement
        |availability of data
        |availability of data and material|availability of data and materials|data and materials availability
        |data and material availability|data and code availability|code and data availability
        |code availability
        |code availability statement|data and software availability|software availability|data access
        |data sharing
        |data sharing statement|data archiving|data deposition|open data statement
        |open data and materials availability
        |open data and materials availability statement|open research statement|availability of code
        |availability of data and code|resource availability
        |数据可用性|数据可用性声明|数据获取|数据共享声明
        |datenverfügbarkeit|verfügbarkeit der daten
        |disponibilité des données|déclaration de disponibilité des données
        |disponibilidad de datos|disponibilidad de los datos|declaración de disponibilidad de datos
        |disponibilidade de dados|disponibilidade dos dados|declaração de disponibilidade de dados
        |доступность данных|наличие данных""",
    "checklists": """
        neurips paper checklist|neurips checklist|neurips reproducibility checklist|paper checklist
        |neurips paper checklist guidelines|icml paper checklist|aaai reproducibility checklist
        |reproducibility checklist
        |acl responsible nlp checklist|responsible nlp research checklist|responsible nlp checklist
        |aistats checklist|iclr reproducibility checklist""",
}
_SEPARATORS: Final = ("and", "und", "et", "y", "e", "и", "with", "mit")
_CJK_SEPARATORS = re.compile("[与和及]")
_NUMBERED = re.compile(
    r"^\W*(?:\d{1,2}(?:\.\d{1,2}){0,3}|[IVX]{1,5}|[A-Z]|[一二三四五六七八九十]{1,2})(?:[.):、．]|\s)\s*(?=\w)"
)
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_LONGEST_HEADING_CHARACTERS: Final = 100

# A run-in head: the phrase, then a colon, a full stop or a dash, then the statement.
_RUN_IN = re.compile(r"\W{0,3}(?P<head>[^\W\d_][^.:：—–\n]{1,70}?)\s*(?P<mark>[:：]|\.(?=\s)|\s[—–]\s)")
_FIRST_WORD = re.compile(r"\W{0,3}([^\W\d_]+)")
_CUE = re.compile(
    r"support|fund|grant|financ|thank|author|interest|conflict|compet|declar|disclos|contribut|wrote|资助|基金"
    r"|作者|利益|声明|贡献"
    r"|autor|intérêt|interes|финанс|автор",
    re.I,
)
_RELIABLE_FORMATS: Final = frozenset({"jats"})
_LONGEST_STATEMENT_CHARACTERS: Final = 6000
_LONGEST_EARLY_STATEMENT_CHARACTERS: Final = 1500
_BACK_HALF: Final = 0.5
_STAYS: Final = frozenset({"figure", "table"})
_NEVER_RUN_IN: Final = frozenset({"references", "checklists"})
_IS_SCIENCE: Final = frozenset({"formula", "code"})
_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")
_CITED = re.compile(
    r"(?i:doi|et al|https?:)|\b[A-Z]\.|\[\d+\]|^\s*\d{1,3}[.)\]]|\d+\s*[(:,]\s*\d|[\[［]\w[\]］]"
)
_REFERENCE_SHARE: Final = 0.6
_FEWEST_ENTRIES: Final = 3
_FEWEST_YEARS: Final = 5
_LONGEST_ENTRY_CHARACTERS: Final = 300


def drop_back_matter(paper: Paper, config: BackMatterConfig, effects: Effects) -> None:
    """Drop the sections and run-in statements that the recipe does not keep."""
    dropped = frozenset(name for name in CATEGORIES if getattr(config, name) == "drop")
    if not dropped:
        return
    emptied: set[int] = set()
    kept: list[Section] = []
    parents: list[Section] = []
    named = [categories_of(section.heading) for section in paper.sections]
    # Places are told in the science alone, so that no other section's going changes them.
    lengths = [
        0 if categories else sum(map(_length, section.blocks))
        for section, categories in zip(paper.sections, named, strict=True)
    ]
    whole, seen = sum(lengths), 0
    for section, categories, length in zip(paper.sections, named, lengths, strict=True):
        while parents and parents[-1].level >= section.level:
            parents.pop()
        is_late = seen >= _BACK_HALF * whole
        seen += length
        if categories and categories <= dropped and _may_go(section, categories, paper.format, is_late):
            if section.blocks:
                _drop_section(section, categories, kept, effects)
                emptied.update(map(id, parents))
                continue
        elif section.blocks:
            _drop_run_ins(section, dropped, effects)
        kept.append(section)
        parents.append(section)
    paper.sections = without_emptied_headings(kept, emptied) if emptied else kept


def _length(block: Block) -> int:
    length = 0
    for inline in block.inlines:
        length += len(inline.text)
    return length


def categories_of(heading: str) -> frozenset[str]:
    """Return the kinds of section that a heading names, none if it says anything else.

    >>> sorted(categories_of("8. Acknowledgments and Disclosure of Funding"))
    ['acknowledgements', 'funding']
    >>> categories_of("Funding of polar research")
    frozenset()
    """
    if not heading or len(heading) > _LONGEST_HEADING_CHARACTERS:
        return frozenset()
    return _categories_of(heading) or _categories_of(_NUMBERED.sub("", heading))


@lru_cache(maxsize=8192)
def _categories_of(heading: str) -> frozenset[str]:
    letters = _NOT_LETTERS.sub(" ", unicodedata.normalize("NFKC", heading)).casefold().strip()
    if not letters:
        return frozenset()
    if not letters.isascii() and any("\u4e00" <= character <= "\u9fff" for character in letters):
        letters = letters.replace(" ", "")
        return _resolved(tuple(filter(None, _CJK_SEPARATORS.split(letters)))) or _resolved((letters,))
    return _resolved((letters,)) or _split(letters.split())


def _split(words: list[str]) -> frozenset[str]:
    """Resolve a heading at its separators: some stand inside phrases, so every place is tried."""
    whole = _resolved((" ".join(words),))
    if whole:
        return whole
    for place in range(1, len(words) - 1):
        if words[place] in _SEPARATORS:
            left = _resolved((" ".join(words[:place]),))
            right = _split(words[place + 1 :]) if left else left
            if right:
                return left | right
    return frozenset()


def _resolved(phrases: tuple[str, ...]) -> frozenset[str]:
    lexicon = _phrases()
    found = [lexicon.get(phrase) for phrase in phrases]
    return frozenset(name for name in found if name) if phrases and all(found) else frozenset()


@lru_cache(maxsize=1)
def _phrases() -> dict[str, str]:
    return {
        " ".join(phrase.split()): category
        for category, phrases in _LEXICON.items()
        for phrase in phrases.split("|")
        if phrase.strip()
    }


def _may_go(section: Section, categories: frozenset[str], format_name: str, is_late: bool) -> bool:
    if categories == {"references"}:
        return _are_references(section.blocks)
    if "checklists" in categories:
        return True
    length = sum(_length(block) for block in section.blocks if block.kind not in _STAYS)
    if not is_late and "acknowledgements" not in categories:
        return length <= _LONGEST_EARLY_STATEMENT_CHARACTERS and _is_statement(section.blocks)
    if format_name in _RELIABLE_FORMATS:
        return True
    return length <= _LONGEST_STATEMENT_CHARACTERS and not any(b.kind in _IS_SCIENCE for b in section.blocks)


def _is_statement(blocks: list[Block]) -> bool:
    return any(_CUE.search(block.printed()) for block in blocks if block.kind not in _STAYS)


def _are_references(blocks: list[Block]) -> bool:
    texts = [text for block in blocks if block.kind not in _STAYS and (text := block.printed().strip())]
    entries = sum(_YEAR.search(text) is not None and _CITED.search(text) is not None for text in texts)
    if entries >= _FEWEST_ENTRIES:
        return entries >= _REFERENCE_SHARE * len(texts)
    # All in one paragraph: a year for every entry, and entries are short.
    years = sum(len(_YEAR.findall(text)) for text in texts)
    return years >= _FEWEST_YEARS and sum(map(len, texts)) <= _LONGEST_ENTRY_CHARACTERS * years


def _drop_section(
    section: Section, categories: frozenset[str], kept: list[Section], effects: Effects
) -> None:
    stay = [block for block in section.blocks if block.kind in _STAYS]
    gone = "\n".join(block.printed() for block in section.blocks if block.kind not in _STAYS)
    effects.add(f"back_matter_{_first(categories)}", f"{section.heading}\n{gone}", "", settled=not stay)
    if stay:
        if kept:
            kept[-1].blocks += stay
        else:
            kept.append(Section(1, "", None, stay))


def _first(categories: frozenset[str]) -> str:
    return next(name for name in CATEGORIES if name in categories)


def _drop_run_ins(section: Section, dropped: frozenset[str], effects: Effects) -> None:
    gone: list[int] = []
    for position, block in enumerate(section.blocks):
        if block.kind not in ("paragraph", "note") or not block.inlines:
            continue
        opening = block.label or block.inlines[0].text
        word = _FIRST_WORD.match(opening)
        if word is None or not (word[1].casefold() in _first_words() or word[1][0] >= "\u4e00"):
            continue
        if block.label:
            categories, head_characters = categories_of(block.label), 0
        else:
            categories, head_characters = _run_in_categories(opening)
        if not categories or not categories <= dropped or not categories.isdisjoint(_NEVER_RUN_IN):
            continue
        text = block.printed()
        if len(text) <= _LONGEST_STATEMENT_CHARACTERS and _CUE.search(text, head_characters):
            effects.add(f"back_matter_{_first(categories)}", f"{block.label or ''} {text}".strip(), "")
            gone.append(position)
    for position in reversed(gone):
        del section.blocks[position]


def _run_in_categories(opening: str) -> tuple[frozenset[str], int]:
    """Return what a run-in head names, and where the statement after it begins."""
    match = _RUN_IN.match(opening)
    if match is None or match["head"][0].islower():
        return frozenset(), 0
    # "Funding. It has grown": one word with a full stop may be the name of a part.
    is_one_word = " " not in match["head"].strip()
    categories = categories_of(match["head"])
    if is_one_word and match["mark"] == "." and "acknowledgements" not in categories:
        return frozenset(), 0
    return categories, match.end()


@lru_cache(maxsize=1)
def _first_words() -> frozenset[str]:
    return frozenset(phrase.split()[0] for phrase in _phrases())


def without_emptied_headings(sections: list[Section], emptied: set[int]) -> list[Section]:
    """Return the sections without those headings that had something below them and have nothing now.

    Args:
        sections: in reading order.
        emptied: ids of the sections below which something was dropped.
    """
    kept: list[Section] = []
    for section in reversed(sections):
        has_children = bool(kept) and kept[-1].level > section.level
        if id(section) in emptied and not section.blocks and not has_children:
            continue
        kept.append(section)
    return kept[::-1]
