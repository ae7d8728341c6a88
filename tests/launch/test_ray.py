"""Workers as tasks of an embedded Ray cluster; which addresses are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from running import PATIENCE, begin, records, wait_for

from clrsearch import service
from clrsearch.errors import ClrsearchError, PlanError
from clrsearch.launch import Command, RayCluster, RaySubmitter, Submitter
from clrsearch.storage import SlotState


@pytest.fixture(autouse=True)
def token(monkeypatch) -> None:
    """A token of the test's own, for Ray leaves one in the home folder where it finds none."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)


def holders(url) -> dict[int, str]:
    """Those who have reported an epoch of a trial that runs: process by process, whose it is."""
    found = [each for each in records(url) if each.state == "running" and each.values]
    return {int(each.worker.split(":")[1]): each.worker for each in found}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_worker_is_started_again_and_the_budget_is_exact(
    postgresql, task_dir, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    begin(postgresql, task_dir, trials=6)
    launched = subprocess.Popen(
        [
            *(sys.executable, "-m", "clrsearch", "launch", "ray", "mine", "--workers", "2"),
            *("--checkpoint-seconds", "0"),
        ],
        cwd=task_dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    workers = wait_for(lambda: len(found := holders(postgresql)) == 2 and found)
    first, second = workers
    os.kill(first, signal.SIGKILL)
    os.kill(parent(second), signal.SIGKILL)  # the process of Ray's that attends to it
    out, errors = launched.communicate(timeout=PATIENCE)
    assert launched.returncode == 0, errors
    assert out.splitlines()[-1] == "2 workers have exited"

    snapshot = service.show("mine").snapshot
    assert snapshot.slots == {SlotState.COMPLETE: 6}
    assert sorted(record.slot for record in snapshot.records) == list(range(6))
    assert [record.number for record in snapshot.records] == list(range(6))
    assert not workers.keys() & holders(postgresql).keys()
    for record in snapshot.records:
        assert record.drift == 0.0
        assert service.replay("mine", record.number, device="cpu", task_dir=task_dir).matches


def test_a_worker_that_gives_up_is_heard_and_not_started_again(tmp_path, monkeypatch) -> None:
    text = (
        "import os, pathlib, sys\n"
        f"with open({str(tmp_path / 'said')!r}, 'a') as file:\n"
        "    print(os.environ['CLRSEARCH_STORAGE'], file=file)\n"
        "sys.stderr.write('clrsearch: no such task\\n')\n"
        "sys.exit(2)\n"
    )
    monkeypatch.setenv("CLRSEARCH_STORAGE", "another")
    storage = {"CLRSEARCH_STORAGE": "postgresql://me:canary@host/db"}
    command = Command(arguments=(sys.executable, "-c", text), environment=storage)
    submitter: Submitter = RaySubmitter(RayCluster())
    assert "canary" not in submitter.render([command])
    with pytest.raises(ClrsearchError, match="1 of 1 workers gave up: no such task"):
        submitter.submit([command])
    assert (tmp_path / "said").read_text() == "postgresql://me:canary@host/db\n"
    assert os.environ["CLRSEARCH_STORAGE"] == "another"


@pytest.mark.parametrize(
    "address", ["10.0.0.7:6379", "ray://head:10001", "http://head:8265", "https://head.lab"]
)
def test_a_cluster_that_runs_anybodys_code_is_refused(address, monkeypatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(PlanError, match=r"token authentication is on: set RAY_AUTH_MODE=token"):
        RaySubmitter(RayCluster(address=address))


@pytest.mark.parametrize("address", [None, "auto", "127.0.0.1:6379", "ray://localhost:10001"])
def test_one_of_this_machine_is_not(address, monkeypatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    RaySubmitter(RayCluster(address=address))


def test_a_cluster_that_is_not_there_is_named() -> None:
    submitter = RaySubmitter(RayCluster(address="127.0.0.1:1"))
    with pytest.raises(ClrsearchError, match=r"no Ray cluster at 127.0.0.1:1, or one that"):
        submitter.submit([Command(arguments=("python",))])


def test_nor_is_one_with_tokens_or_one_that_is_accepted_as_it_is(monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    RaySubmitter(RayCluster(address="10.0.0.7:6379", allow_unauthenticated=True))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    RaySubmitter(RayCluster(address="10.0.0.7:6379"))
    with pytest.raises(PlanError, match="is Ray's job API: use the cluster's own address"):
        RaySubmitter(RayCluster(address="http://10.0.0.7:8265"))
