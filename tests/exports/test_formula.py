"""The closed form as source: its text, worked out by hand, and its values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contracts.test_families import LONG, schedules
from exported import CYCLIC, EPOCHS, FORMULAS, HORIZON, SCHEDULES, found

from clrsearch.errors import ScheduleError
from clrsearch.exports.formula import curves_of, function
from clrsearch.schedules import FAMILIES, Cosine, Curves, WarmupStableDecay


@pytest.mark.parametrize("schedule", FORMULAS, ids=repr)
def test_it_is_the_schedule(schedule) -> None:
    curves = curves_of(found(schedule), "numpy")
    assert (curves.momentum is None) == (found(schedule).trace.momenta is None)


@pytest.mark.parametrize("schedule", schedules(LONG, fractions=False), ids=repr)
def test_it_is_the_schedule_over_a_long_horizon(schedule) -> None:
    exported = found(schedule)
    longer = replace(exported.file, epochs=EPOCHS * LONG // HORIZON)
    if schedule.curves(LONG) is not None:
        curves_of(replace(exported, file=longer), "numpy")


def test_there_is_one_for_every_family_but_a_users_function() -> None:
    # schedule_free is an optimizer: tests/contracts/test_schedule_free.py
    assert {each.family for each in FORMULAS} == set(FAMILIES) - {"schedule_free"}
    functions = [each for each in SCHEDULES if each not in FORMULAS]
    assert all(isinstance(each.rates, str) for each in functions)  # type: ignore[attr-defined]


def test_pieces_follow_on_each_other() -> None:
    schedule = WarmupStableDecay(lr=1.0, warmup=3, horizon=84, decay=20, min_lr=0.25)
    assert function("rate", "Says.", schedule.curves(84).rate, "ops") == (
        "def rate(step):\n"
        '    """Says."""\n'
        "    progress = ops.clip(step / 3.0, 0.0, 1.0)\n"
        "    value = 0.25 + 0.75 * progress\n"
        "    value = ops.where(step < 3.0, value, 1.0)\n"
        "    progress = ops.clip((step - 64.0) / 20.0, 0.0, 1.0)\n"
        "    return ops.where(step < 64.0, value, 1.0 - 0.75 * progress)"
    )


def test_cycles_have_a_height() -> None:
    schedule = replace(CYCLIC, base_lr=0.25, max_lr=1.0, step_size_up=2.5, step_size_down=1.5)
    assert function("rate", "Says.", schedule.curves(84).rate, "jnp") == (
        "def rate(step):\n"
        '    """Says."""\n'
        "    cycle = 1.0 + jnp.floor(step / 4.0)\n"
        "    place = step - 4.0 * (cycle - 1.0)\n"
        "    height = jnp.where(place <= 2.5, place / 2.5, (4.0 - place) / 1.5)\n"
        "    height = height * 0.5 ** (cycle - 1.0)\n"
        "    return 0.25 + 0.75 * height"
    )


class Wrong(Cosine):
    """A cosine whose data are those of another."""

    def curves(self, horizon: int) -> Curves:
        return Cosine(lr=self.lr + 1e-10, horizon=self.horizon).curves(horizon)


def test_a_formula_of_another_schedule_is_noticed() -> None:
    with pytest.raises(
        ScheduleError, match="formula deviates from the schedule at step 0 by 1e-10"
    ):
        curves_of(found(Wrong(lr=0.3, horizon=HORIZON)), "numpy")


def test_the_length_of_a_cycle_is_split_for_single_precision() -> None:
    text = function("rate", "Says.", replace(CYCLIC, step_size_up=2.6).curves(84).rate, "jnp")
    rest = 5.2 - 5.1875
    assert f"    place = step - 5.1875 * (cycle - 1.0) - {rest!r} * (cycle - 1.0)\n" in text
