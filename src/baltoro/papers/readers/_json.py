"""Decoded JSON whose parts may have any type."""

from __future__ import annotations

from typing import Any


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) and value else []
