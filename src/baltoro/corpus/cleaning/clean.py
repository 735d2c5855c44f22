"""The rules in their order, applied to one paper, and the account of what they did."""

from __future__ import annotations

import copy
from typing import Final

from baltoro.corpus.cleaning.back_matter import CATEGORIES, drop_back_matter
from baltoro.corpus.cleaning.boilerplate import drop_boilerplate
from baltoro.corpus.cleaning.characters import repair_characters
from baltoro.corpus.cleaning.config import CleanConfig
from baltoro.corpus.cleaning.decoder_failures import count_what_the_reader_removed, remove_decoder_failures
from baltoro.corpus.cleaning.effects import CleaningStep, Effects
from baltoro.corpus.cleaning.empty import remove_empty_blocks
from baltoro.corpus.cleaning.formulas import balance_formulas
from baltoro.corpus.cleaning.hyphenation import rejoin_cut_words
from baltoro.corpus.cleaning.personal_data import mask_personal_data
from baltoro.corpus.cleaning.running_heads import remove_running_heads
from baltoro.corpus.cleaning.tables import free_prose
from baltoro.corpus.cleaning.texts import Survey
from baltoro.papers.schema import Paper

RULES: Final[dict[str, str]] = {
    "unicode_repair": "texts with wrongly decoded characters or accents set apart",
    "ligatures": "ligatures written as letters",
    "control_characters": "control and zero-width characters removed or turned into line feeds",
    "missing_pages": "markers of pages that a decoder could not read, the reader's included",
    "repetitions": "characters of decoder loops cut, the reader's included",
    "formulas_repaired": "formulas closed by the one delimiter they lacked",
    "formulas_dropped": "formulas that do not balance, dropped",
    "prose_tables": "tables turned back into paragraphs",
    "running_heads": "running heads",
    "page_numbers": "page numbers",
    "sentences_joined": "sentences joined that a running head or page number cut",
    "hyphenation": "texts in which cut words were rejoined",
    **{f"back_matter_{name}": f"sections and statements: {name.replace('_', ' ')}" for name in CATEGORIES},
    "boilerplate": "blocks, headings and ends of blocks with licence texts, notes and stamps",
    "emails": "e-mail addresses masked",
    "phones": "telephone and fax numbers masked",
    "empty_blocks": "blocks and sections without text",
}
"""What each rule counts, in the order in which the rules run."""

_MOST_PASSES: Final = 8


def clean_paper(paper: Paper, config: CleanConfig) -> dict[str, int]:
    """Clean a paper in place.

    The rules run in the order of :data:`RULES`. One can uncover work for an earlier one (a joined word
    completes a stamp), so they run again until none does: cleaning a cleaned paper changes nothing.

    Args:
        paper: changed in place.
        config: which rules run.

    Returns:
        Counts by rule, those that found nothing left out; :data:`RULES` says what is counted.
    """
    return _clean(paper, config, Effects()).counts


def explain_cleaning(paper: Paper, config: CleanConfig, *, examples_per_rule: int = 5) -> list[CleaningStep]:
    """Return what cleaning does to a paper, rule by rule, without changing it.

    Args:
        paper: stays as it is.
        config: which rules run.
        examples_per_rule: how many excerpts to show for each.
    """
    effects = _clean(copy.deepcopy(paper), config, Effects(examples_per_rule=examples_per_rule))
    return [CleaningStep(rule, effects.counts.get(rule, 0), effects.examples.get(rule, [])) for rule in RULES]


def _clean(paper: Paper, config: CleanConfig, effects: Effects) -> Effects:
    if config.decoder_failures:
        count_what_the_reader_removed(paper, effects)
    for _ in range(_MOST_PASSES):
        before = effects.unsettled
        _apply_rules(paper, config, effects)
        if effects.unsettled == before:
            break
    return effects


def _apply_rules(paper: Paper, config: CleanConfig, effects: Effects) -> None:
    survey = Survey.of(paper)
    if survey.unusual and repair_characters(paper, config, survey, effects):
        survey = Survey.of(paper)
    if config.decoder_failures:
        remove_decoder_failures(paper, survey, effects)
    if config.formulas != "keep":
        balance_formulas(paper, config.formulas, effects)
    if config.prose_tables:
        free_prose(paper, effects)
    if config.running_heads:
        remove_running_heads(paper, effects)
    if config.hyphenation:
        rejoin_cut_words(paper, survey, effects)
    drop_back_matter(paper, config.back_matter, effects)
    if config.boilerplate:
        drop_boilerplate(paper, effects)
    mask_personal_data(paper, config.personal_data, survey, effects)
    if config.empty_blocks:
        remove_empty_blocks(paper, effects)
