import json
import logging
import pickle
import re
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from baltoro.data import encode
from baltoro.data.config import TokenizerConfig
from baltoro.data.encode import Encoder, encode_texts, refusal, surrounded
from baltoro.data.tokenizer import text_only, train_tokenizer, with_markers
from baltoro.papers.reader import read
from baltoro.papers.renderers import render, special_tokens
from baltoro.papers.schema import Paper

MARKERS = ["[START_REF]", "[END_REF]", "[START", " 地", "ab]", "\n\n#"]
TEXTS = [
    "Basalt covers the sea floor. It's the rocks' age we'd date: they're 1250 Ma, don't\n\n## 2 Methods",
    "Melt rises at 1,250 °C; δ18O = −5.3‰ (n=12), $\\frac{\\partial T}{\\partial z}$ → \\alpha_{1} Å é ﬁ Ⅷ ²",
    "盆地中生代花岗岩的地球化学特征。盆地中生代花岗岩与成矿作用，大陆裂谷盆地。地球化学特征；成矿带中生代",
    "Η στρωματογραφία της λεκάνης. Породы бассейна. 地質学は地球の科学です。 한반도의 지질 🪨🌋👩‍🔬",
]
ALPHABETS = (
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("' strevmldTSa's'"),
    st.sampled_from(" \t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u3000\u180e\u200b\ufeffx1."),
    st.sampled_from("0123456789²½Ⅷ①٣७〇一𝟗𐄇a ,."),
    st.sampled_from("盆地中生代花岗岩的球化学特征。，"),
    st.sampled_from("\x00\x01ab \x7f\x80\u0301\u0308\u200d🪨👩🔬\ufe0f\U0010ffff\ufffe\U000e0041"),
    st.sampled_from("[]<>/sSTART_REFEND地 ab\n#"),
)
FRAGMENTS = (
    *MARKERS,
    "</s>",
    "<s>",
    "a[",
    "<unk>",
    "'s",
    "'re",
    "'ll",
    "     ",
    "\n\n\n",
    "---------------------",
)


@st.composite
def texts_of_all_kinds(draw):
    pieces = st.one_of(
        *(st.text(alphabet, max_size=30) for alphabet in ALPHABETS),
        st.sampled_from(FRAGMENTS),
        st.sampled_from(TEXTS).flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end])),
    )
    return "".join(draw(st.lists(pieces, max_size=8)))


def trained(vocab_size, split_digits, markers):
    config = TokenizerConfig(vocab_size=vocab_size, split_digits=split_digits)
    return train_tokenizer([text for text in TEXTS for _ in range(3)], config, markers)


@pytest.fixture(scope="module")
def tokenizers():
    overlapping = trained(700, True, MARKERS)
    overlapping.add_tokens([AddedToken("a[", special=True, normalized=False)])
    # Lacks bytes of Chinese characters and the control character 1, as SmolLM2 lacks some.
    description = json.loads(trained(600, True, []).backend_tokenizer.to_str())
    model = description["model"]
    gone = {"\u0101", "å"}
    model["merges"] = [pair for pair in model["merges"] if not gone & set("".join(pair))]
    model["vocab"] = {
        token: index
        for token, index in model["vocab"].items()
        if token in ("<s>", "</s>") or not gone & set(token)
    }
    lacking = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(description)))
    model["unk_token"], model["fuse_unk"] = "<unk>", True
    unknown = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(description)))
    return [
        trained(330, True, []),
        trained(900, True, ["[START_REF]", "[END_REF]"]),
        trained(900, False, ["[START_REF]"]),
        trained(420, False, MARKERS),
        overlapping,
        lacking,
        unknown,
    ]


@pytest.fixture(autouse=True)
def no_encoder_is_left_over():
    encode._encoders.clear()


def library_ids(tokenizer, texts, framed=False):
    with text_only(tokenizer) as backend:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=framed)]


