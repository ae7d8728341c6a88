"""Who runs on which fresh seed next: by hand, and whole confirmations on drawn scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from records import make_record

from clrsearch.search import StudyPlan, budget, every_run, judge, next_runs

HOW = {"direction": "minimize", "baseline": "constant"}
NOISE = [0.3, -0.2, 0.1, -0.4, 0.25, -0.15, 0.35, -0.3, 0.2, -0.1, 0.05, -0.05]


def finalists(count: int) -> list:
    """So many, the baseline the last."""
    families = [*(f"f{n}" for n in range(count - 1)), "constant"]
    return [make_record(0.1, number=n, family=each) for n, each in enumerate(families)]


def scores_of(asked, effects):
    """The scores of some runs: a finalist's effect, a seed's, and noise that differs for each."""
    scores = {trial: {} for trial in range(len(effects))}
    for trial, seed in asked:
        scores[trial][seed] = effects[trial] + 5 * seed + NOISE[(5 * trial + seed) % len(NOISE)]
    return scores


def next_of(asked, effects, *, left=100, **how):
    scores = scores_of(asked, effects)
    return next_runs(finalists(len(effects)), scores, asked, left=left, **HOW, **how)


def test_each_runs_on_every_seed_and_all_on_one_before_the_next() -> None:
    assert every_run(finalists(2), 2) == [(0, 1), (1, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("trials", "share", "runs"), [(100, 0.25, 33), (99, 0.25, 33), (6, 0.5, 6), (1, 0.25, 0)]
)
def test_the_share_is_of_all_epochs(trials, share, runs) -> None:
    plan = StudyPlan(trials=trials, confirm={"share": share})
    assert budget(plan) == runs


def test_every_finalist_begins_with_two_seeds_whatever_is_left() -> None:
    assert next_of([], [0.0, 1.0, 2.0], left=0) == every_run(finalists(3), 2)
    missing = next_of(every_run(finalists(2), 2), [0.0, 1.0, 2.0], left=0)
    assert missing == [(2, 1), (2, 2)]  # one that a search brought which has grown


def test_then_seeds_go_to_the_first_two_and_the_baseline() -> None:
    asked = every_run(finalists(5), 2)
    assert next_of(asked, [0.1, 0.0, 9.0, 9.0, 1.0]) == [(1, 3), (0, 3), (4, 3)]


def test_who_is_far_behind_gets_no_more() -> None:
    asked = every_run(finalists(4), 2)
    asked += [(1, 3), (3, 3)]
    assert next_of(asked, [9.0, 0.0, 9.0, 1.0]) == [(1, 4), (3, 4)]


def test_who_has_fewer_seeds_catches_up_before_new_ones_begin() -> None:
    asked = every_run(finalists(4), 2)
    asked += [(1, 3), (3, 3), (1, 4), (3, 4)]
    near = [0.05, 0.0, 9.0, 1.0]
    assert next_of(asked, near) == [(0, 3)]
    assert next_of(asked, near, workers=2) == [(0, 3), (0, 4)]
    assert next_of(asked, near, workers=3) == [(0, 3), (0, 4), (0, 5), (1, 5), (3, 5)]


def test_for_more_workers_further_rivals_and_seeds_are_added_behind_the_same_runs() -> None:
    asked = every_run(finalists(6), 2)
    near = [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]
    found = [next_of(asked, near, workers=n) for n in range(1, 30)]
    for few, many in pairwise(found):
        assert many[: len(few)] == few
    assert all(len(runs) >= n for n, runs in enumerate(found, start=1))
    assert {trial for trial, _ in found[-1]} == set(range(6))
    assert all(len(set(runs)) == len(runs) for runs in found)


def test_no_more_runs_than_are_left_and_none_without_another_on_its_seed() -> None:
    asked = every_run(finalists(4), 2)
    near = [0.0, 0.1, 0.2, 0.3]
    assert len(next_of(asked, near, left=2, workers=9)) == 2
    assert next_of(asked, near, left=1) == []
    assert next_of(asked, near, left=0) == next_of(asked, near, left=-5) == []
    behind = [*asked, (0, 3), (1, 3), (0, 4), (1, 4)]
    assert len(next_of(behind, near, left=1)) == 1  # it catches up


def test_who_has_diverged_gets_no_more_and_where_all_have_nobody_does() -> None:
    asked = every_run(finalists(3), 2)
    scores = scores_of(asked, [0.0, 0.1, 1.0])
    scores[1][2] = None
    found = next_runs(finalists(3), scores, asked, left=9, **HOW)
    assert {trial for trial, _ in found} == {0, 2}
    nothing = {trial: dict.fromkeys((1, 2)) for trial in range(3)}
    assert next_runs(finalists(3), nothing, asked, left=9, **HOW) == []
    failed = {**scores, 1: {}}  # on both seeds, for good
    assert next_runs(finalists(3), failed, asked, left=9, **HOW) == []


def test_a_finalist_alone_is_not_run_without_end() -> None:
    alone = finalists(1)
    scores = {0: {1: 0.1, 2: 0.2}}
    assert next_runs(alone, scores, every_run(alone, 2), left=9, **HOW) == []


def confirmed(effects, *, left, workers=1, seed=0):
    """A whole confirmation on drawn scores: the verdict, the runs in their order, the rounds."""
    drawn = np.random.default_rng(seed).normal(size=(len(effects), 100))
    asked, rounds, those = [], 0, finalists(len(effects))
    while True:
        scores = {trial: {} for trial in range(len(effects))}
        for trial, index in asked:
            scores[trial][index] = float(effects[trial] + drawn[trial, index])
        new = next_runs(those, scores, asked, left=left - len(asked), workers=workers, **HOW)
        if not new:
            return judge(those, scores, direction="minimize"), asked, rounds
        assert not set(new) & set(asked)
        asked, rounds = asked + new, rounds + 1


@pytest.mark.parametrize("workers", [1, 4])
def test_it_ends_when_the_baseline_is_beaten_and_nobody_promises_more(workers) -> None:
    verdict, asked, rounds = confirmed([0.0, 4.0, 4.0, 4.0, 3.0], left=100, workers=workers)
    assert verdict.chosen == 0
    assert verdict.standing(4).p <= 0.05
    assert len(asked) < 40
    assert rounds > 2
    fewest, most = (limit(len(each.scores) for each in verdict.standings) for limit in (min, max))
    assert (fewest, most > 5) == (2, True)
    assert set(verdict.behind) <= {1, 2, 3}


def test_it_ends_when_the_share_is_spent() -> None:
    verdict, asked, _ = confirmed([0.0, 3.0, 3.0, 0.7], left=30)
    assert 29 <= len(asked) <= 30
    assert len(verdict.undecided) > 1


def test_what_is_behind_is_named_and_is_not_said_to_be_beaten() -> None:
    verdict, _, _ = confirmed([0.0, 9.0, 9.0, 9.0, 4.0], left=100, seed=1)
    assert verdict.undecided == (0,)
    assert set(verdict.behind) == {1, 2, 3}
    assert verdict.winner is None
    assert verdict.sentence.startswith("f0 (trial 0) is the top finalist: it beats one rival on ")
    assert " fresh seeds (anytime-valid p < 0.05); f" in verdict.sentence
    assert verdict.sentence.endswith("fell behind on 2 fresh seeds and got no more.")
    assert verdict.seeds_needed is not None
    assert verdict.possible is None
