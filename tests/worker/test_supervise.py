"""Who is replaced, who is given up, and what is said at the end; the workers are real processes."""

from __future__ import annotations

import re
import sys
import threading

import pytest

from clrsearch.errors import ClrsearchError, FailsHere, StudyStopped
from clrsearch.launch import Command, LocalLauncher
from clrsearch.search import Study
from clrsearch.storage import SlotState, open_database
from clrsearch.training import probe
from clrsearch.worker import Post, Supervisor

CLAIM = (
    "import os, sys; from clrsearch.search import Study; from clrsearch.storage import *\n"
    "url, name, how = sys.argv[1:]\n"
    "with open_database(StorageUrl(url)) as database:\n"
    "    slots = Study.open(database, 'mine').slots\n"
    "    slot = slots.claim(name)\n"
    "    if slot is not None:\n"
    "        if how == 'dies' and slot.losses < 2: os.kill(os.getpid(), 9)\n"
    "        slots.finish(slot, SlotState.COMPLETE)\n"
)
"""A worker that does the first slot that it claims, and 'dies' twice at each before it does."""


@pytest.fixture
def study(url, plan, tiny):
    import torch

    with open_database(url, create=True) as database:
        facts = probe(tiny, device=torch.device("cpu"))
        yield Study.create(database, "mine", plan.model_copy(update={"trials": 3}), facts, {})


def supervisor(
    study, program, *, posts=1, devices=None, how="lives", on_change=lambda: None, logs=None
) -> Supervisor:
    started.clear()
    notes.clear()
    devices = devices or ["cpu"] * posts

    def command(name):
        started.append(name)
        url = study.database.url.reveal()
        return Command(arguments=(sys.executable, "-c", program, url, name, how), name=name)

    return Supervisor(
        study,
        LocalLauncher(logs or study.database.url.file.parent),
        [Post(device=device, command=command) for device in devices],
        patience=30.0,
        on_change=on_change,
        on_note=notes.append,
    )


started: list[str] = []
notes: list[str] = []


def test_each_worker_has_a_name_of_its_own(study) -> None:
    seen = []
    counts = lambda: seen.append(study.slots.counts())  # noqa: E731
    assert supervisor(study, CLAIM, posts=3, on_change=counts).watch() is False
    assert len(set(started)) == len(started) == 3
    assert seen[-1] == {SlotState.COMPLETE: 3}


def test_a_worker_that_is_killed_is_replaced(study) -> None:
    assert supervisor(study, CLAIM, how="dies").watch() is False  # the last one left in order
    assert len(started) == 3
    assert study.slots.counts() == {SlotState.COMPLETE: 1, SlotState.OPEN: 2}
    assert len(notes) == 1  # the second one ended in the same way
    assert notes[0].startswith("a worker died of signal 9 (SIGKILL); its output is in /")


CRASH = (
    "import os, sys; from clrsearch.search import Study; from clrsearch.storage import *\n"
    "from clrsearch.worker.losses import why_given_up\n"
    "url, name, how = sys.argv[1:]\n"
    "with open_database(StorageUrl(url)) as database:\n"
    "    study = Study.open(database, 'mine'); slot = study.slots.claim(name)\n"
    "    if slot is None: sys.exit(0)\n"
    "    trial = slot.trial\n"
    "    if trial is None:\n"
    "        who = {'worker': name, 'device': 'cpu'}\n"
    "        trial = study.begin(slot, study.space.seed_points('cyclic')[0], who)\n"
    "        study.slots.bind(slot, trial)\n"
    "    codes = study.log.loss_codes(trial, slot.checkpoint)\n"
    "    if why := why_given_up(slot.losses, codes):\n"
    "        study.log.fail(trial, {'error': why, 'final': True})\n"
    "        study.slots.finish(slot, SlotState.FAILED)\n"
    "        sys.exit(0)\n"
    "    eval(how)\n"
)
"""A worker that begins the trial of its slot, or goes on with it, and ends as it is told to."""


@pytest.mark.parametrize(
    ("how", "workers", "why"),
    [
        ("os._exit(9)", 3, "2 workers were lost .*: 2 exited with code 9"),
        (
            "os.kill(os.getpid(), 9)",
            6,
            r"5 workers were lost .*: 5 died of signal 9 \(SIGKILL\) \(a process is killed when",
        ),
    ],
)
def test_a_trial_that_ends_its_workers_is_given_up_with_the_reason(
    study, how, workers, why
) -> None:
    assert supervisor(study, CRASH, how=how).watch() is False  # the last one left in order
    (trial,) = study.history.records()
    assert re.match(why, trial.error)
    assert trial.state == "failed"
    assert len(started) == workers
    assert len(notes) == 1
    assert notes[0].split(";")[0].removeprefix("a worker ") in trial.error


