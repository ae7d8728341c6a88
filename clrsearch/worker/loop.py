"""The worker loop: claim a slot, propose a trial, make an attempt at it, repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import torch

from clrsearch.errors import (
    ExitCode,
    FailsHere,
    OutOfMemory,
    StorageError,
    StudyStopped,
    TaskError,
)
from clrsearch.search import Record, Study, tend
from clrsearch.storage import DATABASE_ERRORS, Patience, Slot
from clrsearch.training import (
    Checkpoints,
    Interrupted,
    LaneRun,
    Lanes,
    Needed,
    Run,
    RunMaker,
    SequentialRun,
    Unrestorable,
    free_memory,
    needless,
    place,
)
from clrsearch.worker.attempt import Attempt, TrialEnded
from clrsearch.worker.claims import LOOK_SECONDS, Claims
from clrsearch.worker.failures import (
    device_failure,
    reason_to_leave,
    without_frames,
)
from clrsearch.worker.folder import SharedFolder
from clrsearch.worker.lease import Lease
from clrsearch.worker.losses import release
from clrsearch.worker.settings import WorkerSettings
from clrsearch.worker.sharing import Beginning, Sharing
from clrsearch.worker.signals import Interruption
from clrsearch.worker.slot_trials import Begun, Trials
from clrsearch.worker.watchdog import Watchdog

_ENDED = object()


class Worker:
    """Works on the slots of one study on one device."""

    def __init__(
        self,
        study: Study,
        make_run: RunMaker,
        device: torch.device,
        checkpoints: Checkpoints,
        *,
        name: str,
        settings: WorkerSettings,
        interruption: Interruption | None = None,
        on_end: Callable[[Record], None] = lambda record: None,
        on_wait: Callable[[BaseException], None] = lambda error: None,
        on_note: Callable[[str], None] = lambda text: None,
        on_hang: Callable[[str], None] | None = None,
        in_rounds: bool = False,
        ranks: int = 1,
        lanes: Lanes | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Set up a worker; :meth:`work` runs it.

        Args:
            study: the study to work on.
            make_run: creates the runs of the study's task on ``device``.
            device: the device to train on.
            checkpoints: where checkpoints are stored.
            name: the worker's unique name.
            settings: how long to wait for the database, and when to save checkpoints.
            interruption: the limits of the process, which may work on several studies.
            on_end: called with the record of each trial this worker ends.
            on_wait: called with the database error that starts an outage.
            on_note: called with other messages.
            on_hang: must end the process; called from another thread when the task's code has made
                no progress for too long and its slot has been reopened. None disables the watchdog.
            in_rounds: whether more slots may follow after all have ended.
            ranks: the number of processes that make each run together.
            lanes: where to make several runs at a time, in place of one by ``make_run``.
            sharing: what trials with the same beginning leave to each other; None if nothing.
        """
        self._study = study
        self._make_run = make_run
        self._device = device
        self._checkpoints = checkpoints
        self._checkpoint_seconds = settings.checkpoint_seconds
        self._name = name
        self._on_end = on_end
        self._interruption = interruption or Interruption()
        self._sleep = self._interruption.sleep
        self._on_wait = on_wait
        self._on_note = on_note
        self._folder = SharedFolder(study.slots, checkpoints, name, on_note)
        self._patience = Patience(
            settings.storage_patience, sleep=self._sleep, on_wait=self._trouble
        )
        self._claims = Claims(study.slots, name, patience=self._patience, sleep=self._sleep)
        self._trials = Trials(study, checkpoints, on_note)
        self._failures: list[TaskError] = []  # of this worker's latest trials
        self._on_hang = on_hang
        self._in_rounds = in_rounds
        self._ranks = ranks
        self._lanes = None if lanes is None or lanes.retired else lanes
        self._sharing = sharing
        self._watchdog = Watchdog(
            self._interruption.noticed, self._hung, stall_seconds=settings.stall_seconds
        )
        self._leases: dict[int, Lease] = {}  # of the slots it holds, by number
        self._looked_in_vain: float | None = None  # when, for another slot

    def work(self) -> bool:
        """Work until no slot is left to claim, or until a signal or a process limit.

        Returns True in the first case: all slots are done or held by live workers. If a
        confirmation, or another round of it, follows, the worker waits for others' trials.

        Raises:
            StudyStopped: the task's code fails repeatedly.
            FailsHere: it fails repeatedly in this process, or its device failed or has no memory
                left; other workers may take the remaining slots.
            StorageError: a checkpoint cannot be written.
            SQLAlchemyError, StorageInternalError: a permanent database error, or an outage longer
                than the patience.
        """
        with ExitStack() as stack:
            stack.enter_context(self._interruption.listening())
            stack.enter_context(self._folder)
            if self._on_hang is not None:
                stack.enter_context(self._watchdog)
            stack.enter_context(suppress(Interrupted))
            try:
                return self._work()
            except FailsHere as error:
                self._note_departure(str(error))
                raise
        return False

    def _work(self) -> bool:
        trials: list[Generator[None]] = []  # in training, more than one only in lanes
        try:
            while not self._interruption.asked:
                slot = self._next_slot()
                if slot is not None:
                    self._folder.look()
                    trials += _advanced([self._fill(slot)])
                elif trials:
                    trials = self._advance(trials)
                else:
                    self._patience(self._clean_up)
                    return True
            return False
        finally:
            _interrupt(trials)

    def _next_slot(self) -> Slot | None:
        """A slot to fill beside those it holds; None if that is impossible, or not to be tried now.

        Raises:
            StudyStopped, FailsHere: see :meth:`work`.
        """
        if self._leases and not self._takes_more():
            return None
        self._may_go_on()
        self._patience(partial(tend, self._study))
        if self._study.stage == "search":  # whose deadline a command may have changed
            self._interruption.end_in(self._patience(lambda: self._study.seconds_left))
        stay = self._in_rounds or self._patience(self._confirms)
        slot = self._claims.next(held=self._leases, stay=stay)
        self._looked_in_vain = None if slot else time.monotonic()
        return slot

    def _takes_more(self) -> bool:
        """Whether to look for a slot beside those it holds: in vain only once in a while."""
        limit, looked = self._interruption.trials_left, self._looked_in_vain
        return (
            self._lanes is not None
            and self._lanes.free > 0
            and (limit is None or len(self._leases) < limit)
            and (looked is None or time.monotonic() - looked > LOOK_SECONDS)
        )

    def _advance(self, trials: list[Generator[None]]) -> list[Generator[None]]:
        """Train the trials in lanes to the end of their next intervals; returns those that go on.

        If the task fails in them, it may be due to the lanes: each goes on by itself from there.
        """
        assert self._lanes is not None

        def interrupted() -> bool:
            self._watchdog.progress()
            return self._interruption.asked

        try:
            with self._watchdog.watching():
                self._lanes.advance(interrupted)
        except (TaskError, RuntimeError, MemoryError) as error:
            failure = device_failure(error)
            if failure is not None and not isinstance(failure, OutOfMemory):
                for trial in trials:
                    trial.close()  # nothing can be saved
                self._release(failure.exit_code)
                raise failure from error
            said = str(failure or error)
        else:
            return _advanced(trials)
        self._on_note(
            f"training in lanes failed, so one trial is trained at a time from here on: {said}"
        )
        _interrupt(trials)
        self._lanes.retire()
        self._lanes = None
        free_memory(self._device)
        return []

    def _may_go_on(self) -> None:
        """Raise the reason to leave, if there is one.

        Raises:
            StudyStopped, FailsHere: see :meth:`work`.
        """
        stopped = self._patience(lambda: self._study.stopped)
        if stopped is not None:
            raise StudyStopped(
                f"{self._study.name} was stopped: its task failed repeatedly", stopped
            )
        reason = reason_to_leave(self._failures)
        if reason is not None and self._patience(self._study.slots.unfinished):
            raise FailsHere(reason)

    def _confirms(self) -> bool:
        study = self._study
        return study.stage == "search" and study.plan.confirm.enabled and not study.cancelled

    def _trouble(self, error: BaseException) -> None:
        """Handle the start of an outage: watched workers may be silent only because of it."""
        self._claims.forget()
        self._on_wait(error)

    def _fill(self, slot: Slot) -> Generator[None]:
        """Finish a claimed slot, or hand it back; yields as :meth:`Attempt.train` does."""
        trial: Begun | None = None
        lease = Lease(
            self._study.slots, slot, patience=self._patience.seconds, on_trouble=self._trouble
        )
        self._leases[slot.number] = lease
        self._watchdog.begin()
        with lease:
            try:
                trial = self._patience(partial(self._trials.take_up, slot, self._who()))
                if trial is None:
                    return
                yield from self._train(slot, lease, trial)
            except Interrupted:
                self._hand_back(slot, trial)
                return
            except TrialEnded:
                self._hand_back(slot, trial)
            except (TaskError, RuntimeError, MemoryError) as error:
                self._went_wrong(slot, lease, trial, error)
            except (StorageError, *DATABASE_ERRORS):
                self._hand_back(slot, trial)
                raise
            finally:
                self._leases.pop(slot.number)
        if trial is not None:
            self._note_end(trial.number)
        if self._lanes is None:
            free_memory(self._device)

    def _went_wrong(
        self,
        slot: Slot,
        lease: Lease,
        trial: Begun | None,
        error: TaskError | RuntimeError | MemoryError,
    ) -> None:
        """Fail the trial of a slot, unless the process or its device is to blame.

        Raises:
            FailsHere: the device is.
            RuntimeError, MemoryError: the process is.
        """
        failure = device_failure(error)
        if failure is not None:
            self._release(failure.exit_code)
            raise failure from error
        if not isinstance(error, TaskError):
            self._hand_back(slot, trial)
            raise error
        if trial is not None and lease.settle(self._sleep):
            self._patience(partial(self._trials.fail, slot, trial.number, error))
            self._failures.append(without_frames(error))

    def _note_end(self, trial: int) -> None:
        """Report and count a trial if it has ended."""
        ended = self._patience(partial(self._study.trial, trial))
        if ended.state == "running":
            return
        if ended.state != "failed":
            self._failures.clear()
        self._interruption.count()
        self._on_end(ended)

    def _train(self, slot: Slot, lease: Lease, trial: Begun) -> Generator[None]:
        """Train the trial and record its result.

        It starts over if its checkpoint, or a beginning that it shares, is unusable. If it is
        interrupted, its progress is saved.
        """
        beginning: Beginning | None = None
        if self._sharing is not None:
            beginning = self._patience(partial(self._sharing.of, slot, trial.identity))
        resumes = not trial.is_new
        while True:
            run: Run | LaneRun | None = None
            inherited: Mapping[int, float] = {}
            unusable = f"its checkpoint {self._checkpoints.path(trial.number)}"
            try:
                with self._watchdog.watching():
                    run = self._run(slot, lease, trial)
                    resumed = resumes and self._resume(run, slot, trial)
                    if beginning is not None and isinstance(run, SequentialRun) and not resumed:
                        unusable = "a beginning that it shares"
                        inherited = beginning.take(run)
                attempt = self._attempt(slot, lease, run, trial, beginning, inherited)
                try:
                    yield from attempt.train()
                except Interrupted:
                    attempt.leave()
                    raise
                return
            except Unrestorable as error:
                self._on_note(
                    f"trial {trial.number} starts over: {unusable} cannot be used: {error}"
                )
                if not resumes:
                    beginning = None
                resumes = False
            finally:
                if isinstance(run, LaneRun):
                    run.leave()

    def _clean_up(self) -> None:
        """Remove leftovers of workers that were killed between two writes, and what was shared."""
        self._study.discard_orphans()
        if self._sharing is not None and not self._study.slots.unfinished():
            self._sharing.clean_up()
        for path in needless(self._checkpoints.folder, partial(needed, self._study)):
            with suppress(OSError):
                path.unlink()

    def _hand_back(self, slot: Slot, trial: Begun | None) -> None:
        """Reopen the slot now; during an outage, its lease expires instead."""
        with suppress(*DATABASE_ERRORS):
            if trial is not None:
                code = ExitCode.INTERRUPTED
                self._study.log.note_loss(trial.number, self._name, code, slot.checkpoint)
            self._study.slots.hand_back(slot)

    def _release(self, code: ExitCode) -> None:
        """Give up the slot like a lost worker, which it counts as; see :meth:`_hand_back`."""
        with suppress(*DATABASE_ERRORS):
            release(self._study, self._name, code)

    def _hung(self, reason: str) -> None:
        """Give up the slot like a lost worker; runs in the watchdog's thread."""
        assert self._on_hang is not None
        for lease in self._leases.values():
            lease.abandon()
        self._release(ExitCode.HUNG)
        self._note_departure(reason)
        self._on_hang(reason)

    def _note_departure(self, reason: str) -> None:
        with suppress(*DATABASE_ERRORS):
            self._study.note_departure(self._name, reason)

    def _who(self) -> dict[str, Any]:
        """The worker and its equipment, to store with a trial."""
        who: dict[str, Any] = {"worker": self._name, "device": place(self._device)}
        if self._ranks > 1:
            who["ranks"] = self._ranks
        if self._lanes is not None:
            who["lanes"] = self._lanes.size
        return who

    def _attempt(
        self,
        slot: Slot,
        lease: Lease,
        run: Run | LaneRun,
        trial: Begun,
        beginning: Beginning | None,
        inherited: Mapping[int, float],
    ) -> Attempt:
        ends = trial.played.before(self._study.ends(trial.identity.params))
        family = trial.identity.family
        prunable = self._trials.may_prune(family, trial.identity.params)
        return Attempt(
            self._study,
            slot,
            lease,
            run,
            self._checkpoints,
            identity=trial.identity,
            stored=trial.values,
            inherited=inherited,
            beginning=beginning,
            rates=ends.rates[0].tolist(),
            rivals=partial(self._trials.rivals, slot, family) if prunable else None,
            checkpoint_seconds=self._checkpoint_seconds,
            beside=1 if self._lanes is None else self._lanes.size,
            patience=self._patience,
            sleep=self._sleep,
            watchdog=self._watchdog,
            on_save=self._folder.look,
        )

    def _run(self, slot: Slot, lease: Lease, trial: Begun) -> Run | LaneRun:
        """Create a run of the trial from scratch."""

        def interrupted() -> bool:
            self._watchdog.progress()
            return self._interruption.asked or lease.lost

        make = self._make_run if self._lanes is None else self._lanes.run
        return make(
            trial.played,
            seed=self._study.plan.seed,
            seed_index=slot.seed_index,
            tests=self._study.stage == "confirm",
            interrupted=interrupted,
        )

    def _resume(self, run: Run | LaneRun, slot: Slot, trial: Begun) -> bool:
        """Restore a new run of the trial from its checkpoint; False if none was written.

        Raises:
            Unrestorable: the checkpoint is missing or cannot be resumed from.
        """
        state = self._checkpoints.load(trial.identity)
        if state is not None:
            run.restore(state)
        elif slot.checkpoint is not None:
            where = f"{self._study.facts.progress} {slot.checkpoint}"
            raise Unrestorable(f"it is missing (it was saved at {where})")
        if any(epoch not in trial.values for epoch in range(1, run.epoch + 1)):
            raise Unrestorable("it is ahead of the values in the database")
        return state is not None


def _advanced(trials: Iterable[Generator[None]]) -> list[Generator[None]]:
    """Let each trial go on until it waits for the lanes again; returns those that do."""
    return [trial for trial in trials if next(trial, _ENDED) is not _ENDED]


def _interrupt(trials: Sequence[Generator[None]]) -> None:
    """Have trials that wait for the lanes save their progress, and hand back their slots."""
    with ExitStack() as stack:  # the others also if one of them raises
        for trial in trials:
            stack.callback(_interrupt_one, trial)


def _interrupt_one(trial: Generator[None]) -> None:
    with suppress(StopIteration, Interrupted):  # the latter if it is over
        trial.throw(Interrupted())


def needed(study: Study) -> Needed:
    """The trials and workers whose files a study's checkpoint folder must keep."""
    trials = [each.number for each in study.history.records() if each.state == "running"]
    return Needed(trials=trials, workers=[claim.worker for claim in study.slots.claims()])
