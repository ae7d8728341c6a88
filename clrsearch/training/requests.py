"""Loads and probes a task in a helper process, on behalf of a parent that may outlive it.

``python -m clrsearch.training.requests`` reads requests from standard input and answers them on
standard output, one line of JSON each. It exits with its parent, when its input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from clrsearch import proposals
from clrsearch.errors import ClrsearchError, PlanError, TaskRaised
from clrsearch.schedules import Manual, Trace
from clrsearch.tasks import (
    LoadedRate,
    LoadedTask,
    Loop,
    Task,
    TaskFacts,
    WeightDecay,
    load_rate,
    load_task,
    task_code,
)
from clrsearch.training.contract import build
from clrsearch.training.device import (
    computing,
    devices_for,
    find_device,
    memory,
    see_only,
    spread,
)
from clrsearch.training.lane_choice import Training, require_lanes
from clrsearch.training.learner import Learner
from clrsearch.training.making import RunMaker, load_data, run_maker
from clrsearch.training.probing import probe
from clrsearch.training.rate_ramp import ramp
from clrsearch.training.run import Diverged, Epoch, Interrupted
from clrsearch.training.task_data import TaskData

UNTIMED, LEAST_LOOKS = 3, 6  # looks for an interruption, before a pace is and can be known
TIMED_SECONDS, TIMED_INTERVALS = 10.0, 3  # whichever is over first
BETA = 0.9  # any will do
GRACE_SECONDS = 5.0  # for a request that is running when the parent ends


class Requests:
    """The requests a parent can make: one method each, with JSON arguments and results."""

    _task: LoadedTask
    _rate: LoadedRate | None

    def __init__(self, *, own_process: bool = False) -> None:
        """``own_process`` says that nothing else runs in this process."""
        self._own_process = own_process
        self._make_run: RunMaker | None = None
        self._devices: list[str] = []
        self._chosen: torch.device | None = None

    def load(
        self,
        *,
        task: str,
        options: Mapping[str, Any],
        arguments: Sequence[str],
        rate: str | None,
        folder: str,
        data_dir: str,
        weight_decay: float | str | None,
        download: bool,
    ) -> dict[str, Any]:
        """Load the task and, if named, a function for hand-written rates; returns their hashes."""
        given, place = tuple(arguments), Path(folder)
        self._task = load_task(
            task,
            options=options,
            arguments=given,
            folder=place,
            data_dir=Path(data_dir),
            weight_decay=weight_decay,
        )
        self._rate = None if rate is None else load_rate(rate, arguments=given, folder=place)
        if download:
            with task_code("downloading the data"):
                self._task.task.download()
        loaded = self._task.task
        return {
            "source": self._task.source,
            "rate_source": None if self._rate is None else self._rate.source,
            "epochs": None if isinstance(loaded, Loop) else _epochs(loaded),
            "defaults": {} if isinstance(loaded, Loop) else _defaults(loaded),
        }

    def facts(self, *, device: str | None, **plan: Any) -> dict[str, Any]:
        """The task's facts for a plan's ``epochs``, ``batch_size`` and so on."""
        chosen = self._device(device)
        with computing(chosen):
            return probe(self._task, device=chosen, **plan).model_dump(mode="json")

    def weight_decays(
        self, *, plans: Sequence[float | str | None], device: str | None
    ) -> list[list[float]]:
        """The weight decay of each group of the optimizer, by a plan's ``weight_decay``."""
        task, chosen = self._task.task, self._device(device)
        assert not isinstance(task, Loop)  # its weight decay cannot be set
        found = []
        with computing(chosen):
            for each in plans:
                task.asked_weight_decay = None if each is None else WeightDecay.read(each)
                _, optimizer = build(task, chosen)
                found.append([float(group["weight_decay"]) for group in optimizer.param_groups])
        return found

    def rates(self, *, name: str, epochs: int, steps_per_epoch: float) -> list[float]:
        """The hand-written rate at each step."""
        assert self._rate is not None
        schedule = Manual(
            rates=name,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            function=self._rate.function,
        )
        written, _ = schedule.at(np.arange(epochs * steps_per_epoch, dtype=np.float64))
        return [float(rate) for rate in written]

    def ramp(
        self, *, facts: Mapping[str, Any], device: str | None, seed: int, precision: Any
    ) -> dict[str, Any]:
        """The losses of the task in a learning-rate range test."""
        task, known, chosen = self._task.task, TaskFacts.model_validate(facts), self._device(device)
        assert not isinstance(task, Loop) and known.batch_size is not None
        with computing(chosen):
            data = TaskData(task, known.batch_size, chosen, seed=seed)
            return asdict(ramp(task, known, data, seed=seed, device=chosen, precision=precision))

    def require_lanes(
        self,
        *,
        facts: Mapping[str, Any],
        device: str | None,
        seed: int,
        precision: Any,
        deterministic: bool,
        averages: bool,
        lanes: int,
    ) -> None:
        """Refuse lanes for a task that is not fit for them."""
        known, chosen = TaskFacts.model_validate(facts), self._device(device)
        task = self._task.task
        how = Training(
            device=chosen,
            precision=precision,
            seed=seed,
            deterministic=deterministic,
            averages=averages,
        )
        with computing(chosen, deterministic=deterministic):
            data = load_data(task, known, chosen, seed=seed)
            require_lanes(task, known, data, lanes, **how)

    def require_averaging(self, *, device: str | None, precision: Any) -> None:
        """Refuse a task that Schedule-Free cannot train."""
        task, chosen = self._task.task, self._device(device)
        if isinstance(task, Loop):
            raise PlanError(
                "schedule_free takes the place of the optimizer, which a custom training loop "
                "makes itself: leave it out of families and baseline, or write a Task"
            )
        with computing(chosen), task_code("building the model"):
            Learner(task, chosen, precision, averaging=BETA)

    def interval_seconds(
        self, *, facts: Mapping[str, Any], device: str | None, seed: int, precision: Any
    ) -> float:
        """What training and validating an interval takes, in seconds.

        Where an interval is long, its validation is left out, and its steps are told from some.
        """
        known, chosen = TaskFacts.model_validate(facts), self._device(device)
        began, looks, ends = time.perf_counter(), list[float](), list[float]()

        def interrupted() -> bool:
            looks.append(time.perf_counter())
            return len(looks) > LEAST_LOOKS and looks[-1] - began >= TIMED_SECONDS

        def note(epoch: Epoch) -> bool:
            ends.append(time.perf_counter())
            return len(ends) < TIMED_INTERVALS

        with computing(chosen), suppress(Interrupted, Diverged):
            self._maker(known, chosen, seed, precision)(
                _constant(known), seed=seed, seed_index=0, interrupted=interrupted
            ).train(note)
        if len(ends) > 1:  # the first one includes the start
            return (ends[-1] - ends[0]) / (len(ends) - 1)
        timed = looks[UNTIMED:]
        steps = known.horizon / known.intervals
        return steps * (timed[-1] - timed[0]) / (len(timed) - 1)

    def pace(
        self,
        *,
        facts: Mapping[str, Any],
        device: str | None,
        seed: int,
        precision: Any,
        seconds: float,
    ) -> dict[str, float]:
        """How fast the task trains: looks for an interruption per second, which is once per step.

        Also the memory that it takes and that is free on a GPU, in bytes; 0 elsewhere.
        """
        known, chosen = TaskFacts.model_validate(facts), self._device(device)
        with computing(chosen):
            make_run, trace = self._maker(known, chosen, seed, precision), _constant(known)
            looks: list[float] = []

            def interrupted() -> bool:
                looks.append(time.perf_counter())
                return len(looks) > LEAST_LOOKS and looks[-1] - looks[UNTIMED] >= seconds

            with suppress(Interrupted):
                while True:
                    run = make_run(trace, seed=seed, seed_index=0, interrupted=interrupted)
                    with suppress(Diverged):
                        run.train(lambda epoch: True)
        taken, free = memory(chosen)
        timed = looks[UNTIMED:]
        pace = (len(timed) - 1) / (timed[-1] - timed[0])
        return {"pace": pace, "taken": taken, "free": free}

    def devices(
        self, *, device: str | None, workers: int | None, slots: int, gpus_per_trial: int
    ) -> list[str]:
        """A device for each worker; see :func:`spread`."""
        found = self._devices or devices_for(device)
        return spread(found, workers, slots=slots, gpus_per_trial=gpus_per_trial)

    def _maker(self, facts: TaskFacts, device: torch.device, seed: int, precision: Any) -> RunMaker:
        """What makes runs of the task, created once."""
        if self._make_run is None:
            self._make_run = run_maker(self._task.task, facts, device, precision, seed=seed)
        return self._make_run

    def _device(self, name: str | None) -> torch.device:
        """The device to try the task on, all other GPUs being hidden from a process of its own."""
        if self._chosen is None:
            self._devices = devices_for(name)
            self._chosen = find_device(see_only(name) if self._own_process else name)
        return self._chosen


