"""Safe XML parsing: what is refused, with which reason, and what must still be read."""

import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.papers.readers._xml import (
    MAX_XML_BYTES,
    MAX_XML_DEPTH,
    InlineBuilder,
    all_text,
    collapse_space,
    element_text,
    parse_xml,
)
from baltoro.papers.schema import READ_REASONS, Inline, ReadReject


def rejected(data: bytes) -> ReadReject:
    with pytest.raises(ReadReject) as caught:
        parse_xml(data)
    assert caught.value.reason in READ_REASONS
    assert "\n" not in caught.value.detail
    return caught.value


def billion_laughs() -> bytes:
    entities = ['<!ENTITY l0 "lava">']
    entities += [f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12)]
    return f"<!DOCTYPE d [{''.join(entities)}]><d a='&l11;'>&l11;</d>".encode()


def test_billion_laughs_are_refused_at_once():
    start = time.perf_counter()
    reject = rejected(billion_laughs())
    assert time.perf_counter() - start < 1
    assert reject.reason == "unsafe_xml"
    assert "declares the entity 'l0' at line 1" in reject.detail


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY secret SYSTEM "file:///etc/hostname">',
        '<!ENTITY % remote SYSTEM "http://127.0.0.1:9/x.dtd"> %remote;',
        '<!ENTITY harmless "words">',
    ],
)
def test_every_kind_of_entity_declaration_is_refused(declaration):
    reject = rejected(f"<!DOCTYPE d [\n{declaration}]><d>text</d>".encode())
    assert reject.reason == "unsafe_xml"
    assert "at line 2" in reject.detail


def test_entity_hidden_after_an_unknown_parameter_entity_is_never_expanded():
    reject = rejected(b'<!DOCTYPE d [%unknown; <!ENTITY _x "secret">]><d>&_x;</d>')
    assert reject.reason == "malformed_xml"
    assert "&_x; is not defined" in reject.detail


@pytest.mark.parametrize("prolog", ["<!-- <d> -->", "<?note <d ?>", '<?xml version="1.0"?>\n<!-- x -->\n'])
def test_document_type_after_other_markup_is_still_checked(prolog):
    reject = rejected(f'{prolog}<!DOCTYPE d [<!ENTITY x "y">]><d>&x;</d>'.encode())
    assert reject.reason == "unsafe_xml"


def test_words_of_an_entity_declaration_inside_cdata_are_text():
    assert parse_xml(b"<d><![CDATA[<!ENTITY x 'y'> &nbsp;]]></d>").text == "<!ENTITY x 'y'> &nbsp;"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/JATS.dtd", "file:///etc/hostname", "missing.dtd"])
def test_doctype_with_an_external_dtd_is_read_without_loading_it(address):
    data = f'<!DOCTYPE article PUBLIC "-//NLM//DTD" "{address}"><article id="a"><b id="a">text</b></article>'
    assert element_text(parse_xml(data.encode())) == "text"


def test_external_dtd_file_is_not_read_for_defaults(tmp_path):
    dtd = tmp_path / "evil.dtd"
    dtd.write_text('<!ATTLIST d leaked CDATA "yes"><!ENTITY foo "leak">')
    root = parse_xml(f'<!DOCTYPE d SYSTEM "{dtd.as_uri()}"><d>text</d>'.encode())
    assert dict(root.attrib) == {}


def test_named_html_entities_become_characters_in_text_and_attributes():
    root = parse_xml(b'<d a="3&nbsp;km">5&nbsp;&deg;C &alpha; &lt;b&gt; &amp;amp; &LT;i&GT; &#946;</d>')
    assert root.get("a") == "3\u00a0km"
    assert root.text == "5\u00a0°C α <b> &amp; <i> β"
    assert len(root) == 0


def test_a_named_entity_after_thousands_of_other_references_is_replaced():
    root = parse_xml(b"<p>" + b"&amp;&#33;" * 3000 + b"&nbsp;</p>")
    assert root.text == "&!" * 3000 + "\u00a0"


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE p PUBLIC '-//X//EN' 'x.dtd' [<!ENTITY a 'b'>]>",
        "<!DOCTYPE p SYSTEM 'x>y' [<!ENTITY a 'b'>]>",
        "<!-- <!DOCTYPE p> <p> --><!DOCTYPE p [<!ENTITY a 'b'>]>",
        "<?xml version='1.0'?><?x <!DOCTYPE p><p> ?><!DOCTYPE p[<!ENTITY a 'b'>]>",
    ],
)
def test_a_declaration_is_found_behind_what_looks_like_a_plain_document_type(doctype):
    reject = rejected(f"{doctype}<p>&a;</p>".encode())
    assert (reject.reason, "'a'" in reject.detail) == ("unsafe_xml", True)


