"""Licence texts, copyright lines, notes and stamps."""

import pytest

from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.papers.schema import Block, Inline

BODY = "Basalt cools slowly under the ice sheet."


@pytest.mark.parametrize(
    "text",
    [
        "This is an open access article distributed under the terms of the Creative Commons Attribution "
        "License, which permits "
        "unrestricted use, distribution, and reproduction in any medium, provided the original author and "
        "source are credited.",
        "Copyright: © 2015 Ek et al. This is an open access article distributed under the terms of the "
        "Creative Commons "
        "Attribution License.",
        "Open Access This article is licensed under a Creative Commons Attribution 4.0 International "
        "License, which permits use. "
        "The images or other third party material in this article are included in the article's Creative "
        "Commons licence. "
        "To view a copy of this licence, visit http://creativecommons.org/licenses/by/4.0/.",
        "© 2020 The Authors. Published by Elsevier Ltd. This is an open access article under the CC BY "
        "license "
        "(http://creativecommons.org/licenses/by/4.0/).",
        "© 2020 Elsevier B.V. All rights reserved.",
        "Copyright 2018 by the author(s).",
        "Licensee MDPI, Basel, Switzerland. This article is an open access article distributed under the "
        "terms and conditions of "
        "the Creative Commons Attribution (CC BY) license.",
        "Publisher’s note Springer Nature remains neutral with regard to jurisdictional claims in published "
        "maps.",
        "Publisher's Note",
        "Downloaded from https://pubs.example.org by guest on 12 May 2020",
        "This content downloaded from 192.0.2.7 on Tue, 01 May 2018 09:00:00 UTC All use subject to "
        "https://about.jstor.org/terms",
        "Authorized licensed use limited to: Example University. Downloaded on May 3, 2020 at 10:00 from "
        "IEEE Xplore. "
        "Restrictions apply.",
        "arXiv:2602.19930v1 [cs.AI] 23 Feb 2026",
        "arXiv:astro-ph/0601001v2 3 Jan 2006",
        "Preprint submitted to Journal of Ice May 3, 2020",
        "Under review as a conference paper at ICLR 2024",
        "Published as a conference paper at ICLR 2026",
        "37th Conference on Neural Information Processing Systems (NeurIPS 2023).",
        "Received: 3 May 2020; Revised: 4 June 2020; Accepted: 5 July 2020; Published online: 6 July 2020",
        "收稿日期：2020-05-03；修回日期：2020-06-01",
        "Permission to make digital or hard copies of all or part of this work for personal or classroom "
        "use is granted without fee.",
    ],
)
def test_boilerplate_paragraphs_go(make_paper, text):
    paper = make_paper(BODY, text)
    assert clean_paper(paper, CleanConfig()) == {"boilerplate": 1}
    assert [block.printed() for block in paper.blocks()] == [BODY]
    assert clean_paper(make_paper(BODY, text), CleanConfig(boilerplate=False)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "We used images under a Creative Commons licence from commons.wikimedia.org.",
        "Articles published under an open access licence are cited more often.",
        "This article is about open access publishing and its costs.",
        "The use of explosives in the field is permitted.",
        "Copyright law in 2020 was revised by the parliament, which had large effects on data mining.",
        "The patients received prednisolone; the trial was accepted on 3 May.",
        "Downloaded from the archive, the records were merged.",
        "This work was supported by the Ice Fund.",
        "2013 was the warmest year. The data were downloaded from NOAA.",
        "All rights of way were mapped.",
        "Submitted samples were dried. Proceedings were held.",
        "Restrictions apply to water use in dry years.",
    ],
)
def test_real_sentences_stay(make_paper, text):
    assert clean_paper(make_paper(BODY, text), CleanConfig()) == {}


def test_boilerplate_at_the_end_or_start_of_a_block_is_cut_off_and_inside_it_stays(make_paper, printed):
    paper = make_paper(
        f"{BODY} It cracks. © 2020 The Authors. Published by Elsevier Ltd.",
        f"Received: 3 May 2020. {BODY}",
        f"{BODY} All rights reserved. It cracks.",
    )
    assert clean_paper(paper, CleanConfig()) == {"boilerplate": 2}
    assert printed(paper) == [f"{BODY} It cracks.", BODY, f"{BODY} All rights reserved. It cracks."]


def test_captions_and_tables_are_not_touched(make_paper):
    figure = Block(
        "figure", [Inline("text", "Melt paths. © 2019 Elsevier B.V. All rights reserved.")], label="Figure 1"
    )
    assert clean_paper(make_paper(BODY, figure), CleanConfig()) == {}


def test_a_stamp_taken_for_a_heading_goes_and_its_text_joins_the_section_before(make_paper):
    paper = make_paper(sections={"Methods": [BODY], "arXiv:2602.19930v1 [cs.AI] 23 Feb 2026": ["It cracks."]})
    assert clean_paper(paper, CleanConfig()) == {"boilerplate": 1}
    assert [(s.heading, len(s.blocks)) for s in paper.sections] == [("Methods", 2)]


def test_the_heading_of_a_dropped_licence_goes_with_it(make_paper):
    paper = make_paper(
        sections={
            "Methods": [BODY],
            "Publisher’s note": ["Springer Nature remains neutral with regard to claims."],
        }
    )
    clean_paper(paper, CleanConfig())
    assert [section.heading for section in paper.sections] == ["Methods"]
