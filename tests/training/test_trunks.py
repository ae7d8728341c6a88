"""A run that begins where another was is the run that trained everything itself, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from clrsearch.schedules import Trace, WarmupStableDecay, trace
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, Trunks, Unrestorable, beginnings, probe

CPU = torch.device("cpu")
ENDS = (4, 8, 12)


def names(trace: Trace, *, seed_index: int = 0, context: str = "cpu") -> list[str]:
    return beginnings(trace, ENDS, seed_index=seed_index, context=context)


def of(*rates: float, momenta=None) -> Trace:
    return Trace(rates=np.array([rates]), momenta=None if momenta is None else np.array([momenta]))


@pytest.fixture(params=["Noisy", "NoisyListed", "Tiny"])
def make(request, task_dir):
    """Makes runs under schedules that part after two of four epochs, and their traces."""
    options = {"optimizer": "adam"} if request.param == "Tiny" else {}
    loaded = load_task(f"tiny.py:{request.param}", options=options, folder=task_dir)
    facts = probe(loaded, device=CPU)
    data = TaskData(loaded.task, facts.batch_size, CPU)

    def run(decay: int):
        schedule = WarmupStableDecay(lr=0.01, horizon=facts.horizon, decay=decay)
        played = trace(schedule, facts.horizon, facts.ratios)
        return SequentialRun(loaded.task, facts, data, played, seed=3, device=CPU), played

    return run


def weights(run) -> torch.Tensor:
    state = run._learner.model.state_dict()
    return torch.cat([tensor.flatten().double() for tensor in state.values()])


def test_from_a_trunk_is_from_the_start(make, tmp_path) -> None:
    trunks = Trunks(tmp_path, 1e9)
    undisturbed, played = make(6)
    expected = [undisturbed.next_epoch() for _ in range(4)]
    donor, other = make(4)
    metrics = [donor.next_epoch() for _ in range(2)]
    ends = (4, 8, 12, 16)
    how = {"seed_index": 0, "context": "cpu"}
    (_, mine, *_), (_, theirs, *_) = (beginnings(each, ends, **how) for each in (played, other))
    assert mine == theirs
    trunks.save(theirs, {1: 0.25, 2: 0.125}, donor.state())
    donor.next_epoch()  # what it does later is its own
    torch.manual_seed(99)

    run, _ = make(6)
    trunk = trunks.longest([mine])
    run.begin_from(trunk.state)
    assert (run.epoch, run.inherited, run.seconds) == (2, 2, 0.0)
    assert trunk.values == {1: 0.25, 2: 0.125}
    assert [run.next_epoch() for _ in range(2)] == expected[2:]
    assert metrics == expected[:2]
    assert torch.equal(weights(run), weights(undisturbed))

    resumed, _ = make(6)  # from its own checkpoint, it remembers what it has not trained
    resumed.restore(run.state())
    assert resumed.inherited == 2


def test_what_shapes_a_state_is_in_its_name() -> None:
    one = names(of(*[1.0] * 12))
    assert len(set(one)) == 3
    later = names(of(*[1.0] * 8, *[0.5] * 4))
    assert later[:2] == one[:2] and later[2] != one[2]
    assert not set(names(of(*[1.0] * 12), seed_index=1)) & set(one)
    assert not set(names(of(*[1.0] * 12), context="cuda")) & set(one)
    assert not set(names(of(*[1.0] * 12, momenta=[0.9] * 12))) & set(one)
    moved = names(of(*[1.0] * 12, momenta=[0.9] * 4 + [0.8] * 8))
    assert moved[0] == names(of(*[1.0] * 12, momenta=[0.9] * 12))[0]
    assert moved[1] != names(of(*[1.0] * 12, momenta=[0.9] * 12))[1]


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((25_000,), value)}  # 100 kB


def files(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def test_those_that_nobody_used_for_longest_make_room(tmp_path) -> None:
    trunks = Trunks(tmp_path, 350e3)
    for number, name in enumerate("abc"):
        trunks.save(name, {}, state(float(number)))
        os.utime(tmp_path / f"{name}.pt", (number, number))  # long ago
    assert trunks.longest(["a"]).state["weights"][0] == 0.0  # and now
    trunks.save("d", {}, state(3.0))
    assert files(tmp_path) == {"a", "c", "d"}


def test_one_that_takes_more_than_all_may_take_is_refused(tmp_path) -> None:
    trunks = Trunks(tmp_path, 50e3)
    with pytest.raises(OSError, match=r"it takes 0\.0001\d* GB, and all may take 5e-05"):
        trunks.save("a", {}, state(1.0))
    assert not files(tmp_path)


def test_drafts_of_killed_workers_make_room_as_well(tmp_path) -> None:
    draft = tmp_path / "x.0123.tmp"
    draft.write_bytes(bytes(200_000))
    os.utime(draft, (0, 0))
    Trunks(tmp_path, 250e3).save("a", {}, state(1.0))
    assert files(tmp_path) == {"a"}


def test_the_first_name_that_there_is_one_of_counts(tmp_path) -> None:
    trunks = Trunks(tmp_path, 1e9)
    assert trunks.longest(["b", "a"]) is None
    trunks.save("a", {1: 0.5}, state(1.0))
    assert trunks.longest(["b", "a"]).values == {1: 0.5}
    trunks.save("b", {1: 0.5, 2: 0.1}, state(2.0))
    assert trunks.longest(["b", "a"]).values == {1: 0.5, 2: 0.1}


def test_a_damaged_one_is_deleted_and_a_shorter_one_used(tmp_path) -> None:
    trunks = Trunks(tmp_path, 1e9)
    trunks.save("a", {1: 0.5}, state(1.0))
    trunks.save("b", {1: 0.5, 2: 0.1}, state(2.0))
    whole = (tmp_path / "b.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(whole[:-100])
    assert trunks.longest(["b", "a"]).values == {1: 0.5}
    assert files(tmp_path) == {"a"}


def test_that_of_another_model_is_refused(make, tmp_path) -> None:
    run, _ = make(4)
    with pytest.raises(Unrestorable):
        run.begin_from(state(1.0))
