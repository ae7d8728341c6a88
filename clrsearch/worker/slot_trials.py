"""The trials of slots: how one is begun or taken up again, what it may know of others, its failure.

Nothing here trains; all of it is in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clrsearch.causes import shortened
from clrsearch.errors import ExitCode, TaskError
from clrsearch.schedules import Trace, Value
from clrsearch.search import Record, Study
from clrsearch.storage import Slot, SlotState
from clrsearch.training import Checkpoints, Identity, Interrupted
from clrsearch.worker.failures import keeps_failing, told
from clrsearch.worker.losses import why_given_up

LONGEST_CURVES = 3000  # numbers of up to 20 characters
LONGEST_TRACEBACK = 10_000  # characters; MySQL stores 64 kB
FRESH_SECONDS = 2.0  # maximum age of the history used for pruning


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A slot's running trial: its trace, and the values stored by earlier attempts."""

    identity: Identity
    played: Trace
    values: Mapping[int, float]
    is_new: bool

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.identity.trial


class Trials:
    """The trials of a study's slots, as one worker needs them."""

    def __init__(
        self, study: Study, checkpoints: Checkpoints, on_note: Callable[[str], None]
    ) -> None:
        self._study = study
        self._checkpoints = checkpoints
        self._on_note = on_note
        self._fell_back = False  # to random schedules, and has reported it

    def take_up(self, slot: Slot, who: Mapping[str, Any]) -> Begun | None:
        """The slot's trial: a running one, a retry, or a new one; None if it has already ended.

        ``who`` says whose it is, to store with it. Looks before it creates anything, so that it can
        be retried after a database error.
        """
        study = self._study
        earlier = study.history.of_slot(slot.number)
        for record in earlier:  # recorded, but the worker died before it finished the slot
            told = record.state in ("complete", "pruned")
            if told or (record.number == slot.trial and record.final):
                study.slots.finish(slot, SlotState(record.end))
                self._checkpoints.remove(record.number)
                return None
        running = [record for record in earlier if record.state == "running"]
        for twice in running[1:]:
            study.log.discard(twice.number)
        if running and slot.losses:
            codes = study.log.loss_codes(running[0].number, slot.checkpoint)
            reason = why_given_up(slot.losses, codes)
            if reason is not None:
                left = codes and all(code == ExitCode.INTERRUPTED for code in codes)
                self.fail(slot, running[0].number, TaskError(reason), retry=False, blame=not left)
                return None
        family, params = self._schedule(slot, earlier)
        played = study.trace(family, params)
        if running:
            number, values = running[0].number, running[0].values
            study.log.resume(number, who)
        else:
            attributes = {**who} | epoch_ends(played.before(study.ends(params)))
            number, values = study.begin(slot, params, attributes, family), {}
        if not study.slots.bind(slot, number):  # the slot was lost before training started
            if not running:
                study.log.discard(number)
            raise Interrupted
        identity = Identity(
            study=study.uuid,
            trial=number,
            family=family,
            params=params,
            attempt=slot.attempt,
        )
        return Begun(identity=identity, played=played, values=values, is_new=not running)

    def _schedule(self, slot: Slot, earlier: Sequence[Record]) -> tuple[str, Mapping[str, Value]]:
        """Family and values for a slot's trial: those of its ``earlier`` trials, if any."""
        if earlier:
            return earlier[0].family, earlier[0].params
        if slot.finalist is not None:
            finalist = self._study.finalists()[slot.finalist]
            return finalist.family, finalist.params
        if self._study.plan.horizon is not None:
            planned = self._study.planned(slot.number)
            return planned.family, planned.params
        proposal = self._study.propose(slot, self._others(slot))
        if proposal.fallback and not self._fell_back:
            self._fell_back = True
            self._on_note(f"schedules are drawn at random for now: {proposal.fallback}")
        return proposal.family, proposal.params

    def _others(self, slot: Slot) -> list[Record]:
        """The trials of other slots, at most two seconds old."""
        records = self._study.history.records(FRESH_SECONDS)
        return [record for record in records if record.slot != slot.number]

    def rivals(self, slot: Slot, family: str) -> list[Record]:
        """The other slots' trials of one family."""
        return [record for record in self._others(slot) if record.family == family]

    def may_prune(self, family: str, params: Mapping[str, Value]) -> bool:
        """Whether a trial may be pruned; initial settings, baselines and confirmations may not."""
        study = self._study
        if study.plan.pruner == "none" or study.stage != "search":
            return False
        if family == study.plan.baseline:
            return False
        traces = study.traces
        return traces.number(family, params) not in traces.seed_points(family)

    def fail(
        self, slot: Slot, trial: int, error: TaskError, *, retry: bool = True, blame: bool = True
    ) -> None:
        """Fail the trial; reopen its slot for a retry, or use it up.

        With ``blame``, the study is stopped if its task keeps failing.

        Can be retried after a database error: the failure counts once, even if it has been stored
        already.
        """
        study = self._study
        traceback = shortened(told(error), LONGEST_TRACEBACK)
        earlier = [each for each in study.history.records() if each.number != trial]
        failures = sum(each.slot == slot.number and each.state == "failed" for each in earlier)
        final = not retry or failures >= study.plan.retries
        study.log.fail(trial, {"error": traceback, "final": final})
        if final:
            study.slots.finish(slot, SlotState.FAILED)
        else:
            study.slots.hand_back(slot, anew=True)
        live = [claim.worker for claim in study.slots.claims() if not claim.expired]
        if blame and keeps_failing(study.history.records(), live):
            study.stop(traceback)
        self._checkpoints.remove(trial)


def epoch_ends(ends: Trace) -> dict[str, Any]:
    """Rates and momenta to store with a trial for display, (groups, epochs) each.

    Empty if they would exceed MySQL's 64 kB; they follow from the parameters anyway.
    """
    if ends.rates.size > LONGEST_CURVES:
        return {}
    momenta = {} if ends.momenta is None else {"momenta": ends.momenta.tolist()}
    return {"rates": ends.rates.tolist(), **momenta}
