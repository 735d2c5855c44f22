"""Settings of cleaning."""

import pytest
from pydantic import ValidationError

from baltoro.core.config import result_fields
from baltoro.corpus.cleaning import CleanConfig


def test_every_setting_changes_the_result():
    fields = result_fields(CleanConfig())
    assert fields["hyphenation"] is True
    assert fields["back_matter.data_availability"] == "keep"
    assert fields["personal_data.email_token"] == "[EMAIL]"


@pytest.mark.parametrize("token", ["", " ", "a@b.org", "+49", "[EMAIL 1]", "[E\nMAIL]"])
def test_a_mask_that_could_be_masked_again_is_refused(token):
    with pytest.raises(
        ValidationError, match=r"corpus\.clean\.personal_data\.email_token: .*such as \[EMAIL\]"
    ):
        CleanConfig(personal_data={"email_token": token})


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValidationError, match="'keep', 'repair' or 'repair_or_drop'"):
        CleanConfig(formulas="delete")
