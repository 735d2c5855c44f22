"""Signals: papers and knowledge restructured into instruction examples, after K2's GeoSignal.

    from baltoro.instructions.signals.build import Selection, paper_examples, select
    from baltoro.instructions.signals.config import SignalsConfig

    config = SignalsConfig()
    examples, rejects = paper_examples(paper, config)
    selection = Selection.of(((e.task, e.example_id) for e in examples), config)
    kept, left_out = select(examples, selection, config)

Modules: ``tasks`` (what can be asked) · ``titles``, ``references``, ``floats``, ``tables``, ``sections``
(papers) · ``knowledge`` (ontologies and triples) · ``quality`` (what is noise) · ``templates`` (wording, in
``templates/*.yaml``) · ``build`` (all together).
"""
