"""JATS and NLM article XML (PubMed Central, PLOS, eLife, Cambridge, ScienceBeam) to one :class:`Paper`.

What goes where:

* Text before the first heading, floats and back matter keep their place in reading order: abstracts of
  another kind than the main one (author summary, digest, teaser) as sections before the body, then the
  body, ``floats-group``, back matter, and notes that stand in ``front`` (data availability).
* A figure, table, box or displayed formula stands once, where the source has it; one inside a paragraph
  splits that paragraph. A box keeps its title as a paragraph, because the text after it belongs to the
  section around it.
* A cell that spans rows or columns keeps its text in the first of its places; the others are empty.
* Superscript digits, signs and single letters become Unicode superscripts (``10⁵``, ``word¹²``), as
  printed: joined plainly they would change numbers and glue markers to words.
* Formulas inside plain strings (titles, headings, cells) stand as ``$LaTeX$``.
* Words that only exist for machines are left out: alternative text, object identifiers, copyright lines
  of single figures, author notes, funding tables. ``ack`` without a title gets the heading that journals
  print for it, a further abstract without one the name of its ``abstract-type``.

Element names follow JATS 1.4 (ANSI/NISO Z39.96-2024) and NLM Journal Publishing 2.x and 3.0.

One module per part of an article: :mod:`.article` (the whole, in reading order), :mod:`.front` and
:mod:`.license` (what it says about itself), :mod:`.walker` (running text: the walk itself),
:mod:`.references`, :mod:`.reviews`. The walk asks :mod:`.handlers` what each element means; they stand in
:mod:`.inline` (marks, cross-references, paragraphs), :mod:`.formulas`, :mod:`.floats` (with :mod:`.tables`)
and :mod:`.lists` (with footnotes and listings), and what they read goes to a :mod:`.flow`. :mod:`.elements`
and :mod:`.marks` hold names, look-ups and characters that several of them need.
"""

from baltoro.papers.readers.jats.article import parse_jats

__all__ = ["parse_jats"]
