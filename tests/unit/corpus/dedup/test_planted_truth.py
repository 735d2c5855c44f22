"""Copies planted among real papers are found, and nothing else is: precision and recall per kind of copy."""

import random
import re
from dataclasses import replace
from itertools import combinations

import pytest

from baltoro.corpus.dedup.config import DedupConfig, NearDuplicateConfig, VersionConfig
from baltoro.papers.renderers import render
from baltoro.papers.schema import Inline, Section

NEAR_ONLY = DedupConfig(exact=False, versions=VersionConfig(enabled=False))
VERSIONS_ONLY = DedupConfig(exact=False, near=NearDuplicateConfig(enabled=False))

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=。)(?=.)")


# --- ways to change a paper --------------------------------------------------------------------------


def other_text(length, rng, donor):
    text = ""
    while len(text) < length:
        text += rng.choice(donor) + " "
    return text[:length]


def replace_sentences(text, share, rng, donor):
    """Put other text of the same length in place of this share of the sentences, wherever they stand."""
    paragraphs = [SENTENCE_END.split(paragraph) for paragraph in text.split("\n\n")]
    places = [(i, j) for i, sentences in enumerate(paragraphs) for j in range(len(sentences))]
    for i, j in rng.sample(places, round(share * len(places))):
        paragraphs[i][j] = other_text(len(paragraphs[i][j]), rng, donor)
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs)


def edit_paragraphs(text, share, rng, donor):
    """Rewrite whole paragraphs until this share of the text is other text."""
    paragraphs = text.split("\n\n")
    order = rng.sample(range(len(paragraphs)), len(paragraphs))
    budget = share * len(text)
    for index in order:
        length = len(paragraphs[index])
        if length <= budget:
            budget -= length
            paragraphs[index] = other_text(length, rng, donor)
    return "\n\n".join(paragraphs)


def replace_words(text, share, rng, donor):
    words = text.split(" ")
    other = " ".join(donor[:200]).split()
    for index in rng.sample(range(len(words)), round(share * len(words))):
        words[index] = rng.choice(other)
    return " ".join(words)


def replace_characters(text, share, rng, donor):
    characters = list(text)
    for index in rng.sample(range(len(characters)), round(share * len(characters))):
        characters[index] = chr(rng.randrange(0x4E00, 0x9000))
    return "".join(characters)


