"""The commonest words of a language: what every running text in it holds, and a list of keywords does not.

Gopher asks for two of eight English words; papers come in other languages, too. Where a language has no
list here, its text gets no stop-word score, and the rule is not applied.
"""

from __future__ import annotations

from functools import lru_cache

from baltoro.corpus.words import Hashes, words_of

_STOP_WORDS = {
    "en": "the of and in to a is that for with as by are be on this from we was which or were an at not it "
    "have can these between has our than also their been but its may each when such all both more "
    "they where if had other i he you his she her",
    "de": "der die und in den von zu das mit des im für auf ist eine dem ein nicht werden als sich einer "
    "auch an wird bei oder sind durch aus es wurde nach zur wie zum über einem einen dass so kann um "
    "war nur wurden",
    "fr": "de la le et les des en un une du dans que est pour par sur qui au plus sont avec ce pas ou se à "
    "il ne cette aux d l a été comme mais nous on s ont entre ces n leur sa son",
    "es": "de la que el en y a los las del se por un una con para es al como más no su o lo entre son fue "
    "ha sus este esta ser sobre también han desde pero si cuando donde muy sin",
    "pt": "de a o que e do da em um para com uma os no se na por mais as dos como mas ao das à ou são entre "
    "foi pela pelo não sua seu ser este esta é também nos nas foram quando",
    "it": "di e il la che in un per è del della con le una i da si non dei sono al nel alla delle come più "
    "gli dal su lo ed o tra questo questa anche nella stato essere degli ai ha",
    "nl": "de van het een in en is dat op te met voor zijn die aan er door bij om als niet of wordt worden "
    "uit naar ook deze dit tot over werd kan meer zich heeft hebben tussen maar dan",
    "ru": "и в не на с что по как из к для это а его от при или за о у до же их но также бы были был если "
    "было между так то которые том во чем может является мы",
    "zh": "的是在和了有中为為不对對这這上以与與而及我们們其等可于於一个個从從由将將并並所之出后後人",
    "ja": "のはをにがとでしたるもてれすいらこれなりさあかよう",
    "ko": "의이은을에는가를로하다한고과와도서으지기사대",
}

LANGUAGES: tuple[str, ...] = tuple(_STOP_WORDS)
"""ISO 639-1 codes of the languages with a list."""


@lru_cache(maxsize=len(_STOP_WORDS))
def stop_words_of(language: str) -> Hashes | None:
    """Return a language's stop words, ``None`` where there is no list."""
    if language not in _STOP_WORDS:
        return None
    return words_of(_STOP_WORDS[language]).hashes
