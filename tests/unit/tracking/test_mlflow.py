"""Runs and registry on real stores: what is logged arrives, and a store that is away costs a warning."""

import contextlib
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from baltoro.core.errors import PlatformError
from baltoro.tracking import mlflow as tracking
from baltoro.tracking.mlflow import StageRun, Tracker, sqlite_file


@pytest.fixture
def tracker(mlflow_uri):
    tracker = Tracker(mlflow_uri, "rocks")
    tracker.prepare()
    return tracker


class Server:
    """MLflow's own application, served over HTTP from a thread; it can be away for a while."""

    def __init__(self) -> None:
        self._serving = None
        self._port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def start(self):
        from mlflow.server import app
        from werkzeug.serving import make_server

        self._serving = make_server("127.0.0.1", self._port, app, threaded=True)
        self._port = self._serving.server_port
        self._thread = threading.Thread(target=self._serving.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self):
        if self._serving is not None:
            self._serving.shutdown()
            self._serving.server_close()
            self._thread.join()
            self._serving = None


@pytest.fixture
def server(mlflow_uri, monkeypatch):
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "NO_PROXY": "127.0.0.1",
        "_MLFLOW_SERVER_FILE_STORE": mlflow_uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(sqlite_file(mlflow_uri).parent / "served"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "false",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    from mlflow.server import handlers

    # The application opens its stores once per process; here each test has its own.
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_model_registry_store", None)
    server = Server()
    server.start()
    yield server
    server.stop()


def steps(tracker, run):
    return [point.step for point in tracker.client.get_metric_history(run.run_id, "loss")]


# --------------------------------------------------------------------------------------------------
# Opening a store


def test_preparing_twice_finds_the_same_experiment(mlflow_uri):
    first, second = Tracker(mlflow_uri, "rocks"), Tracker(mlflow_uri, "rocks")
    first.prepare()
    second.prepare()
    experiments = second.client.search_experiments(filter_string="name = 'rocks'")
    assert len(experiments) == 1
    with first.run("a") as a, second.run("b") as b:
        assert first.client.get_run(a.run_id).info.experiment_id == experiments[0].experiment_id
        assert first.client.get_run(b.run_id).info.experiment_id == experiments[0].experiment_id


def test_files_of_a_local_store_stand_beside_the_database(tracker, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with tracker.run("a") as run:
        run.log_bytes(b"x", "note.txt")
    assert [path.name for path in (tmp_path / "tracking" / "mlflow").rglob("*.txt")] == ["note.txt"]
    assert list(elsewhere.iterdir()) == []


def test_a_deleted_experiment_is_taken_up_again(tracker, mlflow_uri):
    found = tracker.client.get_experiment_by_name("rocks")
    tracker.client.delete_experiment(found.experiment_id)
    again = Tracker(mlflow_uri, "rocks")
    again.prepare()
    assert tracker.client.get_experiment(found.experiment_id).lifecycle_stage == "active"


def test_an_experiment_that_another_command_just_created_is_used(tracker, mlflow_uri):
    created = tracker.client.get_experiment_by_name("rocks").experiment_id
    assert Tracker(mlflow_uri, "rocks", _client=tracker.client)._create_experiment(None, None) == created


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ftp://host/runs", "unsupported URI"),
        ("sqlite:///{folder}", "unable to open database file"),
        ("sqlite:///{folder}/file.txt/mlflow.db", "File exists"),
        ("sqlite:///{folder}/file.txt", "file is not a database"),
        ("http://127.0.0.1:9", "Max retries exceeded"),
        ("./runs", "maintenance mode"),
        ("nosuchdatabase://host/db", "unsupported URI"),
    ],
)
def test_unusable_store_is_refused_at_once_with_a_remedy(tmp_path, monkeypatch, uri, reason):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    (tmp_path / "file.txt").write_text("no database, " * 20)
    uri = uri.format(folder=tmp_path)
    with pytest.raises(PlatformError) as caught:
        Tracker(uri, "rocks").prepare()
    message = caught.value.message
    assert message.startswith(f"tracking.uri: the MLflow store at {uri} cannot be used (")
    assert reason in message
    assert message.endswith(
        "correct tracking.uri or MLFLOW_TRACKING_URI, start the server, or give sqlite:///FILE"
    )
    assert "\n" not in message


