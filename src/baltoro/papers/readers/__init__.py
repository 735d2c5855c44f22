"""One module or package per input format; each turns bytes (or a decoded JSON value) into one :class:`Paper`.

A reader never opens files, never logs and knows nothing about sources: it gets one record and returns
the paper, or raises :class:`~baltoro.papers.schema.ReadReject` with a reason.

Modules with a leading underscore are shared. Formats without structure of their own (Nougat, Markdown,
Docling) are split into blocks and spans by ``_markup`` and put together by ``_builder``; ``_xml`` serves
the XML formats, ``_json`` and ``_spans`` the JSON ones.
"""
