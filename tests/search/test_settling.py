"""When a search has little left to find."""

from __future__ import annotations

import numpy as np
import pytest
from facts import make_facts
from records import make_record

from clrsearch.search import build_space, load_plan
from clrsearch.search.candidates import draw
from clrsearch.search.posteriors import Searched
from clrsearch.search.settling import is_settled, promise
from clrsearch.search.trace_features import Points
from clrsearch.search.traces import Traces

FACTS = make_facts()


def searched() -> Searched:
    plan = load_plan(None, {"families": ["constant"]})
    space = build_space(plan, FACTS)
    return Searched(
        plan=plan,
        space=space,
        traces=Traces(space, FACTS),
        points=Points(space),
        direction="minimize",
    )


def trials(about: Searched, count: int, *, noise: float = 0.3, **changes) -> list:
    """Random rates, scored by the square of their logarithm's distance from that of 0.05."""
    generator, other = np.random.default_rng(5), np.random.default_rng(1)
    found = []
    for number in range(count):
        params = draw(about.space.families["constant"], generator)
        value = np.log(float(params["lr"]) / 0.05) ** 2 + noise * other.standard_normal()
        found.append(
            make_record(float(value), number=number, family="constant", params=params, **changes)
        )
    return found


def test_it_is_never_settled_before_the_surrogate_has_proposed_some() -> None:
    about = searched()
    few = trials(about, 49, noise=0.001)
    assert not is_settled(few, about)
    for state in ("running", "failed"):
        assert not is_settled([*few, *trials(about, 9, noise=0.001, state=state)], about)


def test_a_search_goes_on_while_another_trial_promises_something() -> None:
    about = searched()
    assert not is_settled(trials(about, 50), about)


def test_a_search_that_knows_the_best_is_settled() -> None:
    about = searched()
    assert is_settled(trials(about, 80, noise=0.001), about)


def test_the_same_trials_decide_the_same() -> None:
    about = searched()
    told = trials(about, 40, noise=0.1)
    assert promise(told, about, seed=40) == promise(list(told), searched(), seed=40)


@pytest.mark.parametrize("state", ["pruned", "complete"])
def test_without_complete_trials_to_fit_it_goes_on(state) -> None:
    about = searched()
    told = trials(about, 60, noise=0.1, state=state, diverged=True)
    assert not is_settled(told, about)
