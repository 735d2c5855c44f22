"""``baltoro verify-resume``: prove that resuming loses, repeats and changes nothing.

:mod:`rehearsal` trains a small stand-in, strikes it at chosen points, resumes it and compares it with an
uninterrupted twin; :mod:`audit` reads the ledger of a real run and recomputes what was fed. Both end in a
:mod:`certificate`.
"""
