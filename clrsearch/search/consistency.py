"""Consistency checks between a study's slots and trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clrsearch.search.history import Record
from clrsearch.search.horizon_runs import EPOCHS
from clrsearch.storage import UNFINISHED, SlotState

NAMED = 5  # slots or trials listed in one message
TOLD = {SlotState.COMPLETE, SlotState.PRUNED, SlotState.DIVERGED}

Mender = Literal["run", "worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """An inconsistency, and the command that repairs it if a killed process caused it."""

    says: str
    mended_by: Mender | None

    @property
    def passing(self) -> bool:
        """Whether the next process repairs it."""
        return self.mended_by is not None


def misfits(
    slots: Mapping[int, SlotState],
    records: Sequence[Record],
    *,
    budget: int,
    epochs: int,
    unit: str = "epoch",
) -> list[Misfit]:
    """Find contradictions between a study's slots (state by number) and its trials.

    A consistent study has ``budget`` slots, and ``epochs`` values in every complete trial that has
    no length of its own; it counts them in so many of a ``unit``.
    """
    told: dict[int, list[Record]] = {}
    for record in records:
        if record.end in TOLD:
            told.setdefault(record.slot, []).append(record)
    failed = {record.slot for record in records if record.state == "failed"}
    ended = {number for number, state in slots.items() if state in {*TOLD, SlotState.FAILED}}
    untold = [
        number
        for number in ended
        if slots[number] not in [each.end for each in told.get(number, [])]
        and not (slots[number] == SlotState.FAILED and number in failed)
    ]
    open_still = {number for number, state in slots.items() if state in UNFINISHED}
    early = [each for some in told.values() for each in some if each.slot in open_still]
    orphans = [
        each
        for each in records
        if each.state == "running" and each.slot in slots.keys() - open_still
    ]
    partial = [
        each
        for each in records
        if each.state == "complete"
        and list(each.values) != list(range(1, int(each.params.get(EPOCHS, epochs)) + 1))
    ]
    found = [
        _slots(set(range(budget)) - set(slots), "missing", mended_by="run"),
        _slots(untold, "used up, but none of their trials ended in that state"),
        _slots([number for number, each in told.items() if len(each) > 1], "used up twice"),
        _trials(early, "ended, but their slots are not used up", mended_by="worker"),
        _trials(orphans, "running, but their slots are used up", mended_by="worker"),
        _trials([each for each in records if each.slot not in slots], "not in any slot"),
        _trials(partial, f"complete, but their values are not those of {unit}s 1 to {epochs}"),
    ]
    return [misfit for misfit in found if misfit is not None]


def _slots(
    numbers: Collection[int], what: str, *, mended_by: Mender | None = None
) -> Misfit | None:
    return _misfit("slots", numbers, what, mended_by)


def _trials(
    records: Sequence[Record], what: str, *, mended_by: Mender | None = None
) -> Misfit | None:
    return _misfit("trials", [each.number for each in records], what, mended_by)


def _misfit(
    kind: str, numbers: Collection[int], what: str, mended_by: Mender | None
) -> Misfit | None:
    if not numbers:
        return None
    named = ", ".join(str(number) for number in sorted(numbers)[:NAMED])
    more = f" and {len(numbers) - NAMED} others" if len(numbers) > NAMED else ""
    return Misfit(says=f"{kind} {named}{more}: {what}", mended_by=mended_by)
