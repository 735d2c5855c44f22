"""Documents to token ids, with the boundary between documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from baltoro.core.errors import InputError
from baltoro.data.config import DataConfig
from baltoro.data.tokenizer import text_only

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
    texts = table.column("text").to_pylist()
    _refuse_empty(table, [bool(text) for text in texts], "has no text")
    with text_only(tokenizer) as backend:
        encodings = backend.encode_batch_fast(texts, add_special_tokens=boundary != "galactica_start")
    eos = tokenizer.eos_token_id
    documents = [encoding.ids for encoding in encodings]
    _refuse_empty(table, [bool(ids) for ids in documents], "gives no token")
    for ids in documents:
        if boundary == "append_eos" and ids[-1] != eos:
            ids.append(eos)
        elif boundary == "galactica_start":
            ids.insert(0, eos)
    return table.append_column("input_ids", _list_array(documents))


def _refuse_empty(table: pa.Table, present: list[bool], complaint: str) -> None:
    if all(present):
        return
    index = present.index(False)
    named = "paper_id" in table.column_names
    name = table.column("paper_id")[index].as_py() if named else f"document {index} of the batch"
    raise InputError(f"{name}: {complaint}; the corpus filter must drop it before tokenising")


def _list_array(lists: list[list[int]]) -> pa.ListArray:
    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum([len(items) for items in lists], out=offsets[1:])
    values = np.empty(offsets[-1], dtype=np.int32)
    for index, items in enumerate(lists):
        values[offsets[index] : offsets[index + 1]] = items
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
