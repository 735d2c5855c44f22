import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from baltoro.papers.config import ReadLimits
from baltoro.papers.containers import unpack
from baltoro.papers.schema import ReadReject

PAPER = {"title": "Melt", "body_text": []}
LINES = b"".join(
    json.dumps(PAPER | {"title": f"Melt {n}", "pad": "x" * 999}).encode() + b"\n" for n in range(200)
)
LIMITS = ReadLimits()


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def tar(members, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def opened(data, name, limits=LIMITS, **options):
    return [
        (record.key, record.name, record.payload) for record in unpack(data, name, limits=limits, **options)
    ]


def reasons(records):
    return [(key, payload.reason) for key, _, payload in records if isinstance(payload, ReadReject)]


def test_a_plain_file_is_one_record_with_an_empty_key():
    assert opened(b"<article/>", "a.xml") == [("", "a.xml", b"<article/>")]


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (zstd, ".zst")])
def test_compression_is_told_by_content_and_lost_from_the_name(pack, suffix):
    assert opened(pack(b"<article/>"), "a.xml" + suffix) == [("", "a.xml", b"<article/>")]
    assert opened(pack(b"<article/>"), "a.xml") == [("", "a.xml", b"<article/>")]
    assert opened(pack(pack(b"<article/>")), f"a.xml{suffix}{suffix}") == [("", "a.xml", b"<article/>")]


def test_a_gz_name_over_plain_content_is_read_as_what_it_is():
    assert opened(b"<article/>", "a.xml.gz") == [("", "a.xml.gz", b"<article/>")]


def test_an_archive_name_over_binary_content_is_a_malformed_archive():
    assert reasons(opened(b"\x01\x02\x00", "a.tar")) == [("", "malformed_archive")]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (tar({"x/a.xml": b"<article/>", "b.json.gz": gzip.compress(json.dumps(PAPER).encode())}), "p.tar"),
        (
            tar({"x/a.xml": b"<article/>", "b.json.gz": gzip.compress(json.dumps(PAPER).encode())}, "w:gz"),
            "p.tgz",
        ),
        (
            zstd(tar({"x/a.xml": b"<article/>", "b.json.gz": gzip.compress(json.dumps(PAPER).encode())})),
            "p.tar.zst",
        ),
    ],
)
def test_members_of_archives_are_keyed_by_their_path_and_nest(data, name):
    assert opened(data, name) == [("x/a.xml", "x/a.xml", b"<article/>"), ("b.json.gz", "b.json", PAPER)]


def test_tables_in_archives_join_their_keys():
    assert [key for key, _, _ in opened(tar({"a.jsonl": LINES}), "p.tar")][:2] == ["a.jsonl#1", "a.jsonl#2"]


def test_links_in_archives_are_rejects_and_folders_nothing():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(folder)
        archive.addfile(link)
    assert reasons(opened(file.getvalue(), "p.tar")) == [("link", "unknown_format")]


def test_a_bad_line_is_one_reject_and_the_others_go_on():
    data = b'\xef\xbb\xbf{"title": "a"}\n\nnot json\n{"title": "\xe9"}\n[1]\n{"a": "\x00"}\n{"title": "z"}'
    records = opened(data, "p.jsonl")
    assert [key for key, _, _ in records] == ["1", "3", "4", "5", "6", "7"]
    assert reasons(records) == [
        ("3", "malformed_json"),
        ("4", "bad_encoding"),
        ("5", "malformed_json"),
        ("6", "binary"),
    ]
    assert records[1][2].detail.startswith("line 3: ")
    assert records[-1][2] == {"title": "z"}


def test_lines_are_told_by_content_where_the_name_says_json():
    assert len(opened(LINES, "p.json")) == 200
    assert len(opened(json.dumps(PAPER, indent=1).encode() + b"\n", "p.json")) == 1
    assert len(opened(json.dumps(PAPER).encode() + b"\n", "p")) == 1


def test_lines_in_utf_16_are_read():
    assert opened('{"title": "é"}\n{"title": "ü"}\n'.encode("utf-16"), "p.jsonl") == [
        ("1", "p.jsonl", {"title": "é"}),
        ("2", "p.jsonl", {"title": "ü"}),
    ]


def test_an_empty_table_is_one_reject():
    assert reasons(opened(b"\n\n", "p.jsonl")) == [("", "empty_file")]


def test_a_list_of_papers_is_one_record_per_item():
    records = opened(json.dumps([PAPER, 3, {"odd": 1}]).encode(), "p.json")
    assert [key for key, _, _ in records] == ["1", "2", "3"]
    assert reasons(records) == [("2", "malformed_json")]


def test_a_list_without_any_paper_is_one_reject_that_names_the_keys():
    ((_, _, reject),) = opened(json.dumps([{"stem": 1, "id": 2}] * 7).encode(), "p.json")
    assert (reject.reason, reject.detail) == (
        "unknown_format",
        "a JSON list of 7 objects with the keys id, stem; none has a paper layout",
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"title": "cut', "malformed_json"),
        (b'"text"', "malformed_json"),
        (b"[]", "empty_file"),
        (b"[1, ", "malformed_json"),
    ],
)
def test_json_that_is_no_object_is_a_reject(data, reason):
    records = opened(data, "p.json")
    if data == b'"text"':  # told by its reader, as text under a JSON name
        assert records == [("", "p.json", data)]
    else:
        assert reasons(records) == [("", reason)]


def test_text_that_starts_with_a_brace_or_bracket_stays_text():
    for data in (b"{Melt} rises.", b"[MISSING_PAGE_FAIL:1]\n\n# Melt", b"[1] A. Moss"):
        assert opened(data, "a.mmd") == [("", "a.mmd", data)]


