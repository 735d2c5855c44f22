import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from baltoro.core.errors import ConfigError, InputError
from baltoro.data.config import TokenizerConfig
from baltoro.data.tokenizer import (
    CONTROL_TOKENS,
    base_tokenizer,
    check_round_trip,
    load_tokenizer,
    missing_bytes,
    padded_vocab_size,
    padding_id,
    sample_bound,
    sample_hashes,
    save_tokenizer,
    text_only,
    tokenizer_fingerprint,
    train_tokenizer,
    with_markers,
)

MARKERS = ["[START_REF]", "[END_REF]"]
TEXTS = [
    f"Granite of outcrop {index} melts at {600 + 7 * index} °C; see [START_REF]On granite {index}[END_REF]."
    for index in range(60)
] + [
    "Subduction carries basalt down. The basalt turns to eclogite, and the eclogite sinks.\n\n## 2.1 Slabs"
] * 3


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(TEXTS, TokenizerConfig(vocab_size=400), MARKERS)


def ids(tokenizer, text):
    with text_only(tokenizer) as backend:
        return backend.encode(text, add_special_tokens=False).ids


def tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(ids(tokenizer, text))


def test_markers_are_single_tokens_and_survive_decoding_without_special_tokens(trained):
    encoded = ids(trained, "as [START_REF]On granite[END_REF] says")
    assert encoded.count(trained.convert_tokens_to_ids("[START_REF]")) == 1
    assert encoded.count(trained.convert_tokens_to_ids("[END_REF]")) == 1
    assert trained.decode(encoded, skip_special_tokens=True) == "as [START_REF]On granite[END_REF] says"


def test_every_digit_is_its_own_token(trained):
    assert [token for token in tokens(trained, "12345.67") if token.isdigit()] == list("1234567")


def test_digits_may_be_merged_if_asked():
    tokenizer = train_tokenizer(["in 2021"] * 9, TokenizerConfig(vocab_size=320, split_digits=False), [])
    assert len(tokens(tokenizer, "2021")) < 4


