"""A worker's life: claim a slot, propose, train and report by the epoch, tell; and again."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from clrsearch.errors import StudyStopped, TaskError, TaskRaised
from clrsearch.schedules import Trace, Value
from clrsearch.search import Record, Study, hopeless, suggest
from clrsearch.storage import LEASE_SECONDS, Slot, SlotState
from clrsearch.tasks import Task
from clrsearch.training import Diverged, Epoch, SequentialRun, TaskData, warm_up
from clrsearch.worker.lease import Lease
from clrsearch.worker.signals import Interrupted, Interruption

FAILURES = 3  # in a row, with no trial complete, stop the study
WAIT_SECONDS = 0.5  # between two looks for a slot while others hold them all
FRESH_SECONDS = 2.0  # how old the history may be that a pruning decision sees


def worker_name() -> str:
    """A name that no other worker has: host, process and a few random digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


class Worker:
    """Works on one study's slots with one task on one device."""

    def __init__(
        self,
        study: Study,
        task: Task,
        device: torch.device,
        *,
        name: str,
        on_end: Callable[[Record], None] = lambda record: None,
    ) -> None:
        """``on_end`` is called with the record of each trial that this worker ends."""
        self._study = study
        self._task = task
        self._device = device
        self._name = name
        self._on_end = on_end
        self._interruption = Interruption()
        self._data = TaskData(task, study.facts.batch_size, device)
        warm_up(task)

    def work(self) -> None:
        """Work until no slot is left to claim, or until SIGINT or SIGTERM.

        Raises:
            StudyStopped: the task's code fails again and again.
        """
        with self._interruption.listening():
            while not self._interruption.asked:
                stopped = self._study.stopped
                if stopped is not None:
                    raise StudyStopped(f"{self._study.name} was stopped: its task fails", stopped)
                slot = self._study.slots.claim(self._name) or self._wait_for_a_slot()
                if slot is None:
                    return
                self._fill(slot)

    def _wait_for_a_slot(self) -> Slot | None:
        """A slot that another worker loses while all are held: a lease not renewed runs out."""
        deadline = time.monotonic() + LEASE_SECONDS + 1
        while self._study.slots.live() and time.monotonic() < deadline:
            if self._interruption.asked:
                return None
            time.sleep(WAIT_SECONDS)
            slot = self._study.slots.claim(self._name)
            if slot is not None:
                return slot
        return None

    def _fill(self, slot: Slot) -> None:
        """Bring a claimed slot to an end, or hand it back."""
        earlier = [record for record in self._study.history.records() if record.slot == slot.number]
        for record in earlier:
            if record.state in ("complete", "pruned"):  # told, but the teller was lost right after
                self._study.slots.finish(slot, SlotState(record.end))
                return
        with Lease(self._study.slots, slot) as lease:
            trial, played = self._begin(slot, earlier)
            try:
                self._train(slot, lease, trial, played)
            except Interrupted:
                self._study.slots.hand_back(slot)
            except TaskError as error:
                self._failed(slot, trial, error, failed_before=_failures(earlier))
        ended = self._study.trial(trial)
        if ended.state != "running":
            self._on_end(ended)

    def _begin(self, slot: Slot, earlier: list[Record]) -> tuple[int, Trace]:
        """The slot's trial and its trace: begun already, a failed one's again, or new."""
        facts = self._study.facts
        running = next((record for record in earlier if record.state == "running"), None)
        params = earlier[0].params if earlier else self._propose(slot)
        played = self._study.trace(slot.family, params)
        if running is not None:
            trial = running.number
        else:
            ends = played.at_epoch_ends(facts.steps_per_epoch)
            attributes = {
                "worker": self._name,
                "device": str(self._device),
                "rates": ends.rates.tolist(),
            }
            if ends.momenta is not None:
                attributes["momenta"] = ends.momenta.tolist()
            trial = self._study.begin(slot, params, attributes)
        self._study.slots.bind(slot, trial)
        return trial, played

    def _propose(self, slot: Slot) -> Mapping[str, Value]:
        fixed = self._first_setting(slot)
        if fixed is not None:
            return fixed
        seed = np.random.SeedSequence((self._study.plan.seed, slot.number)).generate_state(1)[0]
        return suggest(
            self._family(slot),
            self._study.space.families[slot.family],
            direction=self._study.facts.direction,
            seed=int(seed),
        )

    def _first_setting(self, slot: Slot) -> Mapping[str, Value] | None:
        """The setting that the slot is kept for, where it is among its family's first."""
        first = self._study.space.first(slot.family)
        rank = self._study.plan.rank_of(slot.number)
        return first[rank] if rank < len(first) else None

    def _family(self, slot: Slot) -> list[Record]:
        """The other trials of the slot's family, as they were a moment ago."""
        return [
            record
            for record in self._study.history.records(FRESH_SECONDS)
            if record.family == slot.family and record.slot != slot.number
        ]

    def _train(self, slot: Slot, lease: Lease, trial: int, played: Trace) -> None:
        """Train the trial and tell its end, unless the slot has been lost meanwhile."""
        study, facts = self._study, self._study.facts
        seconds = 0.0
        values: dict[int, float] = {}
        rates = played.at_epoch_ends(facts.steps_per_epoch).rates[0].tolist()
        prunable = self._prunable(slot)
        try:
            with self._interruption.allowed():
                run = SequentialRun(
                    self._task,
                    facts,
                    self._data,
                    played,
                    seed=study.plan.seed,
                    device=self._device,
                )
            for _ in range(facts.epochs):
                with self._interruption.allowed():
                    epoch = run.next_epoch()
                seconds += epoch.seconds
                if not lease.holds():
                    return
                values[epoch.number] = epoch.metrics[facts.metric]
                study.report(trial, epoch.number, values[epoch.number])
                if prunable and hopeless(
                    values, self._family(slot), rates, direction=facts.direction
                ):
                    study.prune(trial, _summary(epoch, seconds))
                    study.slots.finish(slot, SlotState.PRUNED)
                    return
        except Diverged as diverged:
            study.prune(trial, {"seconds": seconds, "diverged": str(diverged)}, diverged=True)
            study.slots.finish(slot, SlotState.DIVERGED)
            return
        study.complete(trial, values[facts.epochs], _summary(epoch, seconds))
        study.slots.finish(slot, SlotState.COMPLETE)

    def _prunable(self, slot: Slot) -> bool:
        plan = self._study.plan
        return (
            plan.pruner != "none"
            and slot.family != plan.baseline
            and self._first_setting(slot) is None
        )

    def _failed(self, slot: Slot, trial: int, error: TaskError, *, failed_before: int) -> None:
        """Store the traceback; open the slot for another try, or use it up."""
        traceback = (isinstance(error, TaskRaised) and error.traceback) or str(error)
        self._study.fail(trial, {"error": traceback})
        if failed_before < self._study.plan.retries:
            self._study.slots.hand_back(slot)
        else:
            self._study.slots.finish(slot, SlotState.FAILED)
        if keeps_failing(self._study.history.records()):
            self._study.stop(traceback)


def keeps_failing(records: list[Record]) -> bool:
    """Whether the latest trials to end all failed and none of the study has completed."""
    ended = sorted(
        (record for record in records if record.ended is not None),
        key=lambda record: record.ended.timestamp() if record.ended else 0.0,
    )
    latest = ended[-FAILURES:]
    return (
        len(latest) == FAILURES
        and all(record.state == "failed" for record in latest)
        and all(record.state != "complete" for record in records)
    )


def _failures(records: list[Record]) -> int:
    return sum(record.state == "failed" for record in records)


def _summary(epoch: Epoch, seconds: float) -> dict[str, Any]:
    """What is stored with a trial's end: its last metrics and the time it took to train."""
    return {"metrics": dict(epoch.metrics), "seconds": round(seconds, 3)}