def test_the_database_file_is_told_from_its_uri():
    assert sqlite_file("sqlite:////data/50%25%20done/m.db?timeout=3") == Path("/data/50% done/m.db")
    assert sqlite_file("http://host") is None


# --------------------------------------------------------------------------------------------------
# What a run records


def test_stage_runs_are_nested_in_the_recipe_run(tracker):
    with tracker.run("recipe", tags={"baltoro.recipe": "geo"}) as outer:
        with tracker.run("geo-corpus", parent_run_id=outer.run_id) as inner:
            pass
        assert tracker.client.get_run(outer.run_id).info.status == "RUNNING"
    parent, child = (tracker.client.get_run(run.run_id) for run in (outer, inner))
    assert child.data.tags["mlflow.parentRunId"] == outer.run_id
    assert child.info.run_name == "geo-corpus"
    assert parent.data.tags["baltoro.recipe"] == "geo"
    assert "mlflow.parentRunId" not in parent.data.tags
    assert [parent.info.status, child.info.status] == ["FINISHED", "FINISHED"]


def test_parameters_metrics_tags_datasets_and_files_arrive(tracker, tmp_path):
    with tracker.run("a") as run:
        run.log_params({f"corpus.key_{index}": index for index in range(250)} | {"long": "x" * 9000})
        run.log_metrics({"train/loss": 3.5, "train/tokens": 10}, 1)
        run.log_metrics({"train/loss": 2.5}, 2)
        run.set_tags({"baltoro.artifact": "corpus/geo/1"})
        run.log_dataset(
            "corpus", "s3://bucket/corpus/geo/0123456789abcdef", "0123456789abcdef", "training", {"n": 3}
        )
        run.log_bytes(b"name: geo\n", "recipe.yaml")
        run.log_bytes(b"<html>", "data_card/index.html")
    found = tracker.client.get_run(run.run_id)
    assert found.data.params["corpus.key_249"] == "249"
    assert len(found.data.params) == 251
    assert found.data.params["long"] == "x" * 6000
    assert found.data.metrics == {"train/loss": 2.5, "train/tokens": 10.0}
    history = tracker.client.get_metric_history(run.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.5), (2, 2.5)]
    assert found.data.tags["baltoro.artifact"] == "corpus/geo/1"
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("corpus", "0123456789abcdef")
    assert given.dataset.source == '{"uri": "s3://bucket/corpus/geo/0123456789abcdef"}'
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]
    fetched = tracker.client.download_artifacts(run.run_id, "data_card/index.html", str(tmp_path))
    assert Path(fetched).read_bytes() == b"<html>"
    assert {entry.path for entry in tracker.client.list_artifacts(run.run_id)} == {"recipe.yaml", "data_card"}


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_run_ends_with_the_block_that_raises(tracker, error, status):
    with pytest.raises(error), tracker.run("a") as run:
        raise error("stop")
    assert tracker.client.get_run(run.run_id).info.status == status


def test_a_pickled_run_goes_on_in_another_process(tracker):
    with tracker.run("a") as run:
        code = (
            "import pickle, sys\n"
            "run = pickle.loads(sys.stdin.buffer.read())\n"
            "run.log_metrics({'train/loss': 1.5}, 7)\n"
            "run.flush()\n"
        )
        subprocess.run([sys.executable, "-c", code], input=pickle.dumps(run), check=True, timeout=120)
        assert tracker.client.get_run(run.run_id).info.status == "RUNNING"
    assert tracker.client.get_run(run.run_id).data.metrics == {"train/loss": 1.5}


