"""What is left to do in a study, from the states of its slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from clrsearch.search.allocation import OPENING
from clrsearch.search.plan import StudyPlan
from clrsearch.storage import SlotState, unfinished


class Phase(StrEnum):
    """What a study does next."""

    STOPPED = "stopped"  # the task's code failed repeatedly
    SEARCHING = "searching"
    CONFIRMING = "confirming"
    BETWEEN_ROUNDS = "between rounds"  # the confirmation's next runs, if any, are to be chosen
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a search and its confirmation.

    Attributes:
        plan: the search's plan.
        search: number of the search's slots by state.
        confirmation: number of the confirmation's slots by state; None if it has not started.
        live: number of slots that a live worker holds.
        stopped: whether the search was stopped because of the task's code.
        confirmation_stopped: likewise.
        cancelled: whether either of them was cancelled.
    """

    plan: StudyPlan
    search: Mapping[SlotState, int]
    confirmation: Mapping[SlotState, int] | None
    live: int
    stopped: bool
    confirmation_stopped: bool
    cancelled: bool

    @property
    def may_confirm(self) -> bool:
        """Whether the search has ended with something to confirm, and is not cancelled."""
        return (
            not self.stopped
            and not self.cancelled
            and not unfinished(self.search)
            and self.search.get(SlotState.COMPLETE, 0) > 0
        )

    @property
    def phase(self) -> Phase:
        """What the study does next, without the confirmation if the plan disables it."""
        if self.stopped or self.confirmation_stopped:
            return Phase.STOPPED
        if unfinished(self.search):
            return Phase.SEARCHING
        if not self.plan.confirm.enabled:
            return Phase.ENDED
        if unfinished(self.confirmation or {}):
            return Phase.CONFIRMING
        return Phase.BETWEEN_ROUNDS if self.may_confirm else Phase.ENDED

    @property
    def left(self) -> int:
        """Number of slots that are not used up, with those of an enabled confirmation."""
        confirmation = self.confirmation if self.plan.confirm.enabled else None
        return unfinished(self.search) + unfinished(confirmation or {})

    @property
    def free(self) -> int:
        """Number of slots left that no live worker holds."""
        return self.left - self.live

    @property
    def busy(self) -> int:
        """The most workers that can be busy at once, now or in an upcoming confirmation."""
        plan, confirm = self.plan, self.plan.confirm
        if not confirm.enabled:
            return unfinished(self.search)
        if self.confirmation is not None:
            runs = unfinished(self.confirmation)
        elif self.cancelled:
            runs = 0
        else:
            runs = max(confirm.top + 1, len(plan.searched)) * (confirm.seeds or OPENING)
        return max(unfinished(self.search), runs)