def test_control_tokens_have_fixed_ids_and_roles(trained):
    assert [trained.convert_tokens_to_ids(token) for token in CONTROL_TOKENS] == [0, 1, 2, 3]
    assert (trained.bos_token_id, trained.pad_token_id, trained.eos_token_id, trained.unk_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert padding_id(trained) == 1


def test_a_printed_control_token_is_read_as_text(trained):
    assert trained.eos_token_id not in ids(trained, "models emit </s> at the end")
    assert trained.decode(ids(trained, "a </s> b")) == "a </s> b"


def test_no_merge_is_spent_on_a_marker(trained):
    texts = ["[START_REF]x[END_REF]"] * 50 + ["granite"] * 2
    vocabulary = train_tokenizer(texts, TokenizerConfig(vocab_size=400), MARKERS).get_vocab()
    assert "granite" in vocabulary
    assert "START" not in vocabulary
    assert "REF" not in vocabulary


def test_the_vocabulary_size_counts_control_tokens_and_markers():
    texts = [" ".join(f"w{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26))] * 2
    assert len(train_tokenizer(texts, TokenizerConfig(vocab_size=400), MARKERS)) == 400


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80))
def test_any_text_survives_the_round_trip(text):
    tokenizer = _shared()
    with text_only(tokenizer) as backend:
        assert backend.decode(ids(tokenizer, text), skip_special_tokens=False) == text
    check_round_trip(tokenizer, [text])


_CACHE = []


def _shared():
    if not _CACHE:
        _CACHE.append(train_tokenizer(TEXTS, TokenizerConfig(vocab_size=330), MARKERS))
    return _CACHE[0]


def test_training_does_not_depend_on_the_order_of_texts(trained):
    again = train_tokenizer(iter(TEXTS[::-1]), TokenizerConfig(vocab_size=400), MARKERS)
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(trained)
    other = train_tokenizer(TEXTS[:20], TokenizerConfig(vocab_size=400), MARKERS)
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(trained)


def test_training_does_not_depend_on_threads(trained):
    program = (
        "import json, sys\n"
        "from baltoro.data.config import TokenizerConfig\n"
        "from baltoro.data.tokenizer import tokenizer_fingerprint, train_tokenizer\n"
        "texts, markers = json.load(sys.stdin)\n"
        "print(tokenizer_fingerprint(train_tokenizer(texts, TokenizerConfig(vocab_size=400), markers)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([TEXTS, MARKERS]),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == tokenizer_fingerprint(trained)


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=r"vocab_size=320 leaves no room.*100 markers need 360"):
        train_tokenizer(TEXTS, TokenizerConfig(vocab_size=320), [f"[M{index}]" for index in range(100)])


def test_a_sample_without_text_is_refused():
    with pytest.raises(InputError, match=r"holds no text; check tokenizer\.sample_fraction"):
        train_tokenizer(["", ""], TokenizerConfig(vocab_size=400), MARKERS)


def test_the_saved_folder_loads_with_transformers_alone(trained, tmp_path):
    save_tokenizer(trained, tmp_path)
    # A model's config beside it must not make transformers rebuild the tokenizer by that model's class.
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    plain = AutoTokenizer.from_pretrained(tmp_path)
    text = "as [START_REF]On granite 21[END_REF] says"
    assert plain(text)["input_ids"] == ids(trained, text)
    assert plain.eos_token_id == trained.eos_token_id
    assert (
        json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )
    assert tokenizer_fingerprint(load_tokenizer(tmp_path)) == tokenizer_fingerprint(trained)


def test_the_fingerprint_ignores_formatting_and_sees_content(trained, tmp_path):
    save_tokenizer(trained, tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(description.items()))))
    assert tokenizer_fingerprint(load_tokenizer(tmp_path)) == tokenizer_fingerprint(trained)

    for change in ("chat template", "added token", "merge"):
        changed = load_tokenizer(tmp_path)
        if change == "chat template":
            changed.chat_template = "{{ messages }}"
        elif change == "added token":
            changed = with_markers(changed, ["[START_NOTE]"], add=True)
        else:
            description["model"]["merges"] = description["model"]["merges"][:-1]
            path.write_text(json.dumps(description))
            changed = load_tokenizer(tmp_path)
        assert tokenizer_fingerprint(changed) != tokenizer_fingerprint(trained), change


def test_the_chat_template_travels_with_the_folder(trained, tmp_path):
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer = with_markers(trained, [], add=True)
    tokenizer.chat_template = template
    save_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).chat_template == template


def test_a_base_tokenizer_gets_markers_or_none(trained, tmp_path):
    save_tokenizer(trained, tmp_path)
    added = ["[START_REF]", "[START_NOTE]"]
    grown = base_tokenizer(tmp_path, added, "renderer")
    assert len(grown) == len(trained) + 1
    assert "[START_NOTE]" in tokens(grown, "x [START_NOTE] y")
    kept = base_tokenizer(tmp_path, added, "none")
    assert len(kept) == len(trained)
    assert "[START_NOTE]" not in tokens(kept, "x [START_NOTE] y")


def test_a_marker_that_the_base_holds_as_special_still_comes_out_of_text(trained, tmp_path):
    special = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer,
        eos_token="</s>",
        additional_special_tokens=["[START_SMILES]"],
    )
    special.save_pretrained(tmp_path)
    base = base_tokenizer(tmp_path, ["[START_SMILES]"], "none")
    encoded = ids(base, "see [START_SMILES] C")
    assert base.convert_tokens_to_ids("[START_SMILES]") in encoded
    assert base.decode(encoded, skip_special_tokens=True) == "see [START_SMILES] C"
    save_tokenizer(base, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.decode(encoded, skip_special_tokens=True) == "see [START_SMILES] C"


def test_a_marker_that_is_a_control_token_is_refused(trained):
    with pytest.raises(ConfigError, match="'</s>' is empty or a control token"):
        with_markers(trained, ["</s>"], add=True)
    with pytest.raises(ConfigError, match="stands twice"):
        with_markers(trained, ["[A]", "[A]"], add=True)


def test_the_embedding_is_padded_to_a_multiple(trained):
    size = len(trained)
    assert padded_vocab_size(trained, 1) == size
    assert padded_vocab_size(trained, 64) % 64 == 0
    assert size <= padded_vocab_size(trained, 64) < size + 64


def test_missing_paths_and_folders_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such tokenizer; give a Hugging Face folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no tokenizer can be loaded.*needs a tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"model\.gguf: no tokenizer can be loaded"):
        load_tokenizer(tmp_path / "model.gguf")


