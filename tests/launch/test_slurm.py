"""Jobs of SLURM: what is submitted, and what a job does when its time is up.

Jobs run under submitit's own local executor; ``sbatch`` is played by a script that keeps what it
is given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from running import begin, children, records, wait_for
from submitit import LocalExecutor
from submitit.core.utils import FailedJobError

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.launch import Command, SlurmJob, SlurmSubmitter, Submitter
from clrsearch.launch.slurm import grouped, hand_over
from clrsearch.service.equipment import worker_command
from clrsearch.storage import SlotState, StorageUrl, open_database
from clrsearch.worker import WorkerSettings


def workers(url, task_dir, folder, count) -> list[Command]:
    settings = WorkerSettings(
        device="cpu",
        task_dir=task_dir,
        checkpoint_dir=folder,
        checkpoint_seconds=1000,  # only those who leave save
        storage_patience=60,
    )
    return [worker_command("mine", url, settings, None)] * count


def program(text: str) -> Command:
    return Command(arguments=(sys.executable, "-c", text))


def local(folder) -> LocalExecutor:
    executor = LocalExecutor(folder, max_num_timeout=5)
    executor.update_parameters(timeout_min=9)  # below 10 submitit takes any SIGUSR2 for its end
    return executor


def test_whose_time_is_up_saves_is_requeued_and_goes_on_with_the_same_trials(
    postgresql, task_dir, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    gate = tmp_path / "gate"
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(gate))
    begin(postgresql, task_dir, task="tiny.py:Gated", trials=2)
    commands = workers(postgresql, task_dir, tmp_path / "checkpoints", 2)
    (job,) = hand_over(local(tmp_path / "jobs"), commands, 2)
    (attending,) = wait_for(lambda: children(int(job.job_id)))
    wait_for(lambda: [len(each.values) >= 2 for each in records(postgresql)] == [True] * 2)
    os.kill(attending, signal.SIGUSR2)  # as SLURM does some time before the limit
    wait_for(lambda: "this job is timed-out" in (job.stderr() or ""))
    gate.touch()

    wait_for(lambda: children(int(job.job_id)) not in ([attending], []))
    broken_off = records(postgresql)
    assert [each.state for each in broken_off] == ["running"] * 2
    assert len(list((tmp_path / "checkpoints").glob("*/*.pt"))) == 2
    job.result()
    snapshot = service.show("mine").snapshot
    assert snapshot.slots == {SlotState.COMPLETE: 2}
    for before, after in zip(broken_off, snapshot.records, strict=True):
        assert (after.number, after.slot, after.params) == (
            before.number,
            before.slot,
            before.params,
        )
        assert after.drift == 0.0
        assert service.replay("mine", after.number, device="cpu", task_dir=task_dir).matches
    assert job.stderr().count("SIGUSR2") == job.stderr().count("this job is timed-out") == 1
    assert job.stdout().count("Requeued job") == 1
    with open_database(postgresql) as database, database.engine.connect() as connection:
        query = "SELECT attempt, losses FROM clrsearch_slots"
        claimed = [tuple(row) for row in connection.exec_driver_sql(query)]
    assert claimed == [(2, 0), (2, 0)]  # handed back, not lost


def test_a_worker_that_fails_fails_its_job(tmp_path) -> None:
    (job,) = hand_over(local(tmp_path), [program("import sys; sys.exit('no such task')")], 1)
    with pytest.raises(FailedJobError, match="CalledProcessError"):
        job.result()
    assert "no such task" in job.stderr()


def test_at_sigterm_the_workers_leave_and_the_job_waits_for_slurm_to_end_it(tmp_path) -> None:
    left = tmp_path / "left"
    text = (
        "import signal, sys, pathlib\n"
        "def leave(*_):\n"
        f"    pathlib.Path({str(left)!r}).write_text('in order')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        f"pathlib.Path({str(left)!r}).write_text('not yet')\n"
        "signal.pause()\n"
    )
    (job,) = hand_over(local(tmp_path / "jobs"), [program(text)], 1)
    wait_for(left.exists)
    (attending,) = children(int(job.job_id))
    os.kill(attending, signal.SIGTERM)
    wait_for(lambda: left.read_text() == "in order")
    time.sleep(1.0)
    assert children(int(job.job_id)) == [attending]  # by ending itself it would not be requeued
    os.kill(attending, signal.SIGKILL)
    wait_for(job.done)


def test_workers_are_spread_over_jobs() -> None:
    commands = [Command(arguments=(str(index),)) for index in range(5)]
    assert grouped(commands, 2) == [[["0"], ["1"]], [["2"], ["3"]], [["4"]]]


@pytest.fixture
def sbatch(tmp_path, monkeypatch) -> Path:
    """The folder in which a played sbatch keeps the script and the environment of a job."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    player = folder / "sbatch"
    player.write_text(
        "#!/bin/sh\n"
        f'cp "$1" {folder}/script; env > {folder}/environment\n'
        f'echo "$@" > {folder}/arguments; echo "Submitted batch job 12"\n'
    )
    (folder / "srun").write_text("#!/bin/sh\n")
    for each in (player, folder / "srun"):
        each.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_what_is_submitted_is_what_was_shown_and_holds_no_secret(sbatch, tmp_path) -> None:
    job = SlurmJob(
        name="mine",
        folder=tmp_path / "jobs",
        minutes=30,
        workers=2,
        partition="short",
        gres="gpu:1",
        options={"account": "lab"},
    )
    submitter: Submitter = SlurmSubmitter(job)
    environment = {"CLRSEARCH_STORAGE": "postgresql://me:canary@host/db"}
    command = Command(arguments=("python", "-m", "clrsearch", "worker"), environment=environment)
    text = submitter.render([command] * 5)
    said = submitter.submit([command] * 5)
    assert said.startswith("submitted 3 jobs to SLURM as 12, with logs in")
    script, _, lines = text.partition("# job 0\n")
    assert (sbatch / "script").read_text() == script.removesuffix("\n")
    assert lines == (
        "python -m clrsearch worker\n" * 2
        + "# job 1\n"
        + "python -m clrsearch worker\n" * 2
        + "# job 2\npython -m clrsearch worker"
    )
    assert f"{sys.executable} -P -u -m submitit.core._submit" in script
    for option in (
        *("array=0-2%3", "partition=short", "gres=gpu:1", "account=lab", "time=30"),
        *("signal=USR2@90", "requeue", "cpus-per-task=2"),
    ):
        assert f"#SBATCH --{option}\n" in script
    assert (
        "CLRSEARCH_STORAGE=postgresql://me:canary@host/db"
        in (sbatch / "environment").read_text().splitlines()
    )
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in written if path.suffix == ".pkl"]) == 3
    for path in written:
        assert path == sbatch / "environment" or b"canary" not in path.read_bytes()
    assert "canary" not in text
    assert "CLRSEARCH_STORAGE" not in os.environ or "canary" not in os.environ["CLRSEARCH_STORAGE"]


