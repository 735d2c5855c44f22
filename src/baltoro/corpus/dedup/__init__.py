"""Every copy found, one kept by a stated rule, independent of the order of files and partitions.

``config``          the settings: exact, versions, near-duplicates, the rule, repeated passages
``minhash``         a signature of a text's words: bands to meet by, a sketch to be compared by
``versions``        keys of one paper across versions and parsers; the rank by which one copy stays
``keys``            the rows a document exchanges
``clusters``        verified edges per partition of the keys; clusters and kept documents from all edges
``repeated_spans``  passages that several documents share, cut from all but the first (no build
                    uses it yet)
``merge``           one paper from a GROBID and a Nougat parse of the same PDF (no build uses it
                    yet)

Plain functions on one document, or on the rows of one partition; nothing here knows the cluster. A build
calls :func:`~baltoro.corpus.dedup.keys.document_keys` per document, exchanges the rows by key,
:func:`~baltoro.corpus.dedup.clusters.find_edges` per partition, and
:func:`~baltoro.corpus.dedup.clusters.clusters_of` once.
"""
