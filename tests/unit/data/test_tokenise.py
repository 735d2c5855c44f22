import pyarrow as pa
import pytest
from tokenizers import processors

from baltoro.core.errors import InputError
from baltoro.data.config import DataConfig, TokenizerConfig
from baltoro.data.tokenise import tokenise_documents
from baltoro.data.tokenizer import check_round_trip, train_tokenizer, with_markers

TEXTS = ["Basalt covers the sea floor.", "Rivers cut </s> valleys; see [START_REF]On rivers[END_REF]."]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 5, TokenizerConfig(vocab_size=330), ["[START_REF]", "[END_REF]"])


@pytest.fixture(scope="module")
def adds_begin_token(tokenizer):
    """A tokenizer that, like LLaMA's, puts a begin token before each text."""
    copy = with_markers(tokenizer, [], add=True)
    copy.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", copy.bos_token_id)]
    )
    return copy


def table(texts=TEXTS):
    return pa.table({"paper_id": [f"geo/{index}" for index in range(len(texts))], "text": texts})


def tokenise(tokenizer, boundary):
    result = tokenise_documents(table(), tokenizer, DataConfig(document_boundary=boundary))
    return result.column("input_ids").to_pylist()


def test_each_document_ends_in_one_end_token_and_nowhere_else(tokenizer):
    documents = tokenise(tokenizer, "append_eos")
    eos = tokenizer.eos_token_id
    assert [ids.count(eos) for ids in documents] == [1, 1]
    assert [
        tokenizer.backend_tokenizer.decode(ids[:-1], skip_special_tokens=False) for ids in documents
    ] == TEXTS
    assert all(ids[-1] == eos for ids in documents)


def test_galactica_documents_start_with_the_end_token(tokenizer, adds_begin_token):
    documents = tokenise(tokenizer, "galactica_start")
    assert [ids[0] for ids in documents] == [tokenizer.eos_token_id] * 2
    assert [ids[1:] + [tokenizer.eos_token_id] for ids in documents] == tokenise(tokenizer, "append_eos")
    assert tokenise(adds_begin_token, "galactica_start") == documents


def test_none_adds_only_what_the_tokenizer_itself_adds(tokenizer, adds_begin_token):
    bare = tokenise(tokenizer, "none")
    assert [ids + [tokenizer.eos_token_id] for ids in bare] == tokenise(tokenizer, "append_eos")
    assert tokenise(adds_begin_token, "none") == [[tokenizer.bos_token_id, *ids] for ids in bare]


def test_a_begin_token_of_the_tokenizer_is_kept_before_the_text(tokenizer, adds_begin_token):
    bare = tokenise(tokenizer, "none")
    expected = [[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] for ids in bare]
    assert tokenise(adds_begin_token, "append_eos") == expected


def test_other_columns_stay_and_ids_are_int32_lists(tokenizer):
    result = tokenise_documents(table(), tokenizer, DataConfig())
    assert result.column_names == ["paper_id", "text", "input_ids"]
    assert result.schema.field("input_ids").type == pa.list_(pa.int32())


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_document_is_refused_by_name(tokenizer, empty):
    with pytest.raises(InputError, match="geo/1: has no text; the corpus filter must drop it"):
        tokenise_documents(table(["granite", empty]), tokenizer, DataConfig())


def test_a_table_without_documents_gives_none(tokenizer):
    empty = table().slice(0, 0)
    assert tokenise_documents(empty, tokenizer, DataConfig()).num_rows == 0


def test_real_papers_survive_the_round_trip(sample_data):
    papers = sorted(sample_data.glob("nougat/**/*.mmd"))[:6]
    texts = [text for text in (path.read_text(encoding="utf-8") for path in papers) if text]
    assert texts
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=2000), [])
    check_round_trip(tokenizer, texts)
    documents = tokenise_documents(table(texts), tokenizer, DataConfig()).column("input_ids")
    assert sum(map(len, documents.to_pylist())) < sum(map(len, texts)) / 2
