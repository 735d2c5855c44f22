"""The closing lines of an instruction set say what each part counted and what wants a look."""

from baltoro.jobs.instruction_lines import instruction_lines, next_steps, warnings_of

REVIEWS = {
    "papers_read": 60, "papers_unreadable": 1, "joined_own_file": 8, "joined_stem": 1, "joined_title": 0,
    "joined": 9, "not_counted_author_reply": 8, "reviews_of_joined_papers": 17, "review_too_short": 2,
    "review_too_long": 0, "reviews_kept": 15, "merged": 9, "before_long_tail": 9, "examples": 8,
    "cut_abstract": 0, "cut_captions": 2, "cut_content": 5, "content_lost": 1,
}  # fmt: skip
SIGNALS = {
    "hypernym_judgement": {"candidates": 40, "kept": 10, "rejected": 0, "over_cap": 30},
    "keywords": {"candidates": 20, "kept": 10, "rejected": 10, "over_cap": 0},
}
DECISIONS = {
    "kept": 1, "dropped": 1, "edited": 0, "stale": 1, "absent": 4, "applied": 2,
    "absent_names": ["a", "b", "c", "d"], "stale_names": ["e"],
    "noise": {"keywords": {"looked_at": 2, "noise": 1, "fraction": 0.5, "low": 0.09, "high": 0.91}},
}  # fmt: skip


def told(steps, warnings=()):
    summary = {
        "artifact": "/w/instructions/geo/1",
        "examples": 28,
        "by_task": {"keywords": 10, "review": 8},
        "by_part": {"signals": 20, "reviews": 8},
        "splits": {"train": 27, "validation": 1},
        "rejected_by_part": {
            "signals": {"too_short": 10, "not_drawn": 30},
            "reviews": {"paper_without_reviews": 51, "review_too_short": 2},
        },
        "steps": steps,
        "warnings": list(warnings),
        "files": {"counts.json": "/w/instructions/geo/1/b/counts.json"},
    }
    return instruction_lines(summary)


def test_each_part_tells_its_steps_and_why_the_rest_is_left_out():
    assert told({"signals": SIGNALS, "reviews": REVIEWS}) == [
        "28 examples (27 for train, 1 for validation): 10 keywords, 8 review",
        "signals: 20 examples",
        "  60 candidates = 20 kept + 10 rejected + 30 over the tasks' weights and caps",
        "  10 of them (50%) ask for yes or no; weight and cap of hypernym_judgement and hyponym_judgement "
        "under "
        "instructions.signals.tasks change that",
        "  left out: 10 too_short",
        "reviews: 8 examples",
        "  60 papers read, 1 of them unreadable; 9 joined with reviews (8 by own file, 1 by stem)",
        "  17 reviews of these, 15 kept (2 review_too_short)",
        "  not counted as reviews: 8 author_reply",
        "  9 papers' reviews merged, 9 examples before the bounds of long_tail, 8 after",
        "  papers cut to fit: 2 in their captions, 5 in their content",
        "  left out: 51 paper_without_reviews, 2 review_too_short",
        "counts.json: /w/instructions/geo/1/b/counts.json",
        "/w/instructions/geo/1",
    ]


def test_decisions_tell_noise_of_what_was_applied():
    lines = told({"decisions": DECISIONS}, ["look here"])
    assert lines[1:5] == [
        "decisions: 1 kept, 1 dropped, 0 edited; 4 name no example of this set, 1 are on another state of "
        "theirs",
        "noise (dropped or edited) among the 2 decisions that were applied:",
        "  keywords: 1 of 2 = 50% (between 9% and 91%, 95 %)",
        "WARNING: look here",
    ]


def test_warnings_name_empty_parts_lost_content_loose_decisions_and_few_phrasings():
    warnings = warnings_of(
        {"signals": 0, "reviews": 8},
        {"reviews": REVIEWS, "decisions": DECISIONS},
        {"signals": {"malformed_xml": 3}},
        few_paraphrases={"keywords": 1},
    )
    assert [warning.partition(":")[0] for warning in warnings] == [
        "the part signals of the recipe has no example",
        "1 of 8 review examples have nothing of their paper's content left; raise instructions.reviews."
        "cutoff_tokens, or lower response_room_tokens",
        "4 decisions name no example of this set",
        "1 decisions are on another state of their example than this build's, and were not applied",
        "instructions.signals.templates",
    ]
    assert warnings[0].endswith("3 malformed_xml")
    assert warnings[2].endswith("a, b, c, …")
    fewer = {"reviews": {**REVIEWS, "examples": 10}}
    assert warnings_of({"reviews": 10}, fewer, {}, few_paraphrases={}) == []


def test_the_next_steps_are_to_look_and_to_train():
    assert [step.split()[1] for step in next_steps(finetunes=True, decided=False)] == [
        "instructions",
        "finetune",
    ]
    assert len(next_steps(finetunes=False, decided=True)) == 1
