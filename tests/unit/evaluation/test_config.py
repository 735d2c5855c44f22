import pytest
from pydantic import ValidationError

from baltoro.core.config import result_fields
from baltoro.evaluation.config import LongContextConfig


def test_all_settings_change_what_comes_out():
    fields = result_fields(LongContextConfig())
    assert fields["tasks"] == ["perplexity", "positions", "passkey"]
    assert fields["perplexity.protocols"] == ["yarn_truncated"]
    assert fields["passkey.depths"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert {name.partition(".")[0] for name in fields} == {"tasks", "perplexity", "positions", "passkey"}


@pytest.mark.parametrize(
    "settings",
    [
        {"perplexity": {"protocols": ["wikitext"]}},
        {"perplexity": {"lengths": [1]}},
        {"perplexity": {"max_documents": 0}},
        {"passkey": {"depths": [1.5]}},
        {"passkey": {"depths": []}},
        {"passkey": {"trials": 0}},
        {"tasks": []},
        {"needle": {}},
    ],
)
def test_what_cannot_be_meant_is_refused(settings):
    with pytest.raises(ValidationError):
        LongContextConfig.model_validate(settings)
