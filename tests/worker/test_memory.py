"""A worker whose memory runs out fails or ends; it does not wait for a thread that never began."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.service import versions
from clrsearch.storage import Slots, SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.training.device import find_device
from clrsearch.worker import lease as module
from clrsearch.worker.lease import Lease

TASK = """
import resource
from pathlib import Path
from tiny import FailsLater

class Eats(FailsLater):
    '''In its second epoch it takes all memory that the process may have, and keeps it.'''

    def loss(self, output, target):
        try:
            return super().loss(output, target)
        except KeyError:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), -1))
            self.kept = []
            while True:
                self.kept.append(bytearray(100_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_without_memory_ends(url, task_dir, tmp_path) -> None:
    (tmp_path / "tiny.py").write_text((task_dir / "tiny.py").read_text())
    (tmp_path / "mem.py").write_text(TASK)
    plan = StudyPlan(
        families=("cyclic",),
        task="mem.py:Eats",
        trials=3,
        retries=0,
        confirm=ConfirmPlan(enabled=False),
    )
    facts = probe(load_task(plan.task, folder=tmp_path), device=find_device("cpu"))
    with open_database(url, create=True) as database:
        study = Study.create(database, "mine", plan, facts, versions(tmp_path))
        command = [sys.executable, "-P", "-m", "clrsearch", "worker", "mine", "--device", "cpu"]
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode != 0
        assert "memory" in ended.stderr.lower()
        assert study.slots.counts()[SlotState.COMPLETE] == 0
        assert study.history.records()[0].state == "running"  # another worker goes on with it


class Forgetful(Slots):
    """Has no memory to renew a lease with."""

    def renew(self, slot):
        raise MemoryError


def test_a_lease_that_is_renewed_no_more_is_told_to_who_asks(url, monkeypatch) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
    with open_database(url, create=True) as database:
        slots = Forgetful(database.engine, "study")
        slots.grow(["cyclic"])
        with Lease(slots, slots.claim("w"), patience=60) as lease:
            lease._ended.wait(60)
            with pytest.raises(MemoryError):
                lease.settle(lambda seconds: None)
