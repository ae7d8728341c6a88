"""Evidence that may be looked at after every seed: against integrals, by hand, and by draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from clrsearch.search.anytime_tests import PRIOR, among_the_best, evidence, reach, seeds_until

DIFFERENCES = np.array([0.3, -0.1, 0.5, 0.2, 0.4, 0.1, 0.6, 0.2, 0.3, -0.3])


def integrated(differences) -> float:
    """The noncentral t's likelihood over half of a normal prior, to the central one's."""
    n = len(differences)
    t = math.sqrt(n) * np.mean(differences) / np.std(differences, ddof=1)

    def weighted(effect: float) -> float:
        prior = 2 * stats.norm.pdf(effect, scale=math.sqrt(PRIOR))
        return float(stats.nct.pdf(t, n - 1, math.sqrt(n) * effect) * prior)

    return integrate.quad(weighted, 0, 8, limit=200)[0] / stats.t.pdf(t, n - 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_is_the_integral_of_the_noncentral_t_over_the_prior(sign) -> None:
    found = np.exp(evidence(sign * DIFFERENCES))
    assert found[0] == 1.0
    for n in range(2, len(DIFFERENCES) + 1):
        assert found[n - 1] == pytest.approx(integrated(sign * DIFFERENCES[:n]), rel=1e-6)


def test_both_signs_together_are_the_closed_form_of_the_paper() -> None:
    n, nu = len(DIFFERENCES), len(DIFFERENCES) - 1
    t = math.sqrt(n) * DIFFERENCES.mean() / DIFFERENCES.std(ddof=1)
    paper = (1 + n * PRIOR) ** -0.5 * ((1 + t**2 / nu) / (1 + t**2 / (nu * (1 + n * PRIOR)))) ** (
        (nu + 1) / 2
    )
    halves = [float(np.exp(evidence(sign * DIFFERENCES))[-1]) for sign in (1.0, -1.0)]
    assert sum(halves) / 2 == pytest.approx(paper, rel=1e-12)


def test_the_unit_of_the_metric_does_not_matter() -> None:
    assert evidence(1e-9 * DIFFERENCES) == pytest.approx(evidence(DIFFERENCES), rel=1e-9)


def test_no_differences_are_no_evidence_and_equal_ones_have_a_limit() -> None:
    assert evidence(np.zeros(5)).max() == 0.0
    found = np.exp(evidence(np.ones(5)))
    assert all(found[n - 1] <= 2 * (1 + n * PRIOR) ** ((n - 1) / 2) for n in range(1, 6))
    assert found[-1] == pytest.approx(2 * 11**2, rel=1e-3)
    assert np.isneginf(evidence(-np.ones(2000))[-1])


def test_two_are_corrected_twice_and_the_strongest_look_counts() -> None:
    p = among_the_best(np.array([np.zeros(10), DIFFERENCES]))
    assert p[0] == 1.0
    strongest = max(integrated(DIFFERENCES[:n]) for n in range(2, 11))
    assert strongest > integrated(DIFFERENCES)
    assert p[1] == pytest.approx(2 / strongest, rel=1e-6)


def test_several_are_corrected_for_their_rivals_and_by_holm() -> None:
    other = 2 * DIFFERENCES + np.tile([0.2, 0.3], 5)
    p = among_the_best(np.array([DIFFERENCES, np.zeros(10), other]))

    def strongest(*pairs: np.ndarray) -> float:
        return max(integrated(each[:n]) for each in pairs for n in range(2, 11))

    raw = [2 / strongest(DIFFERENCES), 2 / strongest(other, other - DIFFERENCES)]
    assert raw[1] < raw[0]
    assert p == pytest.approx([max(2 * raw[0], 3 * raw[1]), 1.0, 3 * raw[1]], rel=1e-6)


def test_a_pair_is_compared_on_the_seeds_that_both_have() -> None:
    holes = np.array([np.zeros(12), np.full(12, np.nan)])
    holes[1, :10] = DIFFERENCES
    assert among_the_best(holes) == pytest.approx(
        among_the_best(np.array([np.zeros(10), DIFFERENCES])), rel=1e-12
    )
    apart = np.array([[1.0, 1.0, np.nan, np.nan], [np.nan, np.nan, 9.0, 9.0]])
    assert among_the_best(apart).tolist() == [1.0, 1.0]


def test_of_one_schedule_or_one_seed_nothing_is_told() -> None:
    assert among_the_best(np.array([[1.0, 2.0]])).tolist() == [1.0]
    assert among_the_best(np.array([[1.0], [2.0], [3.0]])).tolist() == [1.0] * 3
    assert among_the_best(np.ones((3, 4))).tolist() == [1.0] * 3


def test_the_interval_ends_where_the_evidence_of_both_signs_is_as_large_as_allowed() -> None:
    mean = DIFFERENCES.mean()
    for end in (mean - reach(DIFFERENCES), mean + reach(DIFFERENCES)):
        both = [np.exp(evidence(sign * (DIFFERENCES - end)))[-1] for sign in (1.0, -1.0)]
        assert sum(both) / 2 == pytest.approx(1 / 0.05, rel=1e-9)
    assert math.isinf(reach(DIFFERENCES[:3]))
    assert math.isfinite(reach(DIFFERENCES[:4]))


def test_the_seeds_until_there_is_enough_are_right_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    needed = seeds_until(1.0, enough=120, most=1000)
    draws = 1.0 + rng.normal(size=(400, int(needed)))
    enough = [evidence(each).max() >= math.log(120) for each in draws]
    assert np.mean(enough) == pytest.approx(0.8, abs=0.06)
    assert math.isinf(seeds_until(0.01, enough=120, most=1000))


def test_looked_at_after_every_seed_equal_schedules_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(0)
    beaten = [
        (among_the_best(rng.normal(size=(4, 60)) + rng.normal(size=60)) <= 0.05).any()
        for _ in range(300)
    ]
    assert np.mean(beaten) <= 0.05


def test_a_planted_best_is_found() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        table = rng.normal(size=(6, 16)) + 2 * rng.normal(size=16)
        table[3] -= 3
        found.append((among_the_best(table) <= 0.05).tolist() == [i != 3 for i in range(6)])
    assert np.mean(found) > 0.9
