from itertools import pairwise

import numpy as np
from tokenizers import models

from baltoro.data.config import TokenizerConfig
from baltoro.data.encode_joints import Joints, joints_of
from baltoro.data.tokenizer import train_tokenizer


def cut(joints, text, whole=(), longest_bytes=4):
    """Return the parts of a text of one piece."""
    raw = text.encode()
    places = joints.cuts(
        raw + bytes(16),
        np.array([0]),
        np.array([len(raw)]),
        np.array(whole, np.int64),
        longest_bytes=longest_bytes,
    )
    bounds = [0, *places.tolist(), len(raw)]
    return [raw[start:end].decode() for start, end in pairwise(bounds)]


def test_characters_are_cut_apart_unless_a_merge_joins_them():
    joints = Joints([("地".encode(), "质".encode()), ("大地".encode(), "球化学".encode())], [])
    assert cut(joints, "盆地质球地球质") == ["盆", "地质", "球", "地球", "质"]


def test_parts_of_characters_join_all_that_share_them():
    some = "地".encode()
    last, first_two = some[2:], "质".encode()[:2]
    joints = Joints([(last, first_two)], [])
    same_end = next(chr(code) for code in range(0x4E00, 0x9FFF) if chr(code).encode()[2:] == last)
    same_start = (first_two + b"\x80").decode()
    assert cut(joints, f"{same_end}{same_start}盆{same_end}盆{same_start}") == [
        same_end + same_start,
        "盆",
        same_end,
        "盆",
        same_start,
    ]


def test_merges_inside_characters_join_nothing():
    joints = Joints([("地".encode()[:1], "地".encode()[1:]), ("地".encode()[:2], "地".encode()[2:])], [])
    assert cut(joints, "地地地") == ["地", "地", "地"]


def test_characters_of_all_lengths_are_told_apart():
    joints = Joints([("é".encode(), "𝟗".encode()), ("𝟗".encode()[1:], "é".encode())], [])
    assert cut(joints, "éé𝟗é地é𝟗𝟗地") == ["é", "é𝟗é", "地", "é𝟗", "𝟗", "地"]


def test_ascii_is_not_cut_from_what_stands_beside_it():
    assert cut(Joints([], []), "ab地cd地地") == ["ab地cd地", "地"]


def test_bytes_that_the_vocabulary_lacks_are_not_cut():
    assert cut(Joints([], [0xE5]), "质地质质") == ["质地质", "质"]
    assert "地".encode()[0] == 0xE5


def test_short_pieces_and_those_to_be_left_whole_are_not_cut():
    assert cut(Joints([], []), "地地", longest_bytes=6) == ["地地"]
    assert cut(Joints([], []), "地地", whole=[0]) == ["地地"]


def test_settings_that_tie_parts_together_forbid_cuts():
    tokenizer = train_tokenizer(["地质 学"] * 5, TokenizerConfig(vocab_size=330), [])
    backend = tokenizer.backend_tokenizer
    assert joints_of(backend) is not None
    for settings in (
        {"ignore_merges": True},
        {"continuing_subword_prefix": "##"},
        {"end_of_word_suffix": "</w>"},
    ):
        backend.model = models.BPE(vocab={"a": 0}, merges=[], **settings)
        assert joints_of(backend) is None


def test_the_merges_of_a_vocabulary_are_read_as_bytes():
    tokenizer = train_tokenizer(["大地 地质"] * 50, TokenizerConfig(vocab_size=330), [])
    joints = joints_of(tokenizer.backend_tokenizer)
    assert cut(joints, "大地质地大") == ["大地质", "地", "大"]
