"""Keep evaluation sets out of the corpus, and measure in the same build how well that worked.

``config`` holds the settings, ``items`` reads evaluation sets, ``matcher`` finds their items in documents,
``cut`` says what becomes of a document that holds one, ``canaries`` plants disguised copies in copies of
real documents and counts how many are found.
"""
