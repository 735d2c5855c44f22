"""Papers in, clean documents out, every record accounted for.

The steps are plain functions on papers, documents and Arrow tables:

``listing``      which objects a source holds, and their digest
``clean``        repairs of a paper's structure, before it is rendered
``documents``    one task's work: read, clean, render, filter → documents and rejects
``exact_dedup``  which of several identical documents stays
``splits``       train, validation or test, by hash
``report``       the data card: JSON, a picture, one HTML page

:mod:`baltoro.corpus.pipeline` is the only module here that knows Ray: it spreads ``documents`` over a
cluster and joins the results.
"""
