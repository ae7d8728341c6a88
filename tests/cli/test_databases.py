"""What the commands say of databases, checkpoint folders and studies that do not fit."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
import torch
from resolver import FAR_HOST, UNKNOWN

from clrsearch import service
from clrsearch.search import Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe

RUN = ["run", "--name", "mine", "--task", "tiny.py:Tiny", "--workers", "0"]


@pytest.fixture
def clrsearch(clrsearch, monkeypatch, task_dir):
    """Run a command line in the folder of the tests' tasks."""
    monkeypatch.chdir(task_dir)
    return clrsearch


def begin(url, task_dir, *, task="Tiny", trials=3, **versions) -> None:
    plan = StudyPlan(families=("cyclic",), task=f"tiny.py:{task}", trials=trials)
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir) | versions)


def slots(url):
    with open_database(url) as database:
        return Study.open(database, "mine").slots.counts()


def test_failed_trials_are_tried_again(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, task="FailsLater", trials=1)
    assert clrsearch("worker", "mine")[0] == 0
    assert slots(url) == {SlotState.FAILED: 1}
    code, out, _ = clrsearch("retry", "mine")
    assert (code, out[:34]) == (0, "1 failed trials of mine are queued")
    assert slots(url) == {SlotState.OPEN: 1}
    assert clrsearch("worker", "mine")[0] == 3  # the third failure in a row stops the study
    assert len(service.show("mine").snapshot.records) == 3
    clrsearch("retry", "mine")
    assert clrsearch("retry", "mine")[1] == "mine has no failed trials\n"


def test_open_trials_are_cancelled_and_no_part_of_the_budget(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, trials=2)
    clrsearch("worker", "mine")
    with open_database(url) as database:
        Study.open(database, "mine").grow(5)
    code, out, _ = clrsearch("cancel", "mine")
    assert code == 0
    assert out.startswith("3 trials of mine cancelled before they started. No confirmation")
    assert "mine is finished: 2 trials" in clrsearch(*RUN)[1]
    assert "2/2" in clrsearch("list")[1]


def test_another_torch_is_refused_unless_drift_is_allowed(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, torch="1.0.0")
    for command in (["worker", "mine"], RUN):
        code, _, errors = clrsearch(*command)
        assert code == 2
        assert "torch was 1.0.0 and is now 2." in errors
        assert "--allow-drift" in errors
    assert clrsearch("worker", "mine", "--allow-drift")[0] == 0
    assert slots(url)[SlotState.OPEN] == 0


def test_another_build_of_the_same_torch_is_no_drift(clrsearch, url, task_dir) -> None:
    release = torch.__version__.partition("+")[0]
    begin(url, task_dir, torch=f"{release}+cu999")
    assert clrsearch("worker", "mine")[0] == 0


def test_a_checkpoint_folder_that_cannot_be_written_to_is_named(
    clrsearch, url, task_dir, tmp_path
) -> None:
    begin(url, task_dir)
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "within")
    for command in (["worker", "mine"], RUN):
        code, _, errors = clrsearch(*command, "--checkpoint-dir", folder)
        assert code == 2
        assert errors.startswith(f"clrsearch: the checkpoint folder {folder}")
        assert len(errors.splitlines()) == 1
    assert slots(url) == {SlotState.OPEN: 3}


def test_more_workers_than_sqlite_serves_are_refused(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, trials=40)
    run = ["run", "--name", "mine", "--task", "tiny.py:Tiny", "--trials", "40"]
    code, _, errors = clrsearch(*run, "--workers", "33")
    assert code == 2
    assert "SQLite supports up to 32 workers, not 33" in errors
    assert "postgresql://" in errors
    with open_database(url) as database:
        for index in range(32):
            Study.open(database, "mine").slots.claim(f"w{index}")
    code, _, errors = clrsearch("worker", "mine")
    assert code == 2
    assert "SQLite supports up to 32 workers, not 33" in errors


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_host_that_does_not_resolve_is_told_at_once(clrsearch, resolver, scheme) -> None:
    resolver.fault = UNKNOWN
    for command in (["worker", "mine"], ["status", "mine", "--watch", "--json"], ["run"], ["list"]):
        code, _, errors = clrsearch(*command, "--storage", f"{scheme}://me@{FAR_HOST}/db")
        assert code == 2
        assert len(errors.splitlines()) == 1  # and none that it waits
        assert "Name or service not known" in errors


def test_a_server_that_may_only_be_read_is_told_at_once(
    clrsearch, postgresql, task_dir, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    begin(postgresql, task_dir)
    url = sa.make_url(postgresql.reveal())
    viewer = url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    storage = ["--storage", viewer.render_as_string(hide_password=False)]
    run = [*RUN, "--trials", "4"]
    for command in (["worker", "mine"], run, ["retry", "mine"], ["cancel", "mine"]):
        code, _, errors = clrsearch(*command, *storage)
        assert code == 2
        assert len(errors.splitlines()) == 1
        assert "in a read-only transaction; the URL must name a writable server" in errors
    assert slots(postgresql) == {SlotState.OPEN: 3}
    assert clrsearch("list", *storage)[0] == 0


@pytest.mark.parametrize("option", ["postgresql://me:canary@host/db", "mysql://h/d?passwd=canary"])
def test_a_password_on_the_command_line_is_refused(clrsearch, option) -> None:
    code, out, errors = clrsearch("list", "--storage", option)
    assert (code, out) == (2, "")
    assert "process list" in errors
    assert "--storage-file" in errors
    assert "canary" not in errors


def test_two_databases_are_one_too_many(clrsearch, url, tmp_path, monkeypatch) -> None:
    file = tmp_path / "storage"
    file.write_text(url.reveal())
    code, _, errors = clrsearch("list", "--storage", url.reveal(), "--storage-file", str(file))
    assert (code, errors) == (
        2,
        "clrsearch: --storage and --storage-file both name a database: give one\n",
    )
    monkeypatch.setenv("CLRSEARCH_STORAGE_FILE", str(file))
    code, _, errors = clrsearch("list")
    assert code == 2
    assert "CLRSEARCH_STORAGE and CLRSEARCH_STORAGE_FILE are both set" in errors


def test_a_storage_file_is_as_good_as_its_url(
    clrsearch, url, task_dir, tmp_path, monkeypatch
) -> None:
    begin(url, task_dir)
    file = tmp_path / "storage"
    file.write_text(url.reveal())
    monkeypatch.delenv("CLRSEARCH_STORAGE")
    assert clrsearch("list", "--storage-file", str(file))[1].split()[5] == "mine"
    monkeypatch.setenv("CLRSEARCH_STORAGE_FILE", str(file))
    assert clrsearch("list")[1].split()[5] == "mine"


def test_a_database_of_an_older_optuna_is_upgraded(clrsearch, url, task_dir) -> None:
    begin(url, task_dir)
    with open_database(url) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_trials_study_id")  # of Optuna 3.2
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    code, _, errors = clrsearch("list")
    assert code == 2
    assert "clrsearch db upgrade" in errors
    assert clrsearch("db", "upgrade", "--yes") == (
        0,
        "Optuna's schema is now v3.2.0.a (was v3.0.0.d)\n",
        "",
    )
    assert clrsearch("db", "upgrade", "--yes")[1].startswith("nothing to do")
    assert clrsearch("list")[0] == 0
