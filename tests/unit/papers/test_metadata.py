import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baltoro.core.config import decode as decode_config
from baltoro.core.errors import ConfigError, InputError
from baltoro.papers.config import MetadataTableConfig
from baltoro.papers.metadata import MetadataCounts, MetadataTable
from baltoro.papers.schema import UNKNOWN_LICENSE, Paper

CSV = """stem,licence,year,venue,authors,keywords,forum
N18-3011,CC BY 4.0,2018,NAACL,"Ada Moss; Li, Wei",melt; ice,f1
x,,,,,,f2
"""


def table(text=CSV, uri="papers.csv", **settings):
    data = text if isinstance(text, bytes) else text.encode()
    return MetadataTable.from_bytes(MetadataTableConfig(uri=uri, **settings), data)


def joined(metadata, paper=None, name="N18-3011.tei.xml", path="a/N18-3011.tei.xml.gz", record_id=None):
    paper = paper or Paper()
    return metadata.join(paper, name=name, path=path, record_id=record_id), paper


def test_a_row_found_by_stem_fills_the_fields_and_keeps_unknown_columns():
    found, paper = joined(table())
    assert found
    assert (paper.license, paper.year, paper.venue) == ("CC BY 4.0", 2018, "NAACL")
    assert (paper.authors, paper.keywords) == (["Ada Moss", "Li, Wei"], ["melt", "ice"])
    assert paper.extra == {"forum": "f1", "metadata_row": "N18-3011"}


def test_an_empty_cell_leaves_the_licence_unknown():
    found, paper = joined(table(), name="x.mmd")
    assert (found, paper.license, paper.year) == (True, UNKNOWN_LICENSE, None)


def test_the_table_fills_gaps_only_unless_it_overrides():
    stated = Paper(license="CC0", year=1999)
    joined(table(), stated)
    assert (stated.license, stated.year, stated.venue) == ("CC0", 1999, "NAACL")
    joined(table(override=True), stated)
    assert (stated.license, stated.year) == ("CC BY 4.0", 2018)


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("stem", "N18-3011.tei.xml", {}),
        ("path", "./a/N18-3011.tei.xml.gz", {}),
        ("doi", "https://doi.org/10.1000/Melt", {"paper": Paper(doi="10.1000/mELT")}),
        ("id", "s2-7", {"record_id": "s2-7"}),
    ],
)
def test_rows_are_found_by_every_kind_of_key(key, value, where):
    metadata = table(f"{key},year\n{value},2001\n", key=key)
    found, paper = joined(metadata, **where)
    assert (found, paper.year) == (True, 2001)
    assert joined(metadata, name="other.xml", path="other.xml", record_id="o")[0] is False


def test_a_column_may_have_another_name_than_its_key():
    assert joined(table("file,year\nN18-3011,2001\n", column="file"))[1].year == 2001


def test_the_doi_that_finds_a_row_also_fills_the_field_of_others():
    metadata = table("stem,doi\nN18-3011,doi:10.1000/melt\n")
    assert joined(metadata)[1].doi == "10.1000/melt"


def test_jsonl_tsv_and_parquet_tables():
    rows = [{"stem": "N18-3011", "year": 2018, "authors": ["Ada Moss"], "score": 0.5}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    for data, uri in (
        (json.dumps(rows[0]), "t.jsonl"),
        (file.getvalue(), "t.parquet"),
        ("stem\tyear\tauthors\tscore\nN18-3011\t2018\tAda Moss\t0.5\n", "t.tsv"),
    ):
        paper = joined(table(data, uri=uri))[1]
        assert (paper.year, paper.authors, paper.extra["score"]) == (2018, ["Ada Moss"], "0.5"), uri


def test_papers_without_row_and_rows_without_paper_are_counted():
    metadata = table()
    papers = [joined(metadata)[1], joined(metadata, name="none.xml")[1], joined(metadata, name="none.xml")[1]]
    assert metadata.count(papers) == MetadataCounts(papers_matched=1, papers_unmatched=2, rows_unmatched=1)


def test_a_loaded_table_can_be_sent_to_workers():
    assert joined(pickle.loads(pickle.dumps(table())))[0]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (
            "id,year\n1,2\n",
            {},
            r"papers.csv: row 1 has no column 'stem', .* it has id, year. Set metadata.column",
        ),
        (
            "stem\na.xml\nb\na\n",
            {},
            r"papers.csv: rows 1 and 3 have the same stem 'a'; leave one row per paper",
        ),
        (
            "doi\nnone\n",
            {"key": "doi"},
            r"row 1: 'none' in the column 'doi' is no doi; correct or remove the row",
        ),
        ("stem,year\n", {}, r"a metadata table without rows"),
        ("", {}, r"a metadata table without rows"),
        ('stem,year\n"a,1\n', {}, r"papers.csv: line 1: not valid CSV: unexpected end"),
        ("stem,year\na,1,2\n", {}, r"line 2 has more fields than the header; quote fields"),
        (b"stem,year\n\xe9,1\n", {}, r"byte 0xe9 at offset 10 is not UTF-8"),
        (
            '{"stem": "a"}\nbad\n',
            {"uri": "t.jsonl"},
            r"t.jsonl: cannot be read as JSON lines: line 2: Expecting",
        ),
        ("nothing", {"uri": "t.parquet"}, r"t.parquet: cannot be read as Parquet"),
        ("a", {"uri": "t.xlsx"}, r"a metadata table is a .csv, .tsv, .jsonl or .parquet file, not .xlsx"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(text, settings, message):
    with pytest.raises(InputError, match=message):
        table(text, **settings)


def test_a_mistyped_key_names_what_is_allowed():
    with pytest.raises(ConfigError, match="'stem', 'path', 'doi' or 'id'"):
        decode_config(MetadataTableConfig, {"uri": "a.csv", "key": "file"}, "recipe")
