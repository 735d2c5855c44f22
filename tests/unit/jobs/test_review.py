"""`baltoro review`: a paper in, a review out, asked as in training; what cannot be read of it is kept."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

from baltoro.commands import models
from baltoro.core.config import decode
from baltoro.core.errors import ConfigError, InputError, PlatformError, StorageError
from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.data.tokenizer import save_tokenizer
from baltoro.instructions.formats_config import FormatConfig
from baltoro.instructions.reviews import ask
from baltoro.instructions.reviews.ask import ChatEndpoint, Sampling
from baltoro.instructions.reviews.aspects import ASPECTS, merged_review, to_brackets
from baltoro.instructions.reviews.config import ReviewsConfig
from baltoro.instructions.reviews.outcomes import EndpointError
from baltoro.instructions.reviews.page import review_text
from baltoro.instructions.reviews.service import (
    SERVICE_FILE,
    service_of,
    token_counter,
    write_service_file,
)
from baltoro.instructions.reviews.triples import INSTRUCTION, review_example
from baltoro.instructions.tokens import encode_example
from baltoro.jobs import review as jobs_review
from baltoro.jobs import review_model
from baltoro.jobs.recipe import Recipe
from baltoro.jobs.review import (
    check_page,
    read_one,
    review_paper,
    reviewer_of,
    taught_to_review,
    write_page,
)
from baltoro.jobs.review_model import LocalModel
from baltoro.papers.reader import read
from baltoro.testing import chat_server
from baltoro.testing.chat_server import GOOD, running_chat_server
from baltoro.testing.tiny import byte_tokenizer, tiny_plan

PAPER = "# On melt\n\n## Methods\n\n" + "\n\n".join(
    f"Paragraph {number} tells how the melt rises under the crust; write to anna@example.org for more."
    for number in range(30)
)
MERGED = merged_review(GOOD)
REVIEWS = ReviewsConfig(papers="p", cutoff_tokens=1400, response_room_tokens=300, template_room_tokens=300)
FEW = Sampling(max_new_tokens=6)


def service(**format):
    clean = CleanConfig().model_dump(mode="json")
    return service_of(REVIEWS, FormatConfig(**format), clean, sequence_length=4096)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Threads that wait for each other on a busy machine cost more than so small a model."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def untaught(tmp_path_factory):
    """A folder of a tiny LLaMA with random weights that reads 2,048 bytes."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(**{**dict(tiny_plan().config), "max_position_embeddings": 2048})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    save_tokenizer(byte_tokenizer(), folder)
    return folder


@pytest.fixture
def model(untaught, tmp_path):
    """The same, taught to review."""
    folder = tmp_path / "model"
    shutil.copytree(untaught, folder)
    write_service_file(folder, service())
    return folder


@pytest.fixture
def paper(tmp_path):
    path = tmp_path / "melt.md"
    path.write_text(PAPER, encoding="utf-8")
    return str(path)


@pytest.fixture
def said():
    return []


@pytest.fixture
def answering(monkeypatch):
    """Let the model generate a given text; gives the list of prompts and bounds it was asked with."""
    asked = []

    def answer(text, end=(2,)):
        def generate(model, ids, stop_ids, max_new_tokens, sampling):
            asked.append((ids, max_new_tokens))
            return [*byte_tokenizer()(text, add_special_tokens=False)["input_ids"], *end]

        monkeypatch.setattr(review_model, "generate", generate)
        return asked

    return answer


@pytest.fixture
def reviewed(said):
    def review(paper, reviewer, *, sampling=Sampling(), **which):  # noqa: B008  (frozen)
        return review_paper(read_one(paper, **which), reviewer, say=said.append, sampling=sampling)

    return review


# --- a model on this machine -------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["alpaca", "vicuna", "react"])
def test_a_review_is_read_and_the_model_was_shown_the_beginning_of_its_training_ids(
    model, paper, reviewed, said, answering, format
):
    write_service_file(model, service(format=format))
    response = to_brackets(MERGED)
    asked = answering(f"Final Answer: {response}" if format == "react" else response)
    found = reviewed(paper, LocalModel(str(model), say=said.append))
    assert found.review == MERGED
    assert (found.unparsed, found.response, found.finished, found.found) == ("", response, True, True)
    assert (found.title, found.paper_id, found.taught) == ("On melt", "papers/melt.md", True)

    (same,) = read(paper, source="papers")
    clean_paper(same, CleanConfig())
    tokenizer = byte_tokenizer()
    trained, prompt, _ = review_example(same, MERGED, token_counter(tokenizer), REVIEWS)
    taught = encode_example(trained, FormatConfig(format=format), tokenizer).input_ids
    ((shown, limit),) = asked
    np.testing.assert_array_equal(shown, taught[: len(shown)])
    assert limit == REVIEWS.response_room_tokens
    assert found.prompt_tokens == len(shown)
    assert b"anna@example.org" not in bytes(tokenizer.decode(shown), "utf-8")
    assert "[EMAIL]" in tokenizer.decode(shown)
    assert said == [
        f"content cut to {prompt.input_tokens:,} of {found.prompt.paper_tokens:,} tokens of the paper"
    ]


