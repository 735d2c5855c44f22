"""One module per input format; each turns bytes (or a decoded JSON value) into one :class:`Paper`.

A reader never opens files, never logs and knows nothing about sources: it gets one record and returns
the paper, or raises :class:`~baltoro.papers.schema.ReadReject` with a reason.
"""
