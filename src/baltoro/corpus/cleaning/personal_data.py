"""E-mail addresses, telephone and fax numbers in running text are masked: a model must not learn them.

An address needs an ``@`` (or a bracketed or spelled-out "at") before a domain that ends in a top-level
domain in use (ICANN's country codes and the usual generic ones, so that ``Recall@k``, ``Fe@C`` and
``CC12M@256`` are none). A number is masked only if it is introduced (``Tel.:``, ``Fax``, ``电话``) or
international (``+49 551 39-0``): years, page ranges, DOIs, sample ids, coordinates and grant numbers never
are. Formulas are left alone, but for addresses that a decoder set as formulas.
"""

from __future__ import annotations

import re
from typing import Final

from baltoro.corpus.cleaning.config import PersonalDataConfig
from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import Survey, all_blocks, block_lists, change_block_texts, words_in
from baltoro.papers.schema import Block, Paper

_COUNTRIES: Final = words_in(
    """
    ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz
    ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk
    fm fo fr ga gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir
    is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk
    ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl
    pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc
    td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
    """
)
_GENERIC: Final = words_in(
    """
    academy aero app arpa asia bio biz blog cat center cern cloud com coop dev earth edu edutech email
    energy foundation gov health info institute int international jobs lab li link live mail mil mobi museum
    name net network ngo one ong online org post pro research school science site social solutions space
    tech technology tel travel uni university world xyz
    """
)
_TOP_DOMAINS: Final = sorted(_COUNTRIES | _GENERIC, key=lambda name: (-len(name), name))
_DOMAIN_END = r"(?![A-Za-z0-9_]|[.-][A-Za-z0-9])"
_TOP = f"(?:{'|'.join([*_TOP_DOMAINS, *(name.upper() for name in _TOP_DOMAINS)])}){_DOMAIN_END}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_LABEL}\.){{1,6}}{_TOP}"
_LOCAL = r"[A-Za-z0-9_.+%'-]{0,63}[A-Za-z0-9_+%-]"
_USER = rf"(?<![A-Za-z0-9_.+%@-])(?!git@){_LOCAL}"
_GROUP = rf"\\?[{{\[(]\s*{_LOCAL}(?:\s*[,;|/]\s*{_LOCAL}){{0,30}}\s*[,;|/]?\s*\\?[}}\])]"
_EMAIL = re.compile(rf"(?:mailto:\s?)?(?:{_GROUP}|{_USER})\s?@\s?{_DOMAIN}")
_AT = r"\s*[\[({<]\s?(?:at|AT|At|@)\s?[\])}>]\s*"
_DOT = r"(?:\s*[\[({<]\s*(?:dot|DOT|Dot|\.)\s*[\])}>]\s*|\s+(?:dot|DOT)\s+|\s?\.\s?)"
_OBFUSCATED = re.compile(rf"(?:{_GROUP}|{_USER}){_AT}(?:{_LABEL}{_DOT}){{1,6}}{_TOP}")
_SPELLED = re.compile(
    rf"{_USER}\s+(?:at|AT)\s+(?:{_LABEL}(?:\s+dot\s+|\s*[\[(]\s*(?:dot|DOT)\s*[\])]\s*)){{1,6}}{_TOP}"
)
_BRACKETED_AT = re.compile(r"[\[({<]\s?(?:at|AT|At|@)\s?[\])}>]")
_TEX_ADDRESS = re.compile(rf"[\s{{}}\\^,;|/()\[\]†‡*\w.+%'-]{{1,200}}@\s?{_DOMAIN}[\s{{}}.,;)]*")

