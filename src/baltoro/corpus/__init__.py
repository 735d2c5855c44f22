"""Papers in, clean documents out, every record accounted for.

The steps are plain functions on papers, documents and Arrow tables:

``listing``          which objects a source holds, and their digest
``cleaning``         repairs of a paper's structure, before it is rendered
``words``            a text's words as numbers, which the next three count and compare
``filters``          scores of a document, its language, and the decision
``dedup``            the keys by which copies meet, and which of them stays
``decontamination``  evaluation items in documents, and the recall of finding them
``documents``        one task's work: all of that for some objects → documents, rejects, keys
``splits``           train, validation or test, by hash
``work``             the files that the passes of a build hand to each other
``passes``           the tasks of a build, pass by pass
``figures``          what became of the records, as a sum that tasks add to (``tallies``: its parts)
``card``             the data card: JSON, pictures, one HTML page

:mod:`baltoro.corpus.pipeline` is the only module here that knows Ray: it spreads the tasks of each pass over
a cluster.
"""
