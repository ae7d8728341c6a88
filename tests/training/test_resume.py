"""A run that is broken off anywhere and gone on with is the undisturbed run, bit for bit."""

from __future__ import annotations

import pytest
import torch
from identities import reader, writer

from clrsearch.schedules import Cyclic, trace
from clrsearch.tasks import load_task
from clrsearch.training import (
    Checkpoints,
    Interrupted,
    SequentialRun,
    TaskData,
    Unrestorable,
    probe,
)

CPU = torch.device("cpu")


@pytest.fixture(params=["Noisy", "NoisyListed", "Tiny"])
def make(request, task_dir):
    """Makes runs of a task whose training draws random numbers in every way there is."""
    options = {"optimizer": "adam"} if request.param == "Tiny" else {}
    name = request.param
    loaded = load_task(f"tiny.py:{name}", options=options, folder=task_dir)
    facts = probe(loaded, device=CPU)
    data = TaskData(loaded.task, facts.batch_size, CPU)
    schedule = Cyclic(mode="triangular", base_lr=0.001, max_lr=0.01, step_size_up=4.0)
    played = trace(schedule, facts.horizon, facts.ratios)

    def run(interrupted=lambda: False):
        return SequentialRun(
            loaded.task, facts, data, played, seed=3, device=CPU, interrupted=interrupted
        )

    return run


def weights(run):
    return torch.cat(
        [tensor.flatten().double() for tensor in run._learner.model.state_dict().values()]
    )


def after(batches):
    """Says once, after so many questions, that the run is to stop."""
    asked = iter([False] * batches + [True])
    return lambda: next(asked, False)


def test_from_the_end_of_any_epoch(make, tmp_path) -> None:
    undisturbed = make()
    expected = [undisturbed.next_epoch() for _ in range(4)]
    checkpoints = Checkpoints(tmp_path)
    for done in range(4):
        first = make()
        for _ in range(done):
            first.next_epoch()
        assert checkpoints.save(writer(7), first.state(), confirm=lambda: True)
        torch.manual_seed(99)  # another process's generators are anywhere
        second = make()
        second.restore(checkpoints.load(reader(7)))
        assert [second.next_epoch() for _ in range(done, 4)] == expected[done:]
        assert torch.equal(weights(second), weights(undisturbed))


def test_from_between_any_two_batches(make, tmp_path) -> None:
    undisturbed = make()
    expected = [undisturbed.next_epoch() for _ in range(4)]
    checkpoints = Checkpoints(tmp_path)
    seen = set()
    for batches in range(22):  # of 28: 4 epochs, 4 + 1 in training and 1 + 1 in validation
        first = make(after(batches))
        found = []
        with pytest.raises(Interrupted):
            while True:
                found.append(first.next_epoch())
        state = first.state()
        seen.add(state["step"])
        checkpoints.save(writer(7), state, confirm=lambda: True)
        torch.manual_seed(99)
        second = make()
        second.restore(checkpoints.load(reader(7)))
        found += [second.next_epoch() for _ in range(len(found), 4)]
        assert found == expected
        assert torch.equal(weights(second), weights(undisturbed))
    assert seen == {0, 1, 2, 3, 4}


def test_from_a_state_of_an_earlier_version(make) -> None:
    undisturbed = make()
    expected = [undisturbed.next_epoch() for _ in range(4)]
    first = make(after(9))
    with pytest.raises(Interrupted):
        while True:
            first.next_epoch()
    state = first.state()
    del state["place"]  # it followed from the epoch and the step
    second = make()
    second.restore(state)
    done = second.epoch
    assert [second.next_epoch() for _ in range(done, 4)] == expected[done:]
    assert torch.equal(weights(second), weights(undisturbed))


def test_the_seconds_add_up(make) -> None:
    first = make(after(6))
    with pytest.raises(Interrupted):
        while True:
            first.next_epoch()
    assert first.seconds > 0
    second = make()
    second.restore(first.state())
    assert second.seconds == first.seconds
    second.next_epoch()
    assert second.seconds > first.seconds


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"0.weight": torch.zeros(7, 7)}},
        {"model": {}},
        {"model": "a text"},
        {"model": None},
        {"optimizer": {}},
        {"optimizer": {"state": {}, "param_groups": [{"params": [0] * 9}]}},
        {"optimizer": [1, 2]},
        {"epoch": "3"},
        {"epoch": 2.0},
        {"epoch": -1},
        {"epoch": 5},
        {"epoch": None},
        {"step": 5},
        {"step": -1},
        {"step": [1]},
        {"seconds": "long"},
        {"seconds": None},
        {"loss": torch.zeros(3)},
        {"loss": None},
        {"random": {}},
        {"random": "a text"},
        {"random": {"torch": torch.zeros(3), "numpy": (), "python": ()}},
    ],
    ids=str,
)
def test_a_state_of_another_shape_or_type_is_refused(make, changes) -> None:
    state = make().state() | changes
    with pytest.raises(Unrestorable, match="it does not fit: "):
        make().restore(state)


def test_a_state_that_lacks_something_is_refused(make) -> None:
    # both are missing from states of an earlier version
    for name in make().state().keys() - {"place", "inherited"}:
        state = make().state()
        del state[name]
        with pytest.raises(Unrestorable, match=f"it does not fit: KeyError: '{name}'"):
            make().restore(state)
