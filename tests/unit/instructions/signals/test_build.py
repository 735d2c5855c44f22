import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.config import decode, result_fields
from baltoro.core.errors import ConfigError
from baltoro.instructions.example import Example, Turn
from baltoro.instructions.signals import references
from baltoro.instructions.signals.build import (
    Selection,
    count_tasks,
    knowledge_examples,
    paper_examples,
    select,
)
from baltoro.instructions.signals.config import SignalsConfig, TaskConfig
from baltoro.instructions.signals.knowledge.concepts import Statements
from baltoro.instructions.signals.knowledge.entities import Vocabulary
from baltoro.instructions.signals.quality import REASONS
from baltoro.instructions.signals.tasks import TASKS
from baltoro.papers.schema import Block, Inline, Paper, paper_from_dict, paper_to_dict

PAPER_TASKS = [name for name, task in TASKS.items() if task.material == "paper"]


def knowledge():
    statements = Statements()
    for child, parent in [("basalt", "rock"), ("granite", "rock"), ("cirrus", "cloud"), ("stratus", "cloud")]:
        statements.parent(child, parent)
    statements.definition("basalt", "A dark rock that flowed out as lava.")
    statements.name("basalt", "basalt", preferred=True)
    statements.name("basalt", "trap rock", preferred=False)
    statements.fact("basalt", "colour", "black")
    statements.fact("basalt", "part of", "crust")
    return statements.build("k")


def vocabulary():
    statements = Statements()
    for name in ("glacier", "debris", "snow", "lower slope"):
        statements.name(name, name, preferred=True)
    return Vocabulary.of([statements.build("k")])


def test_a_full_paper_gives_every_task(paper):
    examples, rejects = paper_examples(paper, SignalsConfig(), vocabulary=vocabulary())
    assert {example.task for example in examples} == set(PAPER_TASKS)
    assert {reject.reason for reject in rejects} <= set(REASONS)
    assert len({example.example_id for example in examples}) == len(examples)
    for example in examples:
        assert example.source == "signals"
        assert example.origin == "geo/p1.xml"
        assert example.example_id.startswith(f"geo/p1.xml#{example.task}")
        assert example.turns[-1].role == "assistant"
        assert 0 <= example.template < 5


def test_knowledge_gives_the_other_tasks():
    examples, _ = knowledge_examples(knowledge(), SignalsConfig())
    assert {example.task for example in examples} == set(TASKS) - set(PAPER_TASKS)
    assert all(example.source == "knowledge" for example in examples)
    assert all(example.origin.startswith("k/") for example in examples)
    assert all(turn.role != "input" for example in examples for turn in example.turns)


def test_the_same_paper_gives_the_same_bytes_and_is_not_changed(paper):
    before = paper_to_dict(paper)
    first = paper_examples(paper, SignalsConfig())
    copy = paper_from_dict(before)
    assert paper_examples(copy, SignalsConfig()) == first
    assert paper_to_dict(paper) == before


def test_another_seed_words_differently(paper):
    def templates(seed):
        return [example.template for example in paper_examples(paper, SignalsConfig(seed=seed))[0]]

    assert templates(0) != templates(1)


def test_every_candidate_is_an_example_or_a_reject(paper):
    everything = SignalsConfig(tasks={name: TaskConfig(per_paper=1000) for name in PAPER_TASKS})
    few = SignalsConfig(tasks={name: TaskConfig(per_paper=1) for name in PAPER_TASKS})
    totals = [
        {task: counts.candidates for task, counts in count_tasks(*paper_examples(paper, config)).items()}
        for config in (everything, few)
    ]
    assert totals[0] == totals[1]
    counts = count_tasks(*paper_examples(paper, few))
    assert all(count.kept <= 1 for count in counts.values())
    assert counts["section_classification"].over_cap == {"over_paper_cap": 3}


def test_costly_values_are_made_for_drawn_candidates_only(paper, monkeypatch):
    named = []
    shown = references._shown
    monkeypatch.setattr(references, "_shown", lambda *given: named.append(given) or shown(*given))
    for number in range(30):
        paper.sections[0].blocks.append(
            Block(
                "paragraph",
                [
                    Inline("text", f"Ice below debris of lot {number} melts more slowly in every season "),
                    Inline("citation", "[1]", "b1"),
                    Inline("text", "."),
                ],
            )
        )
    counts = count_tasks(*paper_examples(paper, SignalsConfig()))["reference_resolution"]
    assert (counts.kept, counts.over_cap["over_paper_cap"]) == (4, 29)
    assert len(named) == 4


def test_only_named_tasks_are_made(paper):
    config = SignalsConfig(only_named_tasks=True, tasks={"keywords": TaskConfig()})
    examples, rejects = paper_examples(paper, config)
    assert [example.task for example in examples] == ["keywords"]
    assert rejects == []
    nothing, _ = paper_examples(paper, SignalsConfig(enabled=False))
    assert nothing == []
    without = SignalsConfig(tasks={"keywords": TaskConfig(weight=0)})
    assert "keywords" not in {example.task for example in paper_examples(paper, without)[0]}


def test_an_empty_paper_gives_nothing():
    assert paper_examples(Paper(paper_id="x"), SignalsConfig()) == ([], [])


def some(number, task="keywords"):
    return [
        Example(f"p{n}#{task}", task, "signals", f"p{n}", [Turn("assistant", "x")]) for n in range(number)
    ]


