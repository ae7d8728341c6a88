"""Values drawn from a space, and neighbours of values in it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from clrsearch.schedules import Choice, Parameter, Range
from clrsearch.search.candidates import draw, neighbour

SPACE = {
    "mode": Parameter(domain=Choice(options=("one", "two"))),
    "rate": Parameter(domain=Range(low=1e-3, high=1.0, log=True)),
    "share": Parameter(domain=Range(low=0.2, high=0.8)),
    "cycles": Parameter(domain=Range(low=1, high=4, integer=True)),
    "fixed": Parameter(domain=Range(low=0.5, high=0.5)),
    "extra": Parameter(domain=Range(low=0.0, high=1.0), when=("mode", "two")),
}


def drawn(count=4000):
    generator = np.random.default_rng(3)
    return [draw(SPACE, generator) for _ in range(count)]


def test_draws_are_even_over_each_range() -> None:
    found = drawn()
    logs = [(math.log(each["rate"]) - math.log(1e-3)) / math.log(1e3) for each in found]
    shares = [(each["share"] - 0.2) / 0.6 for each in found]
    for places in (logs, shares):
        assert stats.kstest(places, "uniform").pvalue > 0.001
    cycles = [each["cycles"] for each in found]
    assert all(type(each) is int for each in cycles)
    assert stats.chisquare(np.bincount(cycles)[1:]).pvalue > 0.001
    assert {each["fixed"] for each in found} == {0.5}


def test_what_does_not_apply_is_not_drawn() -> None:
    for each in drawn(50):
        assert ("extra" in each) == (each["mode"] == "two")


def test_neighbours_are_near_and_inside() -> None:
    generator = np.random.default_rng(4)
    params = {"mode": "one", "rate": 1e-3, "share": 0.8, "cycles": 4, "fixed": 0.5}
    near = [neighbour(params, SPACE, generator) for _ in range(500)]
    assert all(1e-3 <= each["rate"] <= 1.0 for each in near)
    assert all(0.2 <= each["share"] <= 0.8 for each in near)
    assert {each["cycles"] for each in near} <= {2, 3, 4, 1}
    assert {each["fixed"] for each in near} == {0.5}
    assert all(("extra" in each) == (each["mode"] == "two") for each in near)
    moved = [math.log10(each["rate"]) + 3 for each in near if each["rate"] != 1e-3]
    assert 0.2 < np.median(moved) < 0.6  # of a range of 3 decades
    unchanged = [sum(each[name] == params[name] for name in params) for each in near]
    assert 3 < np.mean(unchanged) < 4.5


def test_a_space_of_one_point_has_one_neighbour() -> None:
    space = {"lr": Parameter(domain=Range(low=0.1, high=0.1, log=True))}
    assert neighbour({"lr": 0.1}, space, np.random.default_rng(0)) == {"lr": pytest.approx(0.1)}
