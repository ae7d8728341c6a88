"""Runs of two processes on the CPU, against the same runs of one."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import pytest
import ranks
import torch
from torch.utils.data import DataLoader, TensorDataset

from clrsearch.errors import PlanError, TaskError
from clrsearch.frameworks.devices import require_own_device
from clrsearch.tasks import load_task
from clrsearch.training import TaskData, require_gpus, run_maker
from clrsearch.training.data import DatasetBatches, LoaderBatches, Share, TensorBatches
from clrsearch.training.device import spread

CPU = torch.device("cpu")
CLOSE = 1e-4  # sums in another order, over six epochs


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict:
    """What two processes have done, which cost a start for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, ranks.__file__, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "a bad sample" in ended.stderr  # of the last case, after which rank 1 leaves
    assert ended.returncode == 1
    return json.loads((folder / "results.json").read_text())


def alone(name) -> dict:
    task, facts = ranks.known(name)
    make_run = run_maker(task, facts, CPU)
    return ranks.whole(lambda **more: make_run(**ranks.options(facts), **more))


def test_two_processes_average_as_one_does(together) -> None:
    task, facts = ranks.known("Shared")
    make = partial(run_maker(task, facts, CPU), **ranks.options(facts))
    expected, found = ranks.whole(ranks.averaging(make)), together["averaged"]
    assert found["curve"] != together["Shared"]["curve"]
    for ours, theirs in zip(
        [*found["curve"], found["test"]], [*expected["curve"], expected["test"]], strict=True
    ):
        assert ours == pytest.approx(theirs, rel=CLOSE, abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore::UserWarning:lightning")
@pytest.mark.parametrize("name", ["Shared", "Stepped", "train", "with_lightning"])
def test_two_processes_train_as_one_does(together, name) -> None:
    """With uneven batches of validation; sums, metric objects, and metrics of all outputs."""
    expected, found = alone(name), together[name]
    assert len(found["curve"]) == 6
    for ours, theirs in zip(
        [*found["curve"], found["test"]], [*expected["curve"], expected["test"]], strict=True
    ):
        assert ours == pytest.approx(theirs, rel=CLOSE, abs=1e-3)
        if "squares" in ours:
            assert ours["squares"] == pytest.approx(ours["error"])


def test_a_pruned_run_ends_in_both_and_the_next_one_begins(together) -> None:
    assert together["pruned"]["curve"] == together["Shared"]["curve"][:2]


def test_a_run_that_was_broken_off_goes_on_to_the_last_bit(together) -> None:
    """Each process goes on drawing its own random numbers, which the checkpoint holds."""
    assert together["broken off"]["before"] == 2
    assert together["broken off"]["ranks"] == 1
    assert together["broken off"]["curve"] == together["Dropping"]["curve"]
    assert together["Dropping"]["curve"][0] != alone("Dropping")["curve"][0]


def test_what_fails_in_both_is_told_as_in_one(together) -> None:
    failed = together["FailsInAll"]
    assert (failed["kind"], failed["said"]) == (
        "TaskRaised",
        "KeyError while training epoch 2: 'no such column'",
    )
    assert 'raise KeyError("no such column")' in failed["traceback"]


def test_what_fails_in_one_is_told_with_its_own_traceback(together) -> None:
    failed = together["FailsInOne"]
    assert failed["kind"] == "RanksApart"
    assert failed["said"] == "KeyError while training epoch 2: 'a bad sample'"
    assert 'raise KeyError("a bad sample")' in failed["traceback"]


def test_gradients_that_are_not_averaged_are_noticed(together) -> None:
    assert together["PastForward"]["kind"] == "TaskError"
    assert "training_step() must compute the loss from" in together["PastForward"]["said"]


@pytest.mark.parametrize("kind", ["tensors", "samples", "loader"])
def test_the_shares_of_a_batch_are_all_of_it(kind) -> None:
    """Of 11 samples in batches of 4: a rank without a sample of the last one gets None for it."""
    data = TensorDataset(torch.arange(11.0), torch.arange(11))

    def batches(share):
        match kind:
            case "tensors":
                return TensorBatches(data, 4, CPU, share)
            case "samples":
                return DatasetBatches(data, 4, CPU, torch.utils.data.default_collate, 0, share)
        return LoaderBatches(DataLoader(data, 4), CPU, "training", share)

    def numbers(found):
        return [[] if each is None else each[1].tolist() for each in found]

    whole = numbers(batches(Share()).in_order())
    shares = [batches(Share(rank=rank, ranks=2)) for rank in range(2)]
    first, second = (numbers(each.in_order()) for each in shares)
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert list(map(len, first)) == [2, 2, 2]
    assert list(map(len, second)) == [2, 2, 1]
    if kind != "loader":
        trained = [numbers(each.shuffled(5, 1)) for each in shares]
        assert [a + b for a, b in zip(*trained, strict=True)] == numbers(
            batches(Share()).shuffled(5, 1)
        )
    shares = [batches(Share(rank=rank, ranks=4)) for rank in range(4)]
    assert numbers(shares[3].in_order())[-1] == []


def test_a_batch_that_cannot_be_shared_equally_is_refused(task_dir) -> None:
    task = load_task("tiny.py:Tiny", folder=task_dir).task
    with pytest.raises(TaskError, match="batch_size is 8, which 3 processes cannot share equally"):
        TaskData(task, 8, CPU, share=Share(rank=0, ranks=3))
    loader = DataLoader(TensorDataset(torch.arange(9.0)), 9)
    with pytest.raises(TaskError, match="a batch of the training loader is 9, which 2 processes"):
        list(LoaderBatches(loader, CPU, "training", Share(rank=0, ranks=2)).shuffled(0))


def test_workers_of_several_gpus_get_as_many_in_a_row(monkeypatch) -> None:
    gpus = [f"cuda:{index}" for index in range(5)]
    assert spread(gpus, None, slots=9, gpus_per_trial=2) == ["cuda:0", "cuda:2"]
    assert spread(["cpu"], 2, slots=9, gpus_per_trial=2) == ["cpu", "cpu"]
    require_gpus("cpu", 64)
    monkeypatch.setattr("clrsearch.training.device.find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    require_gpus("cuda", 4)
    require_gpus("cuda:2", 2)
    with pytest.raises(PlanError, match="--gpus-per-trial 8, but there are 4 GPUs: give a smaller"):
        require_gpus("cuda", 8)
    with pytest.raises(PlanError, match="but there is 1 GPU from cuda:3 on: give a smaller number"):
        require_gpus("cuda:3", 2)


def test_a_trainer_must_train_on_all_gpus_of_the_group(monkeypatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    require_own_device("the Trainer", CPU, CPU, 2)
    with pytest.raises(TaskError, match="trains on 1 devices, and the trial on 2"):
        require_own_device("the Trainer", CPU, CPU, 1)
