import pytest

from baltoro.instructions.signals.config import QualityConfig
from baltoro.instructions.signals.quality import (
    REASONS,
    check_candidate,
    check_response,
    check_text,
    garbled_at,
    letter_fraction,
)
from baltoro.instructions.signals.tasks import TASKS

CONFIG = QualityConfig()
PLAIN = "The glacier lost a third of its mass within two decades."


@pytest.mark.parametrize(
    "text",
    [
        "The gla\ufffdcier lost mass.",
        "The (cid:12) lost mass.",
        "The glacier \ue123 lost mass.",
        "The glaciÃ©r lost mass.",
        "Theglacierlostmassbecauseoftheheat and so on.",
        "The g l a c i e r lost mass.",
        "Control \x07 characters.",
    ],
)
def test_extraction_faults_are_garbled(text):
    assert garbled_at(text)
    assert check_text(text + " " + PLAIN, "sentence", CONFIG)[0] == "garbled"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "The primer was ACGTACGTACGTACGTACGTACGTACGTACGTACGTACGT in all runs.",
        "Élévation à São Tomé – “mesurée” in µm ± 3.",
        r"With $\operatorname{argmaxoveralllabelsthatexistanywhere}$ we are done.",
        "Lines\nbreak\nhere.",
    ],
)
def test_sound_text_is_not_garbled(text):
    assert garbled_at(text) is None


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("Too short.", "sentence", "too_short"),
        ("x" * 900, "sentence", "too_long"),
        ("and lost a third of its mass within two decades of warming.", "sentence", "fragment"),
        ("The glacier lost a third of its mass within two decades, as", "sentence", "fragment"),
        ("The data lie at https://example.org/data for everyone to use.", "sentence", "address"),
        ("The loss of mass on both glaciers, following the", "caption", "fragment"),
        ("1.2 3.4 5.6 7.8 9.10 11.12 13.14 15.16 17.18 (ice) 19.20.", "sentence", "few_letters"),
        ("Ek, Holm et al. A study of ice", "title", "not_a_title"),
        ("Ek JT (2010) A study of ice. Oslo: Press", "title", "not_a_title"),
        ("Ice melt, http://example.org", "title", "address"),
        ("Ice", "title", "too_short"),
        ("12.34", "term", "few_letters"),
        ("1234567890 12345.", "definition", "bare_number"),
    ],
)
def test_each_kind_has_its_rules(text, kind, reason):
    assert check_text(text, kind, CONFIG)[0] == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (PLAIN, "sentence"),
        ("mRNA levels rose in all samples that had been heated [4].", "sentence"),
        ("Vitamin D (1990–2010): a history", "title"),
        ("0.5", "cell"),
    ],
)
def test_sound_text_passes(text, kind):
    assert check_text(text, kind, CONFIG) is None


def test_bounds_come_from_the_recipe():
    assert check_text(PLAIN, "sentence", QualityConfig(min_sentence_characters=80))[0] == "too_short"
    assert check_text("1 2 3 4 5 6 " + PLAIN, "sentence", QualityConfig(min_letter_fraction=0.99))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Yes.", "too_short"),
        ("There is no corresponding information here.", "no_answer"),
        ("The word “melt” means that 12.", "bare_number"),
    ],
)
def test_known_noise_of_responses(text, reason):
    assert check_response(text, CONFIG)[0] == reason


def test_a_response_may_name_a_number_of_something():
    assert check_response("The atomic number of “iron” is 26.", CONFIG) is None


def test_an_answer_that_the_question_gives_away_is_refused():
    title = "A century of glacier change"
    abstract = f"{title}. {PLAIN} " * 4
    slots = {"input": abstract, "output": title}
    assert check_candidate(TASKS["title_from_abstract"], slots, CONFIG)[0] == "answer_in_input"
    assert check_candidate(TASKS["title_from_abstract"], slots | {"output": "Another title"}, CONFIG)[0] == (
        "too_short"
    )


def test_what_is_known_of_a_text_is_not_looked_for_again():
    title, abstract = "A century of glacier change", PLAIN * 6
    slots = {"input": abstract, "output": title}
    known = {}
    assert check_candidate(TASKS["title_from_abstract"], slots, CONFIG, known) is None
    assert known == {(title, "title"): None, (abstract, "abstract"): None}
    known[abstract, "abstract"] = ("garbled", "as noted")
    assert check_candidate(TASKS["title_from_abstract"], slots, CONFIG, known) == ("garbled", "as noted")


def test_letters_are_counted_outside_formulas():
    assert letter_fraction("abc $1+2+3+4$ déf") == 1.0
    assert letter_fraction("") == 0.0
    assert letter_fraction("ab12") == 0.5
