"""The built-in task: its split, its model, its measures."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from clrsearch.tasks.digits import Digits


def test_the_split_is_fixed_stratified_and_disjoint() -> None:
    splits = Digits().data()
    assert [len(split) for split in splits] == [1000, 400, 397]
    again = Digits().data()
    for split, same in zip(splits, again, strict=True):
        assert torch.equal(split.tensors[0], same.tensors[0])
        counts = Counter(split.tensors[1].tolist())
        assert max(counts.values()) - min(counts.values()) <= 0.06 * len(split)
    images = torch.cat([split.tensors[0] for split in splits])
    assert len(images) == 1797
    assert len(torch.unique(images.flatten(1), dim=0)) == 1797
    assert images.shape[1:] == (1, 8, 8)
    assert (images.min(), images.max()) == (0, 1)


def test_measures_are_sums_over_the_batch() -> None:
    output = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    measured = Digits().measure(output, torch.tensor([0, 1]))
    assert measured["accuracy"].item() == 1
    assert measured["cross_entropy"].item() == pytest.approx(-torch.tensor([0.5, 0.1]).log().sum())
