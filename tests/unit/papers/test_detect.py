import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.papers.config import InputFormat
from baltoro.papers.detect import decode, decode_json, detect_bytes, detect_object, stem_of
from baltoro.papers.schema import READ_REASONS, ReadReject

PROSE = b"Melt rises through cracks in the ice.\n"
NOUGAT = b"# Melt\n\nAda Moss\n\n###### Abstract\n\nShort.\n\n## 1 Ice\n\nIt is \\(x\\).\n"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b'<?xml version="1.0"?><TEI xmlns="http://www.tei-c.org/ns/1.0"/>', "a.tei.xml", "grobid_tei"),
        (b'\n<!-- note -->\n<tei:TEI xmlns:tei="http://www.tei-c.org/ns/1.0"/>', "a.json", "grobid_tei"),
        (b'<!DOCTYPE article PUBLIC "-//NLM//DTD" "x.dtd"><article/>', "a.txt", "jats"),
        (b"\xef\xbb\xbf<article article-type='x'><front/></article>", "noname", "jats"),
        ('<?xml version="1.0" encoding="UTF-16"?><article/>'.encode("utf-16"), "a.xml", "jats"),
        (NOUGAT, "a.mmd", "nougat"),
        (NOUGAT, "a.md", "nougat"),
        (b"# T\n\n[MISSING_PAGE_FAIL:1]\n", "a.txt", "nougat"),
        (PROSE, "a.mmd", "nougat"),
        (b"<!-- image -->\n\n## Melt\n", "a.md", "docling_markdown"),
        (b"## Melt\n\n<!-- formula-not-decoded -->\n", "a.txt", "docling_markdown"),
        (b"# Melt\n\nWords.\n", "a.md", "markdown"),
        (b"# Melt\n\nWords.\n", "a.txt", "markdown"),
        (PROSE, "a.md", "markdown"),
        (PROSE, "a.txt", "plain_text"),
        (PROSE, "10.1029_2019GL085378", "plain_text"),
        (b"\xef\xbb\xbf" + PROSE, "a.txt", "plain_text"),
        (PROSE.decode().encode("utf-16"), "a.txt", "plain_text"),
    ],
)
def test_formats_are_told_by_content_first_and_name_second(data, name, expected):
    assert detect_bytes(data, name) == expected


@pytest.mark.parametrize(
    ("data", "name", "reason", "detail"),
    [
        (b"", "a.xml", "empty_file", "0 bytes"),
        (b" \n\t", "a.mmd", "empty_file", "only white space"),
        ("\ufeff \n".encode(), "a.txt", "empty_file", "only white space"),
        (
            b"%PDF-1.7\n\xc4\xe5",
            "a.tei.xml",
            "not_parsed",
            "a PDF; parse it first with GROBID, Nougat or Docling",
        ),
        (b"\r\n%PDF-1.4", "a.pdf", "not_parsed", "a PDF"),
        (b"PK\x03\x04rest", "a.docx", "not_parsed", "an office document"),
        (b"\\documentclass{article}\n\\begin{document}", "a.tex", "not_parsed", "a LaTeX source"),
        (b"PK\x03\x04rest", "a.zip", "binary", "a ZIP archive; repack it as .tar.gz"),
        (b"\x89PNG\r\n\x1a\n", "fig.xml", "binary", "a PNG picture"),
        (b"Melt\0rises", "a.xml", "binary", "a NUL byte at offset 4"),
        (b"Caf\xe9 on ice", "a.txt", "bad_encoding", "byte 0xe9 at offset 3 is not UTF-8"),
        (b"\xff\xfeM\x00\xd8", "a.txt", "bad_encoding", "is not UTF-16"),
        (b"Melt rises", "a.xml", "malformed_xml", "named .xml but has no root element"),
        (b'<?xml version="1.0"?>\n', "a.xml", "malformed_xml", "without a root element"),
        (b"Melt rises", "a.json", "malformed_json", "holds no JSON object; it starts with 'Melt rises'"),
        (b"<rdf:RDF/>", "a.xml", "unknown_format", "root element <RDF>"),
        (
            b'<article xmlns="http://docbook.org/ns/docbook"/>',
            "a.xml",
            "unknown_format",
            "root element <article>",
        ),
        (b'<!DOCTYPE l [<!ENTITY a "b">]><l>&a;</l>', "a.xml", "unsafe_xml", "declares entities of its own"),
        (b"<html><body>502 Bad Gateway</body></html>", "a.tei.xml", "error_page", "an HTML page in place of"),
        (b"<!DOCTYPE html><html/>", "a.html", "unknown_format", "a web page"),
        (b"[TIMEOUT] PDF to XML conversion timed out", "a.tei.xml", "error_page", "[TIMEOUT] PDF to XML"),
        (b"[BAD_INPUT_DATA] PDF to XML conversion failed", "a.txt", "error_page", "an error message"),
        (b"500 Internal Server Error", "a.mmd", "error_page", "500 Internal"),
        (b"Traceback (most recent call last):\n  File", "a.md", "error_page", "an error message"),
        (
            b"# Data sources\n",
            "SOURCES.md",
            "unknown_format",
            "a note about the folder, by its name SOURCES.md",
        ),
        (b"Read me", "sub/README", "unknown_format", "by its name README"),
        (b"@prefix a: <b> .\n", "a.ttl", "unknown_format", "a Turtle ontology"),
        (b"doi,year\n1,2\n", "a.csv", "unknown_format", "a .csv file"),
        (
            b"ID: x\nTitle: y\nOriginal Ratings: 6\n\nAggregated Review:\nGood",
            "x.txt",
            "unknown_format",
            "peer review",
        ),
    ],
)
def test_what_is_no_paper_is_refused_with_its_reason(data, name, reason, detail):
    with pytest.raises(ReadReject) as raised:
        detect_bytes(data, name)
    assert raised.value.reason == reason
    assert detail in raised.value.detail


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"paper_id": "1", "pdf_parse": None, "latex_parse": {}}, "s2orc"),
        ({"paper_id": "1", "metadata": {"title": ""}, "grobid_parse": None}, "s2orc"),
        ({"abstract": [], "body_text": []}, "s2orc"),
        ({"name": "1.pdf", "metadata": {"abstractText": None, "sections": None}}, "science_parse"),
        ({"title": None, "sections": [], "references": []}, "science_parse"),
        ({"title": "Artitle Title", "main_content": "x"}, "sciencebeam"),
        ({"schema_name": "DoclingDocument", "version": "1.0.0"}, "docling_json"),
        ({"texts": [], "body": {}, "furniture": {}, "name": "x"}, "docling_json"),
    ],
)
def test_json_layouts_are_told_by_their_keys(document, expected):
    assert detect_object(document) == expected


