"""What contradicts itself among slots and trials is named, and what passes is told apart."""

from __future__ import annotations

import pytest
from records import make_record

from clrsearch.search import Record, misfits
from clrsearch.storage import SlotState

OPEN, CLAIMED, COMPLETE = SlotState.OPEN, SlotState.CLAIMED, SlotState.COMPLETE
PRUNED, DIVERGED, FAILED = SlotState.PRUNED, SlotState.DIVERGED, SlotState.FAILED


def trial(number, slot, end, epochs=3) -> Record:
    return make_record(
        *[0.5] * epochs,
        number=number,
        slot=slot,
        state="pruned" if end == "diverged" else end,
        diverged=end == "diverged",
        final=end == "failed",
    )


def found(slots, trials) -> dict[str, bool]:
    states = dict(enumerate(slots))
    return {
        each.says: each.passing for each in misfits(states, trials, budget=len(slots), epochs=3)
    }


def test_a_study_in_order() -> None:
    slots = [COMPLETE, PRUNED, DIVERGED, FAILED, CLAIMED, OPEN, OPEN, SlotState.CANCELLED]
    trials = [
        *(trial(0, 0, "complete"), trial(1, 1, "pruned", 1), trial(2, 2, "diverged", 0)),
        *(trial(3, 3, "failed", 1), trial(4, 3, "failed", 1)),  # with one more try
        *(trial(5, 4, "running", 2), trial(6, 5, "running", 1), trial(7, 6, "failed", 0)),
    ]
    assert found(slots, trials) == {}


@pytest.mark.parametrize(
    ("slots", "trials", "says", "passing"),
    [
        ([COMPLETE], [], "slots 0: used up, but none of their trials ended in that state", False),
        ([PRUNED], [trial(0, 0, "diverged")], "slots 0: used up, but none of their trials", False),
        ([FAILED], [trial(0, 0, "running")], "slots 0: used up, but none of their trials", False),
        (
            [COMPLETE],
            [trial(0, 0, "complete"), trial(1, 0, "pruned")],
            "slots 0: used up twice",
            False,
        ),
        ([CLAIMED], [trial(4, 0, "complete")], "trials 4: ended, but their slots are not", True),
        ([OPEN], [trial(4, 0, "pruned")], "trials 4: ended, but their slots are not", True),
        (
            [COMPLETE],
            [trial(0, 0, "complete"), trial(9, 0, "running")],
            "trials 9: running, but their slots are used up",
            True,
        ),
        ([OPEN], [trial(3, 1, "running")], "trials 3: not in any slot", False),
        (
            [COMPLETE],
            [trial(0, 0, "complete", 2)],
            "trials 0: complete, but their values are not those of epochs 1 to 3",
            False,
        ),
    ],
)
def test_what_does_not_fit_is_named(slots, trials, says, passing) -> None:
    said = found(slots, trials)
    assert passing in [each for text, each in said.items() if text.startswith(says)]


def test_missing_slots_are_counted_against_the_budget() -> None:
    (missing,) = misfits({0: OPEN, 4: OPEN}, [], budget=12, epochs=3)
    assert missing.says == "slots 1, 2, 3, 5, 6 and 5 others: missing"
    assert missing.passing


def test_what_a_trial_counts_in_is_said() -> None:
    trials = [trial(0, 0, "complete", 2)]
    (partial,) = misfits({0: COMPLETE}, trials, budget=1, epochs=3, unit="validation")
    assert partial.says.endswith("their values are not those of validations 1 to 3")


def test_of_a_cancelled_slot_a_trial_may_have_ended() -> None:
    assert found([SlotState.CANCELLED], [trial(0, 0, "complete")]) == {}
    assert list(found([SlotState.CANCELLED], [trial(0, 0, "running")]).values()) == [True]
