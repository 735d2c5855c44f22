"""Peer reviews to instruction examples: a paper in, one merged review of four aspects out.

Modules, in the order a record passes through them:

``config`` (settings) · ``records`` (what a reviewed paper is) · ``readers`` with ``layouts``, ``notes``,
``heads`` and ``letters`` (PeerRead, ASAP-Review, OpenReview notes, JATS sub-articles, flat text) · ``join``
(papers to reviews) · ``filters`` (which reviews count) · ``stringify`` (reviews as text) · ``aspects`` (the
four-aspect review and its bracketed form) · ``extractive`` with ``points`` and ``cues`` (the merger that
needs no model) · ``endpoint`` with ``prompt``, ``answers``, ``budget``, ``lanes``, ``transport``,
``outcomes`` (the merger that asks a language model) · ``triples`` (prompt, truncation,
example) · ``long_tail`` (lengths) · ``build`` (all of it as plain functions).
"""