def own_ids(tokenizer, texts, framed=False):
    ids, offsets = encode_texts(tokenizer, pa.array(texts, pa.string()), framed=framed)
    assert ids.dtype == np.int32
    return [ids[start:end].tolist() for start, end in pairwise(offsets.tolist())]


def test_none_of_these_tokenizers_goes_the_librarys_way(tokenizers):
    assert [refusal(tokenizer.backend_tokenizer) for tokenizer in tokenizers] == [None] * len(tokenizers)


@given(texts=st.lists(texts_of_all_kinds(), min_size=1, max_size=6))
def test_any_texts_have_the_ids_that_the_library_gives(tokenizers, texts):
    for tokenizer in tokenizers:
        assert own_ids(tokenizer, texts) == library_ids(tokenizer, texts)


@pytest.mark.parametrize("individual_digits", [False, True])
def test_characters_are_of_the_classes_that_the_library_has(individual_digits):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference = byte_level
    if individual_digits:
        reference = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    for plane in (0, 1, 2, 14):
        codes = [code for code in range(plane << 16, (plane + 1) << 16, 1) if not 0xD800 <= code < 0xE000]
        # A letter joins the a, a number the 1, another character the !, white space none of them.
        text = "".join([f"a{chr(code)}1!{chr(code)}" for code in codes[:: 1 if plane < 2 else 16]])
        expected = [start for _, (start, _) in reference.pre_tokenize_str(text)]
        raw = text.encode()
        none = np.empty(0, np.int64)
        starts = encode.piece_starts(
            raw + bytes(16),
            np.array([0, len(raw)]),
            individual_digits=individual_digits,
            added_starts=none,
            added_ends=none,
        )
        characters = np.cumsum((np.frombuffer(raw, np.uint8) & 0xC0) != 0x80) - 1
        assert characters[starts].tolist() == expected


@example(texts=["a'", "s b'l", "l'r", "e ", " c\u3000", "d"], individual_digits=False)
@given(texts=st.lists(texts_of_all_kinds(), min_size=1, max_size=6), individual_digits=st.booleans())
def test_any_texts_are_cut_where_the_library_cuts(texts, individual_digits):
    reference = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if individual_digits:
        reference = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), reference])
    expected, text_offsets = [], [0]
    for text in texts:
        for _, (start, _) in reference.pre_tokenize_str(text) if text else []:
            expected.append(text_offsets[-1] + len(text[:start].encode()))
        text_offsets.append(text_offsets[-1] + len(text.encode()))
    none = np.empty(0, np.int64)
    starts = encode.piece_starts(
        "".join(texts).encode() + bytes(16),
        np.array(text_offsets),
        individual_digits=individual_digits,
        added_starts=none,
        added_ends=none,
    )
    assert starts.tolist() == expected


def test_a_control_token_covers_the_marker_that_starts_within_it(tokenizers):
    tokenizer = tokenizers[4]
    texts = ["a[START_REF]b", "[START_REF]a[[START_REF]", "[START_RE", "a", "[START_REF]"]
    ids = own_ids(tokenizer, texts)
    assert ids == library_ids(tokenizer, texts)
    marker = tokenizer.convert_tokens_to_ids("[START_REF]")
    assert [found.count(marker) for found in ids] == [0, 2, 0, 0, 1]


def test_one_blank_joins_the_word_and_two_do_not():
    raw = b"a  b\n\nc 's we're x"
    none = np.empty(0, np.int64)
    starts = encode.piece_starts(
        raw + bytes(16),
        np.array([0, 4, len(raw)]),
        individual_digits=False,
        added_starts=none,
        added_ends=none,
    )
    ends = [*starts[1:], len(raw)]
    assert [raw[start:end] for start, end in zip(starts, ends, strict=True)] == [
        b"a",
        b" ",
        b" b",
        b"\n",
        b"\n",
        b"c",
        b" '",
        b"s",
        b" we",
        b"'re",
        b" x",
    ]


