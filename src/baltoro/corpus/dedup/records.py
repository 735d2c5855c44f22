"""What is written down about copies."""

from __future__ import annotations

import pyarrow as pa

DUPLICATE_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("paper_id", "uri", "kept_paper_id", "kind", "cluster")]
)
"""One row per document that gave way to another.

``kind`` is ``exact``, ``version`` or ``near``; ``cluster`` names the group of copies by its first paper_id.
"""

DECISION_SCHEMA = pa.schema([("number", pa.int64()), *DUPLICATE_SCHEMA])
"""One row per document that has copies; the one that stays has the kind ``kept``."""