def reorder_sections(text, share, rng, donor):
    paragraphs = text.split("\n\n")
    length = max(1, len(paragraphs) // 10)
    sections = [paragraphs[start : start + length] for start in range(0, len(paragraphs), length)]
    rng.shuffle(sections)
    return "\n\n".join(paragraph for section in sections for paragraph in section)


def other_parse(paper, rng):
    """The paper as another parser would give it: formulas, citations, floats, headings, pages differ."""
    sections, floats = [], []
    for section in paper.sections:
        blocks = []
        for block in section.blocks:
            if block.kind == "table":
                continue
            inlines = [other_inline(inline, rng) for inline in block.inlines]
            changed = replace(block, inlines=inlines, cells=[])
            if block.kind == "figure":
                floats.append(changed)
            elif rng.random() > 0.04:
                blocks.append(changed)
        sections.append(Section(1, section.heading.upper(), section.number, blocks))
    sections.append(Section(1, "", None, floats))
    return replace(
        paper,
        title=paper.title.upper(),
        format="nougat",
        doi=None,
        venue=None,
        references=[],
        sections=sections,
    )


def other_inline(inline, rng):
    if inline.kind == "formula":
        return Inline("formula", " ".join(rng.sample(list(inline.text), len(inline.text))))
    if inline.kind == "citation":
        return Inline("citation", f"({rng.choice('ABCDEF')}. et al., {rng.randrange(1980, 2020)})")
    if inline.kind != "text":
        return inline
    # A parser glues or splits a word now and then.
    return Inline("text", re.sub(r" ", lambda m: "" if rng.random() < 0.01 else " ", inline.text))


# --- measuring ---------------------------------------------------------------------------------------


def family(paper_id):
    """What is known to be one paper in the samples: the same stem, and what was planted from it."""
    return re.sub(r"\.(tei\.xml|json|mmd|xml|nxml|txt)$", "", paper_id.split("/")[-1]).split("+")[0]


def measure(dedup, originals, copies, config):
    """Return precision and recall over pairs (original, its copy); copies are (paper, text, original id)."""
    outcome = dedup([*originals, *((paper, text) for paper, text, _ in copies)], config)
    found = sum(outcome.together(paper.paper_id, source) for paper, _, source in copies)
    pairs = [pair for cluster in outcome.clusters for pair in combinations(sorted(cluster), 2)]
    right = sum(family(one) == family(other) for one, other in pairs)
    return right / max(len(pairs), 1), found / len(copies)


def planted(papers, change, share, donor):
    copies = []
    for paper, text in papers:
        rng = random.Random(f"{paper.paper_id} {change.__name__} {share}")
        copy = replace(
            paper, paper_id=f"planted/{family(paper.paper_id)}+{len(copies)}", title="", authors=[], doi=None
        )
        copies.append((copy, change(text, share, rng, donor), paper.paper_id))
    return copies


@pytest.fixture(scope="module")
def papers(real_papers):
    """Real papers, cut after some 25,000 characters to save time; notices of a few lines left out."""
    cut = [
        (paper, text[: text.rfind("\n\n", 0, 25_000)] if len(text) > 25_000 else text)
        for paper, text in real_papers
    ]
    return [entry for entry in cut if len(entry[1]) > 3000]


@pytest.fixture(scope="module")
def donor(sample_data):
    novel = next((sample_data / "replay").glob("*.txt")).read_text(encoding="utf-8")
    return [s for s in SENTENCE_END.split(" ".join(novel.split())) if len(s) > 40]


@pytest.mark.parametrize(
    ("change", "share", "least_recall"),
    [
        (replace_sentences, 0.05, 1.0),
        (replace_sentences, 0.10, 1.0),
        (replace_sentences, 0.20, 0.97),
        (edit_paragraphs, 0.05, 1.0),
        (edit_paragraphs, 0.10, 1.0),
        (edit_paragraphs, 0.20, 1.0),
        (replace_words, 0.02, 1.0),
        (replace_words, 0.05, 1.0),
        (reorder_sections, 0, 1.0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_edited_copies_of_real_papers_are_found(dedup, papers, donor, change, share, least_recall):
    precision, recall = measure(dedup, papers, planted(papers, change, share, donor), NEAR_ONLY)
    print(
        f"\n{change.__name__} {share}: precision {precision:.4f}, recall {recall:.4f}, {len(papers)} papers"
    )
    assert precision == 1.0
    assert recall >= least_recall


def test_two_parses_of_a_paper_are_found_by_their_text_and_surely_by_what_names_them(dedup, real_papers):
    papers = [entry for entry in real_papers if len(entry[1]) > 3000]
    copies = []
    for paper, _ in papers:
        parsed = other_parse(paper, random.Random(paper.paper_id))
        copy = replace(parsed, paper_id=f"planted/{family(paper.paper_id)}+{len(copies)}")
        copies.append((copy, render(copy, "k2"), paper.paper_id))
    originals = [(paper, render(paper, "k2")) for paper, _ in papers]
    near = measure(dedup, originals, copies, NEAR_ONLY)
    versions = measure(dedup, originals, copies, VERSIONS_ONLY)
    both = measure(dedup, originals, copies, DedupConfig())
    print(f"\ntwo parsers (precision, recall): near {near}, versions {versions}, both {both}")
    assert near[0] == versions[0] == both[0] == 1.0
    assert near[1] >= 0.8
    assert versions[1] >= 0.97
    assert both[1] >= 0.99


def test_of_the_real_papers_only_the_known_copies_are_merged(dedup, real_papers):
    outcome = dedup(real_papers)
    merged = {frozenset(family(name) for name in cluster) for cluster in outcome.clusters}
    assert all(len(names) == 1 for names in merged)
    assert {name for names in merged for name in names} == {
        "N18-3011", "06Vt6f2js7", "2Ibp83esmb", "4VAF3d5jNg", "6rabAZhCRS",
    }  # fmt: skip
    assert outcome.dropped["s2orc_json/doc2json/N18-3011.json"] == ("grobid_tei/N18-3011.tei.xml", "version")
    assert all(
        kept.startswith("nougat_openreview/")
        for dropped, (kept, _) in outcome.dropped.items()
        if dropped.startswith("nougat_openreview_cleaned/")
    )


# --- Chinese -----------------------------------------------------------------------------------------

PHRASES = [
    "结果表明{}与{}呈显著相关",
    "本文利用{}方法分析了{}的时空变化特征",
    "研究区位于{}盆地北缘，{}构造发育",
    "采样点的{}含量介于{}之间",
    "与前人的工作相比，{}的差异主要来自{}",
    "因此，{}对{}的控制作用不可忽视",
    "野外观测显示{}层厚约{}米",
    "模拟得到的{}略高于实测的{}",
]


def chinese_text(seed, sentences=120):
    """Paragraphs of fixed phrases whose subjects are made up, so that papers share their manner only."""
    rng = random.Random(seed)

    def name():
        return "".join(chr(rng.randrange(0x4E00, 0x6E00)) for _ in range(rng.randint(4, 8)))

    written = [rng.choice(PHRASES).format(name(), name()) + "。" for _ in range(sentences)]
    return "\n\n".join("".join(written[start : start + 5]) for start in range(0, sentences, 5))


@pytest.mark.parametrize(
    ("change", "share", "least_recall"),
    [
        (replace_sentences, 0.05, 1.0),
        (replace_sentences, 0.10, 1.0),
        (replace_sentences, 0.20, 0.97),
        (edit_paragraphs, 0.20, 0.97),
        (replace_characters, 0.05, 1.0),
        (reorder_sections, 0, 1.0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_edited_copies_of_chinese_texts_are_found_as_well(dedup, paper, change, share, least_recall):
    papers = [(paper(f"zh{seed}", source="zh", format="nougat"), chinese_text(seed)) for seed in range(100)]
    donor = [sentence for seed in range(900, 910) for sentence in chinese_text(seed).split("。") if sentence]
    precision, recall = measure(dedup, papers, planted(papers, change, share, donor), NEAR_ONLY)
    print(f"\nChinese {change.__name__} {share}: precision {precision:.4f}, recall {recall:.4f}")
    assert precision == 1.0
    assert recall >= least_recall
