"""The workers of hosts: started on them, watched, waited for.

The clocks of hosts that are to be wrong are set by libfaketime.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import harness
from harness import Place, SlotRow
from network import Network

GREEDY = Path(__file__).with_name("greedy.py")
# Under libfaketime 0.9.10 with a true steady clock, the system call of time.sleep is refused.
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Whether the hosts see each other's checkpoints, whether one is cut off, and their clocks."""

    shared: bool = False
    cut: bool = True
    hours: Mapping[int, int] = field(default_factory=dict)  # by which a host's clock is off


class Hosts:
    """The worker of each host, on the study at a place."""

    def __init__(self, network: Network, place: Place, case: Case) -> None:
        self.network = network
        self.place = place
        self._case = case
        self.workers: dict[int, subprocess.Popen[bytes]] = {}

    def hire(self, host: int) -> None:
        """Start the host's worker."""
        folder = self.place.checkpoints / ("all" if self._case.shared else f"host{host}")
        words = ("-m", "clrsearch", "worker", harness.STUDY, "--device", "cpu")
        options = ("--checkpoint-seconds", "0", "--checkpoint-dir", str(folder))
        with self._log(host).open("w") as log:
            self.workers[host] = subprocess.Popen(
                [*self._begins(host), *words, "--task-dir", str(harness.TASKS), *options],
                env=self._environment(host),
                stdout=log,
                stderr=log,
            )

    def be_greedy(self) -> tuple[dict[int, float], list[str]]:
        """Let each host try to take over what lives: hours its clock is off, what is strange."""
        tries = {
            host: subprocess.Popen(
                [*self._begins(host), str(GREEDY)],
                env=self._environment(host),
                stdout=subprocess.PIPE,
                text=True,
            )
            for host in self.workers
        }
        off: dict[int, float] = {}
        found: list[str] = []
        for host, script in tries.items():
            said = script.communicate()[0]
            if script.returncode:
                raise SystemExit(f"the greedy process of host{host} has failed")
            ahead, tried, expired, taken = json.loads(said)
            off[host] = ahead / 3600
            if not tried or expired or taken:
                found.append(f"host{host}: {expired} expired, {taken} taken of {tried}")
        return off, found

    def epochs(self) -> list[tuple[float, int]]:
        """When, by the script's clock, and on which host each epoch was finished."""
        host_of = {worker.pid: host for host, worker in self.workers.items()}
        trained = [(at, host_of[pid]) for at, pid in self.place.epochs_trained()]
        return [(at - 3600 * self._case.hours.get(host, 0), host) for at, host in trained]

    def wait(self, seconds: float) -> list[str]:
        """Until all have left; those that have not, or not in good order."""
        deadline = time.monotonic() + seconds
        found = []
        for host, worker in self.workers.items():
            try:
                code = worker.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                found.append(f"the worker of host{host} has not left: {self.words(host)}")
                continue
            if code:
                found.append(f"the worker of host{host} ended with {code}: {self.words(host)}")
        return found

    def close(self) -> None:
        """End all that are left."""
        for worker in self.workers.values():
            worker.kill()
            worker.wait()

    def words(self, host: int) -> str:
        """What the host's worker has written."""
        return self._log(host).read_text(encoding="utf-8")[-2000:]

    def _begins(self, host: int) -> tuple[str, ...]:
        return *self.network.on(host, self._case.hours.get(host, 0)), sys.executable

    def _environment(self, host: int) -> dict[str, str]:
        environment = os.environ | {"CLRSEARCH_STORAGE": self.place.url}
        if host in self._case.hours:
            first = self.place.folder / "first"
            first.mkdir(exist_ok=True)
            (first / "sitecustomize.py").write_text(SLEEP)
            paths = (str(first), os.environ.get("PYTHONPATH", ""))
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return environment

    def _log(self, host: int) -> Path:
        return self.place.folder / f"host{host}.log"


def of_host(slot: SlotRow, host: int) -> bool:
    return (slot.worker or "").startswith(f"host{host}:")


def held(place: Place, host: int) -> SlotRow | None:
    """The slot that a host holds, if any."""
    mine = [s for s in place.slots() if s.state == "claimed" and of_host(s, host)]
    return mine[0] if mine else None
