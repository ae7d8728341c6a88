"""Workers that are killed, asked to leave, or cut off from the database: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from resolver import FAILING, UNKNOWN
from running import PATIENCE, begin, children, command, records, wait_for

from clrsearch import service
from clrsearch.errors import ClrsearchError
from clrsearch.search import Study
from clrsearch.storage import SlotState, open_database
from clrsearch.training import open_checkpoint
from clrsearch.worker import WorkerSettings


@pytest.fixture
def gate(tmp_path, monkeypatch) -> Path:
    """The file that Gated waits for in its fifth epoch."""
    path = tmp_path / "gate"
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(path))
    return path


def at_the_gate(url, task_dir, *, trials) -> subprocess.Popen[str]:
    """A worker that has trained two epochs, and cannot end its trial."""
    begin(url, task_dir, task="tiny.py:Gated", trials=trials)
    worker = command("worker", "mine", cwd=task_dir)
    wait_for(lambda: [record for record in records(url) if record.epoch >= 2])
    return worker


def attempts(url) -> dict[int, int]:
    with open_database(url) as database, database.engine.connect() as connection:
        query = "SELECT number, attempt FROM clrsearch_slots"
        return dict(tuple(row) for row in connection.exec_driver_sql(query))


def require_whole(task_dir, *, trials) -> None:
    """All trials are complete, one per slot, and each comes out the same when it is run again."""
    snapshot = service.show("mine").snapshot
    assert snapshot.slots == {SlotState.COMPLETE: trials}
    assert sorted(record.slot for record in snapshot.records) == list(range(trials))
    assert [record.number for record in snapshot.records] == list(range(trials))
    for record in snapshot.records:
        assert record.drift == 0.0
        assert sorted(record.values) == list(range(1, 9))
        again = service.replay("mine", record.number, device="cpu", task_dir=task_dir)
        assert again.matches


def test_killed_workers_are_replaced_and_their_trials_resumed(url, task_dir) -> None:
    running = command(
        *("run", "--task", "tiny.py:Paced", "--name", "mine", "--trials", "4"),
        *("--set", "pruner=none", "--workers", "2", "--checkpoint-seconds", "0", "--no-confirm"),
        cwd=task_dir,
    )
    folder = url.file.with_name("studies-checkpoints")
    killed: set[str] = set()

    def saved() -> str | None:
        """A worker, not killed yet at this trial, that has left a checkpoint and goes on."""
        names = {path.stem for path in folder.glob("*/*.pt")} - killed
        if not names:
            return None
        with open_database(url) as database:
            claims = Study.open(database, "mine").slots.claims()
        found = [claim for claim in claims if f"trial-{claim.trial}" in names]
        killed.update(f"trial-{claim.trial}" for claim in found[:1])
        return found[0].worker if found else None

    for _ in range(2):
        worker = wait_for(saved)
        for pid in children(running.pid):
            if f"{worker}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    out, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    (line,) = errors.splitlines()  # once for both
    assert "clrsearch: a worker died of signal 9 (SIGKILL); its output is in " in line
    assert "4 of 4 trials done, 4 complete" in out
    require_whole(task_dir, trials=4)
    resumed = {number for number, attempt in attempts(url).items() if attempt > 1}
    assert {f"trial-{number}" for number in resumed} == killed
    assert [path.name for path in folder.glob("*/*")] == ["logs"]


def test_workers_do_not_survive_the_run_that_started_them(url, task_dir, gate) -> None:
    arguments = ("--task", "tiny.py:Gated", "--name", "mine", "--trials", "1", "--workers", "1")
    running = command("run", *arguments, "--set", "pruner=none", "--no-confirm", cwd=task_dir)
    wait_for(lambda: url.file.exists() and began(url))
    (worker,) = children(running.pid)
    running.kill()
    running.communicate()
    gate.touch()
    wait_for(lambda: not Path(f"/proc/{worker}").exists())
    with open_database(url) as database:
        slots = Study.open(database, "mine").slots
        assert (slots.counts(), slots.claims()) == ({SlotState.OPEN: 1}, [])
    (path,) = url.file.with_name("studies-checkpoints").glob("*/*.pt")
    with open_checkpoint(path) as (_, content):
        assert 2 <= torch.load(content, weights_only=True)["epoch"] < 8
    (log,) = url.file.with_name("studies-checkpoints").glob("*/logs/*.log")
    assert log.read_text() == ""


def began(url) -> bool:
    """Whether a trial of the study, which may not be there yet, has come to its second epoch."""
    with suppress(ClrsearchError):
        return any(record.epoch >= 2 for record in records(url))
    return False


@pytest.mark.parametrize(
    ("number", "damaged"),
    [(signal.SIGTERM, False), (signal.SIGINT, True)],
)
def test_who_is_asked_to_leave_saves_and_opens_the_slot_at_once(
    url, task_dir, gate, number, damaged
) -> None:
    worker = at_the_gate(url, task_dir, trials=1)
    began = time.monotonic()
    worker.send_signal(number)
    gate.touch()
    _, errors = worker.communicate(timeout=PATIENCE)
    assert (worker.returncode, errors) == (0, "")
    assert time.monotonic() - began < 60  # and not until the lease has run out
    with open_database(url) as database:
        assert Study.open(database, "mine").slots.counts() == {SlotState.OPEN: 1}
    (path,) = url.file.with_name("studies-checkpoints").glob("*/*.pt")
    with open_checkpoint(path) as (identity, content):
        assert 2 <= torch.load(content, weights_only=True)["epoch"] < 8
    (before,) = records(url)
    assert before.state == "running"
    assert (identity.params, identity.attempt) == (before.params, 1)
    notes = []
    if damaged:
        path.write_bytes(path.read_bytes()[:-40])
    service.work(
        "mine", settings=WorkerSettings(device="cpu", task_dir=task_dir), on_note=notes.append
    )
    reason = f"its checkpoint {path} cannot be used: it is damaged (its checksum does not match)"
    assert notes == ([f"trial 0 starts over: {reason}"] if damaged else [])
    require_whole(task_dir, trials=1)
    assert not path.exists()


def test_whose_database_is_deleted_leaves_and_makes_no_other(url, task_dir, gate) -> None:
    worker = at_the_gate(url, task_dir, trials=3)
    url.file.unlink()
    gate.touch()
    _, errors = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 2
    assert errors == f"clrsearch: {url}: the file was deleted or moved while it was open\n"
    assert not url.file.exists()


@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_an_outage_loses_nothing(
    far_url, postgresql, cable, task_dir, monkeypatch, seconds
) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    begin(postgresql, task_dir, trials=1)
    worker = threading.Thread(
        target=service.work,
        args=("mine",),
        kwargs={
            "storage": far_url,
            "settings": WorkerSettings(device="cpu", task_dir=task_dir, checkpoint_seconds=0.0),
        },
    )
    worker.start()
    while worker.is_alive():
        time.sleep(0.9)
        cable.cut()
        time.sleep(seconds)
        cable.join()
    worker.join()
    require_whole(task_dir, trials=1)
    assert set(attempts(postgresql).values()) == {1}


def test_an_outage_that_outlasts_patience_is_told_and_gone_on_after(
    far_url, postgresql, cable, task_dir, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", far_url.reveal())
    begin(postgresql, task_dir, trials=2)
    worker = command("worker", "mine", "--storage-patience", "1", cwd=task_dir)
    wait_for(lambda: [record for record in records(postgresql) if record.epoch >= 2])
    cable.cut()
    _, errors = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 2
    *_, last = errors.splitlines()
    assert last.startswith("clrsearch: postgresql+psycopg://")
    assert "server closed the connection" in last or "connection failed" in last
    assert "Traceback" not in errors
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    monkeypatch.setattr("clrsearch.worker.claims.LEASE_SECONDS", 1.0)
    with open_database(postgresql) as database, database.engine.begin() as connection:
        # as if the lease's 15 seconds were over
        connection.exec_driver_sql("UPDATE clrsearch_slots SET expires = 1")
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    require_whole(task_dir, trials=2)


def test_an_outage_of_names_is_waited_out(
    named_url, resolver, postgresql, cable, task_dir, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    begin(postgresql, task_dir, trials=2)

    def work() -> None:
        service.work(
            "mine",
            storage=named_url,
            settings=WorkerSettings(
                device="cpu",
                task_dir=task_dir,
                checkpoint_dir=tmp_path / "checkpoints",
                checkpoint_seconds=0.0,
            ),
        )

    with ThreadPoolExecutor() as pool:
        working = pool.submit(work)
        wait_for(lambda: [record for record in records(postgresql) if record.epoch >= 2])
        for fault in (UNKNOWN, FAILING):
            resolver.fault, resolver.failed = fault, 0
            cable.cut()
            wait_for(lambda: working.done() or resolver.failed >= 2)
            cable.join()
            resolver.fault = None
        working.result(PATIENCE)
    require_whole(task_dir, trials=2)


def test_a_server_that_is_read_only_for_a_while_is_waited_out(
    postgresql, task_dir, tmp_path, gate, monkeypatch
) -> None:
    """By the workers and their parent, which has one to replace meanwhile."""
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    begin(postgresql, task_dir, task="tiny.py:Gated", trials=2)
    running = command(
        *("run", "--task", "tiny.py:Gated", "--name", "mine", "--trials", "2", "--no-confirm"),
        *("--set", "pruner=none", "--workers", "2", "--checkpoint-seconds", "0"),
        *("--checkpoint-dir", str(tmp_path / "checkpoints")),
        cwd=task_dir,
    )
    wait_for(lambda: [record.epoch >= 2 for record in records(postgresql)] == [True, True])
    with sa.create_engine(postgresql.reveal(), poolclass=sa.NullPool).connect() as connection:
        name = connection.engine.url.database
        others = f"datname = '{name}' AND pid <> pg_backend_pid()"

        def ask(statement) -> int:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("BEGIN READ WRITE")
            found = connection.exec_driver_sql(statement)
            value = found.scalar() if found.returns_rows else 0
            connection.exec_driver_sql("COMMIT")
            return value

        refused = f"SELECT xact_rollback FROM pg_stat_database WHERE datname = '{name}'"
        ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        ask(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}")
        victim = children(running.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in children(running.pid))
        so_far = ask(refused)
        wait_for(lambda: ask(refused) >= so_far + 10)
        assert running.poll() is None
        assert len(children(running.pid)) == 1
        ask(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    gate.touch()
    _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    (told,) = errors.splitlines()
    assert told.startswith("clrsearch: a worker died of signal 9 (SIGKILL)")
    require_whole(task_dir, trials=2)
