"""From the blocks of a text-like format to a paper: title, authors, abstract, sections, references.

The formats without structure of their own (Nougat, Markdown, Docling) share these rules. What is not
recognised with confidence stays where it stands as a paragraph: every word of the input is kept once,
in order, except in reference entries (which become fields) and what a reader removes on purpose.

The lines between title and abstract that are no names (affiliations, e-mail addresses, notes on who did
what) belong to neither title, abstract nor body, and a model should not learn addresses: they go, one a
line, to ``Paper.extra["front_matter"]``, as the readers of structured formats leave them out of the body.

:mod:`.build` is the whole; it reads title and authors (:mod:`.front`, :mod:`.names`) and then the sections
(:mod:`.body`) into a :mod:`.draft`, which makes each block. :mod:`.wording` holds the phrases that several of
them look for, :mod:`.entries` and :mod:`.citations` the reference list and what points to it.
"""
