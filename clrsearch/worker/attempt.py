"""One worker's attempt at a slot's trial: train, report, prune, checkpoint, record the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from clrsearch.errors import StorageError, TaskError
from clrsearch.search import PRUNERS, Record, Study, hopeless
from clrsearch.storage import DATABASE_ERRORS, Patience, Slot, SlotState
from clrsearch.training import (
    Checkpoints,
    Diverged,
    Epoch,
    Identity,
    Interrupted,
    LaneRun,
    Run,
    SequentialRun,
)
from clrsearch.worker.lease import Lease
from clrsearch.worker.outbox import Outbox
from clrsearch.worker.sharing import Beginning
from clrsearch.worker.watchdog import Watchdog

SETTLE_SECONDS = 0.2  # between two checks whether an outage is over
REPORT_SECONDS = 0.5  # minimum interval between reports; a live view polls as often
SAVES_APART = 20  # in times of what the last one took: saving costs at most 5 % of the time


class TrialEnded(Exception):
    """The trial's result has been recorded by another worker, which held the slot before."""


class Attempt:
    """One attempt at a trial, from its start or where it was interrupted, to its end.

    Nothing is written for a slot whose lease was not renewed recently. During a database outage the
    training continues, and its values are buffered.
    """

    def __init__(
        self,
        study: Study,
        slot: Slot,
        lease: Lease,
        run: Run | LaneRun,
        checkpoints: Checkpoints,
        *,
        identity: Identity,
        stored: Mapping[int, float],
        inherited: Mapping[int, float],
        beginning: Beginning | None,
        rates: Sequence[float],
        rivals: Callable[[], list[Record]] | None,
        checkpoint_seconds: float,
        beside: int,
        patience: Patience,
        sleep: Callable[[float], None],
        watchdog: Watchdog,
        on_save: Callable[[], None],
    ) -> None:
        """Prepare an attempt; :meth:`train` runs it.

        Args:
            study: the slot's study.
            slot: the claimed slot.
            lease: the slot's lease.
            run: the training run.
            checkpoints: where checkpoints are stored.
            identity: the trial's identity in its checkpoints.
            stored: values reported by earlier attempts, by epoch.
            inherited: values of the epochs that another trial has trained for this one.
            beginning: what the trial has in common with others; None if nothing.
            rates: learning rates at the ends of the epochs.
            rivals: returns the trials to prune against; None to never prune.
            checkpoint_seconds: minimum interval between checkpoints; longer if one takes long.
            beside: the number of trials that wait while one is saved, itself included.
            patience: retries database calls during an outage.
            sleep: interruptible sleep.
            watchdog: detects hanging task code.
            on_save: called after each checkpoint.
        """
        self._study = study
        self._slot = slot
        self._lease = lease
        self._identity = identity
        self._trial = identity.trial
        self._run = run
        self._checkpoints = checkpoints
        self._rates = rates
        self._rivals = rivals
        self._checkpoint_seconds = checkpoint_seconds
        self._saves_apart = SAVES_APART * beside
        self._patience = patience
        self._sleep = sleep
        self._watchdog = watchdog
        self._on_save = on_save
        self._outbox = Outbox(stored, partial(_report, study, identity.trial))
        self._inherited = inherited
        self._beginning = beginning
        self._length = len(study.ends(identity.params))
        self._saved_at = time.monotonic()
        self._apart = checkpoint_seconds
        self._last: Epoch | None = None
        self._pruned = False

    def train(self) -> Generator[None]:
        """Train to the end and record the result.

        Yields when the run is in a lane, each time that the lanes are to advance by an interval.

        Raises:
            Interrupted: the run was interrupted, or the slot was lost; call :meth:`leave` next.
            TrialEnded: another worker has already ended the trial.
            Unrestorable: the run cannot be resumed from its checkpoint after all.
            StorageError: a checkpoint cannot be written.
            SQLAlchemyError, StorageInternalError: a permanent database error, or an outage longer
                than the patience.
        """
        more = self._inherit()
        try:
            if isinstance(self._run, LaneRun):
                while more and self._run.epoch < self._length:
                    yield
                    more = self._finish(self._run.outcome())
            elif more:
                with self._watchdog.watching():
                    self._run.train(self._finish)
        except Diverged as diverged:
            self._tell(SlotState.DIVERGED, {}, diverged=str(diverged))
            return
        assert self._last is not None  # no checkpoint is written at the end of the last epoch
        self._tell(SlotState.PRUNED if self._pruned else SlotState.COMPLETE, self._last.metrics)

    def _inherit(self) -> bool:
        """Report the epochs that another trial has trained; returns whether to continue."""
        metric = self._study.facts.metric
        epochs = (
            Epoch(number=number, loss=None, metrics={metric: value})
            for number, value in self._inherited.items()
        )
        return all(map(self._report, epochs))

    def _finish(self, epoch: Epoch) -> bool:
        """Report an epoch and save a checkpoint if due; returns whether to continue."""
        with self._watchdog.after_epoch():
            goes_on = self._report(epoch)
            if self._beginning is not None and isinstance(self._run, SequentialRun):
                self._beginning.keep(self._run, self._outbox.values)
            if goes_on and epoch.number < self._length:
                self._save_in_time()
        return goes_on

    def _report(self, epoch: Epoch) -> bool:
        """Report an epoch; returns whether to continue.

        Not if the trial is pruned, or ends before other trials of its study do. After the last
        epoch of all a loop goes on by itself, to test its model.
        """
        facts = self._study.facts
        self._last = epoch
        new = self._outbox.put(epoch.number, epoch.metrics[facts.metric])
        is_last = epoch.number == self._length
        if self._post(apart=REPORT_SECONDS):
            self._pruned = new and not is_last and self._hopeless()
        return not self._pruned and (not is_last or self._length == facts.intervals)

    def leave(self) -> None:
        """Save the progress, without waiting for the database."""
        try:
            if self._post() and self._run.epoch < self._length:
                self._save()
        except (*DATABASE_ERRORS, StorageError, TaskError, Interrupted, TrialEnded):
            return  # the next attempt starts from the last checkpoint, if any

    def _post(self, *, apart: float = 0.0) -> bool:
        """Send the buffered values, at least ``apart`` seconds after the last time.

        Returns False during a database outage.
        """
        if self._lease.lost:
            raise Interrupted
        if not self._lease.fresh():
            return False
        try:
            self._outbox.send(apart=apart)
        except DATABASE_ERRORS as error:
            self._lease.doubt(error)
            return self._lease.fresh()
        return True

    def _hopeless(self) -> bool:
        if self._rivals is None:
            return False
        try:
            if self._study.plan.pruner in PRUNERS:
                return self._study.prunes(self._trial)
            rivals = self._rivals()
        except DATABASE_ERRORS as error:
            self._lease.doubt(error)
            return False
        return hopeless(
            self._outbox.values, rivals, self._rates, direction=self._study.facts.direction
        )

    def _save_in_time(self) -> None:
        if time.monotonic() - self._saved_at >= self._apart and self._post():
            self._save()

    def _save(self) -> None:
        began = time.monotonic()
        state = self._run.state()
        if state is None:
            return
        if not self._checkpoints.save(self._identity, state, confirm=self._lease.fresh):
            return
        self._saved_at = time.monotonic()
        self._apart = max(self._checkpoint_seconds, self._saves_apart * (self._saved_at - began))
        try:
            self._study.slots.note_checkpoint(self._slot, self._run.epoch)
        except DATABASE_ERRORS as error:
            self._lease.doubt(error)
        self._on_save()

    def _tell(self, end: SlotState, metrics: Any, **attributes: Any) -> None:
        """End the trial and then the slot, once all values are stored."""
        while not self._post():
            self._sleep(SETTLE_SECONDS)
        study, trial = self._study, self._trial
        attributes |= {"metrics": dict(metrics), "seconds": round(self._run.seconds, 3)}
        if self._outbox.drift:
            attributes["drift"] = self._outbox.drift
        if isinstance(self._run, SequentialRun) and self._run.inherited:
            attributes["inherited"] = min(self._run.inherited, max(self._outbox.values))
        if end == SlotState.COMPLETE and study.stage == "confirm":
            with self._watchdog.watching():
                attributes["test"] = self._run.test()
        if end == SlotState.COMPLETE:
            value = self._outbox.values[self._length]
            self._patience(lambda: study.log.complete(trial, value, attributes))
        else:
            diverged = end == SlotState.DIVERGED
            self._patience(lambda: study.log.prune(trial, attributes, diverged=diverged))
        self._patience(lambda: study.slots.finish(self._slot, end))
        self._checkpoints.remove(trial)


def _report(study: Study, trial: int, values: Mapping[int, float]) -> None:
    """Store values; not a method, so that an attempt and its model are freed when it is over."""
    if not study.log.report(trial, values):
        raise TrialEnded