def test_garbage_is_no_review_and_is_shown_as_it_came(model, paper, reviewed, said):
    found = reviewed(paper, LocalModel(str(model), say=said.append), sampling=FEW)
    assert not found.found
    assert found.response_tokens == 6
    assert found.unparsed == found.response != ""
    assert review_text(found) == found.response
    assert found.as_dict()["review"] == {aspect: {} for aspect in ASPECTS}
    assert "the response was stopped after 6 tokens; --max-new-tokens allows more" in said
    assert said[-1].startswith(
        "the response holds no review under any of the four headings and is shown as it came: the model was "
        "tuned on reviews and still missed the form; another --seed"
    )


def test_the_same_seed_draws_the_same_response(model, paper, reviewed, said):
    local = LocalModel(str(model), say=said.append)

    def response(**settings):
        return reviewed(paper, local, sampling=Sampling(max_new_tokens=6, **settings)).response

    warm = [response(temperature=1.5, top_p=1.0, seed=seed) for seed in (0, 0, 1)]
    assert warm[0] == warm[1] != warm[2]
    assert response(temperature=0) == response(temperature=0, seed=7)


def test_a_model_that_does_not_say_how_it_was_taught_is_asked_by_the_defaults(
    untaught, paper, reviewed, said, answering
):
    answering("[Significance and novelty]\n<New> It is.\nHow?\n", end=())
    found = reviewed(paper, LocalModel(str(untaught), say=said.append))
    assert not found.taught
    assert found.review.of(ASPECTS[0]) == {"New": "It is.\nHow?"}
    assert said[0] == (
        f"{untaught}: this model was not tuned on reviews (its folder has no {SERVICE_FILE}), so it is asked "
        "by the defaults: format alpaca, at most 2,048 tokens"
    )
    assert not found.finished


def test_what_is_no_point_is_told_and_kept(model, paper, reviewed, said, answering):
    answering(f"Well.\n{to_brackets(MERGED)}")
    found = reviewed(paper, LocalModel(str(model), say=said.append))
    assert (found.review, found.unparsed) == (MERGED, "Well.")
    assert said[-1] == "some of the response is no point of any aspect; it is shown under Unparsed"


def test_a_response_that_would_not_fit_is_refused_before_the_model_is_loaded(model, paper, reviewed, said):
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"the prompt has \d+ of the 2,048 tokens .*; lower it to at most"):
        reviewed(paper, LocalModel(str(model), say=said.append), sampling=Sampling(max_new_tokens=1500))
    with pytest.raises(InputError, match="no model can be loaded"):
        reviewed(paper, LocalModel(str(model), say=said.append), sampling=FEW)


def test_a_folder_whose_weights_are_not_whole_is_refused(model, paper, reviewed, said):
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 of the model's weights are not in its files, first model\.norm"):
        reviewed(paper, LocalModel(str(model), say=said.append), sampling=FEW)


def test_a_tokenizer_of_another_model_is_refused(model, paper, reviewed, said):
    config = json.loads((model / "config.json").read_text())
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"[{number}]" for number in range(8)] + ["[EMAIL]"])
    assert len(tokenizer) > config["vocab_size"]
    save_tokenizer(tokenizer, model)
    with pytest.raises(InputError, match="ids up to 267 and the model 264 rows; they are not of one model"):
        reviewed(paper, LocalModel(str(model), say=said.append), sampling=FEW)


def test_folders_that_are_no_model_are_refused(model, tmp_path, said):
    local = partial(LocalModel, say=said.append)
    with pytest.raises(ConfigError, match=r"--model .*nowhere: is no folder"):
        local(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="--model s3://bucket/m: must be a folder of this machine"):
        local("s3://bucket/m")
    with pytest.raises(InputError, match=r"is no model's folder: config\.json cannot be read"):
        local(str(tmp_path))
    with pytest.raises(InputError, match="--base goes with an adapter"):
        local(str(model), base=str(model))
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 512}
    (model / "config.json").write_text(json.dumps(config))
    (model / SERVICE_FILE).unlink()
    with pytest.raises(InputError, match="reads 512 tokens, and a paper with its review needs 1632 at least"):
        local(str(model))


