"""Whether workers share their checkpoint folder: noticed by the files that they leave in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from identities import writer
from running import PATIENCE, begin

from clrsearch import service
from clrsearch.search import Study
from clrsearch.storage import SlotState, open_database
from clrsearch.training import Checkpoints, Needed, needless
from clrsearch.worker import folder as shared
from clrsearch.worker.folder import SharedFolder


@pytest.fixture
def study(url, task_dir):
    begin(url, task_dir, task="tiny.py:Gated", trials=6)
    with open_database(url) as database:
        yield Study.open(database, "mine")


@pytest.fixture
def look(study, tmp_path, monkeypatch):
    """Make a worker's view of a folder; it may look as often as it likes."""
    monkeypatch.setattr(shared, "LOOK_SECONDS", 0.0)
    notes: list[str] = []

    def make(worker, folder):
        return SharedFolder(study.slots, Checkpoints(tmp_path / folder), worker, notes.append)

    return make, notes


def test_who_has_another_folder_is_told_at_the_second_look_and_once(study, look, tmp_path) -> None:
    make, notes = look
    with make("there:1:a", "other"), make("here:2:b", "mine") as here:
        study.slots.claim("there:1:a")
        study.slots.claim("here:2:b")
        here.look()
        assert notes == []
        for _ in range(3):
            here.look()
        assert notes == [
            f"the checkpoints of there:1:a are not in {tmp_path / 'mine'}: trials "
            "taken over from there restart at epoch 0. Set --checkpoint-dir to a folder that all "
            "machines share"
        ]


def test_of_many_some_are_named(study, look) -> None:
    make, notes = look
    for number in range(5):
        study.slots.claim(f"there:{number}")
    with make("here", "mine") as here:
        here.look(), here.look()
    assert "of there:0, there:1, there:2 and 2 others are not in" in notes[0]


def test_who_has_the_same_folder_or_has_just_left_it_is_not_told(study, look, tmp_path) -> None:
    make, notes = look
    with make("there/odd name:1", "same") as there, make("here", "same") as here:
        first, second = study.slots.claim("there/odd name:1"), study.slots.claim("gone")
        here.look()  # the second has no file
        study.slots.finish(second, SlotState.COMPLETE)
        study.slots.claim("new")  # nor has this one, yet
        here.look()
        assert first is not None
        assert notes == []
        assert len(list((tmp_path / "same").iterdir())) == 2
        there.look(), there.look()
        assert len(notes) == 1
    assert list((tmp_path / "same").iterdir()) == []


def test_a_minute_lies_between_two_looks(study, look, monkeypatch) -> None:
    make, notes = look
    monkeypatch.setattr(shared, "LOOK_SECONDS", 60.0)
    study.slots.claim("there")
    with make("here", "mine") as here:
        for _ in range(5):
            here.look()
    assert notes == []


def test_what_is_needed_is_asked_for_after_the_folder_was_read(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for worker in ("a:1", "b:1"):
        checkpoints.sign(worker)
    for trial in (1, 2, 12):
        checkpoints.save(writer(trial), {}, confirm=lambda: True)
    (tmp_path / "trial-2.77.tmp").touch()
    (tmp_path / "notes.txt").touch()

    def needed() -> Needed:
        checkpoints.save(writer(3), {}, confirm=lambda: True)  # begun meanwhile
        checkpoints.sign("c:1")
        return Needed(trials=[1, 12], workers=["b:1"])

    found = needless(tmp_path, needed)
    assert [path.name for path in found] == ["trial-2.77.tmp", "trial-2.pt", "worker-a%3A1"]


def test_what_was_saved_elsewhere_begins_again_and_says_so(
    study, task_dir, tmp_path, monkeypatch, clrsearch
) -> None:
    monkeypatch.chdir(task_dir)
    gate = tmp_path / "gate"
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(gate))
    study.slots.cancel()
    study.slots.grow(["cyclic"] * 7)

    def worker(folder) -> tuple[str, ...]:
        options = ("--checkpoint-dir", str(tmp_path / folder), "--checkpoint-seconds", "0")
        return ("worker", "mine", *options)

    with subprocess.Popen([sys.executable, "-m", "clrsearch", *worker("there")]) as lost:
        deadline = time.monotonic() + PATIENCE
        while not any(claim.checkpoint for claim in study.slots.claims()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (claim,) = study.slots.claims()
        os.kill(lost.pid, signal.SIGKILL)
    study.slots.release(claim.worker)
    gate.touch()
    code, out, errors = clrsearch(*worker("here"))
    assert code == 0
    (line,) = errors.splitlines()
    path = tmp_path / "here" / study.uuid / "trial-0.pt"
    begins = f"clrsearch: trial 0 starts over: its checkpoint {path} cannot be used: it is missing"
    assert line.startswith(f"{begins} (it was saved at epoch ")
    (record,) = service.show("mine").snapshot.records
    assert (record.number, record.state, record.drift) == (0, "complete", 0.0)
    assert list(record.values) == list(range(1, 9))
    assert service.replay("mine", 0, device="cpu", task_dir=task_dir).matches
    assert len(out.splitlines()) == 1