def test_undefined_entity_is_malformed_and_named_with_its_line():
    reject = rejected(b"<d>\n\nx &grobid; y</d>")
    assert reject.reason == "malformed_xml"
    assert reject.detail == "line 3: the entity &grobid; is not defined"


def test_nesting_beyond_the_bound_is_unsafe_and_within_it_is_read():
    assert len(list(parse_xml(b"<a>" * MAX_XML_DEPTH + b"</a>" * MAX_XML_DEPTH).iter())) == MAX_XML_DEPTH
    reject = rejected(b"<a>" * 100_000 + b"</a>" * 100_000)
    assert reject.reason == "unsafe_xml"
    assert "256 levels" in reject.detail


def test_comments_and_processing_instructions_vanish_and_their_neighbours_join():
    root = parse_xml(b"<p>old<!-- <table><tr><td>retracted</td></tr></table> --> and<?page 3?> new</p>")
    assert root.text == "old and new"
    assert len(root) == 0


def test_truncated_xml_is_rejected_with_its_line():
    reject = rejected(b'<?xml version="1.0"?>\n<TEI>\n<text><body><p>The rest is')
    assert reject.reason == "malformed_xml"
    assert reject.detail.startswith("line 3: ")
    assert "column" not in reject.detail


def test_blank_lines_before_the_declaration_are_skipped_but_counted():
    assert parse_xml(b'\n \n<?xml version="1.0"?>\n<d>text</d>').text == "text"
    assert rejected(b'\n \n<?xml version="1.0"?>\n<d>text</e>').detail.startswith("line 4: ")


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty_file"), (b" \r\n\t", "empty_file")])
def test_empty_files_are_told_apart(data, reason):
    assert rejected(data).reason == reason


@pytest.mark.parametrize("data", [b"plain words", b'{"a": 1}', b"<d>one</d><d>two</d>", b"<d a=1/>"])
def test_what_is_not_xml_is_malformed(data):
    assert rejected(data).reason == "malformed_xml"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"%PDF-1.7 ...", "PDF"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04zip", "ZIP"),
        (b"<d>a\x00b</d>", "NUL byte at offset 4"),
    ],
)
def test_binary_content_is_named(data, found):
    reject = rejected(data)
    assert reject.reason == "binary"
    assert found in reject.detail


def test_control_character_is_malformed_not_a_crash():
    assert rejected(b"<d>\x07</d>").reason == "malformed_xml"


def test_undeclared_latin1_is_bad_encoding_with_the_byte():
    reject = rejected("<d>Jökull</d>".encode("latin-1"))
    assert reject.reason == "bad_encoding"
    assert "byte 0xf6 at offset 4" in reject.detail


@pytest.mark.parametrize(
    "encoding", ["iso-8859-1", "windows-1252", "shift_jis", "iso-2022-jp", "utf-16", "utf-8-sig"]
)
def test_declared_encodings_are_read(encoding):
    word = "日本" if "jp" in encoding or "jis" in encoding else "Jökull"
    name = "utf-8" if encoding == "utf-8-sig" else encoding
    data = f'<?xml version="1.0" encoding="{name}"?><d>{word}</d>'.encode(encoding)
    assert parse_xml(data).text == word


@pytest.mark.parametrize("declared", ["ISO-8859-1", "UTF-16", "US-ASCII", "no-such-encoding"])
def test_valid_utf8_wins_over_a_wrong_declaration(declared):
    assert parse_xml(f'<?xml version="1.0" encoding="{declared}"?><d>Jökull</d>'.encode()).text == "Jökull"


@pytest.mark.parametrize("declared", ["UTF-16", "no-such-encoding", "punycode", "utf-7", "UTF-8"])
def test_bytes_that_fit_neither_utf8_nor_the_declaration_are_bad_encoding(declared):
    reject = rejected(f'<?xml version="1.0" encoding="{declared}"?><d>'.encode() + b"J\xf6k\xff</d>")
    assert reject.reason == "bad_encoding"