def test_a_job_knows_its_slurm_and_the_users_defaults_but_no_job_around_it(
    sbatch, tmp_path, monkeypatch
) -> None:
    given = {"SLURM_CONF": "/etc/own.conf", "SBATCH_ACCOUNT": "lab", "SLURM_CPUS_PER_TASK": "7"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    submitter = SlurmSubmitter(SlurmJob(name="mine", folder=tmp_path / "jobs", minutes=30))
    submitter.submit([Command(arguments=("python",))])
    there = (sbatch / "environment").read_text().splitlines()
    assert [f"{name}={value}" in there for name, value in given.items()] == [True, True, False]
    assert os.environ["SLURM_CPUS_PER_TASK"] == "7"


def test_one_job_is_no_array(sbatch, tmp_path) -> None:
    submitter = SlurmSubmitter(SlurmJob(name="mine", folder=tmp_path / "jobs", minutes=30))
    command = Command(arguments=("python",))
    text = submitter.render([command])
    assert "--array" not in text
    assert submitter.submit([command]).startswith("submitted 1 job to SLURM as 12")
    assert text == (sbatch / "script").read_text() + "\n# job 0\npython"


def test_where_slurm_refuses_its_words_are_shown(sbatch, tmp_path) -> None:
    (sbatch / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified' >&2; exit 1\n")
    submitter = SlurmSubmitter(SlurmJob(name="mine", folder=tmp_path / "jobs", minutes=30))
    with pytest.raises(PlanError, match=r"SLURM rejected the job: .*invalid partition specified"):
        submitter.submit([Command(arguments=("python",))])


def test_without_slurm_nothing_is_submitted(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    submitter = SlurmSubmitter(SlurmJob(name="mine", folder=tmp_path / "jobs", minutes=30))
    with pytest.raises(PlanError, match=r"sbatch not found: submit jobs from a machine"):
        submitter.submit([Command(arguments=("python",))])
    assert not (tmp_path / "jobs").exists()


def test_a_password_is_in_no_file_of_a_job_nor_in_its_command_line(
    postgresql, task_dir, tmp_path, monkeypatch
) -> None:
    server = sa.make_url(postgresql.reveal()).set(password="canary")  # which trust does not ask for
    url = StorageUrl(server.render_as_string(hide_password=False))
    monkeypatch.setenv("CLRSEARCH_STORAGE", url.reveal())
    begin(url, task_dir, trials=1)
    (job,) = hand_over(local(tmp_path), workers(url, task_dir, tmp_path / "checkpoints", 1), 1)
    wait_for(lambda: [each.epoch for each in records(url)] not in ([], [0]))
    shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, check=True).stdout
    assert b"clrsearch worker mine" in shown
    assert b"canary" not in shown
    job.result()
    assert service.show("mine").snapshot.slots == {SlotState.COMPLETE: 1}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()
