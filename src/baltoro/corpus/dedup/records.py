"""What is written down about copies."""

from __future__ import annotations

import pyarrow as pa

DUPLICATE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("paper_id", "uri", "kept_paper_id", "kind", "cluster")),
        ("kept_earlier", pa.bool_()),
        ("ranks_better", pa.bool_()),
    ]
)
"""One row per document that gave way to another.

``kind`` is ``exact``, ``version`` or ``near``; ``cluster`` names the group of copies by its first paper_id.
``kept_earlier`` is true where the other stands in an earlier part of the corpus (its file may have changed
since and hold another paper now). ``ranks_better`` is true where the other stays only because an earlier part
holds it: a corpus built anew from all papers would keep this one.
"""

DECISION_SCHEMA = pa.schema(
    [("number", pa.int64()), ("kept", pa.int64()), *DUPLICATE_SCHEMA]
    + [("frame", pa.int64()), ("donor", pa.int64())]
)
"""One row per document that has copies; the one that stays has the kind ``kept``.

``kept`` is the number of what stays, ``frame`` and ``donor`` are those of the parses that a kept document
is merged from, or null.
"""