@pytest.fixture(scope="module")
def papers(sample_data):
    folders = ("jats", "grobid_tei", "nougat", "s2orc_json")
    records = [record for folder in folders for record in read(str(sample_data / folder), source=folder)]
    return [record for record in records if isinstance(record, Paper)]


@pytest.mark.parametrize(
    ("style", "split_digits"), [("k2", True), ("galactica", False), ("review", True), ("plain", False)]
)
def test_real_papers_have_the_ids_that_the_library_gives(papers, style, split_digits):
    texts = [text for text in (render(paper, style) for paper in papers) if text]
    assert len(texts) > 90
    config = TokenizerConfig(vocab_size=2000, split_digits=split_digits)
    tokenizer = train_tokenizer(texts[::10], config, special_tokens(style))
    assert refusal(tokenizer.backend_tokenizer) is None
    assert own_ids(tokenizer, texts) == library_ids(tokenizer, texts)


def test_any_cut_of_the_texts_into_arrays_gives_the_same_ids(tokenizers, monkeypatch):
    texts = [*TEXTS, "", "x", " ", "  ", *TEXTS]
    tokenizer = tokenizers[1]
    expected = library_ids(tokenizer, texts)
    for batch_bytes in (1, 100, 1 << 20):
        monkeypatch.setattr(encode, "_BATCH_BYTES", batch_bytes)
        assert own_ids(tokenizer, texts) == expected
    part = pa.array(["zz", *texts], pa.large_string()).slice(1)
    ids, offsets = encode_texts(tokenizer, part, framed=False)
    assert ids.tolist() == list(chain(*expected))
    assert np.diff(offsets).tolist() == list(map(len, expected))


def test_the_byte_level_may_stand_in_a_sequence_of_its_own():
    backend = byte_level_backend()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert refusal(backend) is None
    assert own_ids(tokenizer, ["a 12 34"]) == library_ids(tokenizer, ["a 12 34"])


def test_no_texts_have_no_ids(tokenizers):
    assert own_ids(tokenizers[0], []) == []
    assert own_ids(tokenizers[0], ["", ""]) == [[], []]


def test_text_that_is_not_utf_8_is_refused(tokenizers):
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xe4\xb8")]
    )
    tokenizer = tokenizers[0]
    encode_texts(tokenizer, pa.array(["a"]), framed=False)
    with pytest.raises(pa.ArrowInvalid, match="Invalid UTF8"):
        encode_texts(tokenizer, broken, framed=False)


@pytest.mark.parametrize(
    ("pattern", "before", "after"), [("<s> $A", 1, 0), ("$A </s>", 0, 1), ("<s> <s> $A </s>", 2, 1)]
)
def test_what_the_tokenizer_puts_around_a_text_is_put_there(tokenizers, pattern, before, after):
    tokenizer = with_markers(tokenizers[1], [], add=True)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=pattern, special_tokens=[("<s>", 0), ("</s>", 2)]),
        ]
    )
    framed = own_ids(tokenizer, TEXTS, framed=True)
    assert framed == library_ids(tokenizer, TEXTS, framed=True)
    bare = own_ids(tokenizer, TEXTS)
    assert [ids[before : len(ids) - after] for ids in framed] == bare


def byte_level_backend(**model):
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def changed(**attributes):
    def make():
        backend = byte_level_backend()
        for name, value in attributes.items():
            setattr(backend, name, value)
        return backend

    return make


def with_token(**flags):
    def make():
        backend = byte_level_backend()
        backend.add_tokens([AddedToken("[X]", **{"normalized": False, **flags})])
        return backend

    return make


def unigram():
    return Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0), ("c", -1.0)], unk_id=0))


