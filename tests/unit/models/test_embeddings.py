import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from baltoro.models.embeddings import map_vocabulary, padded_size
from baltoro.testing.tiny import byte_tokenizer


def grown(*tokens):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def base_matrix(rows=264, width=4):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def test_the_same_vocabulary_needs_no_map():
    assert map_vocabulary(byte_tokenizer(), byte_tokenizer(), base_rows=264, multiple=64) is None


def test_a_base_whose_tokenizer_names_more_tokens_than_it_has_rows_gets_the_missing_rows():
    old = base_matrix(rows=259)
    mapped = map_vocabulary(grown("[X]"), grown("[X]"), base_rows=259, multiple=8)
    new = mapped.apply(old)
    assert new.shape == (264, 4)
    torch.testing.assert_close(new[:259], old)
    torch.testing.assert_close(new[259], old.mean(dim=0))


def test_an_added_token_starts_at_the_mean_of_its_old_pieces():
    tokenizer = grown("[START_REF]")
    old = base_matrix(rows=259)
    vocabulary = map_vocabulary(byte_tokenizer(), tokenizer, base_rows=259, multiple=64)
    new = vocabulary.apply(old)
    pieces = byte_tokenizer().encode("[START_REF]", add_special_tokens=False)
    assert len(pieces) == 11
    assert new.shape == (320, 4)
    torch.testing.assert_close(new[:259], old)
    torch.testing.assert_close(new[tokenizer.convert_tokens_to_ids("[START_REF]")], old[pieces].mean(dim=0))


def test_rows_that_only_pad_start_at_the_mean_of_all_tokens():
    old = base_matrix(rows=259)
    new = map_vocabulary(byte_tokenizer(), grown("[X]"), base_rows=259, multiple=64).apply(old)
    torch.testing.assert_close(new[-1], old.mean(dim=0))


def test_an_added_token_that_fits_the_base_keeps_its_size_and_its_spare_rows():
    old = base_matrix(rows=264)
    vocabulary = map_vocabulary(byte_tokenizer(), grown("[X]"), base_rows=264, multiple=64)
    new = vocabulary.apply(old)
    assert vocabulary.size == 264
    assert set(vocabulary.pieces) == {259}
    torch.testing.assert_close(new[260:], old[260:])


def test_another_vocabulary_takes_the_rows_of_equal_tokens_and_the_means_of_texts():
    entries = ["</s>", "b", "a", "ab", "<s>", "é"]
    alphabet = [
        character for character in sorted(pre_tokenizers.ByteLevel.alphabet()) if character not in entries
    ]
    vocabulary = {token: row for row, token in enumerate([*entries, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    base, old = byte_tokenizer(), base_matrix()
    mapped = map_vocabulary(base, tokenizer, base_rows=264, multiple=8)
    new = mapped.apply(old)
    assert mapped.size == padded_size(len(tokenizer), 8)
    ids = base.get_vocab()
    torch.testing.assert_close(new[0], old[base.eos_token_id])
    torch.testing.assert_close(new[1], old[ids["b"]])
    torch.testing.assert_close(new[3], old[[ids["a"], ids["b"]]].mean(dim=0))


def test_control_tokens_of_another_name_take_the_base_control_rows():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    old = base_matrix()
    new = map_vocabulary(byte_tokenizer(), tokenizer, base_rows=264, multiple=8).apply(old)
    torch.testing.assert_close(new[tokenizer.eos_token_id], old[byte_tokenizer().eos_token_id])


def test_a_bias_is_carried_over_like_a_matrix_of_one_column():
    old = base_matrix(width=1)
    mapped = map_vocabulary(byte_tokenizer(), grown("[X]"), base_rows=259, multiple=64)
    torch.testing.assert_close(mapped.apply(old[:259, 0]), mapped.apply(old[:259])[:, 0])


@pytest.mark.parametrize(("tokens", "expected"), [(64, 64), (65, 128), (1, 64)])
def test_padding_goes_up_to_the_next_multiple(tokens, expected):
    assert padded_size(tokens, 64) == expected
