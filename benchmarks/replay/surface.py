"""What a schedule that is not in a table would score: a model of the table, and its residuals.

The mean curve over the seeds comes from extremely randomised trees (P. Geurts et al., Machine
Learning 63, 2006) on the logarithms of the rates and of their sums at 32 steps: another model, on
other features, than a proposer that is judged by it uses. What a seed makes of it is the ratio, on
that seed, of one of the nearest recorded schedules to its own mean: like schedules err alike on one
seed, and seeds are as far apart as recorded.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor

from clrsearch.schedules import Schedule, Value
from clrsearch.search import StudySpace
from replay.tables import Table
from replay.tasks import MOMENTUM

POINTS = 32
LOWEST = 1e-4  # of the task's own rate: lower ones are as good as none
TREES = 150
LAST = 5.0  # how much more the last epoch counts than all others together, in deviations
NEIGHBOURS = 4
WORST = 10.0  # beyond the best, in distances from the best to the median: no value is worse

Array = NDArray[np.float64]


def curve(schedule: Schedule, space: StudySpace) -> Array:
    """Of a schedule's rates over the task's own at 32 steps, the logarithms: three times 32.

    Of the rates, of their sums so far and of their sums from here on. Momentum is counted in: a
    rate lr under a momentum m moves weights as lr (1 - 0.9) / (1 - m) does under 0.9.
    """
    steps = (np.arange(POINTS) + 0.5) / POINTS * (space.setting.horizon - 1)
    rates, momenta = schedule.at(steps)
    if momenta is not None:
        rates = rates * (1 - MOMENTUM) / (1 - momenta)
    rates = np.maximum(rates / space.setting.base_lr, LOWEST)
    return np.log(np.concatenate([rates, np.cumsum(rates), np.cumsum(rates[::-1])[::-1]]))


def bounded(values: NDArray[np.float32]) -> Array:
    """The values of a table, (schedules, seeds, epochs), with diverged ones at the worst.

    The worst of an epoch is ten times as far from the best schedule's mean as the median one.
    """
    wide = values.astype(np.float64)
    means = np.where(np.isnan(wide).any(axis=1), np.inf, wide.mean(axis=1))  # (schedules, epochs)
    best, middle = means.min(axis=0), np.median(means, axis=0)
    worst = best + WORST * (middle - best)
    return np.minimum(np.where(np.isnan(wide), np.inf, wide), worst)


class Surface:
    """The scores of any schedule on a table's task."""

    def __init__(self, table: Table, space: StudySpace) -> None:
        self._space = space
        self._curves = np.stack([curve(space.build(*each), space) for each in table.schedules])
        values = bounded(table.values)
        means = values.mean(axis=1)  # (schedules, epochs)
        self._diverged = np.isnan(table.values)
        self._ratios = values / means[:, None]
        self._means = Trees(self._curves, means)

    def mean(self, family: str, params: Mapping[str, Value]) -> Array:
        """The expected validation loss after each epoch."""
        return self._means.predict(curve(self._space.build(family, params), self._space))

    def run(self, family: str, params: Mapping[str, Value], seed: int) -> Array:
        """The validation loss of one run after each epoch, NaN once it has diverged."""
        own = curve(self._space.build(family, params), self._space)
        near = np.argsort(((self._curves - own) ** 2).sum(axis=1), kind="stable")[:NEIGHBOURS]
        drawn = near[zlib.crc32(own.tobytes() + bytes([seed])) % NEIGHBOURS]
        values = self._means.predict(own) * self._ratios[drawn, seed]
        return np.where(self._diverged[drawn, seed], np.nan, values)


class Trees:
    """Mean losses by the rates: trees on (schedules, features), walked at once by NumPy.

    ``means`` are (schedules, epochs). Where the trees split is for the last epoch to say first.
    """

    def __init__(self, features: Array, means: Array) -> None:
        logs = np.log(means)
        centre, scale = logs.mean(axis=0), logs.std(axis=0)
        scale[-1] /= LAST * math.sqrt(len(scale))
        fitted = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)
        fitted.fit(features, (logs - centre) / scale)
        trees = [each.tree_ for each in fitted.estimators_]
        most = max(tree.node_count for tree in trees)
        targets = trees[0].value.shape[1]
        self._depth = max(tree.max_depth for tree in trees)
        self._feature = np.zeros((len(trees), most), dtype=np.intp)
        self._threshold = np.full((len(trees), most), np.inf)
        self._children = np.zeros((2, len(trees), most), dtype=np.intp)
        self._values = np.zeros((len(trees), most, targets))
        for index, tree in enumerate(trees):
            here = slice(tree.node_count)
            leaf = tree.children_left < 0
            itself = np.arange(tree.node_count)
            self._feature[index, here] = np.where(leaf, 0, tree.feature)
            self._threshold[index, here] = tree.threshold
            self._children[0, index, here] = np.where(leaf, itself, tree.children_left)
            self._children[1, index, here] = np.where(leaf, itself, tree.children_right)
            self._values[index, here] = tree.value[:, :, 0] * scale + centre

    def predict(self, row: Array) -> Array:
        """The mean losses of a schedule with these features, (epochs,)."""
        row = row.astype(np.float32)  # as scikit-learn compares
        every = np.arange(len(self._feature))
        node = np.zeros_like(every)
        for _ in range(self._depth):
            right = row[self._feature[every, node]] > self._threshold[every, node]
            node = self._children[right.astype(np.intp), every, node]
        return np.asarray(np.exp(self._values[every, node].mean(axis=0)))


def left_out(table: Table, space: StudySpace, folds: int = 20) -> tuple[float, float]:
    """How well the last losses' ranks are told of schedules that the trees have not seen.

    Spearman's correlation, over all schedules and over the best quarter.
    """
    features = np.stack([curve(space.build(*each), space) for each in table.schedules])
    means = bounded(table.values).mean(axis=1)
    fold = np.random.default_rng(0).permutation(len(means)) % folds
    told = np.empty(len(means))
    for each in range(folds):
        trees = Trees(features[fold != each], means[fold != each])
        told[fold == each] = [trees.predict(row)[-1] for row in features[fold == each]]
    best = np.argsort(means[:, -1])[: len(means) // 4]
    every = spearmanr(told, means[:, -1]).statistic
    return float(every), float(spearmanr(told[best], means[best, -1]).statistic)
