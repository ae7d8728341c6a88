"""Seeds are the same everywhere, and different for whatever must differ."""

from __future__ import annotations

import random

import numpy as np
import torch

from clrsearch.training.seeding import derive, seed_everything


def test_each_purpose_has_a_seed_of_its_own() -> None:
    seeds = {
        derive(seed, index, purpose, epoch)
        for seed in (0, 1)
        for index in (0, 1)
        for purpose in ("init", "order", "epoch")
        for epoch in (0, 1)
    }
    assert len(seeds) == 24
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_never_changes_between_versions() -> None:
    entropy = np.random.SeedSequence((5, 1, 1, 3))
    assert derive(5, 1, "order", 3) == int(entropy.generate_state(1, np.uint64)[0]) // 2


def test_every_global_generator_is_seeded() -> None:
    def draw() -> tuple[float, float, float]:
        seed_everything(2**60)
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    assert draw() == draw()
