"""Every layout of reviews becomes the same record, and what is no review is counted."""

import json

import pytest

from baltoro.core.errors import InputError
from baltoro.instructions.reviews.readers import from_paper, read_reviews
from baltoro.instructions.reviews.records import is_acceptance, score
from baltoro.papers.schema import Paper
from baltoro.papers.schema import Review as Published


def _write(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


def _heads(review):
    return [(part.head, part.text) for part in review.parts]


def test_peerread_keeps_the_meta_review_apart_and_takes_the_decision(tmp_path):
    record = {
        "title": "On melt", "abstract": "Melt rises.", "id": "17", "accepted": True, "conference": "ICLR",
        "reviews": [
            {"IS_META_REVIEW": False, "comments": "SUMMARY:\nMelt.\nWEAKNESSES: few data\n- one",
             "RECOMMENDATION": "7: good", "REVIEWER_CONFIDENCE": 4},
            {"IS_META_REVIEW": True, "comments": "All agree.", "RECOMMENDATION": "Accept (poster)"},
            {"IS_META_REVIEW": False, "comments": "We thank you", "TITLE": "Re: question"},
            {"IS_META_REVIEW": False, "comments": "Is the code open?"},
            {"IS_META_REVIEW": False, "comments": "spam", "RECOMMENDATION": -1},
            {"IS_META_REVIEW": False, "comments": " ", "RECOMMENDATION": 3},
        ],
    }  # fmt: skip
    (paper,) = read_reviews(_write(tmp_path, **{"17__json": record})).papers
    assert (paper.layout, paper.key, paper.stem, paper.title) == ("peerread", "17", "17", "On melt")
    assert [_heads(review) for review in paper.reviews] == [
        [("SUMMARY", "Melt."), ("WEAKNESSES", "few data\n- one")]
    ]
    assert (paper.reviews[0].rating, paper.reviews[0].confidence) == (7, 4)
    assert [review.text() for review in paper.meta_reviews] == ["All agree."]
    assert (paper.decision, paper.accepted) == ("Accept (poster)", True)
    assert paper.dropped == {"author_reply": 1, "discussion": 1, "not_rated_comment": 1, "empty": 1}


def test_asap_joins_decision_and_reviews_and_leaves_parsed_papers_alone(tmp_path):
    review = {
        "id": "V_1",
        "reviews": [{"review": "Sound.", "rating": "6: ok", "confidence": "3: fair"}],
        "metaReview": "Good.",
    }
    paper = {"id": "V_1", "decision": "Reject", "title": "On melt", "conference": "V"}
    parsed = {"name": "V_1.pdf", "metadata": {"title": "On melt", "sections": []}}
    read = read_reviews(
        _write(tmp_path, V_1_review__json=review, V_1_paper__json=paper, V_1_content__json=parsed)
    )
    (found,) = read.papers
    assert (found.key, found.stem, found.title, found.accepted) == ("V_1", "V_1", "On melt", False)
    assert (found.reviews[0].rating, found.reviews[0].confidence) == (6, 3)
    assert found.meta_reviews[0].text() == "Good."
    assert (read.other_files, read.rejects) == (2, [])


def _note(note_id, *, old, signature, invitation, content, **more):
    note = {
        "id": note_id, "forum": "F", "replyto": "F", "signatures": [f"V/Paper1/{signature}"], "cdate": 1.6e12
    }  # fmt: skip
    path = f"V/Paper1/-/{invitation}"
    note |= {"invitation": path} if old else {"invitations": [path, "V/-/Edit"]}
    note["content"] = content if old else {name: {"value": value} for name, value in content.items()}
    return note | more


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("layout", ["list", "notes", "jsonl", "replies"])
def test_notes_of_both_apis_are_sorted_by_who_wrote_them(tmp_path, old, layout):
    def note(note_id, signature, invitation, content, **more):
        return _note(note_id, old=old, signature=signature, invitation=invitation, content=content, **more)

    submission = note("F", "Authors", "Submission", {"title": "On melt", "abstract": "Melt rises."})
    del submission["replyto"]
    form = {
        "title": "A view", "summary": "It is about melt.", "strengths": "Clear text here.",
        "weaknesses": "N/A", "rating": "6: weak accept" if old else 6, "confidence": 3,
        "soundness": "3 good", "code_of_conduct": "Yes",
    }  # fmt: skip
    replies = [
        note("r1", "Reviewer_a", "Official_Review", form),
        note("r2", "Reviewer_b", "Official_Review", {"review": "x", "rating": 5}, ddate=1),
        note("c1", "Authors", "Official_Comment", {"comment": "We thank you."}),
        note("c2", "Reviewer_a", "Official_Comment", {"comment": "Thanks."}, replyto="c1"),
        note("c3", "Someone", "Public_Comment", {"comment": "Nice."}),
        note("c4", "Reviewer_c", "Official_Review", {"review": "only a comment", "rating": -1}),
        note("d", "Program_Chairs", "Decision", {"decision": "Accept (oral)", "comment": "All agree."}),
        note("m", "Area_Chair_x", "Meta_Review", {"metareview": "It is fine."}),
    ]
    if layout == "replies":
        content = [submission | {"details": {"replies": replies}}]
    else:
        content = [submission, *replies, replies[0]]
    if layout == "jsonl":
        files = {"dump__jsonl": "\n".join(map(json.dumps, content))}
    else:
        files = {"dump__json": {"notes": content} if layout == "notes" else content}
    (paper,) = read_reviews(_write(tmp_path, **files)).papers
    assert (paper.key, paper.title, paper.abstract) == ("F", "On melt", "Melt rises.")
    (review,) = paper.reviews
    assert _heads(review) == [
        ("Summary", "It is about melt."), ("Strengths", "Clear text here."), ("Weaknesses", "N/A")
    ]  # fmt: skip
    assert (review.rating, review.confidence) == (6, 3)
    assert [one.text() for one in paper.meta_reviews] == ["All agree.", "It is fine."]
    assert (paper.decision, paper.accepted, paper.year) == ("Accept (oral)", True, 2020)
    assert paper.dropped == {
        "author_reply": 1, "discussion": 1, "public_comment": 1, "deleted": 1, "not_rated_comment": 1
    }  # fmt: skip


def test_flat_text_is_one_review_and_its_comments_are_counted(tmp_path):
    text = (
        "ID: abc\nTitle: On melt\nConference: V\nYear: 2023\nNumber of Reviews: 4\n"
        "Original Ratings: 4, 7, -1, -1\nOriginal Confidences: 3, 4, -1, -1\n\nAggregated Review:\n"
        "### Key Points\nMelt rises.\n\n### Strengths and Weaknesses\nStrengths:\n- Clear: "
        "yes\n\nWeaknesses:\n- Few data\n"
    )
    (paper,) = read_reviews(_write(tmp_path, abc__txt=text)).papers
    assert _heads(paper.reviews[0]) == [
        ("Key Points", "Melt rises."), ("Strengths", "- Clear: yes"), ("Weaknesses", "- Few data")
    ]  # fmt: skip
    assert (paper.reviews[0].rating, paper.year, paper.dropped) == (
        5.5,
        2023,
        {"comment_within_aggregated_review": 2},
    )


def test_a_letter_is_taken_apart_by_referee_and_loses_its_boilerplate():
    letter = (
        "Thank you for submitting your article. It was good.\n\nAll of us liked the maps.\n\nReviewer #1:\n\n"
        "The maps are clear.\n\nWe do not see why.\n\nReviewer #2 (minor comments):\n\nDefine melt. "
        "[Editors’ note: "
        "more not shown.]\n\nKind regards,\n\nhttps://example.org/x"
    )
    paper = Paper(paper_id="p", uri="a/p.xml", title="On melt")
    paper.reviews = [
        Published("decision-letter", letter),
        Published("reply", "We did."),
        Published("reviewer-report", "Sound work.", 1, "A. Bee", "minor-revision"),
        Published("editor-report", "No accompanying comment."),
        Published("editor-report", "Please see the reports."),
    ]
    found = from_paper(paper)
    assert [(review.key, review.reviewer, review.text()) for review in found.reviews] == [
        ("r1", None, "All of us liked the maps."),
        ("r2", "Reviewer #1", "The maps are clear.\n\nWe do not see why."),
        ("r3", "Reviewer #2", "Define melt."),
        ("r4", "A. Bee", "Sound work."),
    ]
    assert (found.reviews[3].round, found.reviews[3].recommendation) == (1, "minor-revision")
    assert [review.text() for review in found.meta_reviews] == ["Please see the reports."]
    assert found.dropped == {"author_reply": 1, "empty": 1}
    assert from_paper(Paper(paper_id="q", reviews=[Published("reply", "x")])) is None


def test_a_form_letter_keeps_only_the_answers_to_its_comments_question():
    form = (
        "Dear Dr. Bee,\n\nPlease revise.\n\nReviewers' comments:\n\n1. Is the manuscript "
        "sound?\n\nReviewer #1: Yes\n\n"
        "**********\n\n-->5. Review Comments to the Author\n\nPlease use the space provided.\n\n"
        "Reviewer #1: The maps are good.\n\nThe text is long.\n\nReviewer #2: (No "
        "Response)\n\n**********\n\nReviewer #1: No"
    )
    found = from_paper(Paper(paper_id="p", reviews=[Published("aggregated-review-documents", form)]))
    assert [(review.reviewer, review.text()) for review in found.reviews] == [
        ("Reviewer #1", "The maps are good.\n\nThe text is long.")
    ]


def test_what_is_no_review_is_a_reject_with_its_reason(tmp_path):
    good = {"id": "1", "reviews": [{"comments": "Sound."}]}
    folder = _write(
        tmp_path, a__json=good, b__json="{", c__json={"x": 1}, d__json={"reviews": [3]}, e__txt="Hello"
    )
    (tmp_path / "1.json").write_text(json.dumps(good))
    read = read_reviews(folder)
    assert len(read.papers) == 1
    assert sorted((reject.paper_id, reject.reason) for reject in read.rejects) == [
        ("1", "duplicate_reviews"), ("b.json", "malformed_json"), ("c.json", "unknown_layout"),
        ("d.json", "malformed_json"), ("e.txt", "unknown_layout"),
    ]  # fmt: skip


def test_a_folder_without_reviews_stops_with_what_was_found(tmp_path):
    with pytest.raises(InputError, match=r"no review among 1 files \(1 unknown_layout\); give PeerRead"):
        read_reviews(_write(tmp_path, e__txt="Hello"))
    with pytest.raises(InputError, match="no such file"):
        read_reviews(str(tmp_path / "absent"))


def test_scores_and_decisions_are_read_from_words():
    assert [score(value) for value in (8, "8: top", "-1", "strong", None, False)] == [
        8,
        8,
        -1,
        None,
        None,
        None,
    ]
    decisions = ("Reject", "accept", "V 2024 poster", "major revision", "")
    assert [is_acceptance(words) for words in decisions] == [
        False, True, True, None, None
    ]  # fmt: skip
