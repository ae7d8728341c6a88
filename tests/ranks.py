"""Two processes that make the same runs, as a script: what came of them is written as JSON.

They are started once for everything, as that costs seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clrsearch.errors import TaskError
from clrsearch.launch import Command, run_ranks
from clrsearch.schedules import Trace
from clrsearch.tasks import load_task
from clrsearch.training import Interrupted, follow, joined, lead, probe, run_maker
from clrsearch.training.group import Phase

TASKS = Path(__file__).parent / "tasks_for_tests"
CPU = torch.device("cpu")
POLLS = 1000


def known(name):
    """A task with its facts, which one process finds out alone."""
    loaded = load_task(f"grouped.py:{name}", folder=TASKS)
    if name == "with_lightning":  # which would start a group of its own; it is the same job
        return loaded.task, known("train")[1]
    length = {"epochs": 6, "metric": "error", "direction": "minimize"} if name == "train" else {}
    return loaded.task, probe(loaded, device=CPU, **length)


def options(facts):
    """A trace whose rate goes up and down, and the seeds."""
    steps = np.arange(facts.horizon)
    trace = Trace(rates=0.002 * (1 + steps % 7)[None], momenta=None)
    return {"trace": trace, "seed": 3, "seed_index": 0}


def curve(run, *, until=99):
    """The metrics of each interval; the run is left after some of them, as pruning does."""
    found = []

    def on_epoch(epoch):
        found.append(dict(epoch.metrics))
        return epoch.number < until

    run.train(on_epoch)
    return found


def whole(make):
    run = make(tests=True)
    return {"curve": curve(run), "test": run.test()}


def averaging(make):
    """The same runs with the optimizer of Schedule-Free."""
    return partial(make, trace=replace(make.keywords["trace"], averaging=0.9))


def broken_off(make):
    """Stopped within the third interval, saved, and resumed by another run."""
    polls = 0

    def interrupted():
        nonlocal polls
        polls += 1
        return polls > 17

    first, found = make(interrupted=interrupted), []
    try:
        first.train(lambda epoch: not found.append(dict(epoch.metrics)))
    except Interrupted:
        state = first.state()
    second = make()
    second.restore(state)
    return {"curve": found + curve(second), "before": len(found), "ranks": len(state["ranks"])}


def failure(make):
    try:
        curve(make())
    except TaskError as error:
        return {"kind": type(error).__name__, "said": str(error), **vars(error)}


def polled(group):
    began = time.perf_counter()
    for _ in range(POLLS):
        group.agree(Phase.POLL)
    return (time.perf_counter() - began) / POLLS


CASES = {
    "Shared": whole,
    "Stepped": whole,
    "averaged": lambda make: whole(averaging(make)),
    "train": whole,
    "with_lightning": whole,
    "pruned": lambda make: {"curve": curve(make(), until=2)},
    "FailsInAll": failure,
    "PastForward": failure,
    "Dropping": whole,
    "broken off": broken_off,
    "FailsInOne": failure,  # after which the group is of no use
}
TASK_OF = {"averaged": "Shared", "pruned": "Shared", "broken off": "Dropping"}


def work(folder: Path) -> None:
    torch.set_num_threads(1)
    results = {}
    tasks = {case: known(TASK_OF.get(case, case)) for case in CASES}
    with joined(CPU) as group:
        results["poll"] = polled(group)
        for case, act in CASES.items():
            task, facts = tasks[case]
            make_run = run_maker(task, facts, CPU, group=group)
            if group.rank > 0:
                follow(make_run, group)
                continue
            with lead(make_run, group) as led:
                results[case] = act(partial(led, **options(facts)))
            (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    if "RANK" not in os.environ:
        again = Command(arguments=(sys.executable, __file__, sys.argv[1]))
        sys.exit(run_ranks(again, 2, ends_with_parent=False) % 256)
    work(Path(sys.argv[1]))