def test_a_gpu_that_is_not_there_is_refused(model, paper, reviewed, said, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PlatformError, match="--device cuda: there is no GPU"):
        reviewed(paper, LocalModel(str(model), say=said.append, device="cuda"), sampling=FEW)


def test_an_adapter_answers_on_its_base_as_the_merged_model_does(
    untaught, model, tmp_path, paper, reviewed, said
):
    import torch

    from baltoro.jobs.merge import merge_folders
    from baltoro.models.adapters import Tuning, write_adapter_folder
    from baltoro.models.bases import trained_on
    from baltoro.models.config import AdapterConfig
    from baltoro.models.load import build_model, plan_model

    plan = plan_model(untaught, byte_tokenizer(), sequence_length=1, vocabulary_multiple=264)
    tuning = Tuning(AdapterConfig(rank=2), frozen_dtype="float32")
    tuned = build_model(type(plan)(plan.config, tuning=tuning))
    adapter = tmp_path / "adapter"
    factors = [(name, torch.ones(value.shape)) for name, value in tuned.named_parameters() if "lora_" in name]
    write_adapter_folder(
        adapter,
        model=tuned,
        tuning=tuning,
        parameters=factors,
        trained_on=trained_on(type(plan)(plan.config, plan.weights, plan.vocabulary), base="tiny"),
        config=plan.config,
        save_tokenizer=partial(save_tokenizer, byte_tokenizer()),
    )
    write_service_file(adapter, service())
    with pytest.raises(
        InputError, match=r"is an adapter; give the model that it was trained on with --base$"
    ):
        LocalModel(str(adapter), say=said.append)
    merge_folders(adapter, untaught, adapter / "merged")
    write_service_file(adapter / "merged", service())
    with pytest.raises(InputError, match=r"with --base, or take the merged model .*/adapter/merged"):
        LocalModel(str(adapter), say=said.append)
    greedy = Sampling(temperature=0, max_new_tokens=6)
    both = [
        reviewed(paper, LocalModel(str(folder), base=base, say=said.append), sampling=greedy).response
        for folder, base in ((adapter, str(untaught)), (adapter / "merged", None), (model, None))
    ]
    assert both[0] == both[1] != both[2]


# --- the paper ---------------------------------------------------------------------------------------


