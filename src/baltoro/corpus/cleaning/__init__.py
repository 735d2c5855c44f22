"""Cleaning of a paper's structure: what is removed here never reaches a renderer.

All rules work on spans and blocks, never on offsets, so no neighbour's citation or formula can break. They
run in a fixed order (:data:`RULES`) until none finds anything more; each has a switch or a choice in
:class:`CleanConfig`, counts its effects and can show them.

``characters``        wrong encodings, ligatures, control and zero-width characters
``decoder_failures``  markers of missing pages, loops
``formulas``          LaTeX that does not balance
``tables``            tables that are paragraphs
``running_heads``     running heads and page numbers
``hyphenation``       words cut by a line or page break
``back_matter``       references, acknowledgements, funding, contributions, interests, data, checklists
``boilerplate``       licence texts, copyright lines, notes, stamps
``personal_data``     e-mail addresses, telephone numbers
``empty``             what holds no text
"""

from baltoro.corpus.cleaning.clean import RULES, clean_paper, explain_cleaning
from baltoro.corpus.cleaning.config import BackMatterConfig, CleanConfig, PersonalDataConfig
from baltoro.corpus.cleaning.effects import CleaningStep

__all__ = [
    "RULES",
    "BackMatterConfig",
    "CleanConfig",
    "CleaningStep",
    "PersonalDataConfig",
    "clean_paper",
    "explain_cleaning",
]