_INTRODUCTIONS: Final = (
    r"(?:(?<![^\W_])(?:[Tt]el(?:ephone|efon|efax|éfono|efone|\.)?|TEL|[Pp]hone|PHONE|[Ff]ax|FAX"
    r"|[Tt]él(?:éphone|écopie|écopieur)?|[Mm]obile|[Cc]ell phone|Ph|[Тт]ел(?:ефон)?|[Фф]акс)"
    r"|电话|電話|传真|傳真|手机|手機)"
)
_DIGITS = r"[+(]?\d(?:[\d()/]|[ .\u00a0‐‑–-](?=[\d(])|\) ?(?=\d)){5,24}\d"
_INTRODUCED = re.compile(
    rf"(?P<intro>{_INTRODUCTIONS}(?:\s?(?:/|and|&|or)\s?(?:[Ff]ax|FAX|[Pp]hone))?"
    rf"(?:\s(?:[Nn]o|[Nn]umber|[Nn]r)\b\.?)?[\s.:：]{{0,4}})(?P<number>\(?\+?{_DIGITS})(?![\w])"
)
_MUST_BE_MARKED = re.compile(r"[.:：]\s?$|[话話真机機]$")
_INTRODUCTION = re.compile(rf"{_INTRODUCTIONS}[^\n\d]{{0,14}}\Z")
_LONGEST_INTRODUCTION_CHARACTERS: Final = 40
_INTERNATIONAL = re.compile(
    r"(?<![\w+±.,/=<>~≈×^(\[-])(?<![=<>~≈] )[(]?\+(?P<code>[1-9]\d{0,2})[)]?"
    r"(?P<rest>(?:[ .\u00a0‐‑–-]?\(?\d{1,5}\)?){2,8})(?![\w%°.,]\d|[%°\d])"
)
_CALLING_CODE = re.compile(
    r"(?:1|7|2(?:0|7|[1-689]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)"
    r"|8(?:[1246]|[05789]\d)"
    r"|9(?:[0-58]|[679]\d))$"
)
_SHORTEST_INTRODUCED_CHARACTERS: Final = 9
_LONGEST_NUMBER_CHARACTERS: Final = 60
_LONGEST_USER_CHARACTERS: Final = 300
_MOST_MARKS: Final = 500
_PLUS = re.compile(r"\+[1-9]\d{0,2}\)?[ .\u00a0‐‑–(-]")
_YEAR_RANGE = re.compile(r"\(?(?:1[89]|20)\d\d\)?\s?[-–/]\s?\(?(?:1[89]|20)?\d\d\)?$")
_GROUPED_NUMBER = re.compile(r"\+\s?\d{1,3}(?:[ \u00a0]\d{3})+$")
_DECIMAL = re.compile(r"\+\s?\d+[.,]\d+$")


def mask_personal_data(paper: Paper, config: PersonalDataConfig, survey: Survey, effects: Effects) -> None:
    """Mask addresses (``emails``) and numbers (``phones``) in spans, cells and reviews."""
    text = survey.text
    plain = config.emails and _holds(_EMAIL, "@", text)
    bracketed = config.emails and any(
        _OBFUSCATED.search(text, max(place - _LONGEST_USER_CHARACTERS, 0), place + _LONGEST_USER_CHARACTERS)
        for place in survey.bracketed_at
    )
    spelled = config.emails and _holds(_SPELLED, " dot ", text)
    introduced = config.phones and _introduces_number(survey)
    plus = config.phones and any(
        _INTERNATIONAL.search(text, max(found.start() - 1, 0), found.end() + _LONGEST_NUMBER_CHARACTERS)
        for found in _PLUS.finditer(text)
    )
    if not (plain or bracketed or spelled or introduced or plus or (config.emails and "@" in text)):
        return

    def masked(text: str) -> str:
        if plain and "@" in text:
            text = _masked(_EMAIL, text, config.email_token, effects)
        if bracketed and _BRACKETED_AT.search(text):
            text = _masked(_OBFUSCATED, text, config.email_token, effects)
        if spelled and " dot " in text:
            text = _masked(_SPELLED, text, config.email_token, effects)
        if introduced and len(text) > _SHORTEST_INTRODUCED_CHARACTERS:
            text = _mask_introduced(text, config.phone_token, effects)
        if plus and "+" in text:
            text = _mask_international(text, config.phone_token, effects)
        return text

    before = sum(effects.counts.values())
    change_block_texts(paper, masked)
    for review in paper.reviews:
        review.text = masked(review.text)
    if config.emails and "@" in text:
        _mask_formulas(paper, config, effects)
    if sum(effects.counts.values()) > before:
        only_masks = re.compile(
            rf"(?:{re.escape(config.email_token)}|{re.escape(config.phone_token)}|[^\w]|(?i:e-?mail|mailto"
            rf"|tel|fax|phone))*"
        )
        for blocks in block_lists(paper):
            kept = [block for block in blocks if not _is_bare(block, only_masks, config)]
            if len(kept) < len(blocks):
                effects.unsettled += 1
                blocks[:] = kept


