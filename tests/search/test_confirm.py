"""Who has won on fresh seeds, and what is recommended: by hand and on planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from records import make_record
from scipy import stats

from clrsearch.errors import StudyError
from clrsearch.search.anytime_tests import reach
from clrsearch.search.confirm import judge


def verdict(table, *, complexity=None, direction="minimize", **how):
    families = [f"f{index}" for index in range(len(table))]
    sizes = complexity or [3] * len(table)
    candidates = [
        make_record(
            0.1, number=10 + index, family=family, params=dict.fromkeys(range(sizes[index]))
        )
        for index, family in enumerate(families)
    ]
    scores = {10 + index: dict(enumerate(row, start=1)) for index, row in enumerate(table)}
    return judge(candidates, scores, direction=direction, **how)


NOISE = [0.01, -0.02, 0.015, -0.005, 0.0]


def test_a_clear_winner_is_named() -> None:
    found = verdict([[2 + x for x in NOISE], [1 - x for x in NOISE], [3 + x for x in NOISE]])
    assert [each.trial for each in found.standings] == [11, 10, 12]
    assert found.undecided == (11,)
    assert found.chosen == 11
    assert found.winner == "f1"
    assert (found.possible, found.seeds_needed) == (None, None)
    assert found.sentence == (
        "f1 (trial 11) is best: it beats each of its 2 rivals on 5 fresh seeds "
        "(anytime-valid p < 0.05)."
    )
    leader, second, _ = found.standings
    assert leader.p is None
    assert second.p < 0.05
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
        "linear is best: it beats its only rival on 5 fresh seeds (anytime-valid p < 0.05). Its "
        "schedules, linear (trial 4), linear (trial 5), cannot be told apart: use trial 4."
    )
    alone = judge(candidates[:2], scores, direction="minimize")
    assert alone.winner is None
    assert alone.sentence.startswith("No single winner")


def test_by_one_seed_the_leader_is_chosen_however_simple_another_is() -> None:
    found = verdict([[1.0], [5.0]], complexity=[5, 1])
    assert found.chosen == 10
    assert found.sentence.startswith("f0 (trial 10) is the top finalist, but one seed says nothing")


def test_rivals_that_diverged_were_not_tested() -> None:
    found = verdict([[1.0, 1.1], [None, 2.0]])
    assert (
        found.sentence == "f0 (trial 10) is best: 1 of its rivals diverged, and it had no others."
    )
    table = [[1.01, 0.98, 1.0, 1.0, 1.0], [2.0, 2.02, 1.97, 2.0, 2.0], [None, 1.0, 1.0]]
    assert verdict(table).sentence == (
        "f0 (trial 10) is best: it beats its only rival on 5 fresh seeds (anytime-valid p < 0.05);"
        " 1 of its rivals diverged."
    )


def test_upwards_the_largest_wins() -> None:
    found = verdict([[2 + x for x in NOISE], [1 - x for x in NOISE]], direction="maximize")
    assert (found.chosen, found.standings[0].mean) == (10, pytest.approx(2.0))


def test_of_those_that_are_expected_to_lose_next_to_nothing_the_simplest_is_recommended() -> None:
    noise = np.random.default_rng(0).normal(size=(4, 8))
    noise -= noise.mean(axis=1, keepdims=True)
    table = noise + np.array([[0.0], [0.2], [0.5], [9.0]])
    found = verdict(table.tolist(), complexity=[5, 3, 1, 0])
    assert set(found.undecided) == {10, 11, 12}
    assert found.winner is None
    # shrunken hardly at all: the means spread far more than the noise explains
    assert found.standing(12).expected == pytest.approx(0.5, abs=0.1)
    assert found.chosen == 10
    assert found.sentence.startswith("No single winner on 8 fresh seeds: f0 (trial 10), f1")
    assert found.sentence.endswith(
        "Use f0 (trial 10), the simplest schedule expected to be within 0.1 noise "
        "standard deviations of the best."
    )
    generous = verdict(table.tolist(), complexity=[5, 3, 1, 0], tolerance=0.4)
    assert generous.chosen == 11
    assert "within 0.4 noise standard deviations" in generous.sentence


def test_where_chance_explains_all_differences_the_simplest_is_recommended() -> None:
    table = [[1.0, 3.0, 2.0, 2.0], [2.1, 1.0, 3.0, 2.0], [2.0, 2.1, 1.1, 3.0]]
    found = verdict(table, complexity=[5, 3, 4])
    assert len({each.expected for each in found.standings}) == 1
    assert found.chosen == 11


def test_scores_that_are_expected_by_others_decide_what_is_recommended() -> None:
    table = [[2 + x for x in NOISE], [1.99 - x for x in NOISE], [3 + x for x in NOISE]]
    expected = {10: 1.9, 11: 1.8995, 12: 2.5}
    found = verdict(table, complexity=[3, 4, 5], expected=expected)
    assert found.chosen == 10  # the noise has a deviation of 0.013
    assert {each.trial: each.expected for each in found.standings} == expected
    assert found.standings[0].trial == 11
    upwards = verdict(table, expected={10: 1.9, 11: 1.8, 12: 2.5}, direction="maximize")
    assert upwards.chosen == 12


def test_a_schedule_that_is_beaten_by_next_to_nothing_may_be_recommended() -> None:
    rng = np.random.default_rng(0)
    step, noise = 0.3 * rng.normal(size=60), rng.normal(size=(2, 60))
    table = [noise[0], noise[0] + 0.5 + step, noise[1] + 9, noise[1] + 9 + step]
    found = verdict(table, complexity=[5, 1, 3, 3], tolerance=1.0)
    assert found.undecided == (10,)
    assert (found.winner, found.chosen) == ("f0", 11)
    assert found.sentence == (
        "f0 (trial 10) is best: it beats each of its 3 rivals on 60 fresh seeds (anytime-valid "
        "p < 0.05). Use f1 (trial 11), the simplest schedule expected to be within 1 "
        "noise standard deviations of the best."
    )


def test_the_seeds_that_would_settle_it() -> None:
    # an effect of half a deviation: what is found four times in five has t = 0.5 sqrt(n) - 0.8416
    rival = (2.0 / np.std([-1.0, 1.0, -1.0, 1.0], ddof=1)) * np.array([-1.0, 1.0, -1.0, 1.0]) + 1
    found = verdict([[0.0] * 4, rival.tolist()])

    def enough(n: int) -> bool:
        t = 0.5 * math.sqrt(n) - 0.8416
        both = (1 + 2 * n) ** -0.5 * (
            (1 + t**2 / (n - 1)) / (1 + t**2 / ((n - 1) * (1 + 2 * n)))
        ) ** (n / 2)
        return 2 * both >= 40

    assert found.seeds_needed == next(n for n in range(5, 1000) if enough(n))
    assert found.possible == pytest.approx(1 + reach(rival))


def test_more_seeds_are_asked_for_than_there_have_been() -> None:
    found = verdict([[0.0] * 3, [1.0, 1.01, 0.99]])
    assert len(found.undecided) == 2
    assert (found.seeds_needed, found.possible) == (4, None)
    assert "told apart; about 4 seeds would settle" in found.sentence


def test_one_seed_pretends_nothing() -> None:
    found = verdict([[1.0], [2.0]])
    assert "one seed says nothing about the noise" in found.sentence
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


def test_who_has_run_with_fewer_seeds_is_compared_on_those() -> None:
    candidates = [make_record(0.1, number=n, family=f"f{n}") for n in (0, 1)]
    scores = {0: {1: 1.0, 2: 2.0, 3: 6.0}, 1: {1: 1.5, 2: 2.5}}
    found = judge(candidates, scores, direction="minimize")
    assert [each.scores for each in found.standings] == [scores[0], scores[1]]
    assert [each.mean for each in found.standings] == pytest.approx([3.0, 3.5])
    with pytest.raises(StudyError, match="no seed"):
        judge(candidates, {0: {1: 1.0}, 1: {}}, direction="minimize")


def test_it_stays_what_it_was_when_seeds_are_added() -> None:
    """Who is beaten at one look is beaten at all later ones, whatever these bring."""
    first = [[0.0] * 8, [1.0 + x for x in [*NOISE, 0.01, -0.01, 0.0]]]
    assert verdict(first).undecided == (10,)
    later = [[*first[0], *[0.9] * 4], [*first[1], *[0.0] * 4]]
    assert verdict(later).undecided == (10,)
    overtaken = [[*first[0], *[9.0] * 4], [*first[1], *[0.0] * 4]]
    assert verdict(overtaken).undecided == (
        11,
        10,
    )  # the leader by the means never counts as beaten


def test_one_finalist_has_no_rival() -> None:
    assert "had no rivals" in verdict([[1.0, 1.1]]).sentence
