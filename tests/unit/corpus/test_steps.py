"""The corpus steps as plain functions."""

import pytest

from baltoro.core.errors import ConfigError
from baltoro.core.storage import ChangedError, Storage
from baltoro.corpus.config import CorpusConfig, SourceConfig, SplitConfig
from baltoro.corpus.decontamination.config import DecontaminateConfig
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.dedup.exact import content_hash
from baltoro.corpus.documents import judge_paper, process_chunk
from baltoro.corpus.filters import FilterConfig
from baltoro.corpus.listing import Chunk, list_source
from baltoro.corpus.splits import split_of
from baltoro.papers.schema import Block, Inline, Paper, Section

BODY = (
    "The ice moves over its bed at a rate that the water pressure beneath it decides. In summer, when melt "
    "reaches the bed through moulins, the sliding speed doubles within hours and then falls as channels "
    "grow. We measured both quantities for three years at four boreholes, and compared them with a model of "
    "the drainage system. Speeds agree within the error of the receivers, except during two floods in late "
    "autumn, for which the model has no cause. Sediment under the tongue may have failed at that time."
)


def paper(text=BODY, **fields):
    return Paper(
        paper_id="s/a",
        uri="/x/a",
        title="Ice",
        sections=[Section(1, "Results", blocks=[Block("paragraph", [Inline("text", text)])])],
        **fields,
    )


def corpus(**settings):
    return CorpusConfig(sources=(SourceConfig(name="s", uri="/x", style="plain"),), **settings)


def test_document_carries_text_hash_and_metadata():
    row = judge_paper(paper(year=2001, doi="10.1/x"), 7, "plain", corpus()).document
    assert row["characters"] == len(row["text"])
    assert row["content_hash"] == content_hash(row["text"])
    assert (row["number"], row["year"], row["doi"], row["style"]) == (7, 2001, "10.1/x", "plain")
    assert (row["language"], row["declared_language"]) == ("en", None)


@pytest.mark.parametrize(
    ("filters", "reason", "detail"),
    [
        (FilterConfig(min_characters=5000), "too_short", "5000"),
        (FilterConfig(max_characters=300), "too_long", "300"),
    ],
)
def test_length_filter_says_what_was_found_and_wanted(filters, reason, detail):
    judged = judge_paper(paper(), 0, "plain", corpus(filters=filters))
    assert judged.document is None
    assert (judged.reject.stage, judged.reject.reason) == ("filter", reason)
    assert detail in judged.reject.detail


ITEM = "Which of these rocks forms where basalt magma cools slowly far below the surface of the crust?"


@pytest.mark.parametrize(
    ("action", "dropped", "note"),
    [("drop", True, None), ("cut", False, "cut: "), ("report", False, "reported: ")],
)
def test_an_evaluation_item_is_dropped_cut_or_reported_as_the_recipe_says(action, dropped, note):
    leaky = paper()
    leaky.sections[0].blocks.append(Block("paragraph", [Inline("text", ITEM)]))
    index = ItemIndex.build([EvaluationItem("geo", "1", ITEM, "question", ("gabbro", "tuff", "shale"))])
    config = corpus(decontaminate=DecontaminateConfig(action=action))
    judged = judge_paper(leaky, 0, "plain", config, index)
    if dropped:
        assert (judged.reject.stage, judged.reject.reason) == ("decontaminate", "contaminated")
        assert "geo" in judged.reject.detail
    else:
        assert judged.document["contaminated"].startswith(note)
        assert (ITEM in judged.document["text"]) is (action == "report")
        assert judged.document["content_hash"] == content_hash(judged.document["text"])
    assert judge_paper(paper(), 0, "plain", config, index).document["contaminated"] is None


def test_filter_range_that_lets_nothing_pass_is_refused():
    with pytest.raises(ValueError, match="no document could pass"):
        FilterConfig(min_characters=500, max_characters=400)


def test_sources_of_one_name_are_refused():
    with pytest.raises(ValueError, match="the name 'a' stands twice"):
        CorpusConfig(sources=(SourceConfig(name="a", uri="x"), SourceConfig(name="a", uri="y")))


def test_split_is_stable_and_close_to_its_fractions():
    config = SplitConfig(validation_fraction=0.1, test_fraction=0.05)
    drawn = [split_of(f"c{i}", config) for i in range(20_000)]
    assert drawn == [split_of(f"c{i}", config) for i in range(20_000)]
    assert abs(drawn.count("validation") / 20_000 - 0.1) < 0.01
    assert abs(drawn.count("test") / 20_000 - 0.05) < 0.01


def test_a_larger_fraction_keeps_what_was_already_held_out():
    small = SplitConfig(validation_fraction=0.1)
    large = SplitConfig(validation_fraction=0.2)
    for i in range(2000):
        if split_of(f"c{i}", small) == "validation":
            assert split_of(f"c{i}", large) == "validation"


def test_every_object_of_a_chunk_becomes_a_document_or_a_reject(tmp_path):
    (tmp_path / "good.md").write_text(f"# Ice\n\n## Results\n\n{BODY}\n")
    (tmp_path / "short.md").write_text("# Ice\n\nToo little.\n")
    (tmp_path / "empty.xml").write_text("")
    (tmp_path / "truncated.xml").write_text("<article><front>")
    config = CorpusConfig(sources=(SourceConfig(name="s", uri=str(tmp_path), style="plain"),))
    listing = list_source(0, config.sources[0], Storage())
    outcome = process_chunk(Chunk(0, 0, listing.objects), config, Storage(), {})
    assert outcome.documents.column("paper_id").to_pylist() == ["s/good.md"]
    assert {r["paper_id"]: r["reason"] for r in outcome.rejects.to_pylist()} == {
        "s/empty.xml": "empty_file",
        "s/short.md": "too_short",
        "s/truncated.xml": "malformed_xml",
    }


def test_a_paper_that_was_replaced_after_the_listing_stops_the_build(tmp_path):
    (tmp_path / "good.md").write_text(f"# Ice\n\n## Results\n\n{BODY}\n")
    config = CorpusConfig(sources=(SourceConfig(name="s", uri=str(tmp_path)),))
    listing = list_source(0, config.sources[0], Storage())
    (tmp_path / "good.md").write_text(f"# Fire\n\n## Results\n\n{BODY}\n")
    with pytest.raises(ChangedError, match=r"good\.md was replaced since it was listed"):
        process_chunk(Chunk(0, 0, listing.objects), config, Storage(), {})


def test_unknown_style_never_reaches_a_build():
    from baltoro.papers.renderers import render

    with pytest.raises(ConfigError, match="k2"):
        render(paper(), "k3")