class Deaf:
    """A reviewer that must not be asked."""

    name, service, taught, count_tokens = "deaf", service(), True, len

    def answer(self, example, sampling):
        raise AssertionError("asked")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("cut.xml", b"<article><front>", "cut.xml: is rejected: malformed_xml: "),
        (
            "p.pdf",
            b"%PDF-1.7 x",
            "is rejected: not_parsed: a PDF; parse it first with GROBID, Nougat or Docling$",
        ),
        ("title.md", b"# A title alone\n", "has neither abstract nor content to review"),
    ],
)
def test_a_paper_that_cannot_be_reviewed_is_refused_with_the_reason(
    tmp_path, reviewed, name, content, complaint
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        reviewed(str(tmp_path / name), Deaf())


def test_one_of_several_records_is_named(tmp_path, model, reviewed, said, answering):
    answering(to_brackets(MERGED))
    table = tmp_path / "papers.jsonl"
    rows = [{"paper_id": f"p{number}", "text": f"{PAPER} {number}"} for number in range(9)]
    table.write_text("\n".join(map(json.dumps, rows)))
    ask_for = partial(reviewed, str(table), text_column="text")
    with pytest.raises(
        InputError, match="holds several papers; name one with --record KEY, where KEY is one of"
    ):
        ask_for(Deaf())
    keys = [one.paper_id.partition("#")[2] for one in read(str(table), text_column="text")]
    found = ask_for(LocalModel(str(model), say=said.append), record=keys[7])
    assert found.paper_id == f"papers/papers.jsonl#{keys[7]}"
    assert found.uri == f"{table}#{keys[7]}"
    with pytest.raises(InputError, match="holds no record 'p77'; `baltoro papers show"):
        ask_for(Deaf(), record="p77")


def test_a_text_column_is_for_general_tables_only(tmp_path, paper):
    s2orc = tmp_path / "one.json"
    s2orc.write_text(
        json.dumps({"title": "T", "abstract": "A.", "body_text": [{"text": "Ice.", "section": "S"}]})
    )
    for place, name in ((s2orc, "s2orc"), (paper, "markdown")):
        with pytest.raises(ConfigError, match=rf"--text-column: .* is read as {name}, .*--format records"):
            read_one(str(place), text_column="abstract")
    assert read_one(str(s2orc), text_column="abstract", input_format="records").paper.format == "records"


def test_a_page_that_cannot_be_written_is_refused_and_nothing_is_left_behind(tmp_path, paper):
    page = tmp_path / "page.html"
    page.write_text("older")
    check_page(str(page), paper=paper)
    check_page(str(tmp_path / "new.html"), paper=paper)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["melt.md", "page.html"]
    assert page.read_text() == "older"
    with pytest.raises(ConfigError, match="is the paper itself"):
        check_page(paper, paper=paper)
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        check_page(str(tmp_path), paper=paper)
    with pytest.raises(StorageError, match="cannot write /proc/"):
        check_page("/proc/x/y.html", paper=paper)


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def command():
    """Run the command with its arguments; gives exit code, standard output and standard error."""

    def run(*arguments):
        done = CliRunner().invoke(models.review, list(map(str, arguments)))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--temperature", "nan", "'--temperature': nan is no finite number"),
        ("--top-p", "nan", "'--top-p': nan is no finite number"),
        ("--deadline-seconds", "nan", "'--deadline-seconds': nan is no finite number"),
        ("--deadline-seconds", "inf", "'--deadline-seconds': inf is no finite number"),
        ("--temperature", "inf", "is not in the range 0<=x<=2"),
        ("--seed", 10**23, "is not in the range 0<=x<=9223372036854775807"),
        ("--max-new-tokens", 10**23, "is not in the range 1<=x<=1000000"),
    ],
)
def test_numbers_that_are_none_are_refused(command, paper, option, value, complaint):
    code, _, error = command(paper, "--model", "m", "--endpoint", "http://h/v1", option, value)
    assert code == 2
    assert complaint in error


def test_the_paper_is_looked_at_before_the_model(command, tmp_path):
    code, _, error = command(tmp_path / "nope.pdf", "--model", tmp_path / "nowhere")
    assert (code, "nope.pdf: is no file; give the file of one parsed paper" in error) == (2, True)
    assert error.count("error:") == 1


def test_a_page_is_tried_before_anybody_is_asked(command, paper):
    with running_chat_server() as server:
        code, _, error = command(
            paper, "--model", "m", "--endpoint", server.url, "--html", "/proc/x/y.html"
        )  # fmt: skip
        assert (code, server.requests) == (2, [])
    assert "error: cannot write /proc/x/y.html" in error


def test_a_review_that_is_paid_for_is_printed_whatever_becomes_of_its_page(
    command, paper, tmp_path, monkeypatch
):
    def full(found, uri):
        raise StorageError("the disk is full")

    monkeypatch.setattr(jobs_review, "write_page", full)
    with running_chat_server() as server:
        page = tmp_path / "page.html"
        code, text, error = command(
            paper, "--model", "m", "--endpoint", server.url, "--html", page
        )  # fmt: skip
    assert code == 2
    assert "Potential reasons for acceptance" in text
    assert error.endswith("error: the disk is full\n")


def test_the_review_is_printed_as_text_or_json_and_written_as_a_page(command, paper, tmp_path):
    page = tmp_path / "page.html"
    with running_chat_server() as server:
        code, text, _ = command(paper, "--model", "m", "--endpoint", server.url, "--html", page, "--json")
    assert code == 0
    cut = json.loads(text)["cut"]
    assert (cut["part"], cut["content_left_out"]) == (None, False)
    assert cut["shown_tokens"] == cut["paper_tokens"] > 0
    assert ": the language model m, of which nothing says that it was tuned on reviews" in page.read_text()


def test_a_folder_or_nothing_is_refused(tmp_path, reviewed):
    for place in (tmp_path, tmp_path / "none.xml"):
        with pytest.raises(InputError, match="is no file; give the file of one parsed paper"):
            reviewed(str(place), Deaf())


def test_a_paper_is_read_from_s3_and_its_page_written_there(s3, model, reviewed, said, answering):
    answering(to_brackets(MERGED))
    s3.client.put_object(Bucket=s3.bucket, Key="in/melt.md", Body=PAPER.encode())
    found = reviewed(f"{s3.uri}/in/melt.md", LocalModel(str(model), say=said.append))
    assert (found.uri, found.review) == (f"{s3.uri}/in/melt.md", MERGED)
    write_page(found, f"{s3.uri}/out/page.html")
    page = s3.client.get_object(Bucket=s3.bucket, Key="out/page.html")["Body"].read().decode()
    assert "<b>New task</b>" in page


