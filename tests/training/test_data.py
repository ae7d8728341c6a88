"""Batches: tensors by index and datasets through a DataLoader are the same batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from clrsearch.errors import TaskError
from clrsearch.training.data import LoaderBatches, TensorBatches, batches, moved

CPU = torch.device("cpu")
PAIRS = TensorDataset(torch.arange(10.0).reshape(10, 1), torch.arange(10))


def targets(found) -> list[list[int]]:
    return [target.tolist() for _, target in found]


def test_tensors_are_indexed_and_the_rest_is_loaded() -> None:
    assert isinstance(batches(PAIRS, 4, CPU, "training"), TensorBatches)
    assert isinstance(batches(Subset(PAIRS, range(10)), 4, CPU, "training"), LoaderBatches)


def test_both_give_the_same_batches_in_the_same_order() -> None:
    pairs = PAIRS, Subset(PAIRS, range(10))
    indexed, loaded = (batches(each, 4, CPU, "training") for each in pairs)
    assert indexed.samples == loaded.samples == 10
    for seed in range(3):
        assert targets(indexed.shuffled(seed)) == targets(loaded.shuffled(seed))
    assert targets(indexed.in_order()) == targets(loaded.in_order())


def test_an_incomplete_batch_is_dropped_in_training_only() -> None:
    found = batches(PAIRS, 4, CPU, "training")
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7)).tolist()
    assert targets(found.shuffled(7)) == [order[:4], order[4:8]]
    assert targets(found.in_order()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_samples_that_do_not_fit_into_one_batch_are_named() -> None:
    ragged = [(torch.zeros(3), 0), (torch.zeros(4), 1)]
    with pytest.raises(TaskError, match=r"cannot be stacked into a batch, .*\(3,\) and .*\(4,\)"):
        next(batches(ragged, 2, CPU, "training").in_order())


def test_tensors_are_moved_within_whatever_holds_them() -> None:
    meta, one = torch.device("meta"), torch.ones(2)
    found = moved({"a": [one, 3], "b": (one, {"c": one}), "d": "text"}, meta)
    assert found["a"][0].device == found["b"][0].device == found["b"][1]["c"].device == meta
    assert (found["a"][1], found["d"]) == (3, "text")
    assert one.device.type == "cpu"
