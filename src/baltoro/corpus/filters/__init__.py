"""Which documents are kept: scores first, the decision second.

One document goes through in this order:

>>> from baltoro.corpus.words import words_of
>>> from baltoro.papers.schema import Paper
>>> text = "The melt rises through the mantle, and it freezes below the crust. " * 9
>>> words = words_of(text)
>>> parts = parts_of(text, words)
>>> facts = facts_of(Paper(), language_of(text, words, parts))
>>> scores = score_document(text, words, facts, parts=parts)
>>> decide(scores, facts, FilterConfig()) is None
True

Scores and facts are one row of a score table; :func:`decide_table` decides on such a table again under other
bounds, without the papers.
"""

from baltoro.corpus.filters.config import FilterConfig
from baltoro.corpus.filters.evidence import Evidence, evidence_of
from baltoro.corpus.filters.facts import FACT_SCHEMA, Facts, facts_of
from baltoro.corpus.filters.language import UNDETERMINED, Language, language_of
from baltoro.corpus.filters.parts import Parts, parts_of
from baltoro.corpus.filters.rules import (
    FILTER_REASONS,
    VERDICT_SCHEMA,
    RuleResult,
    Verdict,
    decide,
    decide_table,
    explain,
)
from baltoro.corpus.filters.scores import (
    SCORE_SCHEMA,
    SCORES,
    Keywords,
    Measurement,
    keywords_of,
    measure,
    score_document,
)

__all__ = [
    "FACT_SCHEMA",
    "FILTER_REASONS",
    "SCORES",
    "SCORE_SCHEMA",
    "UNDETERMINED",
    "VERDICT_SCHEMA",
    "Evidence",
    "Facts",
    "FilterConfig",
    "Keywords",
    "Language",
    "Measurement",
    "Parts",
    "RuleResult",
    "Verdict",
    "decide",
    "decide_table",
    "evidence_of",
    "explain",
    "facts_of",
    "keywords_of",
    "language_of",
    "measure",
    "parts_of",
    "score_document",
]