def test_json_is_left_alone_where_the_source_declares_text():
    assert opened(b'{"title": "a"}', "a.txt", parse_json=False) == [("", "a.txt", b'{"title": "a"}')]


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def test_rows_of_a_parquet_table_are_records():
    data = parquet(text=["a", "b"], year=[1, 2])
    assert opened(data, "p.parquet", text_column="text") == [
        ("1", "p.parquet", {"text": "a", "year": 1}),
        ("2", "p.parquet", {"text": "b", "year": 2}),
    ]


@pytest.mark.parametrize(
    ("column", "detail"),
    [
        (None, "no text column is named; name one with text_column (it has text, year)"),
        ("body", "lacks the text column 'body'"),
    ],
)
def test_a_parquet_table_without_its_text_column_is_one_reject(column, detail):
    ((_, _, reject),) = opened(parquet(text=["a"], year=[1]), "p.parquet", text_column=column)
    assert (reject.reason, detail in reject.detail) == ("malformed_table", True)


def test_a_cut_parquet_table_is_one_reject():
    ((_, _, reject),) = opened(parquet(text=["a"])[:-9], "p.parquet", text_column="text")
    assert reject.reason == "malformed_table"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_cut_compressed_table_keeps_what_stood_before_and_is_one_reject(pack):
    import random

    lines = b"".join(
        json.dumps({"body_text": [], "pad": random.Random(n).randbytes(4000).hex()}).encode() + b"\n"
        for n in range(80)
    )
    packed = pack(lines)
    records = opened(packed[: len(packed) * 3 // 4], "p.jsonl.x")
    assert reasons(records) == [("", "malformed_archive")]
    assert len(records) > 20
    assert [key for key, _, _ in records[:3]] == ["1", "2", "3"]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_cut_compressed_paper_is_one_reject_and_never_half_a_paper(pack):
    packed = pack(b"<article>" + bytes(range(32, 127)) * 99 + b"</article>")
    for cut in (3, len(packed) // 2, len(packed) - 1):
        assert reasons(opened(packed[:cut], "a.xml.gz")) == [("", "malformed_archive")], cut


@pytest.mark.parametrize("wrap", [lambda data: data, gzip.compress, zstd])
def test_a_cut_archive_keeps_whole_members_and_is_one_reject(wrap):
    import random

    members = {f"{n}.xml": b"<article>" + random.Random(n).randbytes(3000).hex().encode() for n in range(150)}
    packed = wrap(tar(members))
    records = opened(packed[: len(packed) // 2 + 100], "p.tar")
    assert reasons(records) == [("", "malformed_archive")]
    assert len(records) > 5
    assert all(payload == members[key] for key, _, payload in records[:-1])


def test_an_archive_cut_between_members_is_noticed():
    packed = tar({"a.xml": b"<article/>", "b.xml": b"<article/>"})
    records = opened(packed[:1024], "p.tar")
    assert [key for key, _, _ in records] == ["a.xml", ""]
    assert "no end mark" in records[1][2].detail


SMALL = ReadLimits(max_record_bytes=10_000, max_unpacked_bytes=1_000_000)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_decompression_bomb_is_too_large_without_being_unpacked(pack):
    bomb = pack(bytes(50_000_000))
    assert reasons(opened(bomb, "a.xml.gz", SMALL)) == [("", "too_large")]
    assert reasons(opened(pack(bomb), "a.xml.gz.gz", SMALL)) == [("", "too_large")]


def test_too_large_records_are_rejects_and_their_neighbours_are_read():
    long = b'{"title": "' + b"x" * 20_000 + b'"}\n'
    records = opened(b'{"title": "a"}\n' + long + b'{"title": "z"}\n', "p.jsonl", SMALL)
    assert [key for key, _, _ in records] == ["1", "2", "3"]
    assert reasons(records) == [("2", "too_large")]
    records = opened(
        tar({"a.xml": b"<article/>", "b.xml": b" " * 20_000, "c.xml": b"<article/>"}), "p.tar", SMALL
    )
    assert reasons(records) == [("b.xml", "too_large")]
    assert len(records) == 3


def test_everything_a_container_unpacks_to_is_bounded():
    packed = tar({f"{n}.jsonl": b'{"title": "a"}\n' * 600 for n in range(600)}, "w:gz")
    records = opened(packed, "p.tar.gz", ReadLimits(max_record_bytes=10_000, max_unpacked_bytes=3_000_000))
    assert reasons(records) == [("", "too_large")]
    assert "max_unpacked_bytes" in records[-1][2].detail
    assert len(records) > 1000


def test_containers_nested_too_deep_are_refused():
    data = b"<article/>"
    for _ in range(9):
        data = gzip.compress(data)
    assert reasons(opened(data, "a")) == [("", "malformed_archive")]


def test_the_stored_object_is_the_unit_for_a_single_line_of_five_megabytes():
    line = b"word " * 1_000_000
    assert opened(line, "a.txt") == [("", "a.txt", line)]


PACKS = st.sampled_from([lambda data: data, gzip.compress, zstd, lambda data: tar({"a.json": data})])


@given(
    st.binary(max_size=200), PACKS, st.floats(0, 1), st.sampled_from(["a.json", "a.jsonl", "a.tar.gz", "a"])
)
def test_any_damage_gives_records_and_never_raises(data, pack, keep, name):
    packed = pack(data)
    for record in unpack(packed[: int(len(packed) * keep)], name, limits=SMALL, text_column="text"):
        assert isinstance(record.payload, bytes | dict | ReadReject)
