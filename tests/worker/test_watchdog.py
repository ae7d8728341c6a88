"""Steps that never end: noticed by ticks without progress, and ended with their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import running
from running import PATIENCE

from clrsearch import service
from clrsearch.errors import ExitCode
from clrsearch.search import Study
from clrsearch.storage import SlotState, open_database
from clrsearch.worker import WorkerSettings
from clrsearch.worker.losses import release
from clrsearch.worker.watchdog import Watchdog


class Watched:
    """A watchdog whose ticks are counted here."""

    def __init__(self, **settings: float) -> None:
        self.asked = False
        self.said: list[str] = []
        self.dog = Watchdog(lambda: self.asked, self.said.append, **settings)

    def quiet_for(self, most: int) -> None:
        """So many ticks without progress are let pass, and no more."""
        assert not any(self.dog.tick() for _ in range(most))
        assert self.dog.tick()

    def steps(self, *lengths: int) -> None:
        for length in lengths:
            assert not any(self.dog.tick() for _ in range(length))
            self.dog.progress()


@pytest.fixture
def watched():
    return Watched()


def test_the_start_has_an_hour_and_so_has_the_first_epoch(watched) -> None:
    with watched.dog.watching():
        watched.quiet_for(3600)
    watched = Watched()
    with watched.dog.watching():
        watched.steps(3000, 3000, 1)
        watched.quiet_for(30_000)  # ten times the longest step, which compiled


def test_what_the_user_allows_holds_from_the_start_on() -> None:
    watched = Watched(stall_seconds=90)
    with watched.dog.watching():
        watched.steps(89)
        watched.quiet_for(90)


def test_then_a_step_has_ten_minutes(watched) -> None:
    with watched.dog.watching():
        watched.steps(1000, 20)
        with watched.dog.after_epoch():
            pass
        watched.quiet_for(600)
    assert watched.said == ["the task has made no progress for 601 s"]


def test_or_ten_times_the_longest_step_or_validation(watched) -> None:
    with watched.dog.watching():
        watched.steps(0, 20)
        assert not any(watched.dog.tick() for _ in range(70))  # validation
        with watched.dog.after_epoch():
            pass
        watched.quiet_for(700)


def test_the_next_run_may_take_as_long_to_start(watched) -> None:
    with watched.dog.watching():
        watched.steps(0, 1)
        with watched.dog.after_epoch():
            pass
    watched.dog.begin()
    with watched.dog.watching():
        watched.quiet_for(3600)


def test_waiting_for_the_database_is_no_hang(watched) -> None:
    assert not any(watched.dog.tick() for _ in range(10_000))
    with watched.dog.watching():
        watched.steps(0, 1)
        with watched.dog.after_epoch():
            assert not any(watched.dog.tick() for _ in range(10_000))
        watched.quiet_for(600)


def test_who_was_asked_to_leave_has_half_a_minute_from_then_on_or_three_steps(watched) -> None:
    with watched.dog.watching():
        watched.steps(0, 20)
        assert not any(watched.dog.tick() for _ in range(100))
        watched.asked = True
        assert not watched.dog.tick()  # it is noticed
        watched.quiet_for(60)
    assert watched.said == ["the task has made no progress for 61 s since it was asked to stop"]


def begin(url, task_dir) -> None:
    running.begin(url, task_dir, task="hangs.py:Hangs", trials=1)


@pytest.fixture
def start(task_dir, tmp_path):
    """Start a worker whose patience is shorter; none is left behind."""
    started = []

    def begin_one(*options, **constants) -> subprocess.Popen:
        started.append(worker_of(task_dir, tmp_path, *options, **constants))
        return started[-1]

    yield begin_one
    for each in started:
        each.kill()
        each.communicate()


def worker_of(task_dir, tmp_path, *options, **constants) -> subprocess.Popen:
    settings = "".join(f"watchdog.{name} = {value}; " for name, value in constants.items())
    program = (
        f"from clrsearch.worker import watchdog; {settings}from clrsearch.cli import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, "worker", "mine", "--device", "cpu", *options],
        cwd=task_dir,
        env={**os.environ, "HANGS": str(tmp_path / "hangs")},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_it_hangs(worker, tmp_path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "hangs").exists():
        assert worker.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def require_ended(worker, words) -> None:
    _, errors = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 5
    (line,) = errors.splitlines()
    assert line.startswith("clrsearch: the task has made no progress for ")
    assert line.endswith(f"{words}: its process was ended; another worker will resume the trial")


def test_a_hung_step_ends_with_its_process_and_another_worker_goes_on(url, task_dir, start) -> None:
    begin(url, task_dir)
    worker = start(TICK_SECONDS=0.05, STALL=20, STALL_STEPS=0)
    require_ended(worker, " s")
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.slots.counts() == {SlotState.OPEN: 1}
        assert study.log.loss_codes(0, None) == [5]
        assert study.slots.claim("next").losses == 1
        study.slots.hand_back(study.slots.claim("next"))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    (record,) = service.show("mine").snapshot.records
    assert (record.number, record.state) == (0, "complete")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_step_that_hangs_in_c_code(url, task_dir, tmp_path, start, number) -> None:
    begin(url, task_dir)
    worker = start(TICK_SECONDS=0.05, GRACE=20, GRACE_STEPS=0)
    wait_until_it_hangs(worker, tmp_path)
    worker.send_signal(number)
    require_ended(worker, " s since it was asked to stop")


def test_a_second_ctrl_c_ends_it_at_once(url, task_dir, tmp_path, start) -> None:
    begin(url, task_dir)
    worker = start(TICK_SECONDS=0.05, GRACE=100_000)
    wait_until_it_hangs(worker, tmp_path)
    deadline = time.monotonic() + PATIENCE
    while worker.poll() is None and time.monotonic() < deadline:  # two at once may count as one
        worker.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert (worker.communicate(timeout=PATIENCE)[1], worker.returncode) == ("", 130)


def test_minutes_end_it_as_well(url, task_dir, start) -> None:
    begin(url, task_dir)
    limit = ("--max-minutes", "0.01")
    constants = {"TICK_SECONDS": 0.05, "GRACE": 20, "GRACE_STEPS": 0}
    worker = start(*limit, **constants)
    _, errors = worker.communicate(timeout=PATIENCE)
    # on a slow machine its time is up before it hangs
    assert (worker.returncode, len(errors.splitlines())) in ((5, 1), (0, 0))


def test_a_trial_that_hangs_five_times_fails_with_the_reason(url, task_dir) -> None:
    begin(url, task_dir)
    with open_database(url) as database:
        study = Study.open(database, "mine")
        for index in range(5):
            slot = study.slots.claim(f"w{index}")
            if index == 0:
                params = study.space.seed_points("cyclic")[0]
                trial = study.begin(slot, params, {"worker": "w0", "device": "cpu"})
            study.slots.bind(slot, trial)
            assert release(study, f"w{index}", ExitCode.HUNG) == 1
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    (record,) = service.show("mine").snapshot.records
    assert (record.state, record.error) == (
        "failed",
        "5 workers were lost while running this trial, and none saved a new checkpoint: "
        "5 made no progress",
    )


def test_signals_of_a_forked_process_are_its_own(tmp_path) -> None:
    program = (
        "import os, signal, sys, time\n"
        "from clrsearch.worker.signals import Interruption\n"
        "interruption = Interruption()\n"
        "with interruption.listening():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(0 if interruption.asked else 1)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    assert not interruption.noticed()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert interruption.noticed()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
