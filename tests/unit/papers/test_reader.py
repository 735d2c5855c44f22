import gzip
import io
import json
import subprocess
import sys
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baltoro.core.errors import ConfigError, InputError
from baltoro.papers import Paper, Reject, read
from baltoro.papers.config import InputFormat, MetadataTableConfig, ReadLimits
from baltoro.papers.reader import describe_error, read_object, refuse_mostly_pdfs
from baltoro.papers.schema import READ_REASONS

S2ORC = json.dumps({"paper_id": "7", "title": "Melt", "body_text": [{"text": "It rises."}]}).encode()


def outcomes(data, key="a.xml", **options):
    return read_object(data, key=key, uri=f"/in/{key}", etag="e", source="ice", **options)


def reject(data, key="a.xml", **options):
    (only,) = outcomes(data, key, **options)
    assert isinstance(only, Reject), only
    return only


def test_a_paper_carries_where_it_came_from():
    (paper,) = outcomes(gzip.compress(S2ORC), "x/a.json.gz")
    assert (paper.paper_id, paper.source, paper.uri) == ("ice/x/a.json.gz", "ice", "/in/x/a.json.gz")
    assert (paper.etag, paper.format, paper.title) == ("e", "s2orc", "Melt")


def test_records_of_one_object_have_their_own_ids():
    papers = outcomes(S2ORC + b"\n" + S2ORC + b"\nbad\n", "a.jsonl")
    assert [paper.paper_id for paper in papers] == ["ice/a.jsonl#1", "ice/a.jsonl#2", "ice/a.jsonl#3"]
    assert papers[2] == Reject(
        "ice/a.jsonl#3",
        "/in/a.jsonl",
        "read",
        "malformed_json",
        "line 3: Expecting value at line 1, column 1",
    )


BOMB = (
    '<!DOCTYPE article [<!ENTITY a "lol">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><article><front><article-meta><title-group><article-title>&i;</article-title></title-group>"
    "</article-meta></front></article>"
).encode()


@pytest.mark.parametrize(
    ("data", "key", "reason", "detail"),
    [
        (b"<article><front>", "a.xml", "malformed_xml", ""),
        (b'<TEI xmlns="http://www.tei-c.org/ns/1.0"><text><body><p>Cut', "a.tei.xml", "malformed_xml", ""),
        (
            b"Caf\xe9 on the ice",
            "a.txt",
            "bad_encoding",
            "byte 0xe9 at offset 3 is not UTF-8; save the file as UTF-8",
        ),
        (b'{"title": "Caf\xe9"}', "a.json", "bad_encoding", "byte 0xe9 at offset 14"),
        (b"", "a.xml", "empty_file", "0 bytes"),
        (b"\n \n", "a.md", "empty_file", "only white space"),
        (BOMB, "a.xml", "unsafe_xml", ""),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a.xml", "binary", "a PNG picture"),
        (b"Melt\x00rises", "a.txt", "binary", "a NUL byte at offset 4"),
        (b"%PDF-1.5 ...", "a.pdf", "not_parsed", "a PDF; parse it first with GROBID, Nougat or Docling"),
        (b"\x1f\x8b\x08\x00", "a.gz", "malformed_archive", "nothing of it could be kept"),
        (b"Not Found\n", "a.json", "malformed_json", "named .json but holds no JSON object"),
        (
            json.dumps({"title": "", "body_text": []}).encode(),
            "a.json",
            "no_text",
            "neither title, abstract nor",
        ),
        (json.dumps({"id": 1, "question": {}}).encode(), "a.json", "unknown_format", "keys id, question"),
    ],
)
def test_bad_input_is_one_reject_with_its_reason(data, key, reason, detail):
    found = reject(data, key)
    assert (found.reason, found.stage, found.paper_id) == (reason, "read", f"ice/{key}")
    assert detail in found.detail


def test_a_single_line_of_five_megabytes_is_read_or_refused_by_the_limit():
    line = json.dumps({"title": "Melt", "body_text": [{"text": "word " * 1_000_000}]}).encode()
    (paper,) = outcomes(line, "a.json")
    assert len(paper.sections[0].blocks[0].printed()) == 5_000_000
    assert reject(line, "a.json", limits=ReadLimits(max_record_bytes=1_000_000)).reason == "too_large"


def test_the_same_member_twice_in_an_archive_is_a_duplicate_id():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("a.json")
            info.size = len(S2ORC)
            archive.addfile(info, io.BytesIO(S2ORC))
    first, second = outcomes(file.getvalue(), "p.tar")
    assert isinstance(first, Paper)
    assert (second.reason, second.paper_id) == ("duplicate_id", "ice/p.tar#a.json")


