"""The surrogate's lengths: those under which recorded runs are most likely.

The same Gaussian process as in `clrsearch.search.surrogate`, differentiated by torch: the logarithm
of its evidence, summed over tables, is climbed by L-BFGS in the logarithms of the lengths, and, for
each table by itself, of the scales. From `benchmarks/`, a minute on one thread:

    python -m replay.fit
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from clrsearch.search.surrogate import JITTER, LOCAL, Scales, Squash
from clrsearch.search.trace_features import LENGTHS, SEGMENTS, STARTS, Points
from replay.play import SEARCH_SEEDS
from replay.record import space_of
from replay.tables import Table, read
from replay.tasks import TASKS

Array = NDArray[np.float64]

TIED = [0] * SEGMENTS + [*range(1, 8)] + [8] * len(STARTS)
"""Which features share a length: the segments do, and so do the beginnings."""
WIDTH = 4.0
"""Centre of the prior on a length, in deviations of its feature over the recorded schedules."""
DOUBT = math.log(8)
"""Standard deviation of the prior on the logarithm of a length."""
STEPS = 60
TOLD = 240  # runs of a table, the first of which the search may meet


def fitted(tables: Sequence[Table]) -> Array:
    """A length for each feature, (features,), from these tables alone."""
    told = [_told(table) for table in tables]
    spread = np.concatenate([features for features, _, _ in told]).std(axis=0)
    widths = [np.mean(spread[np.equal(TIED, tie)]) for tie in range(max(TIED) + 1)]
    centre = torch.tensor(np.log(WIDTH * np.maximum(widths, 1e-3)))  # some may not vary at all
    usual = Scales()
    start = [usual.level, usual.surface, usual.local, usual.seed, usual.noise]
    lengths = centre.clone().requires_grad_()
    scales = torch.tensor(start, dtype=torch.float64).log().repeat(len(told), 1).requires_grad_()
    parts = [tuple(map(torch.tensor, each)) for each in told]
    usual_scales = scales.detach().clone()
    optimizer = torch.optim.LBFGS([lengths, scales], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        prior = ((lengths - centre) ** 2).sum() / (2 * DOUBT**2)
        prior = prior + ((scales - usual_scales) ** 2).sum() / (2 * DOUBT**2)
        total = prior - sum(
            evidence(features / lengths[TIED].exp(), seeds, targets, own.exp())
            for (features, seeds, targets), own in zip(parts, scales, strict=True)
        )
        total.backward()
        return total

    optimizer.step(loss)
    return np.asarray(lengths[TIED].detach().exp())


@cache
def without(left_out: str) -> Array:
    """The lengths from all recorded tasks but one."""
    return fitted([read(name) for name in TASKS if name != left_out])


def _told(table: Table) -> tuple[Array, NDArray[np.int64], Array]:
    """Features, seeds and squashed scores of some of a table's runs: each schedule on one seed."""
    space = space_of(TASKS[table.name]())
    features = Points(space).of(table.schedules) * LENGTHS
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(features))[:TOLD]
    seeds = rng.integers(SEARCH_SEEDS, size=len(rows))
    scores = table.values[rows, seeds, -1].astype(np.float64)
    return features[rows], seeds, Squash.of(scores)(scores)


def evidence(
    points: torch.Tensor, seeds: torch.Tensor, targets: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """As in the surrogate; differentiable, so the distance of a point from itself is not zero."""
    level, surface, local, seed, noise = scales
    squares = ((points[:, None] - points) ** 2).sum(dim=2)
    distances = (squares + 1e-12).sqrt()
    alike = seeds[:, None] == seeds
    owed = seed**2 + local**2 * _matern(distances / LOCAL)
    covariance = level**2 + surface**2 * _matern(distances) + alike * owed
    root = torch.linalg.cholesky(covariance + (noise**2 + JITTER) * torch.eye(len(targets)))
    half = torch.linalg.solve_triangular(root, targets[:, None], upper=False)
    return -0.5 * (half**2).sum() - root.diagonal().log().sum()


def _matern(distances: torch.Tensor) -> torch.Tensor:
    scaled = math.sqrt(5) * distances
    return (1 + scaled + scaled**2 / 3) * (-scaled).exp()


def main() -> None:
    torch.set_num_threads(1)
    print(f"in use: {' '.join(f'{each:.3g}' for each in LENGTHS)}")
    for name in TASKS:
        print(f"without {name}: {' '.join(f'{each:.3g}' for each in without(name))}", flush=True)


if __name__ == "__main__":
    main()