def _is_bare(block: Block, only_masks: re.Pattern[str], config: PersonalDataConfig) -> bool:
    """Tell whether masks are all that is left of a paragraph."""
    if block.kind not in ("paragraph", "note", "list"):
        return False
    text = block.printed()
    return (config.email_token in text or config.phone_token in text) and only_masks.fullmatch(
        text
    ) is not None


def _holds(pattern: re.Pattern[str], mark: str, text: str) -> bool:
    """Tell whether a pattern matches around one of its marks; leave it open for too many marks."""
    place, marks = text.find(mark), 0
    while place >= 0:
        start = max(place - _LONGEST_USER_CHARACTERS, 0)
        if marks == _MOST_MARKS or pattern.search(text, start, place + _LONGEST_USER_CHARACTERS):
            return True
        place, marks = text.find(mark, place + 1), marks + 1
    return False


def _introduces_number(survey: Survey) -> bool:
    text = survey.text
    for place in survey.long_numbers:
        start = max(place - _LONGEST_INTRODUCTION_CHARACTERS, 0)
        if _INTRODUCTION.search(text, start, place) and _INTRODUCED.search(
            text, start, place + _LONGEST_NUMBER_CHARACTERS
        ):
            return True
    return False


def mask_emails(text: str, token: str) -> str:
    """Return a text with its e-mail addresses masked.

    >>> mask_emails("Write to {ek, holm}@geo.uio.no or b.li [at] pku.edu.cn; Recall@k is 0.9.", "[EMAIL]")
    'Write to [EMAIL] or [EMAIL]; Recall@k is 0.9.'
    """
    for pattern in (_EMAIL, _OBFUSCATED, _SPELLED):
        text = pattern.sub(lambda _: token, text)
    return text


def mask_phones(text: str, token: str) -> str:
    """Return a text with its telephone and fax numbers masked.

    >>> mask_phones("Tel.: 0551 39-12345, fax +49 (551) 39 12346; pp. 551-39, 2019-2020.", "[PHONE]")
    'Tel.: [PHONE], fax [PHONE]; pp. 551-39, 2019-2020.'
    """
    effects = Effects()
    return _mask_international(_mask_introduced(text, token, effects), token, effects)


def _masked(pattern: re.Pattern[str], text: str, token: str, effects: Effects) -> str:
    changed, found = pattern.subn(lambda _: token, text)
    if found:
        effects.add("emails", text, changed, found)
    return changed


def _mask_introduced(text: str, token: str, effects: Effects) -> str:
    found = 0

    def mask(match: re.Match[str]) -> str:
        nonlocal found
        number = match["number"]
        digits = sum(map(str.isdigit, number))
        starts_like_one = number[0] in "+(0"
        if (
            not 7 <= digits <= 16
            or _YEAR_RANGE.match(number)
            or not (starts_like_one or _MUST_BE_MARKED.search(match["intro"]))
        ):
            return match[0]
        found += 1
        return match["intro"] + token

    changed = _INTRODUCED.sub(mask, text)
    if found:
        effects.add("phones", text, changed, found)
    return changed


def _mask_international(text: str, token: str, effects: Effects) -> str:
    found = 0

    def mask(match: re.Match[str]) -> str:
        nonlocal found
        number = match[0]
        digits = sum(map(str.isdigit, number))
        separators = sum(not c.isdigit() for c in match["rest"])
        code = match["code"]
        is_code = any(_CALLING_CODE.match(code[:length]) for length in (1, 2, 3))
        if (
            not 9 <= digits <= 15
            or not is_code
            or not separators
            or _DECIMAL.match(number)
            or (digits <= 9 and _GROUPED_NUMBER.match(number))
        ):
            return number
        found += 1
        return token

    changed = _INTERNATIONAL.sub(mask, text)
    if found:
        effects.add("phones", text, changed, found)
    return changed


def _mask_formulas(paper: Paper, config: PersonalDataConfig, effects: Effects) -> None:
    r"""Mask addresses set as formulas: ``\(\{a,b\}@x.org\)``."""
    for block in all_blocks(paper):
        for inline in block.inlines:
            if inline.kind == "formula" and "@" in inline.text and _TEX_ADDRESS.fullmatch(inline.text):
                effects.add("emails", inline.text, config.email_token)
                inline.kind, inline.text, inline.target = "text", config.email_token, None
