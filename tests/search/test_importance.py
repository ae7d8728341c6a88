"""Importances: the parameter that decides has the largest share."""

from __future__ import annotations

import random

from records import make_record

from clrsearch.schedules import Choice, Parameter, Range
from clrsearch.search import LEAST_FOR_IMPORTANCES, importances

SPACE = {
    "rate": Parameter(domain=Range(low=0.0, high=1.0)),
    "other": Parameter(domain=Range(low=0.0, high=1.0)),
    "mode": Parameter(domain=Choice(options=("a", "b"))),
    "gamma": Parameter(domain=Range(low=0.0, high=1.0), when=("mode", "a")),
}


def records(count: int) -> list:
    draw = random.Random(0)
    found = []
    for number in range(count):
        params = {"rate": draw.random(), "other": draw.random(), "mode": draw.choice("ab")}
        if params["mode"] == "a":
            params["gamma"] = draw.random()
        found.append(make_record((params["rate"] - 0.3) ** 2, number=number, params=params))
    return found


def test_what_decides_has_the_largest_share() -> None:
    shares = importances(records(100), SPACE, direction="minimize")
    assert next(iter(shares)) == "rate"
    assert set(shares) == {"rate", "other", "mode", "gamma"}
    assert abs(sum(shares.values()) - 1) < 1e-9
    assert shares["rate"] > 0.6


def test_with_too_few_trials_there_is_none() -> None:
    few = records(LEAST_FOR_IMPORTANCES - 1)
    assert importances(few, SPACE, direction="minimize") == {}
    pruned = make_record(0.5, number=99, state="pruned", params={"rate": 0.5})
    assert importances([*few, pruned], SPACE, direction="minimize") == {}


def test_where_all_score_the_same_nothing_is_told() -> None:
    same = [make_record(0.5, number=each.number, params=dict(each.params)) for each in records(40)]
    assert importances(same, SPACE, direction="minimize") == {}


def test_a_family_without_parameters() -> None:
    found = [make_record(0.5, number=number) for number in range(30)]
    assert importances(found, {}, direction="maximize") == {}