def _constant(facts: TaskFacts) -> Trace:
    """The task's own learning rates at every step."""
    rates = np.full((len(facts.ratios), facts.horizon), facts.base_lr)
    return Trace(rates=rates * np.array(facts.ratios)[:, None], momenta=None)


def _epochs(task: Task) -> int | None:
    """The task's own number of epochs; None if its length is in steps."""
    return task.epochs if task.total_steps is None else None


def _defaults(task: Task) -> dict[str, Any]:
    """The default values of the task's options, as far as a plan can set them."""
    fields = type(task).Options.model_fields
    plain = (str, int, float, bool)
    return {name: each.default for name, each in fields.items() if isinstance(each.default, plain)}


def main() -> None:
    """Answer requests until the input ends."""
    lines: SimpleQueue[str] = SimpleQueue()
    asked, answers = os.dup(0), os.fdopen(os.dup(1), "w")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)  # so that task code cannot read the requests
    os.dup2(2, 1)  # nor print into the answers
    os.close(empty)

    def listen() -> None:
        with os.fdopen(asked) as stream:
            for line in stream:
                lines.put(line)
        lines.put("")
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=listen, name="parent", daemon=True).start()
    words, options = json.loads(lines.get()) or (None, ())
    with ExitStack() as speaking:
        if words is not None:
            takes = lambda _, option: option in options  # noqa: E731
            speaking.enter_context(proposals.command_line(words, takes))
        requests = Requests(own_process=True)
        while line := lines.get():
            print(json.dumps(_answer(requests, *json.loads(line))), file=answers, flush=True)


def _answer(requests: Requests, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"result": getattr(requests, name)(**arguments)}
    except ClrsearchError as error:
        said = [str(error)]
        if isinstance(error, TaskRaised):
            said.append(error.traceback)
        return {"error": type(error).__name__, "arguments": said}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the parent gets it too, and reports it
        sys.exit(130)
