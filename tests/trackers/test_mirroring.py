"""The command: while a study runs, from roles that only read, and given what cannot work."""

from __future__ import annotations

import signal
import socket
import sys

import psycopg
import pytest
import sqlalchemy as sa
from running import begin, command, records
from tracked import in_tensorboard

from clrsearch import service
from clrsearch.errors import TrackerError
from clrsearch.trackers import require_tracker
from clrsearch.worker import WorkerSettings


def test_a_study_is_watched_to_its_end(url, task_dir, tmp_path) -> None:
    begin(url, task_dir, trials=2, epochs=4)
    with command("mirror", "mine", "--to", "tensorboard", "--watch", cwd=tmp_path) as watching:
        service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
        _, err = watching.communicate(timeout=300)
    assert watching.returncode == 0, err
    assert err.splitlines()[-1].startswith("tensorboard has 2 trials of mine, ")
    found = in_tensorboard(tmp_path, "runs")
    assert found.keys() == {"study", "trial-0000", "trial-0001"}
    for record in records(url):
        seen = found[f"trial-{record.number:04d}"]
        assert [step for step, _ in seen.curves["error"]] == [1, 2, 3, 4]
        assert seen.last("error") == pytest.approx(record.value, rel=1e-6)
        assert seen.state == "complete"
    assert found["study"].state == "complete"


def test_ctrl_c_ends_a_watch_in_good_order(url, task_dir, tmp_path) -> None:
    begin(url, task_dir)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir, max_trials=1))
    with command("mirror", "mine", "--to", "tensorboard", "--watch", cwd=tmp_path) as watching:
        line = watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=300)
    assert line.startswith(
        "tensorboard has 1 trial of mine, 1 of them new or further on: runs/mine-"
    )
    assert (watching.returncode, out, err) == (0, "", "")
    assert in_tensorboard(tmp_path, "runs")["trial-0000"].state == "complete"


def test_a_role_that_only_reads_suffices(postgresql, task_dir, clrsearch, tmp_path, monkeypatch):
    begin(postgresql, task_dir, trials=1, epochs=4, task="tiny.py:Tiny")
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.work("mine", storage=postgresql, settings=settings)
    owner = sa.make_url(postgresql.reveal())
    viewer = f"viewer_{owner.database}"
    told = psycopg.conninfo.make_conninfo(
        host=owner.host, port=owner.port, user=owner.username, dbname=owner.database
    )
    with psycopg.connect(told, autocommit=True) as there:
        there.execute(f"CREATE ROLE {viewer} LOGIN PASSWORD 'secret'")
        there.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {viewer}")
        try:
            reading = owner.set(username=viewer, password="secret")
            text = reading.render_as_string(hide_password=False)
            monkeypatch.setenv("CLRSEARCH_STORAGE", text)
            monkeypatch.chdir(tmp_path)
            code, _, err = clrsearch("mirror", "mine", "--to", "tensorboard")
            assert code == 0, err
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege),
                psycopg.connect(told, user=viewer, password="secret") as reader,
            ):
                reader.execute("DELETE FROM trials")
        finally:
            there.execute(f"DROP OWNED BY {viewer}")
            there.execute(f"DROP ROLE {viewer}")
    assert in_tensorboard(tmp_path, "runs")["trial-0000"].state == "complete"


def refused(clrsearch, *words) -> str:
    """The one line with which a command ends."""
    code, out, err = clrsearch("mirror", *words)
    assert (code, out) == (2, ""), err
    (line,) = err.splitlines()
    return line


@pytest.fixture
def quiet_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_what_is_not_a_tracker(clrsearch, stored) -> None:
    stored("led")
    line = refused(clrsearch, "led", "--to", "tensorbord")
    known = "mlflow, wandb, trackio, tensorboard"
    assert line == f"clrsearch: unknown tracker 'tensorbord': it must be one of {known}"


@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed(clrsearch, stored, monkeypatch, name) -> None:
    stored("led")
    monkeypatch.setitem(sys.modules, name, None)
    line = refused(clrsearch, "led", "--to", name)
    assert line == f"clrsearch: {name} is not installed: pip install 'clrsearch[{name}]'"


def test_a_folder_is_not_a_package(tmp_path, monkeypatch) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb makes one wherever it is used
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(TrackerError, match="wandb is not installed"):
        require_tracker("wandb")


def test_an_unknown_study(clrsearch, stored, tmp_path, monkeypatch) -> None:
    stored("led")
    monkeypatch.chdir(tmp_path)
    line = refused(clrsearch, "lead", "--to", "tensorboard")
    assert line == "clrsearch: no study lead; did you mean led?"
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_a_file(clrsearch, stored, tmp_path) -> None:
    stored("led")
    (tmp_path / "file").touch()
    line = refused(clrsearch, "led", "--to", "tensorboard", "--into", str(tmp_path / "file"))
    assert "Not a directory" in line or "File exists" in line
    assert str(tmp_path / "file") in line


def test_a_server_that_is_not_there_and_its_password(
    clrsearch, stored, monkeypatch, quiet_port
) -> None:
    stored("led")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@127.0.0.1:{quiet_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    line = refused(clrsearch, "led", "--to", "mlflow")
    assert line.startswith("clrsearch: mlflow: ")
    assert str(quiet_port) in line
    assert "s3cret" not in line


def test_a_place_of_mlflow_that_is_not_one(clrsearch, stored, monkeypatch, tmp_path) -> None:
    stored("led")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    assert "maintenance mode" in refused(clrsearch, "led", "--to", "mlflow")
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    assert "File exists" in refused(clrsearch, "led", "--to", "mlflow")


def test_wandb_without_a_login(clrsearch, stored, monkeypatch, tmp_path) -> None:
    import wandb

    stored("led")
    monkeypatch.setenv("HOME", str(tmp_path))  # where logins are kept
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()
    assert "run wandb login, or set WANDB_MODE=offline" in refused(
        clrsearch, "led", "--to", "wandb"
    )
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert "WANDB_MODE=disabled writes nothing" in refused(clrsearch, "led", "--to", "wandb")
    wandb.teardown()


@pytest.mark.parametrize("variable", ["TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"])
def test_trackio_on_a_server(clrsearch, stored, monkeypatch, variable) -> None:
    stored("led")
    monkeypatch.setenv(variable, "me/space")
    line = refused(clrsearch, "led", "--to", "trackio")
    assert line.startswith("clrsearch: trackio: only its local database is written: unset ")
    assert variable in line
