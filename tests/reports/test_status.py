"""How a study stands: who works on it, how fast, what failed; and how that reads."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from records import STEPS, make_record
from rich.console import Console

from clrsearch.causes import cause
from clrsearch.reports import StatusView, status_advice, status_table
from clrsearch.results import Status, status_json
from clrsearch.results.status import Failure, Holder, Pace, failures, holders, pace
from clrsearch.search import Record
from clrsearch.storage import Claim, SlotState
from clrsearch.tasks import Spacing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def claim(number: int, *, trial: int | None, worker: str = "gpu1:7:0", age: float = 2.0) -> Claim:
    return Claim(
        number=number,
        family="cyclic",
        worker=worker,
        attempt=2,
        losses=1,
        trial=trial,
        finalist=None,
        seed_index=0,
        checkpoint=3,
        expires=1e9,
        age=age,
    )


def ended(number: int, seconds: float, state: str = "complete", *, after: float = 0.0) -> Record:
    return make_record(
        0.5, number=number, state=state, seconds=seconds, ended=NOON + timedelta(hours=after)
    )


def failed(number: int, error: str) -> Record:
    return make_record(0.5, number=number, state="failed", error=error)


def traceback(file: str, line: int, message: str) -> str:
    frame = f'  File "{file}", line {line}, in loss\n    step()\n'
    return f"Traceback (most recent call last):\n{frame}RuntimeError: {message}\n"


def holder(worker: str = "gpu1:7:0", **changes) -> Holder:
    given = {
        "worker": worker,
        "slot": 34,
        "trial": 34,
        "device": "cuda:1",
        "epoch": 12,
        "value": 0.97451,
        "attempt": 1,
        "losses": 0,
        "checkpoint": None,
        "age": 3.2,
        "silent": False,
    }
    return Holder(**(given | changes))


def status(*found: Holder, slots: dict[str, int], **changes) -> Status:
    given = {
        "name": "mine",
        "metric": "accuracy",
        "spacing": Spacing(epochs=20, steps_per_epoch=4),
        "slots": {SlotState(state): count for state, count in slots.items()},
        "holders": found,
        "pace": None,
        "failures": (),
        "departures": {},
        "packing": "",
        "budget": "",
        "over": False,
        "stopped": False,
        "stopped_by": None,
    }
    return Status(**(given | changes))


def drawn(now: Status, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(status_table(now))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_claim_is_shown_with_its_trial() -> None:
    running = make_record(
        0.9, 0.7, number=5, slot=4, state="running", worker="gpu1:7:0", device="cuda"
    )
    (found,) = holders([claim(4, trial=5)], [running])
    assert (found.host, found.pid, found.device) == ("gpu1", 7, "cuda")
    assert (found.slot, found.trial, found.epoch, found.value) == (4, 5, 2, 0.7)
    assert (found.attempt, found.losses, found.checkpoint) == (2, 1, 3)
    assert (found.age, found.silent) == (2.0, False)


def test_a_lease_that_has_run_out_is_silent() -> None:
    fresh, stale = holders([claim(0, trial=None, age=14.9), claim(1, trial=None, age=15.1)], [])
    assert (fresh.silent, stale.silent) == (False, True)


@pytest.mark.parametrize(
    ("trial", "records"),
    [
        (None, []),
        (5, []),
        (5, [failed(5, "KeyError: 'x'")]),  # the slot's next trial has not begun yet
    ],
)
def test_a_slot_whose_trial_has_not_begun_shows_none(trial, records) -> None:
    (found,) = holders([claim(4, trial=trial)], records)
    assert (found.trial, found.device, found.epoch, found.value) == (None, None, 0, None)


def test_the_device_is_not_that_of_the_worker_before() -> None:
    resumed = make_record(0.9, number=5, state="running", worker="gpu1:7:0", device="cuda")
    (found,) = holders([claim(4, trial=5, worker="laptop:9:1")], [resumed])
    assert (found.trial, found.device, found.epoch) == (5, None, 1)


@pytest.mark.parametrize("name", ["w", "gpu1", "gpu1:seven:0", "gpu1:7"])
def test_a_worker_named_otherwise_has_no_pid(name) -> None:
    assert holder(name).pid is None


def test_the_pace_is_that_of_the_live_workers_at_the_mean_time() -> None:
    found = pace([ended(0, 10.0), ended(1, 20.0), ended(2, 30.0, "pruned")], workers=2)
    assert found == Pace(workers=2, seconds=20.0, trials=3)
    assert found.per_hour == 360.0


def test_a_day_without_work_changes_no_pace() -> None:
    found = pace([ended(0, 10.0), ended(1, 20.0), ended(2, 30.0, after=24)], workers=1)
    assert found is not None
    assert found.per_hour == 180.0


def test_the_pace_is_that_of_the_latest_twenty_to_end() -> None:
    slow = [ended(number, 500.0, after=0) for number in range(10, 15)]
    quick = [ended(number, 5.0, after=1) for number in range(20)]
    assert pace([*quick, *slow], workers=1) == Pace(workers=1, seconds=5.0, trials=20)


@pytest.mark.parametrize(
    ("records", "workers"),
    [
        ([], 2),
        ([ended(0, 10.0), ended(1, 20.0)], 2),
        ([ended(0, 10.0), ended(1, 20.0), failed(2, "KeyError"), make_record(state="running")], 2),
        ([ended(number, 10.0) for number in range(9)], 0),  # nobody works on it
    ],
)
def test_with_too_little_to_go_by_no_pace_is_invented(records, workers) -> None:
    assert pace(records, workers) is None


def test_the_time_left_counts_the_epochs_that_running_trials_have_done() -> None:
    now = status(
        holder(epoch=5),  # a quarter
        holder(epoch=10),  # a half
        slots={"open": 3, "claimed": 2, "complete": 4, "cancelled": 7},
        pace=Pace(workers=2, seconds=20.0, trials=4),
    )
    assert (now.done, now.left) == (4, 5)
    assert now.seconds_left == 42.5  # 4.25 trials of 20 s for 2 workers


def test_failures_are_grouped_by_exception_and_place() -> None:
    records = [
        failed(1, traceback("/home/me/mine.py", 41, "CUDA error: no room\nSee the manual")),
        failed(2, traceback("/home/me/mine.py", 60, "CUDA error: no room\nSee the manual")),
        make_record(0.5, number=3),
        failed(4, ""),
        failed(7, traceback("/elsewhere/mine.py", 60, "CUDA error: no room\nSee the web")),
        failed(8, traceback("/home/me/mine.py", 60, "no such file\nSee the manual")),
    ]
    assert failures(records) == (
        Failure(cause="RuntimeError: CUDA error: no room (mine.py:60)", trials=(2, 7)),
        Failure(cause="RuntimeError: CUDA error: no room (mine.py:41)", trials=(1,)),
        Failure(cause="no reason recorded", trials=(4,)),
        Failure(cause="RuntimeError: no such file (mine.py:60)", trials=(8,)),
    )


def test_a_running_study_reads_well_on_80_columns() -> None:
    lines = drawn(
        status(
            holder("gpu-node-17.cluster.example.org:51234:0", age=44.0, silent=True, device="cpu"),
            holder("laptop:9:1", trial=None, device=None, epoch=0, value=None, age=0.6),
            slots={"open": 64, "claimed": 2, "complete": 20, "pruned": 12, "failed": 2},
            pace=Pace(workers=1, seconds=14.42, trials=20),
            failures=(
                Failure(cause="KeyError: [/red] 'a'", trials=(3, 5, 7, 9, 11, 13)),
                Failure(cause=cause("RuntimeError: " + "far too long " * 40), trials=(8,)),
            ),
        )
    )
    assert max(len(line) for line in lines) <= 80
    assert lines[:4] == [
        "mine  34 of 100 trials done",
        "20 complete  12 pruned  0 diverged  2 failed  2 claimed  64 open",
        "250 trials per hour, about 15:43 left",  # (66 - 12/20) x 14.42 s = 943 s
        "(1 live worker, 14 s per trial: the mean of the last 20)",
    ]
    header, live, silent = (line.split() for line in lines[5:8])
    assert header == ["host", "pid", "device", "trial", "epoch", "accuracy", "renewed"]
    assert live == ["laptop", "9", "0/20", "1", "s", "ago"]
    assert silent[1:] == ["51234", "cpu", "34", "12/20", "0.9745", "silent", "for", "44", "s"]
    assert lines[9].split() == ["failed", "trials", "cause"]
    assert lines[10].split()[0] == "6"
    assert "3, 5, 7, 9, 11, ...  KeyError: [/red] 'a'" in lines[10]
    assert len(lines) <= 16  # a cause of 500 characters is cut


def test_validations_are_counted_where_there_are_more_or_fewer_than_epochs() -> None:
    now = status(holder(epoch=2), slots={"claimed": 1}, spacing=STEPS)
    lines = drawn(now)
    assert max(len(line) for line in lines) <= 80
    header, found = (line.split() for line in lines[-2:])
    assert header == ["host", "pid", "device", "trial", "validation", "accuracy", "renewed"]
    assert "2/3" in found
    read = json.loads(status_json(now))
    assert (read["epochs"], read["validate_every"], read["workers"][0]["epoch"]) == (3, 20, 2)


@pytest.mark.parametrize(
    ("found", "slots", "changes", "said"),
    [
        ((), {"open": 3}, {}, "No live workers."),
        ((), {"open": 3}, {}, "clrsearch worker mine resumes it"),
        ((), {"open": 1}, {"over": True}, "the command that granted it resumes it"),
        ((holder(silent=True),), {"claimed": 1}, {}, "No live workers."),
        ((holder(),), {"claimed": 1}, {}, "can be estimated once 3 trials have ended"),
        ((), {"open": 3, "failed": 1}, {"stopped": True}, "Stopped: the task failed repeatedly"),
        ((), {"open": 3}, {"stopped": True, "stopped_by": 2}, "clrsearch show mine 2 shows why"),
        ((), {"open": 3}, {"stopped": True, "stopped_by": 2}, "clrsearch retry mine"),
        ((), {"open": 0, "complete": 5, "cancelled": 2}, {}, "0 open  2 cancelled"),
        (
            (),
            {"open": 3},
            {"departures": {"a:1:b": "the device failed: RuntimeError"}},
            "a:1:b             the device failed: RuntimeError",
        ),
    ],
)
def test_what_to_know_or_do_is_said(found, slots, changes, said) -> None:
    now = status(*found, slots=slots, **changes)
    assert said in "\n".join([*drawn(now, width=200), *status_advice(now)])


def test_a_finished_study_is_two_lines() -> None:
    assert drawn(status(slots={"complete": 3, "diverged": 1})) == [
        "mine  4 of 4 trials done",
        "3 complete  0 pruned  1 diverged  0 failed  0 claimed  0 open",
    ]


def test_json_for_other_programs() -> None:
    now = status(
        holder(epoch=10, value=0.5, checkpoint=8),
        slots={"open": 1, "claimed": 1, "complete": 3, "cancelled": 2},
        pace=Pace(workers=1, seconds=36.0, trials=3),
        failures=(Failure(cause="KeyError: 'x'", trials=(2, 4)),),
    )
    assert json.loads(status_json(now)) == {
        "study": "mine",
        "trials": 5,
        "done": 3,
        "slots": {
            "open": 1,
            "claimed": 1,
            "complete": 3,
            "pruned": 0,
            "diverged": 0,
            "failed": 0,
            "cancelled": 2,
        },
        "epochs": 20,
        "metric": "accuracy",
        "workers": [
            {
                "worker": "gpu1:7:0",
                "host": "gpu1",
                "pid": 7,
                "device": "cuda:1",
                "slot": 34,
                "trial": 34,
                "epoch": 10,
                "value": 0.5,
                "age": 3.2,
                "silent": False,
                "attempt": 1,
                "losses": 0,
                "checkpoint": 8,
            }
        ],
        "trials_per_hour": 100.0,
        "seconds_left": 54.0,
        "failures": [{"cause": "KeyError: 'x'", "trials": [2, 4]}],
        "departures": {},
        "packing": "",
        "budget": "",
        "stopped": False,
    }


def test_what_is_not_known_is_null() -> None:
    read = json.loads(status_json(status(slots={"open": 2})))
    assert (read["trials_per_hour"], read["seconds_left"], read["workers"]) == (None, None, [])


def test_the_view_says_that_it_waits_and_leaves_the_last_status() -> None:
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    with StatusView(terminal) as view:
        view.show(status(slots={"open": 1, "complete": 1}))
        view.wait("connection refused")
        waiting = terminal.file.getvalue()
        view.show(status(slots={"complete": 2}))
    assert "waiting for the database: connection refused" in waiting
    assert "2 of 2 trials done" in terminal.file.getvalue().removeprefix(waiting)
