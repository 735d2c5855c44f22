"""Markdown in two dialects, split into typed blocks and inline spans, in linear time.

A Markdown library does not fit these texts: it takes the backslash of ``\\(`` for an escape and the
underscores of TeX for emphasis, knows neither LaTeX tables nor display formulas over several lines, and
swallows the rest of a paper after one unbalanced fence. This package covers what parsed papers contain:
headings, paragraphs, lists, fences, pipe, HTML and LaTeX tables, display and inline formulas, links,
emphasis, code, footnotes and comments. Markup that cannot be understood stays in the text as it is.

Dialects: ``"nougat"`` (Mathpix Markdown as the Nougat decoder writes it), ``"markdown"`` (CommonMark with
GitHub tables and TeX formulas) and ``"plain"`` (no inline markup at all).

:mod:`.scanner` splits a text (its :mod:`.lines`) into the blocks of :mod:`.blocks`, :mod:`.inline` a block
into spans; :mod:`.tables`, :mod:`.latex_tables` and :mod:`.latex` read what stands in a notation of its own.
"""