def test_five_megabytes_on_one_line_are_read():
    words = b"basalt " * 750_000
    assert len(parse_xml(b"<d>" + words + b"</d>").text) == len(words) > 5_000_000


def test_one_text_beyond_libxml2s_bound_is_too_large():
    reject = rejected(b"<d>" + b"basalt " * 1_600_000 + b"</d>")
    assert reject.reason == "too_large"


def test_documents_beyond_the_size_bound_are_refused_before_parsing():
    class Huge(bytes):
        def __len__(self):
            return MAX_XML_BYTES + 1

    assert rejected(Huge(b"<d/>")).reason == "too_large"


def test_repeated_xml_ids_are_read():
    assert len(parse_xml(b'<d><a xml:id="x"/><a xml:id="x"/></d>')) == 2


def test_no_break_space_is_kept_by_collapse():
    assert collapse_space("a \t\r\n b\u00a0 \u2009c") == "a b\u00a0 \u2009c"


def test_all_text_is_that_of_the_descendants_without_the_tail():
    element = parse_xml("<p> a<b>\u00e4\n</b>&amp;<c><d/> x </c>y<e/></p>".encode())
    assert all_text(element) == "".join(element.itertext()) == " a\u00e4\n& x y"
    assert [all_text(child) for child in element] == ["\u00e4\n", " x ", ""]


@given(st.text(" \t\r\nab\u00a0", max_size=30))
def test_collapse_leaves_one_space_for_each_run_of_xml_space(text):
    assert collapse_space(text) == re.sub(r"[ \t\r\n]+", " ", text)


def test_element_text_joins_children_on_one_line():
    assert (
        element_text(parse_xml(b"<t>\n  On <i>Homo\n sapiens</i>  fossils </t>")) == "On Homo sapiens fossils"
    )


def test_spaces_beside_a_span_move_into_the_text_and_are_not_doubled():
    builder = InlineBuilder()
    builder.add_text("  see ")
    builder.add("citation", " [3]\n", "b2")
    builder.add_text("  and")
    builder.add("figure_ref", "Fig. 1 ")
    assert builder.build() == [
        Inline("text", "see "),
        Inline("citation", "[3]", "b2"),
        Inline("text", " and"),
        Inline("figure_ref", "Fig. 1"),
    ]


def test_span_of_white_space_is_only_white_space():
    builder = InlineBuilder()
    builder.add_text("a")
    builder.add("citation", " \n ", "b1")
    builder.add_text("b")
    assert builder.build() == [Inline("text", "a b")]


def test_break_separates_words_once_and_never_stands_at_an_end():
    builder = InlineBuilder()
    builder.add_break()
    builder.add_text("one")
    builder.add_break()
    builder.add_break()
    builder.add_text(" two")
    builder.add_break()
    assert builder.build() == [Inline("text", "one two")]


def test_break_between_words_only_where_they_would_be_glued():
    builder = InlineBuilder()
    for piece in ("Gemma", "6", ", or ", "x", ")", "y"):
        builder.add_break_between_words(piece)
        builder.add_text(piece)
    assert builder.build() == [Inline("text", "Gemma 6, or x)y")]


def test_builder_starts_anew_after_build():
    builder = InlineBuilder()
    builder.add_text("one ")
    assert not builder.is_empty
    assert builder.build() == [Inline("text", "one")]
    assert builder.is_empty
    builder.add_text(" two")
    assert builder.build() == [Inline("text", "two")]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "citation", "formula"]), st.text(alphabet="ab \t\n", max_size=8)),
        max_size=12,
    )
)
def test_spans_print_the_white_space_normalised_source(pieces):
    builder = InlineBuilder()
    for kind, text in pieces:
        builder.add(kind, text)
    inlines = builder.build()
    assert "".join(inline.text for inline in inlines) == " ".join("".join(text for _, text in pieces).split())
    assert all(inline.text for inline in inlines)
    assert all(inline.text == inline.text.strip() for inline in inlines if inline.kind != "text")
    neighbours = itertools.pairwise(inlines)
    assert not any(left.kind == right.kind == "text" for left, right in neighbours)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_a_reject_with_a_known_reason(data):
    for candidate in (
        data,
        b"<d>" + data + b"</d>",
        b'<?xml version="1.0" encoding="' + data + b'"?><d>\xf6</d>',
    ):
        reason = None
        try:
            parse_xml(candidate)
        except ReadReject as reject:
            reason = reject.reason
        assert reason is None or reason in READ_REASONS
