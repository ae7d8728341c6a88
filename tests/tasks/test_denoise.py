"""The built-in task with noise: its data, its measures, and what schedules do on it."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from sklearn.datasets import load_digits

from clrsearch.schedules import Constant, Linear, trace
from clrsearch.tasks import load_task
from clrsearch.tasks.denoise import Denoise
from clrsearch.training import SequentialRun, TaskData, probe

CPU = torch.device("cpu")


def test_the_splits_are_fixed_disjoint_and_noisy_where_they_are_not_trained_on() -> None:
    splits = Denoise().data()
    assert [len(split) for split in splits] == [1000, 400, 397]
    for split, same in zip(splits, Denoise().data(), strict=True):
        assert all(torch.equal(*pair) for pair in zip(split.tensors, same.tensors, strict=True))
        assert all(tensor.shape[1:] == (1, 8, 8) for tensor in split.tensors)
    clean = torch.cat([split.tensors[1] for split in splits]).flatten(1)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    assert torch.equal(torch.unique(clean, dim=0), torch.unique(images, dim=0))
    assert len(torch.unique(clean, dim=0)) == 1797
    assert torch.equal(*splits.train.tensors)
    noises = [split.tensors[0] - split.tensors[1] for split in splits[1:]]
    for noise in noises:
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(0.25, abs=0.01)
    assert not torch.allclose(noises[0][:397], noises[1])


def test_every_training_batch_has_fresh_noise() -> None:
    torch.manual_seed(0)
    clean = torch.rand(500, 1, 8, 8)
    kept = clean.clone()
    once, again = Denoise().augment(clean), Denoise().augment(clean)
    assert torch.equal(clean, kept)
    for noise in (once - clean, again - clean, (once - again) / 2**0.5):
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(0.25, abs=0.01)


def test_the_loss_and_the_measures_of_two_images() -> None:
    target = torch.zeros(2, 1, 8, 8)
    output = torch.stack([torch.full((1, 8, 8), 0.5), torch.zeros(1, 8, 8)])
    assert Denoise().loss(output, target).item() == 64 * 0.25 / 2
    measured = Denoise().measure(output, target)
    assert measured["mse"].item() == 0.25
    assert measured["noise_removed"].item() == (1 - 0.25 / 0.0625) + 1
    assert Denoise().model()(output).shape == (2, 1, 8, 8)


def test_a_falling_rate_beats_the_best_constant_one_on_every_seed() -> None:
    loaded = load_task("denoise", folder=Path())
    facts = probe(loaded, device=CPU)
    assert (facts.epochs, facts.steps_per_epoch, facts.base_lr) == (16, 62, 0.005)
    data = TaskData(loaded.task, facts.batch_size, CPU)

    def error(schedule, seed: int) -> float:
        rates = trace(schedule, facts.horizon, facts.ratios)
        run = SequentialRun(loaded.task, facts, data, rates, seed=seed, device=CPU)
        return [run.next_epoch() for _ in range(facts.epochs)][-1].metrics["mse"]

    falling = Linear(lr=0.03, horizon=facts.horizon, warmup=0.1 * facts.horizon)
    constant = Constant(lr=0.01)  # of seven rates from 0.005 to 0.02 the best on 12 other seeds
    gains = [error(constant, seed) - error(falling, seed) for seed in (1, 2, 3)]
    assert mean(gains) > 3 * stdev(gains)
    assert all(0.0005 < gain < 0.003 for gain in gains)  # of errors around 0.0185