# --- a model behind an endpoint ----------------------------------------------------------------------


@pytest.fixture
def brackets(monkeypatch):
    """Let the chat server answer with a review in brackets."""
    good = chat_server._body
    text = to_brackets(MERGED)
    monkeypatch.setattr(
        chat_server, "_body", lambda fault: chat_server.completion(text) if fault == "ok" else good(fault)
    )


def test_an_endpoint_is_asked_in_one_message_and_again_after_trouble(
    paper, reviewed, said, brackets, monkeypatch, tmp_path, model
):
    monkeypatch.setattr(ask.SystemClock, "sleep", _no_sleep)
    monkeypatch.setenv("REVIEW_KEY", "s3cret")
    write_service_file(model, service(format="alpaca", system="Be fair."))
    with running_chat_server(["429", "500", "drop"], key="s3cret") as server:
        endpoint = ChatEndpoint(
            f"{server.url}/", "m", say=said.append, api_key_environment="REVIEW_KEY", tokenizer=str(model)
        )
        found = reviewed(paper, endpoint, sampling=Sampling(seed=3))
        path, headers, body = server.requests[-1]
    assert (found.review, found.finished, found.taught, found.model) == (MERGED, True, True, "m")
    assert (found.prompt_tokens, found.response_tokens) == (100, 20)
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer s3cret"
    system, message = body.pop("messages")
    assert system == {"role": "system", "content": "Be fair."}
    assert message == {"role": "user", "content": f"{INSTRUCTION}\n\n{found.prompt.shown.input}"}
    assert body == {"model": "m", "temperature": 0.35, "top_p": 0.9, "max_tokens": 300, "seed": 3}
    assert said[0].startswith(
        "m was taught in the format alpaca, and the server writes its own chat template"
    )
    again = [line for line in said if line.endswith(" s")]
    assert [line.partition(": ")[2][:8] for line in again] == ["HTTP 429", "HTTP 500", "the conn"]
    assert "s3cret" not in "".join(said)


def test_without_a_tokenizer_four_characters_are_a_token(paper, reviewed, said, brackets):
    with running_chat_server() as server:
        found = reviewed(paper, ChatEndpoint(server.url, "m", say=said.append))
        body = server.requests[0][2]
    assert found.review == MERGED
    assert found.prompt.shown.cut == ""
    assert found.prompt.shown.input_tokens == len(found.prompt.shown.input) // 4 + 1
    assert "seed" not in body
    assert said[0].startswith("tokens are counted as four characters each; --tokenizer FOLDER")
    assert said[1].startswith(
        "whether m was tuned on reviews is not known, so it is asked by the defaults: at most 12,288"
    )


def test_an_answer_in_json_is_read_and_one_that_was_cut_off_is_told(paper, reviewed, said):
    with running_chat_server(["ok", "cut", "empty"]) as server:
        endpoint = ChatEndpoint(server.url, "m", say=said.append)
        assert reviewed(paper, endpoint).review == MERGED
        cut = reviewed(paper, endpoint)
        empty = reviewed(paper, endpoint)
    assert (cut.found, cut.finished, cut.unparsed) == (False, False, json.dumps(GOOD)[:40])
    assert (empty.found, empty.response) == (False, "")
    assert said[-1].endswith(
        "nothing says that the model was tuned on reviews, and others seldom keep the form; give one that "
        f"was (its folder holds {SERVICE_FILE})"
    )


async def _no_sleep(self, seconds):
    pass


@pytest.mark.parametrize(
    ("script", "requests", "complaint"),
    [
        (["401"], 1, "refuses: HTTP 401: .*; see to --endpoint, --model and --api-key-environment"),
        (["400"], 1, "refuses: HTTP 400"),
        (["500"] * 4, 4, "gave no answer in 4 tries, the last one: HTTP 500: told to fail: 500"),
        (["no-envelope"] * 4, 4, "the last one: HTTP 200 whose body is no chat completion"),
        (["silent"] * 4, None, "the last one: no whole answer within 0.05 seconds; .*--deadline-seconds"),
    ],
)
def test_an_endpoint_that_gives_no_answer_ends_with_what_it_said(
    paper, reviewed, said, monkeypatch, script, requests, complaint
):
    monkeypatch.setattr(ask.SystemClock, "sleep", _no_sleep)
    deadline = 0.05 if "silent" in script else 10
    with running_chat_server(script) as server:
        endpoint = ChatEndpoint(server.url, "m", say=said.append, deadline_seconds=deadline)
        with pytest.raises(EndpointError, match=complaint):
            reviewed(paper, endpoint)
        # A request that is given up may not have been read by the server yet.
        assert requests in (None, len(server.requests))


