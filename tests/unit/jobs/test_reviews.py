"""Papers and reviews become one set, however the papers are cut into tasks."""

import pytest

from baltoro.core.errors import InputError
from baltoro.core.storage import Storage
from baltoro.corpus.work import WorkArea
from baltoro.instructions.reviews.aspects import from_json
from baltoro.jobs import reviews as subject
from baltoro.jobs.instruction_sets import InstructionSet
from baltoro.jobs.stages import Context
from baltoro.testing.chat_server import GOOD
from baltoro.testing.training_jobs import write_tokenizer

REVIEW = """\
ID: {stem}
Title: {title}
Number of Reviews: 1
Original Ratings: 6

Aggregated Review:
### Strengths and Weaknesses
Strengths:
* The field work on {stem} is careful, and every outcrop is shown in a photograph.

Weaknesses:
* The samples of {stem} are few, and no error is given for any of their ages.

### Suggestions for Improvement
Please date more samples of {stem}, and give the error of each age in the table.
"""


SETTINGS = (
    "instructions.reviews={papers: papers, reviews: reviews, "
    "long_tail: {min_input_tokens: null, min_response_tokens: null}}"
)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Do tasks here, those whose file is there left out, as on a cluster."""
    done = []

    def run_tasks(area, name, task, count, *, what):
        for index in sorted(set(range(count)) - area.finished(name)):
            task.run(index)
            done.append(name)

    monkeypatch.setattr(subject, "run_tasks", run_tasks)
    return done


@pytest.fixture
def built(load, papers, workplace):
    """Build the review part of a set; the folder ``area`` can be used again."""
    folder = workplace / "reviews"
    folder.mkdir()
    for path in papers.iterdir():
        title = path.read_text().splitlines()[0].removeprefix("# ")
        (folder / f"{path.stem}.txt").write_text(REVIEW.format(stem=path.stem, title=title))
    (papers / "broken.md").write_bytes(b"\x00\x01\x02\x03" * 40)

    def build(area, *overrides):
        recipe = load(SETTINGS, *overrides)
        made = InstructionSet()
        subject.add_reviews(
            Context(recipe),
            recipe.instructions.reviews,
            write_tokenizer(str(workplace)),
            WorkArea(Storage(), str(workplace / area)),
            made,
        )
        return made

    return build


def test_the_cut_into_tasks_changes_nothing(built, one_process):
    whole = built("whole")
    counts = whole.counts["reviews"]
    assert (counts["papers_read"], counts["papers_unreadable"], counts["examples"]) == (4, 1, 3)
    assert len(one_process) == 2
    cut = built("cut", "corpus.objects_per_task=1")
    assert len(one_process) == 2 + 8
    assert cut.examples == whole.examples
    assert cut.counts == whole.counts
    assert sorted(map(str, cut.rejects)) == sorted(map(str, whole.rejects))
    first = whole.examples["reviews"][0]
    assert "Columns form as basalt cools" in first.turns[1].text
    assert "every outcrop is shown" in first.turns[2].text


def test_tasks_that_are_done_stay_done_unless_an_endpoint_has_answered_since(built, one_process, monkeypatch):
    said = {"papers/basalt.md": from_json(GOOD)}

    def answers(context, config, pairs):
        return {
            pair.paper.paper_id: said.get(pair.paper.paper_id, ("endpoint_failed", "busy"))
            for pair in pairs.pairs
        }, {}

    monkeypatch.setattr(subject, "merge_by_endpoint", answers)
    endpoint = (
        "instructions.reviews.merger=endpoint",
        "instructions.reviews.endpoint={urls: ['http://h/v1'], model: m}",
    )
    first = built("area", *endpoint)
    assert len(first.examples["reviews"]) == 1
    built("area", *endpoint)
    assert len(one_process) == 2
    said |= {"papers/gneiss.md": from_json(GOOD)}
    assert len(built("area", *endpoint).examples["reviews"]) == 2
    assert len(one_process) == 3


def test_a_folder_without_papers_is_refused_with_what_was_found(built, papers):
    for path in papers.glob("*.md"):
        if path.stem != "broken":
            path.unlink()
    with pytest.raises(InputError, match=r"papers: no paper among 1 file; rejected: 1 \w+. Give a folder"):
        built("area")
    with pytest.raises(InputError, match="nowhere: no such file, and no folder that holds files"):
        built("area", "instructions.reviews.papers=nowhere")