def test_a_named_text_column_makes_an_unknown_object_a_record_but_never_a_paper_layout():
    assert detect_object({"id": 1, "text": "x"}, "text") == "records"
    assert detect_object({"body_text": [], "text": "x"}, "text") == "s2orc"


@pytest.mark.parametrize(
    ("document", "reason", "detail"),
    [
        ({}, "empty_file", "an empty JSON object"),
        ({"error": "Bad\nGateway", "status": 502}, "error_page", "an error message: 'Bad Gateway'"),
        ({"detail": "Not found"}, "error_page", "'Not found'"),
        ({"title": "x", "abstract": "y", "reviews": []}, "unknown_format", "a peer-review record"),
        ({"id": 1, "text": "x"}, "unknown_format", "keys id, text; no paper layout (for general text name"),
    ],
)
def test_other_json_objects_are_refused_with_their_keys(document, reason, detail):
    with pytest.raises(ReadReject) as raised:
        detect_object(document)
    assert (raised.value.reason, detail in raised.value.detail) == (reason, True), raised.value.detail


def test_a_missing_text_column_is_named():
    with pytest.raises(ReadReject, match="lacks the text column 'body'"):
        detect_object({"text": "x"}, "body")


def test_line_ends_are_made_one_kind_and_marks_removed():
    assert decode(b"\xef\xbb\xbfa\r\nb\rc\n") == "a\nb\nc\n"
    assert decode("é\n".encode("utf-16-be").join([b"\xfe\xff", b""])) == "é\n"


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b'{"a": 1,', "malformed_json", "at line 1, column"),
        (b"[" * 100_000, "malformed_json", "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "malformed_json", "digits"),
        (b'{"a": "\\ud800"}', "bad_encoding", "half of a surrogate pair (\\ud800)"),
        (b'{"a": "\xe9"}', "bad_encoding", "0xe9"),
    ],
)
def test_json_that_cannot_be_kept_is_refused(data, reason, detail):
    with pytest.raises(ReadReject) as raised:
        decode_json(data)
    assert (raised.value.reason, detail in raised.value.detail) == (reason, True), raised.value.detail


def test_a_whole_surrogate_pair_is_read():
    assert decode_json(b'{"a": "\\ud83d\\udef0"}') == {"a": "\U0001f6f0"}


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/N18-3011.tei.xml.gz", "N18-3011"),
        ("x.grobid.tei.xml", "x"),
        ("journal.pone.0005723.xml", "journal.pone.0005723"),
        ("00Sx577BT3.mmd", "00Sx577BT3"),
        (".xml", ".xml"),
    ],
)
def test_stems_lose_folders_and_format_suffixes_only(name, stem):
    assert stem_of(name) == stem


@given(st.binary(max_size=300), st.sampled_from(["a.xml", "a.json", "a.mmd", "a.md", "a", "a.gz", "README"]))
def test_any_bytes_have_a_format_or_a_known_reason(data, name):
    try:
        found = detect_bytes(data, name)
    except ReadReject as reject:
        found = reject.reason if reject.detail else ""
    assert found in READ_REASONS or found in InputFormat.__args__


def test_every_nougat_sample_is_told_by_content_under_another_name(sample_data):
    for path in sorted((sample_data / "nougat" / "openreview").glob("*.mmd")):
        assert detect_bytes(path.read_bytes(), path.stem + ".txt") in ("nougat", "markdown"), path.name