def test_system_metrics_that_cannot_start_cost_a_warning(tracker, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mlflow.system_metrics.system_metrics_monitor", None)
    with tracker.run("a") as run:
        assert run.system_metrics() is None
    assert "the run goes on without system metrics" in caplog.text


# --------------------------------------------------------------------------------------------------
# A store that is away


def test_what_an_absent_server_did_not_take_is_sent_later_in_order(server, mlflow_uri, caplog):
    here = Tracker(mlflow_uri, "served")
    with Tracker(server.url, "served").run("a") as run:
        run.log_metrics({"loss": 1.0}, 1)
        server.stop()
        for step in (2, 3, 4):
            run.log_metrics({"loss": float(step)}, step)
        run.set_tags({"phase": "away"})
        run.log_bytes(b"x", "note.txt")
        assert caplog.text.count("did not take metrics") == 1
        assert "Max retries exceeded" in caplog.text
        server.start()
        run.set_tags({"phase": "back"})
        assert steps(here, run) == [1], "within half a minute the store is left alone"
        run.flush()
        assert steps(here, run) == [1, 2, 3, 4]
    found = here.client.get_run(run.run_id)
    assert found.data.tags["phase"] == "back"
    assert found.info.status == "FINISHED"
    assert [entry.path for entry in here.client.list_artifacts(run.run_id)] == ["note.txt"]
    stamps = [point.timestamp for point in here.client.get_metric_history(run.run_id, "loss")]
    assert stamps == sorted(stamps)


def test_the_store_is_tried_again_after_a_while_without_a_flush(server, monkeypatch):
    monkeypatch.setattr(tracking, "_RETRY_AFTER_SECONDS", 0.1)
    tracker = Tracker(server.url, "served")
    with tracker.run("a") as run:
        server.stop()
        run.log_metrics({"loss": 1.0}, 1)
        server.start()
        time.sleep(0.15)
        run.log_metrics({"loss": 2.0}, 2)
        assert steps(tracker, run) == [1, 2]


def test_a_store_that_never_comes_back_ends_with_a_count_of_what_is_lost(server, mlflow_uri, caplog):
    with Tracker(server.url, "served").run("a") as run:
        server.stop()
        run.log_metrics({"loss": 1.0}, 1)
        run.log_bytes(b"x", "note.txt")
    assert f"never took 3 records of run {run.run_id}, beginning with metrics" in caplog.text
    assert "what was written into storage is not touched" in caplog.text
    assert Tracker(mlflow_uri, "served").client.get_run(run.run_id).info.status == "RUNNING"


def test_a_run_that_raises_while_the_store_is_away_raises_its_own_error(server):
    def fail():
        with Tracker(server.url, "served").run("a"):
            server.stop()
            raise ValueError("the real reason")

    with pytest.raises(ValueError, match="the real reason"):
        fail()


def test_no_new_run_on_an_absent_server_is_one_clear_error(server):
    tracker = Tracker(server.url, "served")
    tracker.prepare()
    server.stop()
    with pytest.raises(PlatformError, match=r"takes no new run for geo-corpus \(.*what is built is kept"):
        tracker.run("geo-corpus").__enter__()


def test_a_server_leaves_standard_output_alone(server, capsys):
    with Tracker(server.url, "served").run("a") as run:
        run.log_metrics({"loss": 1.0})
    assert capsys.readouterr().out == "", "standard output belongs to --json"


@pytest.mark.slow
def test_a_locked_database_costs_a_warning_and_no_traceback(mlflow_uri, caplog, capfd):
    other = sqlite3.connect(sqlite_file(mlflow_uri), isolation_level=None)
    with Tracker(mlflow_uri, "rocks").run("a") as run, contextlib.closing(other):
        other.execute("BEGIN EXCLUSIVE")
        run.log_metrics({"loss": 1.0}, 1)
    assert "did not take metrics ((sqlite3.OperationalError) database is locked)" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert steps(Tracker(mlflow_uri, "rocks"), run) == [1]


def test_what_the_store_refuses_for_its_content_is_left_out_and_the_rest_arrives(tracker, caplog):
    with tracker.run("a") as run:
        run.log_params({"steps": 1})
        run.log_params({"steps": 2})
        run.log_metrics({"not a name: [%]": 1.0})
        run.log_metrics({"loss": 1.0})
    found = tracker.client.get_run(run.run_id)
    assert found.data.params == {"steps": "1"}
    assert found.data.metrics == {"loss": 1.0}
    assert found.info.status == "FINISHED"
    assert "refuses parameters" in caplog.text
    assert "refuses metrics" in caplog.text


def test_what_is_not_a_number_is_told_to_the_caller(tracker):
    with tracker.run("a") as run, pytest.raises(ValueError, match="could not convert"):
        run.log_metrics({"loss": "none"})


# --------------------------------------------------------------------------------------------------
# The registry


def registered(tracker, source, run_id=None):
    return tracker.register_model(
        "geo-model",
        source,
        run_id,
        description="20 steps",
        tags={"baltoro.run": "run/geo/1"},
        alias="candidate",
    )


def test_an_export_becomes_one_version_however_often_it_is_registered(tracker, tmp_path):
    with tracker.run("a") as run:
        first = registered(tracker, str(tmp_path / "one"), run.run_id)
    assert registered(tracker, str(tmp_path / "one")) == first
    assert len(tracker.client.search_model_versions("name = 'geo-model'")) == 1
    found = tracker.client.get_model_version("geo-model", first.version)
    assert (found.source, found.run_id, found.description) == (str(tmp_path / "one"), run.run_id, "20 steps")
    assert found.tags["baltoro.run"] == "run/geo/1"
    assert tracker.client.get_model_version_by_alias("geo-model", "candidate").version == found.version


def test_a_new_export_takes_the_alias_and_an_old_one_does_not_take_it_back(tracker, tmp_path):
    first = registered(tracker, str(tmp_path / "one"))
    second = registered(tracker, str(tmp_path / "two"))
    assert [first.version, second.version] == ["1", "2"]
    assert registered(tracker, str(tmp_path / "one")) == first
    assert str(tracker.client.get_model_version_by_alias("geo-model", "candidate").version) == "2"


def test_an_interrupted_registration_is_completed_by_the_next(tracker, tmp_path):
    tracker.client.create_registered_model("geo-model")
    tracker.client.create_model_version("geo-model", source=str(tmp_path / "one"))
    assert registered(tracker, str(tmp_path / "one")).version == "1"
    assert str(tracker.client.get_model_version_by_alias("geo-model", "candidate").version) == "1"


def test_a_registry_that_refuses_keeps_the_export_and_says_what_to_do(tracker):
    with pytest.raises(PlatformError) as caught:
        tracker.register_model("a/b", "/some/export", None, description="", tags={}, alias="candidate")
    assert "refused /some/export as a version of 'a/b'" in caught.value.message
    assert "the export is kept, run the same command again once mended" in caught.value.message


def test_pickling_keeps_only_what_names_the_run():
    run = pickle.loads(pickle.dumps(StageRun("sqlite:////x.db", "abc")))
    assert (run.uri, run.run_id) == ("sqlite:////x.db", "abc")


def test_a_copied_database_writes_beside_itself_and_keeps_the_old_runs(tracker, mlflow_uri, tmp_path, caplog):
    with tracker.run("before"):
        pass
    there = tmp_path / "copy"
    there.mkdir()
    shutil.copy(sqlite_file(mlflow_uri), there / "mlflow.db")
    moved = Tracker(f"sqlite:///{there / 'mlflow.db'}", "rocks")
    moved.prepare()
    assert "was copied or moved from" in caplog.text
    with moved.run("after") as run:
        run.log_bytes(b"x", "note.txt")
    assert (there / "mlflow").exists()
    found = moved.client.get_experiment_by_name("rocks")
    assert found.artifact_location == (there / "mlflow").as_uri()
    number = tracker.client.get_experiment_by_name("rocks").experiment_id
    aside = moved.client.get_experiment_by_name(f"rocks (of {sqlite_file(mlflow_uri).parent}, {number})")
    assert [run.info.run_name for run in moved.client.search_runs([aside.experiment_id])] == ["before"]
    caplog.clear()
    Tracker(moved.uri, "rocks").prepare()
    assert not caplog.text, "told once"
