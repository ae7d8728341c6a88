"""Batches: tensors by index and datasets through a DataLoader are the same batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from clrsearch.errors import TaskError
from clrsearch.training.data import LoaderBatches, TensorBatches, batches

CPU = torch.device("cpu")
PAIRS = TensorDataset(torch.arange(10.0).reshape(10, 1), torch.arange(10))


def targets(found) -> list[list[int]]:
    return [target.tolist() for _, target in found]


def test_tensors_are_indexed_and_the_rest_is_loaded() -> None:
    assert isinstance(batches(PAIRS, 4, CPU), TensorBatches)
    assert isinstance(batches(Subset(PAIRS, range(10)), 4, CPU), LoaderBatches)


def test_both_give_the_same_batches_in_the_same_order() -> None:
    indexed, loaded = batches(PAIRS, 4, CPU), batches(Subset(PAIRS, range(10)), 4, CPU)
    assert indexed.samples == loaded.samples == 10
    for seed in range(3):
        assert targets(indexed.shuffled(seed)) == targets(loaded.shuffled(seed))
    assert targets(indexed.in_order()) == targets(loaded.in_order())


def test_an_incomplete_batch_is_dropped_in_training_only() -> None:
    found = batches(PAIRS, 4, CPU)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7)).tolist()
    assert targets(found.shuffled(7)) == [order[:4], order[4:8]]
    assert targets(found.in_order()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_data_without_a_length_is_refused() -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            yield 1, 2

    class Endless(Dataset):
        def __getitem__(self, index):
            return index, index

    for dataset in (Stream(), Endless()):
        with pytest.raises(TaskError, match=f"{type(dataset).__name__} has no length"):
            batches(dataset, 4, CPU)
