"""Documents to token ids, with the boundary between documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from baltoro.core.errors import InputError
from baltoro.data.config import DataConfig
from baltoro.data.encode import encode_texts, surrounded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenise_documents(table: pa.Table, tokenizer: PreTrainedTokenizerFast, config: DataConfig) -> pa.Table:
    """Return the table with a column ``input_ids`` (list of int32), one list per document.

    Control tokens printed in a document are read as text. ``append_eos`` adds what the tokenizer itself puts
    around a text (LLaMA: a begin token) and then the end token; ``galactica_start`` puts the end token first
    and adds nothing else (``galai/model.py`` ``_tokenize``); ``none`` adds only what the tokenizer itself
    does, as K2's training script (``run_clm.py``) did.

    Args:
        table: documents with a string column ``text``; ``paper_id``, where present, is named in errors.
        tokenizer: as returned by :mod:`baltoro.data.tokenizer`.
        config: for the boundary between documents.

    Raises:
        InputError: a document has no text or gives no token.
    """
    boundary = config.document_boundary
    texts = table.column("text").cast(pa.large_string())
    _refuse_empty(table, pc.fill_null(pc.binary_length(texts), 0), "has no text")
    encoded = [encode_texts(tokenizer, chunk, framed=boundary != "galactica_start") for chunk in texts.chunks]
    lengths = [np.diff(offsets) for _, offsets in encoded]
    _refuse_empty(table, pa.chunked_array([pa.array(part) for part in lengths], pa.int64()), "gives no token")
    eos = tokenizer.eos_token_id
    if boundary == "append_eos":
        encoded = [
            surrounded(ids, offsets, [], [eos], ids[offsets[1:] - 1] != eos) for ids, offsets in encoded
        ]
    elif boundary == "galactica_start":
        encoded = [surrounded(ids, offsets, [eos], []) for ids, offsets in encoded]
    lists = [
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids)) for ids, offsets in encoded
    ]
    return table.append_column("input_ids", pa.chunked_array(lists, pa.list_(pa.int32())))


def _refuse_empty(table: pa.Table, sizes: pa.ChunkedArray, complaint: str) -> None:
    index = pc.index(pc.equal(sizes, 0), True).as_py()
    if index < 0:
        return
    named = "paper_id" in table.column_names
    name = table.column("paper_id")[index].as_py() if named else f"document {index} of the batch"
    raise InputError(f"{name}: {complaint}; the corpus filter must drop it before tokenising")
