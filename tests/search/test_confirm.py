"""Who is confirmed and who has won: against scipy, by hand, and on planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from records import make_record
from scipy import stats

from clrsearch.errors import StudyError
from clrsearch.search.confirm import against_leader, finalists, judge


def by_values(record) -> int:
    """Numbers of traces, as if other values always had another."""
    return hash((record.family, *record.params.items()))


def numbers(records) -> list[int]:
    return [record.number for record in records]


SEARCHED = [
    make_record(0.5, number=0, family="constant", params={"lr": 0.1}),
    make_record(0.4, number=1, family="cyclic", params={"max_lr": 0.1}),
    make_record(0.3, number=2, family="cyclic", params={"max_lr": 0.2}),
    make_record(0.2, number=3, family="cyclic", params={"max_lr": 0.3}),
    make_record(0.6, number=4, family="constant", params={"lr": 0.2}),
    make_record(0.1, number=5, family="cosine", state="pruned"),
    make_record(0.7, number=6, family="cosine", params={"peak_lr": 0.2}),
]


@pytest.mark.parametrize(
    ("top", "expected"), [(1, [3, 0, 6]), (2, [3, 0, 6]), (3, [3, 2, 0, 6]), (9, [3, 2, 1, 0, 6])]
)
def test_the_best_of_each_family_then_the_next_best(top, expected) -> None:
    found = finalists(
        SEARCHED, top=top, baseline="constant", trace_of=by_values, direction="minimize"
    )
    assert numbers(found) == expected


def test_upwards_the_largest_is_best() -> None:
    found = finalists(
        SEARCHED, top=1, baseline="constant", trace_of=by_values, direction="maximize"
    )
    assert numbers(found) == [6, 4, 1]


def test_no_schedule_is_confirmed_twice() -> None:
    twice = [*SEARCHED, make_record(0.2, number=7, family="cyclic", params={"max_lr": 0.3})]
    found = finalists(twice, top=3, baseline="constant", trace_of=by_values, direction="minimize")
    assert numbers(found) == [3, 2, 0, 6]


def test_schedules_with_equal_traces_are_confirmed_once() -> None:
    traces = {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 6: 2}
    found = finalists(
        SEARCHED,
        top=3,
        baseline="constant",
        direction="minimize",
        trace_of=lambda record: traces[record.number],
    )
    assert numbers(found) == [3, 1, 0]


def test_without_a_complete_trial_there_is_no_finalist() -> None:
    with pytest.raises(StudyError, match="no trial is complete"):
        finalists(
            [SEARCHED[5]], top=3, baseline="constant", trace_of=by_values, direction="minimize"
        )


def test_two_schedules_are_a_paired_t_test() -> None:
    table = np.array([[1.0, 2.0, 3.0, 5.0], [1.5, 2.25, 4.0, 5.5]])
    assert against_leader(table) == [pytest.approx(stats.ttest_rel(*table).pvalue, rel=1e-12)]


def test_several_are_tested_against_the_pooled_residual_and_corrected() -> None:
    noise = np.array([[1, -1, 2, -2], [2, 1, -2, -1], [-2, 2, 1, -1]]) / 10  # of one variance
    table = noise + np.array([[1.0], [1.2], [1.5]]) + np.array([5.0, 7.0, 9.0, 11.0])
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    total = sum(
        (table[i, j] - rows[i] - columns[j] + mean) ** 2 for i in range(3) for j in range(4)
    )
    error = math.sqrt(2 * total / 6 / 4)
    raw = [2 * stats.t.sf((rows[i] - rows[0]) / error, 6) for i in (1, 2)]
    assert raw[1] < raw[0]
    expected = [max(raw[0], 2 * raw[1]), 2 * raw[1]]
    assert against_leader(table) == pytest.approx(expected, rel=1e-12)


def test_a_rival_of_another_variance_is_tested_on_its_own() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(6, 8)) * np.array([[1.0], [50.0], [1.0], [1.0], [1.0], [1.0]])
    table += np.array([[0.0], [60.0], [0.1], [0.1], [0.1], [0.1]])
    smallest = stats.ttest_rel(table[0], table[1]).pvalue
    assert against_leader(table)[0] == pytest.approx(5 * smallest, rel=1e-12)


def test_equal_scores_are_no_difference() -> None:
    assert against_leader(np.ones((3, 4))) == [1.0, 1.0]
    assert against_leader(np.ones((3, 1))) == [1.0, 1.0]


def verdict(table, *, direction="minimize", complexity=None, families=None):
    families = families or [f"f{index}" for index in range(len(table))]
    sizes = complexity or [3] * len(table)
    candidates = [
        make_record(
            0.1, number=10 + index, family=family, params=dict.fromkeys(range(sizes[index]))
        )
        for index, family in enumerate(families)
    ]
    scores = {10 + index: dict(enumerate(row, start=1)) for index, row in enumerate(table)}
    return judge(candidates, scores, direction=direction)


NOISE = [0.01, -0.02, 0.015, -0.005, 0.0]


def test_a_clear_winner_is_named() -> None:
    found = verdict([[2 + x for x in NOISE], [1 - x for x in NOISE], [3 + x for x in NOISE]])
    assert [each.trial for each in found.standings] == [11, 10, 12]
    assert found.undecided == (11,)
    assert found.chosen == 11
    assert found.winner == "f1"
    assert (found.possible, found.seeds_needed) == (None, None)
    assert found.sentence.startswith(
        "f1 (trial 11) is best: on 5 fresh seeds it beats each of its 2"
    )
    leader, second, _ = found.standings
    assert leader.p is None
    assert second.p < 0.001
    assert leader.mean == pytest.approx(1.0)
    reach = stats.t.ppf(0.975, 4) * np.std(NOISE, ddof=1) / math.sqrt(5)
    assert (leader.low, leader.high) == pytest.approx((1 - reach, 1 + reach))


def test_a_family_is_best_where_only_its_own_schedules_cannot_be_told_apart() -> None:
    table = [
        [1.0, 1.2, 0.9, 1.1, 1.0],
        [1.02, 1.17, 0.93, 1.09, 1.01],
        [3.0, 3.2, 2.9, 3.1, 3.05],
    ]
    candidates = [
        make_record(1.0, number=4, family="linear", params={"lr": 0.1}),
        make_record(1.0, number=5, family="linear", params={"lr": 0.2}),
        make_record(1.0, number=6, family="cyclic", params={"max_lr": 0.2}),
    ]
    scores = {n: dict(enumerate(row)) for n, row in zip((4, 5, 6), table, strict=True)}
    found = judge(candidates, scores, direction="minimize")
    assert found.winner == "linear"
    assert set(found.undecided) == {4, 5}
    assert found.sentence == (
        "linear is best: on 5 fresh seeds it beats its only rival (corrected p < 0.05). Its own "
        "schedules, linear (trial 4), linear (trial 5), cannot be told apart: use trial 4."
    )
    alone = judge(candidates[:2], scores, direction="minimize")
    assert alone.winner is None
    assert alone.sentence.startswith("No single winner")


def test_by_one_seed_the_leader_is_chosen_however_simple_another_is() -> None:
    found = verdict([[1.0], [5.0]], complexity=[5, 1])
    assert found.chosen == 10
    assert found.sentence.startswith("f0 (trial 10) leads, but one seed tells nothing")


def test_rivals_that_diverged_were_not_tested() -> None:
    found = verdict([[1.0, 1.1], [None, 2.0]])
    assert (
        found.sentence == "f0 (trial 10) is best: 1 of its rivals diverged, and there is no other."
    )
    table = [[1.01, 0.98, 1.0], [2.0, 2.02, 1.97], [None, 1.0, 1.0]]
    assert verdict(table).sentence == (
        "f0 (trial 10) is best: on 3 fresh seeds it beats its only rival (corrected p < 0.05); "
        "1 of its rivals diverged."
    )


def test_upwards_the_largest_wins() -> None:
    found = verdict([[2 + x for x in NOISE], [1 - x for x in NOISE]], direction="maximize")
    assert (found.chosen, found.standings[0].mean) == (10, pytest.approx(2.0))


def test_where_nothing_is_settled_the_simplest_is_chosen() -> None:
    table = [
        [1.0, 1.2, 0.9, 1.1],
        [1.02, 1.17, 0.95, 1.12],
        [1.05, 1.21, 0.9, 1.13],
        [9, 9, 9, 9.1],
    ]
    found = verdict(table, complexity=[5, 3, 1, 0])
    assert set(found.undecided) == {10, 11, 12}
    assert found.winner is None
    assert found.chosen == 12
    assert found.sentence.startswith("No single winner on 4 fresh seeds: f0 (trial 10), f1")
    assert "Use f2 (trial 12), the simplest" in found.sentence
    assert found.possible > 0.02


def test_a_simple_schedule_far_behind_is_not_chosen() -> None:
    wide = [[0.0, 0.4, 0.8], [3.9, 1.2, 4.5], [0.1, 0.4, 0.8]]
    found = verdict(wide, complexity=[5, 0, 5])
    assert found.chosen == 10


def test_the_seeds_that_would_settle_it() -> None:
    # differences of 1 with a standard deviation of 2: ((1.96 + 0.8416) * 2)^2 = 31.4, and one more
    deviation = 2.0 / np.std([-1.0, 1.0, -1.0, 1.0], ddof=1)
    rival = [1 + deviation * x for x in (-1.0, 1.0, -1.0, 1.0)]
    found = verdict([[0.0] * 4, rival])
    assert found.seeds_needed == 33
    reach = stats.t.ppf(0.975, 3) * 2.0 / 2
    assert found.possible == pytest.approx(1 + reach)


def test_more_seeds_are_asked_for_than_there_have_been() -> None:
    # differences of 1 and 1.3: t = 7.7 with one degree of freedom, p = 0.08; a normal
    # distribution would be content with two seeds
    found = verdict([[0.0] * 2, [1.0, 1.3]])
    assert len(found.undecided) == 2
    assert found.seeds_needed == 3


def test_one_seed_pretends_nothing() -> None:
    found = verdict([[1.0], [2.0]])
    assert "one seed tells nothing" in found.sentence
    assert found.sentence.endswith("confirm with at least 3 seeds.")
    assert (found.possible, found.seeds_needed) == (None, 3)
    assert [(each.low, each.high, each.p) for each in found.standings] == [(None,) * 3] * 2


def test_who_diverged_on_a_fresh_seed_is_out() -> None:
    found = verdict([[0.1, None, 0.1], [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]])
    assert found.chosen == 11
    assert [each.trial for each in found.standings] == [11, 12, 10]
    assert found.standings[-1].diverged == 1
    with pytest.raises(StudyError, match="every finalist diverged"):
        verdict([[None], [None]])


def test_only_seeds_that_all_have_run_count() -> None:
    candidates = [make_record(0.1, number=n, family=f"f{n}") for n in (0, 1)]
    found = judge(
        candidates,
        {0: {1: 1.0, 2: 2.0, 3: 0.0}, 1: {1: 1.5, 2: 2.5}},
        direction="minimize",
    )
    assert found.standings[0].scores == {1: 1.0, 2: 2.0}
    with pytest.raises(StudyError, match="no seed"):
        judge(candidates, {0: {1: 1.0}, 1: {}}, direction="minimize")


def test_one_finalist_has_no_rival() -> None:
    assert "has no rival" in verdict([[1.0, 1.1]]).sentence


def shares(gap, repeats=400) -> tuple[float, float]:
    """How often a planted best of 12 is named alone, and how often anything else is; 5 seeds."""
    rng = np.random.default_rng(0)
    right = wrong = 0
    for _ in range(repeats):
        table = rng.normal(size=(12, 5)) + rng.normal(size=(1, 5))
        table[3] -= gap
        order = np.argsort(table.mean(axis=1))
        if all(p <= 0.05 for p in against_leader(table[order])):
            right += order[0] == 3
            wrong += order[0] != 3
    return right / repeats, wrong / repeats


def test_a_planted_winner_is_named_and_chance_is_not() -> None:
    assert shares(4.0)[0] > 0.95
    right, wrong = shares(0.0)
    assert right + wrong < 0.05