def test_an_archive_of_folders_only_is_one_reject():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("folder")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    found = reject(file.getvalue(), "p.tar")
    assert (found.reason, found.detail) == ("empty_file", "a container without any record")


def test_an_unforeseen_failure_is_a_reject_that_says_where(monkeypatch):
    def fails(document):
        raise KeyError("boom")

    monkeypatch.setattr("baltoro.papers.readers.s2orc.parse_s2orc", fails)
    good, bad = outcomes(b'{"text": "a b"}\n' + S2ORC, "a.jsonl", text_column="text", format="auto")
    assert isinstance(good, Paper)
    assert bad.reason == "reader_error"
    assert bad.detail.startswith("KeyError: 'boom' at test_reader.py:")


def test_an_error_is_described_in_one_line():
    with pytest.raises(ValueError) as raised:
        raise ValueError("two\nlines")
    assert describe_error(raised.value).startswith("ValueError: two lines at test_reader.py:")


def test_a_declared_format_is_used_and_refuses_what_it_cannot_be():
    (paper,) = outcomes(b"# Melt\n\nIt rises.\n", "README.md", format="markdown")
    assert (paper.format, paper.title) == ("markdown", "Melt")
    assert reject(b"%PDF-1.5", "a.txt", format="plain_text").reason == "not_parsed"
    assert reject(b"words", "a.txt", format="s2orc").detail == "no JSON object where s2orc was declared"
    assert reject(S2ORC, "a.json", format="records").detail == "no text column is named; set text_column"
    with pytest.raises(ConfigError, match="format: 'tei' is not allowed; it must be one of auto, grobid_tei"):
        outcomes(b"x", format="tei")


def test_general_text_comes_from_its_named_column():
    full = b'{"id": 5, "url": "u", "text": "Melt rises.", "title": "Melt", "license": "CC0"}'
    rows = full + b'\n{"id": 6}\n{"text": ""}\n'
    paper, missing, empty = outcomes(rows, "w.jsonl", text_column="text", format="records")
    assert (paper.title, paper.license, paper.extra) == ("Melt", "CC0-1.0", {"id": "5", "url": "u"})
    assert "Melt rises." in [block.printed() for block in paper.blocks()]
    assert (missing.reason, missing.detail) == ("malformed_table", "lacks the text column 'text'; it has id")
    assert empty.reason == "no_text"


def folder(tmp_path, **files):
    for name, data in files.items():
        (tmp_path / name.replace("__", ".")).write_bytes(data)
    return str(tmp_path)


def test_read_yields_papers_and_rejects_of_a_folder_in_order(tmp_path):
    uri = folder(tmp_path, a__json=S2ORC, b__xml=b"<article>", c__jsonl=S2ORC)
    found = list(read(uri, source="ice"))
    assert [record.paper_id for record in found] == ["ice/a.json", "ice/b.xml", "ice/c.jsonl#1"]
    assert [type(record) for record in found] == [Paper, Reject, Paper]


def test_read_takes_one_file_and_yields_its_reject_without_raising(tmp_path):
    uri = folder(tmp_path, a__json=S2ORC, b__xml=b"")
    (paper,) = read(f"{uri}/a.json")
    assert (paper.paper_id, paper.title) == ("papers/a.json", "Melt")
    (found,) = read(f"{uri}/b.xml")
    assert found.reason == "empty_file"


def test_a_folder_without_papers_says_what_was_found(tmp_path):
    uri = folder(tmp_path, a__csv=b"x,y\n", b__xml=b"", c__xml=b"")
    found = []
    with pytest.raises(
        InputError, match=r"no paper among 3 files; rejected: 2 empty_file, 1 unknown_format"
    ) as raised:
        found.extend(read(uri))
    assert uri in str(raised.value)
    with pytest.raises(InputError, match="no such file, and no folder that holds files"):
        list(read(str(tmp_path / "absent")))


def test_the_rejects_of_a_folder_without_papers_are_yielded_before_the_error(tmp_path):
    records = read(folder(tmp_path, b__xml=b""))
    assert next(records).reason == "empty_file"
    with pytest.raises(InputError, match="no paper among 1 file"):
        next(records)


def test_a_source_of_mostly_pdfs_stops_with_the_commands(tmp_path):
    uri = folder(tmp_path, a__pdf=b"%PDF-1.4", b__PDF=b"%PDF-1.4", c__json=S2ORC)
    with pytest.raises(InputError) as raised:
        list(read(uri))
    message = str(raised.value)
    assert f"{uri}: 2 of 3 files are PDFs" in message
    for command in (
        f"grobid_client --input {uri} --output PARSED processFulltextDocument",
        f"nougat {uri} --out PARSED",
        f"docling {uri} --from pdf --to json --output PARSED",
    ):
        assert command in message