LLAMA_3 = pre_tokenizers.Split(Regex(r"\p{N}{1,3}|\s+|\S+"), "isolated")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (unigram, "its model is Unigram, not BPE"),
        (lambda: byte_level_backend(dropout=0.1), r"dropped at random \(dropout=0.1"),
        (lambda: byte_level_backend(byte_fallback=True), "falls back to bytes"),
        (changed(normalizer=normalizers.NFC()), r"normalizer \(NFC\)"),
        (changed(pre_tokenizer=LLAMA_3), r'its pre-tokenizers are \[{"type": "Split"'),
        (changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)), '"add_prefix_space": true'),
        (
            changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
            '"use_regex": false',
        ),
        (changed(pre_tokenizer=pre_tokenizers.Sequence([])), r"pre-tokenizers are \[\]"),
        (with_token(lstrip=True), r"its added token '\[X\]' is not matched as it stands"),
        (with_token(rstrip=True), r"'\[X\]' is not matched"),
        (with_token(single_word=True), r"'\[X\]' is not matched"),
        (with_token(normalized=True), r"'\[X\]' is not matched"),
        (
            changed(post_processor=processors.TemplateProcessing(single="$A $A", special_tokens=[])),
            "around a text depends on the text",
        ),
    ],
)
def test_other_tokenizers_go_the_librarys_way_and_the_log_says_why(make, reason, caplog):
    caplog.set_level(logging.INFO, logger=encode.__name__)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    texts = ["abc a", "b  1 [X] "]
    for framed in (False, True, False):
        ids = own_ids(tokenizer, texts, framed)
        assert "dropout" in reason or ids == library_ids(tokenizer, texts, framed)
    (record,) = caplog.records
    assert re.search(f"encoded by the tokenizers library, which is slower: .*{reason}", record.message)


def test_a_difference_from_the_library_is_an_error_at_the_first_use(tokenizers, monkeypatch):
    monkeypatch.setattr(encode, "piece_starts", lambda raw, offsets, **_: np.arange(offsets[-1]))
    with pytest.raises(RuntimeError, match=r"gives other ids than the tokenizers library for .Basalt"):
        own_ids(tokenizers[1], TEXTS)


def test_words_are_remembered_for_another_copy_of_the_tokenizer(tokenizers):
    own_ids(tokenizers[1], TEXTS)
    own_ids(pickle.loads(pickle.dumps(tokenizers[1])), TEXTS)
    (encoder,) = encode._encoders.values()
    other = with_markers(tokenizers[1], ["[NEW]"], add=True)
    assert own_ids(other, ["a[NEW]b"]) == library_ids(other, ["a[NEW]b"])
    assert next(iter(encode._encoders.values())) is encoder
    assert len(encode._encoders) == 2


def test_only_a_few_tokenizers_are_remembered(tokenizers):
    for tokenizer in tokenizers:
        own_ids(tokenizer, ["a"])
    assert len(encode._encoders) == encode._ENCODERS < len(tokenizers)


def test_a_small_memory_gives_the_same_ids(tokenizers):
    tokenizer = tokenizers[3]
    texts = [
        f"{text} {number * 7919}{'long' * (number % 9)} {text[number:]}"
        for number in range(40)
        for text in TEXTS
    ]
    expected = library_ids(tokenizer, texts)
    encoder = Encoder(tokenizer.backend_tokenizer, max_words=50)
    for text, ids in zip(texts, expected, strict=True):
        assert encoder.encode(pa.array([text]))[0].tolist() == ids
        assert len(encoder._words) < 300
    everything, _ = encoder.encode(pa.array(texts))
    assert everything.tolist() == list(chain(*expected))


def test_ids_are_put_around_chosen_texts():
    ids, offsets = np.array([5, 6, 7], np.int32), np.array([0, 2, 2, 3])
    result = surrounded(ids, offsets, [1, 2], [9], np.array([True, False, True]))
    assert result[0].tolist() == [1, 2, 5, 6, 9, 1, 2, 1, 2, 7, 9]
    assert result[1].tolist() == [0, 5, 7, 11]
    assert surrounded(ids, offsets, [], [])[0] is ids