def test_a_silently_empty_tokenizer_is_refused(tmp_path):
    from transformers import LlamaTokenizer

    # transformers 5 answers a vocab_file that it cannot find with three control tokens and no error.
    LlamaTokenizer(vocab_file=str(tmp_path / "gone.model")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="the tokenizer is empty"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_end_token_is_refused(trained, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=trained.backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="names no end token; set eos_token"):
        load_tokenizer(tmp_path)


def test_a_base_that_lacks_bytes_is_named_and_taken(trained, tmp_path, caplog):
    save_tokenizer(trained, tmp_path)
    path = tmp_path / "tokenizer.json"
    description = json.loads(path.read_text())
    vocabulary = description["model"]["vocab"]
    vocabulary["unused"] = vocabulary.pop("ÿ")  # the stand-in of byte 0xFF, which UTF-8 never uses
    vocabulary["lost"] = vocabulary.pop("é")  # of 0xE9
    path.write_text(json.dumps(description))
    base = base_tokenizer(tmp_path, MARKERS, "renderer")
    assert missing_bytes(base) == [0xE9]
    assert "lacks 1 of the 243 bytes of UTF-8 (e9)" in caplog.text
    assert missing_bytes(trained) == []


def test_a_tokenizer_that_changes_text_is_found_out(trained):
    description = json.loads(trained.backend_tokenizer.to_str())
    description["normalizer"] = {"type": "Lowercase"}
    from tokenizers import Tokenizer

    lower = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)), eos_token="</s>"
    )
    with pytest.raises(InputError, match=r"'Melt' comes back as 'melt' \(character 4\)"):
        check_round_trip(lower, ["the Melt"])


def test_text_only_restores_truncation_and_padding(trained):
    tokenizer = with_markers(trained, [], add=True)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_length=2)
    backend.enable_padding(pad_id=1, pad_token="<pad>")
    assert len(ids(tokenizer, "the granite melts and sinks")) > 2
    assert backend.truncation["max_length"] == 2
    assert backend.padding["pad_id"] == 1
    assert backend.encode_special_tokens is False


def select_sample(papers, fraction, seed, lengths_characters=None, min_characters=0):
    hashes = sample_hashes(papers, seed)
    lengths = np.ones(len(papers), np.int64) if lengths_characters is None else lengths_characters
    bound = sample_bound(hashes, fraction, lengths_characters=lengths, min_characters=min_characters)
    return hashes <= np.uint64(bound)


def test_the_sample_is_stable_as_the_corpus_grows():
    papers = [f"geo/{index}" for index in range(4000)]
    small = select_sample(papers[:1000], 0.1, seed=3)
    large = select_sample(papers, 0.1, seed=3)
    assert (large[:1000] == small).all()
    assert 0.07 < large.mean() < 0.13
    assert (select_sample(papers, 0.2, seed=3) | ~large).all()
    assert (select_sample(papers, 0.1, seed=4) != large).any()
    assert select_sample(papers, 1.0, seed=3).all()


def test_a_small_sample_grows_to_the_least_size():
    papers = [f"geo/{index}" for index in range(100)]
    sizes = np.full(100, 10)
    fraction = select_sample(papers, 0.05, seed=0)
    grown = select_sample(papers, 0.05, seed=0, lengths_characters=sizes, min_characters=405)
    assert sizes[grown].sum() == 410
    assert (grown | ~fraction).all()
    assert select_sample(papers, 0.05, seed=0, lengths_characters=sizes, min_characters=10**9).all()
    unbound = select_sample(papers, 0.5, seed=0, lengths_characters=sizes, min_characters=1)
    assert (unbound == select_sample(papers, 0.5, seed=0)).all()


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"sample_fraction=0\.001 chooses none of 2 documents; raise it"):
        select_sample(["a", "b"], 0.001, seed=0)
