"""Batches: tensors by index, datasets through a DataLoader, and loaders of a task's own."""

from __future__ import annotations

import os
import random
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from clrsearch.errors import TaskError
from clrsearch.training.data import (
    DatasetBatches,
    LoaderBatches,
    TensorBatches,
    batch_length,
    moved,
    require_batch,
)

CPU = torch.device("cpu")
PAIRS = TensorDataset(torch.arange(10.0).reshape(10, 1), torch.arange(10))


class Jittered(Dataset):
    """Samples that draw from each of the global generators."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, torch.rand(1) + random.random()


def targets(found) -> list[list[int]]:
    return [target.tolist() for _, target in found]


def loaded(dataset, workers=0):
    return DatasetBatches(dataset, 4, CPU, default_collate, workers)


def test_indexing_and_loading_give_the_same_batches_in_the_same_order() -> None:
    both = TensorBatches(PAIRS, 4, CPU), loaded(Subset(PAIRS, range(10)))
    indexed, through_loader = both
    assert indexed.samples == through_loader.samples == 10
    assert indexed.full == through_loader.full == 2
    for seed in range(3):
        for start in range(3):
            found = targets(through_loader.shuffled(seed, start))
            assert targets(indexed.shuffled(seed, start)) == found
    assert targets(indexed.in_order()) == targets(through_loader.in_order())


@pytest.mark.parametrize("make", [lambda: TensorBatches(PAIRS, 4, CPU), lambda: loaded(PAIRS)])
def test_an_incomplete_batch_is_dropped_in_training_only(make) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7)).tolist()
    assert targets(make().shuffled(7)) == [order[:4], order[4:8]]
    assert targets(make().in_order()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_with_worker_processes_samples_depend_neither_on_their_number_nor_on_the_start() -> None:
    one, two = loaded(Jittered(), workers=1), loaded(Jittered(), workers=2)
    first = [noise.tolist() for _, noise in one.shuffled(3)]
    torch.manual_seed(99)
    assert [noise.tolist() for _, noise in two.shuffled(3)] == first
    assert [noise.tolist() for _, noise in two.shuffled(3, start=1)] == first[1:]
    assert [noise.tolist() for _, noise in two.shuffled(4)] != first


def test_loading_leaves_the_generators_of_the_run_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(loaded(PAIRS).shuffled(0))
    list(loaded(PAIRS, workers=1).shuffled(0))
    assert torch.rand(1) == expected


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_a_loader_of_ones_own_is_seeded_and_resumed_anywhere(generator) -> None:
    loader = DataLoader(PAIRS, 2, shuffle=True, generator=generator)
    batches = LoaderBatches(loader, CPU, "training")
    assert (batches.full, batches.samples) == (5, None)
    whole = targets(batches.shuffled(1))
    assert sorted(each for batch in whole for each in batch) == list(range(10))
    torch.manual_seed(99)
    assert targets(batches.shuffled(2)) != whole
    for start in range(7):
        assert targets(batches.shuffled(1, start)) == whole[start:]


def test_a_loader_that_augments_is_resumed_anywhere_whatever_the_run_draws() -> None:
    def drawn(start):
        found = []
        for _, noise in LoaderBatches(DataLoader(Jittered(), 2), CPU, "training").shuffled(
            1, start
        ):
            torch.rand(3 + start)  # as dropout does
            random.random()
            found.append(noise.tolist())
        return found

    whole = drawn(0)
    assert [drawn(start) for start in range(5)] == [whole[start:] for start in range(5)]


def test_samplers_within_samplers_are_seeded() -> None:
    nested = RandomSampler(PAIRS, generator=torch.Generator())
    loader = DataLoader(PAIRS, batch_sampler=BatchSampler(nested, 2, drop_last=False))
    batches = LoaderBatches(loader, CPU, "training")
    assert targets(batches.shuffled(1)) == targets(batches.shuffled(1))
    assert targets(batches.shuffled(1)) != targets(batches.shuffled(2))


def test_a_batch_that_is_none_is_told_and_ends_nothing() -> None:
    with pytest.raises(TaskError, match="the training loader yields None, but a batch must be"):
        list(LoaderBatches([torch.zeros(1), None, torch.zeros(1)], CPU, "training").shuffled(0))


class Fatal(Jittered):
    """Ends the process that draws its fourth sample, once."""

    def __init__(self, flag):
        self.flag = flag

    def __getitem__(self, index):
        if index == 3 and not self.flag.exists():
            self.flag.touch()
            os._exit(1)
        return super().__getitem__(index)


def test_a_process_that_dies_costs_one_pass(tmp_path) -> None:
    batches = loaded(Fatal(tmp_path / "flag"), workers=1)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(batches.in_order())
    assert len(list(batches.in_order())) == 3


def test_a_loader_is_told_the_pass_by_its_seed() -> None:
    class Told(list):
        def set_epoch(self, epoch):
            self.epoch = epoch

    told = Told([torch.zeros(1)])
    batches = LoaderBatches(told, CPU, "training")
    list(batches.shuffled(7))
    assert told.epoch == 7


def test_a_loader_without_a_length_has_none() -> None:
    class Stream:
        def __iter__(self):
            return iter([torch.zeros(1), "text"])

    batches = LoaderBatches(Stream(), CPU, "training")
    assert batches.full is None
    message = "the training loader yields the str 'text', but a batch must be a tensor"
    with pytest.raises(TaskError, match=message):
        list(batches.shuffled(0))


def test_tensors_are_moved_within_whatever_holds_them() -> None:
    class Pair(NamedTuple):
        left: torch.Tensor
        right: str

    class Packed:
        def to(self, device):
            return f"on {device}"

    meta, one = torch.device("meta"), torch.ones(2)
    content = {
        "a": [one, 3],
        "b": (one, {"c": one}),
        "d": "text",
        "e": Pair(one, "x"),
        "f": Packed(),
    }
    found = moved(content, meta)
    assert found["a"][0].device == found["b"][0].device == found["b"][1]["c"].device == meta
    assert (found["a"][1], found["d"], found["f"]) == (3, "text", "on meta")
    assert isinstance(found["e"], Pair)
    assert (found["e"].left.device, found["e"].right) == (meta, "x")
    assert one.device.type == "cpu"


@pytest.mark.parametrize("batch", ["text", 3, [], {"a": "b"}, None])
def test_what_holds_no_tensor_is_no_batch(batch) -> None:
    with pytest.raises(TaskError, match=r"^collate\(\) returned .*, but a batch must be"):
        require_batch("collate() returned", batch)


def test_a_batch_has_the_length_of_its_first_tensor() -> None:
    assert batch_length({"n": 3, "x": torch.zeros(5, 2)}) == 5
    assert batch_length((torch.zeros(()), [torch.zeros(4)])) == 4
    assert batch_length("text") == 0