def test_half_pdfs_are_rejects_and_a_bucket_is_not_given_to_local_tools():
    refuse_mostly_pdfs("s3://bucket/in", ["a.pdf", "a.xml"])
    with pytest.raises(InputError, match="nougat PDFS --out PARSED"):
        refuse_mostly_pdfs("s3://bucket/in", ["a.pdf", "b.pdf.gz", "a.xml"])


def test_a_metadata_table_is_joined_and_is_not_itself_a_paper(tmp_path):
    uri = folder(tmp_path, a__json=S2ORC, b__json=S2ORC, papers__csv=b"stem,licence\na,CC0\n")
    table = MetadataTableConfig(uri=f"{uri}/papers.csv")
    assert [(paper.paper_id, paper.license) for paper in read(uri, metadata=table)] == [
        ("papers/a.json", "CC0-1.0"),
        ("papers/b.json", "unknown"),
    ]


def test_every_format_and_table_gives_one_spelling_of_a_licence(tmp_path):
    article = (
        '<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta><title-group>'
        "<article-title>Melt</article-title></title-group><permissions><license "
        'xlink:href="https://creativecommons.org/licenses/by/4.0/"/></permissions></article-meta></front>'
        "</article>"
    )
    uri = folder(
        tmp_path,
        a__xml=article.encode(),
        b__json=S2ORC[:-1] + b', "license": "CC BY 4.0"}',
        c__md=b"---\nlicense: cc-by-4.0\n---\n# Melt\n\nIt rises.\n",
        d__json=S2ORC,
        papers__csv=b"stem,licence\nd,Creative Commons Attribution 4.0 International\n",
    )
    table = MetadataTableConfig(uri=f"{uri}/papers.csv")
    assert [paper.license for paper in read(uri, metadata=table)] == ["CC-BY-4.0"] * 4


def test_an_object_beyond_the_limit_is_not_even_read(tmp_path):
    uri = folder(tmp_path, a__json=S2ORC, b__json=S2ORC + b" " * 1000)
    paper, large = read(uri, limits=ReadLimits(max_object_bytes=500))
    assert isinstance(paper, Paper)
    assert (
        large.detail == f"{len(S2ORC) + 1000} bytes, at most 500 are read; split it or raise max_object_bytes"
    )


NAMES = st.sampled_from(
    [
        "a.xml",
        "a.tei.xml",
        "a.nxml",
        "a.json",
        "a.jsonl",
        "a.mmd",
        "a.md",
        "a.txt",
        "a",
        "a.gz",
        "a.zst",
        "a.tar",
        "a.tgz",
        "a.parquet",
        "a.pdf",
        "a.csv",
        "README.md",
    ]
)
BYTES = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(alphabet="# \n[]()*\\{}|<>$&ab1.-_`!", max_size=200).map(str.encode),
    st.text(alphabet='{}[]",: \nab1', max_size=200).map(str.encode),
    st.text(max_size=60).map(
        lambda text: f"<article><body><p>{text}</p></body></article>".encode("utf-8", "ignore")
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(BYTES, NAMES, st.sampled_from(["auto", "auto", "auto", *InputFormat.__args__]))
def test_any_bytes_under_any_name_and_format_give_papers_or_rejects_and_never_raise(data, name, declared):
    found = outcomes(data, name, format=declared, text_column="a")
    assert found
    for record in found:
        if isinstance(record, Reject):
            assert record.reason in READ_REASONS
            assert record.reason != "reader_error", record.detail
            assert "\n" not in record.detail
        else:
            assert record.format in InputFormat.__args__


def test_reading_everything_in_the_samples_accounts_for_every_file(sample_data):
    found = list(read(str(sample_data), source="data"))
    files = [path for path in sample_data.rglob("*") if path.is_file()]
    assert len({record.paper_id for record in found}) == len(found) == len(files)
    formats = {}
    for record in found:
        name = record.format if isinstance(record, Paper) else record.reason
        formats.setdefault(record.paper_id.split("/")[1], set()).add(name)
    assert formats["jats"] == {"jats"}
    assert formats["grobid_tei"] == {"grobid_tei"}
    assert formats["s2orc_json"] == {"s2orc"}
    assert formats["nougat"] == {"nougat", "unknown_format"}  # the aggregated reviews are no papers
    assert formats["replay"] == {"plain_text"}
    for name in ("geobench", "instructions", "ontology", "SOURCES.md", "MANIFEST.tsv"):
        assert formats[name] == {"unknown_format"}, name


def test_importing_the_package_is_light():
    heavy = "('torch', 'ray', 'mlflow', 'lxml', 'zstandard', 'boto3')"
    code = f"import sys, baltoro.papers; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