def test_who_dies_before_it_works_is_given_up(study) -> None:
    with pytest.raises(ClrsearchError, match=r"3 trials are left.*exited with code 1 \(no luck\)"):
        supervisor(study, "import sys; sys.exit('no luck')").watch()
    assert len(started) == 5
    with pytest.raises(ClrsearchError, match=r"died of signal 9 \(SIGKILL\)\. "):
        supervisor(study, "import os; os.kill(os.getpid(), 9)").watch()


def given_up(study, program, said, error=ClrsearchError) -> int:
    """How many workers are started before the supervisor gives up, saying so."""
    with pytest.raises(error, match=said):
        supervisor(study, program).watch()
    return len(started)


def test_who_crashes_with_a_slot_before_its_trial_begins_is_given_up(study) -> None:
    program = CRASH.replace("    trial = slot.trial\n", "    sys.exit('no proposal')\n")
    assert given_up(study, program, r"3 trials are left.*with code 1 \(no proposal\)") == 5


def test_an_error_that_another_would_meet_as_well_is_told_at_once(study) -> None:
    program = "import sys; print('clrsearch: no room', file=sys.stderr); sys.exit(2)"
    said = r"exited with code 2 \(no room\)\. To resume: the same call"
    assert given_up(study, program, said) == 1


def test_who_leaves_for_its_failures_is_replaced_until_none_has_had_success(study) -> None:
    program = "import sys; print('clrsearch: bad luck', file=sys.stderr); sys.exit(4)"
    said = r"^3 trials are left, but trials kept failing here \(bad luck\)\. "
    assert given_up(study, program, said, FailsHere) == 3


def test_of_workers_that_share_a_device_one_without_memory_is_not_replaced(study, tmp_path) -> None:
    program = (
        "import os, sys, time\n"
        "try: open(sys.argv[3], 'x')\n"
        "except FileExistsError: time.sleep(2)\n"
        "else: sys.exit(6)\n"
    )
    how = str(tmp_path / "first")
    with pytest.raises(FailsHere, match=r"2 trials are left, but trials kept failing here"):
        supervisor(study, program + CLAIM, devices=["cuda:0"] * 2, how=how).watch()
    assert len(started) == 2
    assert notes[-1] == "cuda:0 has no memory for so many workers: 1 goes on there"


def test_a_worker_without_memory_that_was_alone_on_its_device_is_replaced(study, tmp_path) -> None:
    ends = "import sys; sys.exit(6)"
    with pytest.raises(FailsHere, match=r"3 trials are left"):
        supervisor(study, ends, devices=["cuda:0", "cuda:1"]).watch()
    assert len(started) == 10  # five in a row, as for any that end before they work


def test_a_device_that_fails_twice_in_a_row_is_given_up(study) -> None:
    assert given_up(study, "import sys; sys.exit(7)", "3 trials are left", FailsHere) == 2


def test_a_success_in_between_lets_it_be_replaced_again(study) -> None:
    program = CLAIM.replace(
        "        slots.finish(slot, SlotState.COMPLETE)\n",
        "        study = Study.open(database, 'mine')\n"
        "        first = study.space.seed_points(slot.family)[0]\n"
        "        trial = study.begin(slot, first, {'worker': name, 'device': 'cpu'})\n"
        "        if slot.number == 1: study.log.complete(trial, 0.5, {})\n"
        "        else: study.log.fail(trial, {'error': 'no luck', 'final': True})\n"
        "        slots.finish(slot, SlotState.COMPLETE)\n"
        "        sys.exit(4)\n",
    )
    study.grow(6)
    # a failure, a success, three failures
    assert given_up(study, program, "1 trial is left", FailsHere) == 5


def test_a_stopped_study_is_told_with_its_traceback(study) -> None:
    study.stop("Traceback: KeyError")
    with pytest.raises(StudyStopped) as caught:
        supervisor(study, "import sys; sys.exit(3)").watch()
    assert caught.value.traceback == "Traceback: KeyError"


def test_an_outage_is_waited_out(far_url, cable, plan, tiny, tmp_path) -> None:
    import torch

    with open_database(far_url, create=True) as database:
        facts = probe(tiny, device=torch.device("cpu"))
        study = Study.create(database, "mine", plan.model_copy(update={"trials": 1}), facts, {})
        cut = threading.Timer(0.5, cable.cut)
        join = threading.Timer(3.0, cable.join)
        for each in (cut, join):
            each.start()
        watching = supervisor(
            study,
            f"import time; time.sleep(2)\n{CLAIM}".replace("with open", "time.sleep(2)\nwith open"),
            on_change=study.slots.counts,
            logs=tmp_path,
        )
        assert watching.watch() is False
        assert study.slots.counts() == {SlotState.COMPLETE: 1}
