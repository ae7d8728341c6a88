"""The sampler: pure, inside the space, and better than chance on a function with a known best."""

from __future__ import annotations

import math

import pytest
from records import make_record
from spaces import require_inside

from clrsearch.schedules import FAMILIES, Cyclic, Setting
from clrsearch.search import Record, suggest
from clrsearch.search.history import telling
from clrsearch.search.sampler import REDRAWN, REPLAYED, STARTUP

SETTING = Setting(
    epochs=20, steps_per_epoch=31, base_lr=0.05, momentum="momentum", manual=((20, 0.1),)
)
SPACE = Cyclic.space(SETTING)


def record(number, params, value, **changes) -> Record:
    values = () if value is None else (value,)
    return make_record(*values, number=number, params=params, **changes)


def draw(history, seed):
    return suggest(history, SPACE, direction="minimize", seed=seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_drawn_lies_in_the_space(family) -> None:
    space = FAMILIES[family].space(SETTING)
    history = []
    for seed in range(25):
        params = suggest(history, space, direction="minimize", seed=seed)
        require_inside(params, space)
        FAMILIES[family].build(params, SETTING)
        rate = next(value for name, value in params.items() if name in ("lr", "max_lr", "scale"))
        history.append(record(seed, params, float(rate), family=family))


def test_the_same_history_and_seed_give_the_same_parameters() -> None:
    history = [record(n, draw([], n), float(n % 7)) for n in range(STARTUP + 5)]
    assert draw(history, 3) == draw(history, 3)
    assert draw(history, 3) != draw(history, 4)
    assert draw(history, 3) != draw(history[:STARTUP], 3)


def test_it_finds_a_known_best_better_than_chance() -> None:
    def far(params) -> float:
        return abs(math.log(params["max_lr"] / 0.2)) + abs(math.log(params["base_ratio"] / 0.05))

    history: list[Record] = []
    for seed in range(60):
        params = draw(history, seed)
        history.append(record(seed, params, far(params)))
    late = sorted(r.value for r in history[30:])[15]
    chance = sorted(far(draw([], seed)) for seed in range(30))[15]
    assert late < chance / 2


def test_it_keeps_away_from_what_diverged() -> None:
    history = []
    for seed in range(40):
        params = draw(history, seed)
        diverged = params["max_lr"] > 0.3
        state = "pruned" if diverged else "complete"
        value = None if diverged else abs(math.log(params["max_lr"] / 0.1))
        history.append(record(seed, params, value, state=state, diverged=diverged))
    late = [r.diverged for r in history[STARTUP:]]
    chance = [draw([], seed)["max_lr"] > 0.3 for seed in range(100)]
    assert sum(late) / len(late) < sum(chance) / len(chance)


def test_failed_trials_say_nothing() -> None:
    history = [record(n, draw([], n), float(n)) for n in range(STARTUP)]
    failed = record(99, draw([], 99), 0.0, state="failed")
    assert draw([*history, failed], 5) == draw(history, 5)


@pytest.mark.parametrize(("direction", "best"), [("minimize", 0.0), ("maximize", 1499.0)])
def test_a_long_history_is_cut_to_the_best_and_the_latest(direction, best) -> None:
    params = draw([], 0)
    history = [record(n, params, float((n * 7) % 1500)) for n in range(1500)]
    kept = telling(history, direction, most=REPLAYED)
    assert len(kept) == REPLAYED
    assert [r.number for r in kept] == sorted(r.number for r in kept)
    assert best in [r.value for r in kept]
    assert {r.number for r in kept} >= set(range(1400, 1500))


def test_what_has_been_tried_is_drawn_again() -> None:
    history = [record(n, draw([], n), float(n)) for n in range(STARTUP)]

    def after_three():
        seen = []

        def tried(params) -> bool:
            seen.append(params)
            return len(seen) < 4

        return suggest(history, SPACE, direction="minimize", seed=3, tried=tried), seen

    found, seen = after_three()
    assert (seen[0], found, len(seen)) == (draw(history, 3), seen[3], 4)
    assert after_three() == (found, seen)


def test_where_all_has_been_tried_it_is_tried_again() -> None:
    asked = []

    def tried(params) -> bool:
        asked.append(params)
        return True

    assert suggest([], SPACE, direction="minimize", seed=3, tried=tried) == draw([], 3)
    assert len(asked) == REDRAWN + 1