def test_settings_of_an_endpoint_that_cannot_be_are_refused(said, monkeypatch):
    for url in ("localhost:8000/v1", "http://user:pw@host/v1", "https://host/v1?key=x", "ftp://host"):
        with pytest.raises(ConfigError, match="--endpoint: give http://") as error:
            ChatEndpoint(url, "m", say=said.append)
        assert "pw" not in error.value.message
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(
        ConfigError, match="--api-key-environment: the environment variable NO_KEY is not set"
    ):
        ChatEndpoint("http://host/v1", "m", say=said.append, api_key_environment="NO_KEY")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [("a\nb", "the key in REVIEW_KEY has a line break"), ("cl\u00e9", "a letter beyond ASCII")],
)
def test_a_key_that_no_header_can_carry_is_refused_in_a_sentence(said, monkeypatch, value, complaint):
    monkeypatch.setenv("REVIEW_KEY", value)
    with pytest.raises(ConfigError, match=f"--api-key-environment: .*{complaint}") as error:
        ChatEndpoint("http://host/v1", "m", say=said.append, api_key_environment="REVIEW_KEY")
    assert value not in error.value.message


def test_a_key_loses_the_line_end_of_its_file(paper, reviewed, said, brackets, monkeypatch):
    monkeypatch.setenv("REVIEW_KEY", "s3cret\r\n")
    with running_chat_server(key="s3cret") as server:
        endpoint = ChatEndpoint(server.url, "m", say=said.append, api_key_environment="REVIEW_KEY")
        assert reviewed(paper, endpoint).review == MERGED


def test_options_that_do_not_go_together_are_refused(model, said):
    local, there = {"model": str(model)}, {"model": "m", "endpoint": "http://host/v1"}
    assert isinstance(reviewer_of(**local, say=said.append, device="cpu"), LocalModel)
    assert isinstance(reviewer_of(**there, say=said.append, deadline_seconds=5), ChatEndpoint)
    for options, complaint in (
        ({**local, "tokenizer": "t"}, "--tokenizer is for a model behind --endpoint only"),
        ({**local, "deadline_seconds": 5}, "--deadline-seconds is for a model behind --endpoint only"),
        ({**there, "base": "b"}, "--base is for a model on this machine only"),
        ({**there, "device": "cpu"}, "--device is for a model on this machine only"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            reviewer_of(**options, say=said.append)


# --- what a recipe teaches ---------------------------------------------------------------------------


def _recipe(*stages, **instructions):
    reviews = {"reviews": {"papers": "p", "cutoff_tokens": 4096, "response_room_tokens": 700}}
    data = {
        "name": "geo",
        "corpus": {"sources": [{"name": "papers", "uri": "p"}], "clean": {"ligatures": False}},
        "instructions": instructions or reviews,
        "finetune": {"stages": [{"name": f"s{number}", "data": data} for number, data in enumerate(stages)]},
    }
    return decode(Recipe, data, "test")


def test_a_stage_teaches_what_the_recipe_says_and_later_stages_keep_it():
    chat = {"from": ["instructions.reviews"], "sequence_length": 2048, "format": {"format": "chat"}}
    recipe = _recipe({"from": ["corpus"]}, chat, {"from": ["corpus"]})
    assert taught_to_review(recipe, 0) is None
    taught = taught_to_review(recipe, 1)
    assert taught == taught_to_review(recipe, 2)
    assert (taught.cutoff_tokens, taught.response_room_tokens, taught.format.format) == (2048, 700, "chat")
    assert CleanConfig.model_validate(taught.clean) == recipe.corpus.clean != CleanConfig()
    recipe = _recipe({"from": ["instructions"], "sequence_length": 8192}, chat)
    assert taught_to_review(recipe, 0).cutoff_tokens == 4096
    assert taught_to_review(recipe, 0).format == FormatConfig()
    files = [{"name": "chats", "uri": "c.jsonl"}]
    assert taught_to_review(_recipe({"from": ["instructions"]}, files=files), 0) is None
