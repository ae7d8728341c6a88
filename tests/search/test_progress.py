"""What is left of a study, from counts written by hand."""

from __future__ import annotations

import pytest

from clrsearch.search import Phase, Progress, StudyPlan
from clrsearch.storage import SlotState

DONE = {SlotState.COMPLETE: 5, SlotState.PRUNED: 1}
HALF = {SlotState.COMPLETE: 3, SlotState.OPEN: 2, SlotState.CLAIMED: 1}


def progress(search, confirmation=None, *, confirm=None, families=("cyclic",), **marks) -> Progress:
    plan = {"task": "digits", "trials": 6, "families": families, "confirm": confirm or {}}
    usual = {"live": 0, "stopped": False, "confirmation_stopped": False, "cancelled": False}
    return Progress(
        plan=StudyPlan.model_validate(plan),
        search=search,
        confirmation=confirmation,
        **usual | marks,
    )


@pytest.mark.parametrize(
    ("found", "phase"),
    [
        (progress(HALF), Phase.SEARCHING),
        (progress(HALF, stopped=True), Phase.STOPPED),
        (progress(HALF, cancelled=True), Phase.SEARCHING),
        (progress(DONE), Phase.BETWEEN_ROUNDS),
        (progress(DONE, confirm={"enabled": False}), Phase.ENDED),
        (progress(DONE, HALF, confirm={"enabled": False}), Phase.ENDED),
        (progress(DONE, cancelled=True), Phase.ENDED),
        (progress({SlotState.FAILED: 6}), Phase.ENDED),
        (progress(DONE, HALF), Phase.CONFIRMING),
        (progress(DONE, HALF, cancelled=True), Phase.CONFIRMING),
        (progress(DONE, HALF, confirmation_stopped=True), Phase.STOPPED),
        (progress(DONE, DONE), Phase.BETWEEN_ROUNDS),
        (progress(DONE, DONE, cancelled=True), Phase.ENDED),
    ],
)
def test_what_a_study_does_next(found, phase) -> None:
    assert found.phase is phase


def test_a_disabled_confirmation_is_not_left_to_do() -> None:
    assert progress(DONE, HALF, live=1).left == 3
    assert progress(DONE, HALF, live=1).free == 2
    assert progress(DONE, HALF, confirm={"enabled": False}).left == 0


@pytest.mark.parametrize(
    ("found", "busy"),
    [
        (progress(HALF, confirm={"enabled": False}), 3),
        (progress(HALF, confirm={"top": 3, "seeds": 5}), 20),  # the baseline's runs too
        (progress(HALF, confirm={"top": 3}), 8),  # two seeds each in the first round
        (progress(HALF, cancelled=True), 3),
        (progress(DONE, HALF), 3),
        (progress(HALF, confirm={"top": 1}, families=("cyclic", "step", "linear")), 8),
    ],
)
def test_how_many_workers_can_be_busy(found, busy) -> None:
    assert found.busy == busy
