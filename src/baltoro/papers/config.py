"""Settings of reading: which format a source is in, what it may weigh, and its metadata table."""

from __future__ import annotations

from typing import Literal

from baltoro.core.config import StrictModel, execution, result

InputFormat = Literal[
    "auto",
    "grobid_tei",
    "jats",
    "nougat",
    "s2orc",
    "science_parse",
    "sciencebeam",
    "docling_json",
    "docling_markdown",
    "markdown",
    "plain_text",
    "records",
]
"""What a source may declare; ``auto`` looks at the content of each record."""

_GIB = 1 << 30


class ReadLimits(StrictModel):
    """Bounds on what one object of a source may hold; beyond them a record is a reject ``too_large``."""

    max_object_bytes: int = result(4 * _GIB, "size of one stored file, compressed as it is", gt=0)
    max_record_bytes: int = result(64 << 20, "size of one paper after decompression", gt=0)
    max_unpacked_bytes: int = result(16 * _GIB, "everything one container may unpack to", gt=0)


class MetadataTableConfig(StrictModel):
    """A table with what the parsed files do not say themselves: licence, year, venue, forum id …

    The table is a CSV, TSV, JSONL or Parquet file with one row per paper. Columns ``title, authors, year,
    venue, doi, license (or licence), language, keywords, article_type`` fill the fields of that name; any
    other column goes to ``Paper.extra``.
    """

    uri: str = execution(..., "path or URI of the CSV, TSV, JSONL or Parquet file")
    key: Literal["stem", "path", "doi", "id"] = result(
        "stem",
        "what of a paper finds its row: the file name without its format's suffixes (stem), the path below "
        "the source's folder (path), the DOI, or the id a JSON record carries (paper_id or id)",
    )
    column: str | None = result(
        None, "the table's column that holds the key; the column named as `key` if null"
    )
    override: bool = result(False, "let the table replace what the parsed file states, not only fill gaps")