def kept_of(shards, config):
    parts = [Selection.of(((e.task, e.example_id) for e in shard), config) for shard in shards]
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    outcomes = [select(shard, whole, config) for shard in shards]
    return (
        {example.example_id for kept, _ in outcomes for example in kept},
        [reject for _, rejects in outcomes for reject in rejects],
    )


@given(st.integers(1, 6), st.integers(0, 2**32), st.sampled_from([1.0, 0.5]), st.integers(1, 70))
@settings(max_examples=40)
def test_shards_and_their_order_do_not_matter(number, shuffle, weight, cap):
    config = SignalsConfig(tasks={"keywords": TaskConfig(weight=weight, cap=cap)})
    examples = some(60) + some(5, "hypernym")
    whole, rejects = kept_of([examples], config)
    random.Random(shuffle).shuffle(examples)
    shards = [examples[place::number] for place in range(number)]
    again, other_rejects = kept_of(shards, config)
    assert whole == again
    assert len(rejects) == len(other_rejects) == 65 - len(whole)
    assert sum("#keywords" in example_id for example_id in whole) <= cap


def test_cap_and_weight_are_counted_apart():
    config = SignalsConfig(tasks={"keywords": TaskConfig(weight=0.5, cap=100)})
    kept, rejects = kept_of([some(1000)], config)
    assert len(kept) == 100
    reasons = [reject.reason for reject in rejects]
    assert set(reasons) == {"not_drawn", "over_cap"}
    assert 430 < reasons.count("not_drawn") < 570
    counts = count_tasks([e for e in some(1000) if e.example_id in kept], rejects)["keywords"]
    assert counts.candidates == 1000
    assert (counts.kept, counts.rejected.total()) == (100, 0)


def test_a_larger_cap_keeps_what_the_smaller_one_kept():
    small, _ = kept_of([some(200)], SignalsConfig(tasks={"keywords": TaskConfig(cap=20)}))
    large, _ = kept_of([some(200)], SignalsConfig(tasks={"keywords": TaskConfig(cap=50)}))
    assert small < large


def test_an_example_quotes_another_paper_only_by_title(paper):
    cited = {reference.title for reference in paper.references}
    changed = dataclasses.replace(paper, references=[])
    examples, rejects = paper_examples(changed, SignalsConfig())
    assert not any(title in turn.text for title in cited if title for e in examples for turn in e.turns)
    assert {r.reason for r in rejects if r.stage == "signals.reference_resolution"} == {"unlinked"}


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"tasks.title_of_abstract: there is no such task, did you mean title_from"
    ):
        decode(SignalsConfig, {"tasks": {"title_of_abstract": {"weight": 1.0}}}, "recipe.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tasks": {"keywords": {"weigt": 1.0}}}, "tasks.keywords.weigt: unknown key, did you mean"),
        ({"tasks": {"keywords": {"weight": 2.0}}}, "tasks.keywords.weight"),
        (
            {"knowledge": [{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]},
            "knowledge: the name 'a' stands twice",
        ),
    ],
)
def test_wrong_settings_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        decode(SignalsConfig, data, "recipe.yaml")


def test_places_are_not_fingerprinted_and_everything_else_is():
    config = SignalsConfig(
        knowledge=({"name": "a", "uri": "x"},), templates="y", tasks={"keywords": TaskConfig(cap=3)}
    )
    fields = result_fields(config)
    assert fields["tasks.keywords.cap"] == 3
    assert fields["knowledge.0.name"] == "a"
    assert not {"templates", "knowledge.0.uri"} & set(fields)


def test_real_papers_keep_the_account(sample_data):
    from baltoro.papers import read

    config = SignalsConfig()
    papers = [r for r in read(str(sample_data / "jats" / "climate")) if isinstance(r, Paper)]
    everything = SignalsConfig(tasks={name: TaskConfig(per_paper=10_000) for name in PAPER_TASKS})
    for paper in papers:
        counts = count_tasks(*paper_examples(paper, config))
        assert counts["title_from_abstract"].kept == 1
        assert counts["reference_resolution"].kept == 4
        others = count_tasks(*paper_examples(paper, everything))
        assert {t: c.candidates for t, c in counts.items()} == {t: c.candidates for t, c in others.items()}


def test_a_real_ontology_gives_every_task(sample_data):
    from baltoro.instructions.signals.config import KnowledgeSource
    from baltoro.instructions.signals.knowledge.read import read_knowledge

    sweet = read_knowledge(KnowledgeSource(name="sweet", uri=str(sample_data / "ontology" / "sweet")))
    assert sweet.rejects == []
    examples, _ = knowledge_examples(sweet, SignalsConfig())
    answers = {example.example_id: example.text("assistant") for example in examples}
    assert "extrusive rock and lava" in next(
        answer for key, answer in answers.items() if key.endswith("/Aa#hypernym")
    )
    assert {example.task for example in examples} == set(TASKS) - set(PAPER_TASKS)


def test_a_quarter_of_the_judgements_is_kept_unless_a_weight_is_given():
    assert SignalsConfig().weight("hypernym_judgement") == SignalsConfig().weight("hyponym_judgement") == 0.25
    assert SignalsConfig().weight("hypernym") == 1.0
    named = SignalsConfig(tasks={"hypernym_judgement": {"cap": 5}, "keywords": {"weight": 0.5}})
    assert (named.weight("hypernym_judgement"), named.weight("keywords")) == (0.25, 0.5)
    alone = named.model_copy(update={"only_named_tasks": True})
    assert (alone.weight("hypernym"), alone.weight("hypernym_judgement")) == (0.0, 0.25)
