import pytest

from baltoro.papers.readers.sciencebeam import parse_sciencebeam
from baltoro.papers.schema import ReadReject

# Dumped the way the pipelines do it: a section's text contains its sub-sections, which follow once more.
INTRODUCTION = "  Introduction Melt is everywhere (Figure 1) . It rises."
CORES = "  Cores We drilled. Results were kept cold."
DATES = "  Dates We dated them."
EMPTY = "  Results"
METHODS = f"  Methods We went to the ice.  {CORES}  {DATES}"
CAPTIONS = (
    "Figure 1: Where melt was seen in the valley during spring.\n"
    "Table 1: Ages of cores.\n"
    "Figure 3: Nobody names this one."
)
CONTENT = (
    f"\nSection Title: Introduction\n{INTRODUCTION}\n\nSection Title: Methods\n{METHODS}\n"
    f"\nSection Title: Cores\n{CORES}\n\nSection Title: Dates\n{DATES}\n\nSection Title: Results\n{EMPTY}\n"
    "\nSection Title: 4.1 Depths\n  4.1 Depths All deep. Table 1 says so.\n"
)


def document(**fields):
    return {"title": "Melt", "abstract": "Short.", "introduction": INTRODUCTION, "section_titles": [],
            "figure_and_table_captions": CAPTIONS, "main_content": CONTENT} | fields  # fmt: skip


def words(paper):
    return " ".join(block.printed() for block in paper.blocks() if block.kind == "paragraph")


def test_the_text_of_a_subsection_stands_once_in_its_own_section():
    paper = parse_sciencebeam(document())
    assert [
        (s.level, s.heading, [b.printed() for b in s.blocks if b.kind == "paragraph"]) for s in paper.sections
    ] == [
        (1, "Introduction", ["Melt is everywhere (Figure 1) . It rises."]),
        (1, "Methods", ["We went to the ice."]),
        (2, "Cores", ["We drilled. Results were kept cold."]),
        (2, "Dates", ["We dated them."]),
        (1, "Results", []),
        (2, "Depths", ["All deep. Table 1 says so."]),
    ]


def test_an_empty_subsection_is_recognised_at_a_sentence_end():
    outer = "  Results All went well.  Depths"
    paper = parse_sciencebeam(
        document(main_content=f"\nSection Title: Results\n{outer}\n\nSection Title: Depths\n  Depths\n")
    )
    assert [(s.level, s.heading) for s in paper.sections][1:] == [(1, "Results"), (2, "Depths")]
    assert words(paper).endswith("All went well.")


def test_a_heading_without_text_that_is_also_a_common_word_is_looked_for_in_linear_time():
    content = f"\nSection Title: A\n  A {'b c ' * 500_000}\n\nSection Title: b\n  b\n"
    paper = parse_sciencebeam(document(main_content=content, introduction=""))
    assert [(section.level, section.heading) for section in paper.sections] == [(1, "A"), (1, "b")]


def test_the_introduction_is_not_doubled_and_is_kept_where_main_content_lacks_it():
    assert words(parse_sciencebeam(document())).count("Melt is everywhere") == 1
    alone = parse_sciencebeam(document(main_content="\nSection Title: Methods\n  Methods We went.\n"))
    assert [section.heading for section in alone.sections] == ["Introduction", "Methods"]
    assert words(alone) == "Melt is everywhere (Figure 1) . It rises. We went."


def test_captions_stand_once_after_their_first_mention_else_at_the_end():
    paper = parse_sciencebeam(document())
    placed = [(section.heading, block.kind, block.label, block.printed()) for section in paper.sections
              for block in section.blocks if block.kind != "paragraph"]  # fmt: skip
    assert placed == [
        ("Introduction", "figure", "Figure 1", "Where melt was seen in the valley during spring."),
        ("Depths", "table", "Table 1", "Ages of cores."),
        ("Depths", "figure", "Figure 3", "Nobody names this one."),
    ]


@pytest.mark.parametrize(
    ("mention", "is_named"),
    [
        ("(figure 12)", True),
        ("FIGURES 12 and 13", True),
        ("Figs. 12", True),
        ("fig.12", True),
        ("Figure 123", False),
        ("Figure 1 and 2", False),
        ("Table 12", False),
        ("config. 12", False),
    ],
)
def test_a_caption_follows_the_section_that_names_it_in_whatever_spelling(mention, is_named):
    content = f"\nSection Title: A\n  A See {mention}.\n\nSection Title: B\n  B Words.\n"
    captions = "Figure 12: Where melt was seen."
    paper = parse_sciencebeam(
        document(main_content=content, introduction="", figure_and_table_captions=captions)
    )
    assert [block.kind for block in paper.sections[0].blocks] == ["paragraph", "figure"][: 1 + is_named]


def test_the_number_of_a_supplementary_figure_may_follow_the_word_directly():
    content = "\nSection Title: A\n  A See figureS2.\n\nSection Title: B\n  B Words.\n"
    captions = "Figure S2: Where melt was seen."
    paper = parse_sciencebeam(
        document(main_content=content, introduction="", figure_and_table_captions=captions)
    )
    assert [block.label for block in paper.sections[0].blocks] == [None, "Figure S2"]


def test_a_caption_dumped_into_the_running_text_is_taken_out():
    caption = "Where melt was seen in the valley during spring."
    content = f"\nSection Title: A\n  A Before. {caption} After Figure 1.\n"
    paper = parse_sciencebeam(document(main_content=content, introduction=""))
    assert words(paper) == "Before. After Figure 1."


def test_placeholders_are_neither_title_nor_abstract():
    paper = parse_sciencebeam(document(title="Artitle Title", abstract="Abstract"))
    assert (paper.title, paper.abstract) == ("", [])


def test_content_without_section_marks_is_one_section():
    paper = parse_sciencebeam(
        document(main_content="All of it.\n\nAnd more.", introduction="", figure_and_table_captions="")
    )
    assert [block.printed() for block in paper.blocks()] == ["All of it.", "And more."]


def test_only_placeholders_are_no_text():
    with pytest.raises(ReadReject, match="neither title, abstract nor content"):
        parse_sciencebeam({"title": "Artitle Title", "abstract": "Abstract", "main_content": " "})
