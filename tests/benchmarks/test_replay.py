"""The replayer: what is billed, what is snapped to, who is judged on what."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from replay import before, fit, now, stock, strategies
from replay.before import simplest
from replay.play import FRESH_SEEDS, SEARCH_SEEDS, Game, Modelled, Pool, Schedule, Spent
from replay.portfolio import greedy
from replay.record import space_of
from replay.report import report
from replay.strategies import best_of_top
from replay.surface import TREES, Trees, bounded, curve
from replay.tables import Table, read, write
from replay.tasks import TASKS
from replay.warm import reached
from scipy.spatial.distance import cdist
from sklearn.ensemble import ExtraTreesRegressor

from clrsearch.search.surrogate import LOCAL, Runs, Scales, Squash, _evidence, _scales, matern
from clrsearch.search.trace_features import LENGTHS, Points

EPOCHS = 10
SEEDS = SEARCH_SEEDS + FRESH_SEEDS + 4
RATES = np.geomspace(0.001, 0.5, 60)


@pytest.fixture(scope="module")
def table():
    """Constant and linear schedules; the loss is the distance to a rate of 0.1, and chance.

    From 0.4 on a run diverges in its third epoch.
    """
    rng = np.random.default_rng(0)
    task = TASKS["tumours"]()
    schedules = [("constant", {"lr": float(rate)}) for rate in RATES]
    schedules += [("linear", {"lr": float(rate), "warmup_share": 0.1}) for rate in RATES]
    lr = np.array([params["lr"] for _, params in schedules])
    final = 1 + np.abs(np.log(lr / 0.1)) + (np.arange(len(lr)) >= len(RATES))
    values = final[:, None, None] + np.linspace(2, 0, EPOCHS)
    values = values + 0.05 * rng.standard_normal((len(lr), SEEDS, 1))
    values[lr >= 0.4, :, 2:] = np.nan
    return Table(
        name="made",
        facts=task.facts,
        schedules=tuple(schedules),
        values=values.astype(np.float32),
    )


@pytest.fixture(scope="module")
def space():
    return space_of(TASKS["tumours"]())


@pytest.fixture(scope="module", params=[Pool, Modelled])
def task(request, table, space):
    return request.param(table, space)


class Counted:
    """A task that counts the epochs that are really handed out, and on which seeds."""

    def __init__(self, task):
        self._task = task
        self.name, self.seeds = task.name, task.seeds
        self.facts, self.space = task.facts, task.space
        self.admit, self.regret = task.admit, task.regret
        self.epochs, self.met = 0, set()

    def curve(self, schedule, seed):
        self.met.add(seed)
        for value in self._task.curve(schedule, seed):
            self.epochs += 1
            yield value


EVERY = {
    "now": now.strategy(),
    "before": before.all_families,
    "cyclic": before.cyclic_alone,
    "random": strategies.random,
    "median": stock.strategy(stock.tpe, stock.median, confirm=True),
    "hyperband": stock.strategy(stock.tpe, stock.hyperband, confirm=False),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("runs", [33, 60])
def test_no_strategy_trains_more_than_it_may_nor_leaves_much(task, name, runs):
    counted = Counted(task)
    game = Game(counted, runs=runs, repetition=1)
    recommended = EVERY[name](game, np.random.default_rng(0))
    budget = runs * EPOCHS
    assert counted.epochs == budget - game.left
    assert counted.epochs <= budget
    assert recommended.family in game.space.families
    if name in ("random", "hyperband"):
        assert counted.epochs > budget - EPOCHS  # not even one more run
    assert len(counted.met) <= SEARCH_SEEDS + FRESH_SEEDS


def test_more_than_the_budget_is_refused(table, space):
    game = Game(Pool(table, space), runs=1, repetition=0)
    schedule = Schedule(family="constant", params={"lr": 0.1}, row=0)
    assert len(game.run(schedule, 0).values) == EPOCHS
    assert game.left == 0
    with pytest.raises(Spent):
        game.run(schedule, 1)


def test_a_diverged_and_a_stopped_run_are_paid_up_to_their_end(table, space):
    game = Game(Pool(table, space), runs=10, repetition=0)
    wild = game.admit("constant", {"lr": 0.5})
    outcome = game.run(wild, 0)
    assert outcome.diverged and len(outcome.values) == 2 and outcome.score == math.inf
    assert game.left == 97
    fine = game.admit("constant", {"lr": 0.1})
    outcome = game.run(fine, 0, lambda values: len(values) == 4)
    assert outcome.stopped and len(outcome.values) == 4 and outcome.score == math.inf
    assert game.left == 93


def test_who_knows_the_answer_regrets_nothing(table, space):
    """In every deal of the seeds, and everybody else does not gain by it."""
    for repetition in range(10):
        game = Game(Pool(table, space), runs=1, repetition=repetition)
        unseen = np.random.default_rng(repetition).permutation(SEEDS)[SEARCH_SEEDS + FRESH_SEEDS :]
        seen = np.setdiff1d(np.arange(SEEDS), unseen)
        row = int(np.nan_to_num(table.values[:, seen, -1], nan=np.inf).mean(axis=1).argmin())
        family, params = table.schedules[row]
        known = game.admit(family, params)
        assert known.row == row
        assert game.regret(known) == 0.0
    smooth = Game(Modelled(table, space), runs=1, repetition=0)
    regrets = [smooth.regret(smooth.admit(*each)) for each in table.schedules]
    assert min(regrets) == 0.0
    assert max(regrets) > 1.0


def test_a_regret_is_in_distances_from_the_best_to_the_median(table, space):
    """On unseen seeds, of which the mean is known."""
    pool = Pool(table, space)
    unseen = [0, 1]
    final = bounded(table.values)[:, :, -1]
    best = int(final[:, 2:].mean(axis=1).argmin())
    means = np.sort(final.mean(axis=1))
    scale = (means[59] + means[60]) / 2 - means[0]
    wanted = (final[5, :2].mean() - final[best, :2].mean()) / scale
    schedule = Schedule(family="constant", params=table.schedules[5][1], row=5)
    assert pool.regret(schedule, unseen) == pytest.approx(wanted)


def test_the_seeds_of_a_game_are_dealt_without_repetition(table, space):
    counted = Counted(Pool(table, space))
    game = Game(counted, runs=SEEDS, repetition=3)
    schedule = game.admit("constant", {"lr": 0.1})
    for seed in range(SEARCH_SEEDS + FRESH_SEEDS):
        game.run(schedule, seed)
    assert len(counted.met) == SEARCH_SEEDS + FRESH_SEEDS


def test_a_pool_gives_the_nearest_of_the_family_that_has_not_been_used(table, space):
    game = Game(Pool(table, space), runs=1, repetition=0)
    order = np.argsort(np.abs(np.log(RATES / 0.02)))
    for expected in order[:5]:
        assert game.admit("constant", {"lr": 0.02}).row == expected
    for _ in range(len(RATES) - 5):
        assert game.admit("constant", {"lr": 0.02}).family == "constant"
    assert game.admit("constant", {"lr": 0.02}).family == "linear"  # the nearest by its rates


def test_trees_predict_what_scikit_learn_predicts(table, space):
    """The walk through all trees at once; the means are weighed back and are no logarithms."""
    features = np.stack([curve(space.build(*each), space) for each in table.schedules])
    means = bounded(table.values).mean(axis=1)[:, [-1, -1]]
    logs = np.log(means)
    plain = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)
    wanted = np.exp(plain.fit(features, logs).predict(features))
    walked = Trees(features, means)
    found = [walked.predict(row) for row in features]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_surface_has_the_seeds_and_the_divergence_of_what_is_recorded(table, space):
    modelled = Modelled(table, space)
    wild = Schedule(family="constant", params={"lr": 0.49})
    assert np.isnan(modelled.curve(wild, 0)[2:]).all()
    fine = Schedule(family="constant", params={"lr": 0.103})
    scores = [modelled.curve(fine, seed)[-1] for seed in range(SEEDS)]
    assert 0.02 < np.std(scores) < 0.1  # 0.05 was put in
    again = [modelled.curve(fine, seed)[-1] for seed in range(SEEDS)]
    assert scores == again


def test_trials_are_counted_until_a_score_is_reached() -> None:
    assert reached([0.3, 0.1, 0.2, 0.05], 0.1) == 2
    assert reached([0.3, 0.2], 0.1) == 3


def test_a_portfolio_covers_the_tasks_that_it_is_made_from() -> None:
    regrets = np.array([[0.1, 0.1, 0.9], [0.3, 0.3, 0.3], [0.6, 0.6, 0.0], [0.2, 0.2, 5.0]])
    assert greedy(regrets, 2) == [1, 0]  # the means of the best are 0.3, then 0.167
    assert greedy(regrets, 3) == [1, 0, 2]


def test_bounded_values_are_finite_and_leave_good_ones_alone():
    values = np.array([[[1.0]], [[2.0]], [[3.0]], [[1000.0]], [[np.nan]]], dtype=np.float32)
    # the best is 1 and the median 3: the worst is 1 + 10 * 2
    assert bounded(values)[:, 0, 0].tolist() == [1.0, 2.0, 3.0, 21.0, 21.0]


def schedules(*sizes):
    return [
        Schedule(family="constant", params={str(i): 0.0 for i in range(size)}) for size in sizes
    ]


def test_the_simplest_within_a_deviation_of_a_seed_was_recommended():
    seeds = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])  # their effect: a deviation of 0.158
    noise = 0.03 * np.array([[1, -1, 1, -1, 0], [-1, 1, 1, -1, 0], [1, 1, -1, -1, 0]])
    three, two, one = schedules(3, 2, 1)
    table = np.array([1.0, 1.02, 1.5])[:, None] + seeds + noise
    assert simplest([three, two, one], table) is two
    table = np.array([1.0, 1.15, 1.5])[:, None] + seeds + noise  # near, but beaten
    assert simplest([three, two, one], table) is three
    table[0, 0] = np.inf
    assert simplest([three, two, one], table) is two


def test_the_best_mean_on_fresh_seeds_wins_among_the_first_three(table, space):
    game = Game(Pool(table, space), runs=20, repetition=0)
    ranked = [game.admit("constant", {"lr": lr}) for lr in (0.01, 0.1, 0.3, 0.09)]
    assert best_of_top(game, ranked, 3, 5) is ranked[1]
    assert game.left == 5 * EPOCHS


def test_a_table_is_read_as_it_was_written(table, tmp_path):
    write(table, tmp_path)
    found = read("made", tmp_path)
    assert found.schedules == table.schedules
    assert found.facts == table.facts
    np.testing.assert_array_equal(found.values, table.values)


def test_ratios_are_to_what_others_regret_with_the_full_budget():
    regrets = {
        "pool|100|before|a": [0.4, 0.4],
        "pool|100|now|a": [0.1, 0.1],
        "pool|33|now|a": [0.2, 0.2],
        "pool|33|before|a": [0.8, 0.8],
        "pool|100|Optuna GP|a": [0.5, 0.5],
        "pool|100|Optuna TPE|a": [0.25, 0.25],
    }
    told = report(regrets, ["a"], 2)
    assert "| strategy | regret | x before, 100 runs | x random, 3 confirmed, 100 runs " in told
    assert "| x Optuna TPE, 100 runs | a |" in told
    once = "0.50 (0.50 to 0.50) |  | 0.80 (0.80 to 0.80)"
    assert f"| now | 0.200 | {once} | 0.20 |" in told
    assert "| now | 0.100 | 0.25 (0.25 to 0.25) |  | 0.40 (0.40 to 0.40) | 0.10 |" in told


def test_the_evidence_that_lengths_are_fitted_to_is_the_surrogates_own():
    rng = np.random.default_rng(0)
    points, seeds, targets = rng.normal(size=(30, 3)), rng.integers(4, size=30), rng.normal(size=30)
    scales = Scales()
    own = [scales.level, scales.surface, scales.local, scales.seed, scales.noise]
    distances = cdist(points, points)
    parts = matern(distances), matern(distances / LOCAL), seeds[:, None] == seeds
    found = fit.evidence(*map(torch.tensor, (points, seeds, targets, own)))
    assert float(found) == pytest.approx(_evidence(parts, targets, scales), rel=1e-6)


def test_runs_are_likelier_under_the_lengths_that_are_fitted_to_them(table, space):
    scores = table.values[:, 0, -1].astype(float)
    targets = Squash.of(scores)(scores)

    def likely(lengths):
        runs = Runs(points=Points(space, lengths).of(table.schedules), seeds=np.zeros(len(scores)))
        scales = _scales(runs, targets)
        distances = cdist(runs.points, runs.points)
        one_seed = np.ones_like(distances, dtype=bool)
        return _evidence((matern(distances), matern(distances / LOCAL), one_seed), targets, scales)

    assert likely(fit.fitted([replace(table, name="tumours")])) > likely(LENGTHS) + 1
