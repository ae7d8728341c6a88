"""A worker's life: claim a slot, propose, make an attempt at its trial; and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from clrsearch.causes import shortened
from clrsearch.errors import ExitCode, FailsHere, StorageError, StudyStopped, TaskError
from clrsearch.schedules import Trace, Value
from clrsearch.search import Record, Study
from clrsearch.storage import DATABASE_ERRORS, PATIENCE_SECONDS, Patience, Slot, SlotState
from clrsearch.training import (
    Checkpoints,
    Identity,
    Interrupted,
    Needed,
    Run,
    RunMaker,
    Unrestorable,
    needless,
)
from clrsearch.worker.attempt import Attempt, TrialEnded
from clrsearch.worker.claims import Claims
from clrsearch.worker.failures import keeps_failing, reason_to_leave, told
from clrsearch.worker.folder import SharedFolder
from clrsearch.worker.lease import Lease
from clrsearch.worker.losses import release, why_given_up
from clrsearch.worker.signals import Interruption
from clrsearch.worker.watchdog import Watchdog

LONGEST_CURVES = 3000  # numbers of up to 20 characters
LONGEST_TRACEBACK = 10_000  # characters: MySQL keeps 64 kB
FRESH_SECONDS = 2.0  # how old the history may be that a pruning decision sees


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A slot's running trial: its trace, and the values stored by earlier attempts at it."""

    identity: Identity
    played: Trace
    values: Mapping[int, float]
    is_new: bool

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.identity.trial


class Worker:
    """Works on one study's slots on one device."""

    def __init__(
        self,
        study: Study,
        make_run: RunMaker,
        device: torch.device,
        checkpoints: Checkpoints,
        *,
        name: str,
        checkpoint_seconds: float,
        patience: float = PATIENCE_SECONDS,
        interruption: Interruption | None = None,
        on_end: Callable[[Record], None] = lambda record: None,
        on_wait: Callable[[BaseException], None] = lambda error: None,
        on_note: Callable[[str], None] = lambda text: None,
        on_hang: Callable[[str], None] | None = None,
        in_rounds: bool = False,
    ) -> None:
        """``make_run`` makes the runs of the study's task on ``device``.

        ``patience`` is for outages of the database, in seconds.

        ``interruption`` knows the limits of the process, which may work on several studies.
        ``on_end`` is called with the record of each trial that this worker ends, ``on_wait`` with
        an error of the database that it begins to wait out, ``on_note`` with what else there is to
        say. ``on_hang`` is to end the process: it is called, from another thread, when the task's
        code has made no progress for too long and the slot is open again. Without it nobody looks.
        ``in_rounds`` says that more slots may follow when all have ended.
        """
        self._study = study
        self._make_run = make_run
        self._device = device
        self._checkpoints = checkpoints
        self._checkpoint_seconds = checkpoint_seconds
        self._name = name
        self._on_end = on_end
        self._interruption = interruption or Interruption()
        self._sleep = self._interruption.sleep
        self._on_wait = on_wait
        self._on_note = on_note
        self._folder = SharedFolder(study.slots, checkpoints, name, on_note)
        self._patience = Patience(patience, sleep=self._sleep, on_wait=self._trouble)
        self._claims = Claims(study.slots, name, patience=self._patience, sleep=self._sleep)
        self._fell_back = False  # from the surrogate to chance, and has said so
        self._failures: list[TaskError] = []  # of this worker's latest trials
        self._on_hang = on_hang
        self._in_rounds = in_rounds
        self._watchdog = Watchdog(self._interruption.noticed, self._hung)
        self._lease: Lease | None = None  # of the slot that it holds

    def work(self) -> bool:
        """Work until no slot is left to claim, or until a signal or a limit of the process.

        Whether the former: only then are the slots done, or in the good hands of others. Where a
        confirmation follows, or another round of it, others' trials are waited for.

        Raises:
            StudyStopped: the task's code fails again and again.
            FailsHere: it does in this process, and slots are left to others.
            StorageError: a checkpoint cannot be written.
            SQLAlchemyError, StorageInternalError: an error of the database that does not pass, or
                an outage that outlasts patience.
        """
        with ExitStack() as stack:
            stack.enter_context(self._interruption.listening())
            stack.enter_context(self._folder)
            if self._on_hang is not None:
                stack.enter_context(self._watchdog)
            stack.enter_context(suppress(Interrupted))
            while not self._interruption.asked:
                stopped = self._patience(lambda: self._study.stopped)
                if stopped is not None:
                    raise StudyStopped(f"{self._study.name} was stopped: its task fails", stopped)
                reason = reason_to_leave(self._failures)
                if reason is not None and self._patience(self._study.slots.unfinished):
                    raise FailsHere(reason)
                slot = self._claims.next(stay=self._in_rounds or self._patience(self._confirms))
                if slot is None:
                    self._patience(self._clean_up)
                    return True
                self._folder.look()
                self._fill(slot)
        return False

    def _confirms(self) -> bool:
        study = self._study
        return study.stage == "search" and study.plan.confirm.enabled and not study.cancelled

    def _trouble(self, error: BaseException) -> None:
        """An outage begins: whom this worker has watched may be silent because of it."""
        self._claims.forget()
        self._on_wait(error)

    def _fill(self, slot: Slot) -> None:
        """Bring a claimed slot to an end, or hand it back."""
        trial: Begun | None = None
        lease = Lease(
            self._study.slots, slot, patience=self._patience.seconds, on_trouble=self._trouble
        )
        self._lease = lease
        self._watchdog.begin()
        with lease:
            try:
                trial = self._patience(partial(self._take_up, slot))
                if trial is None:
                    return
                self._train(slot, lease, trial)
            except (Interrupted, TrialEnded):
                self._hand_back(slot)
            except TaskError as error:
                if trial is not None and lease.settle(self._sleep):
                    self._patience(partial(self._failed, slot, trial.number, error))
                    self._failures.append(error)
            except (StorageError, MemoryError, *DATABASE_ERRORS):
                self._hand_back(slot)
                raise
        if trial is not None:
            self._note_end(trial.number)

    def _note_end(self, trial: int) -> None:
        """Tell of a trial, and count it, if it has ended."""
        ended = self._patience(partial(self._study.trial, trial))
        if ended.state == "running":
            return
        if ended.state != "failed":
            self._failures.clear()
        self._interruption.count()
        self._on_end(ended)

    def _train(self, slot: Slot, lease: Lease, trial: Begun) -> None:
        """Train and tell the trial, from its checkpoint, or from its beginning if that is no use.

        Where it is interrupted, how far it came is saved.
        """
        for make in (self._resumed, self._run):
            try:
                with self._watchdog.watching():
                    run = make(slot, lease, trial)
                attempt = self._attempt(slot, lease, run, trial)
                try:
                    attempt.train()
                except Interrupted:
                    attempt.leave()
                    raise
                return
            except Unrestorable as error:
                path = self._checkpoints.path(trial.number)
                self._on_note(
                    f"trial {trial.number} begins again: its checkpoint {path} cannot be used: "
                    f"{error}"
                )

    def _clean_up(self) -> None:
        """Remove what workers left that were killed between two writes."""
        self._study.discard_orphans()
        for path in needless(self._checkpoints.folder, partial(needed, self._study)):
            with suppress(OSError):
                path.unlink()

    def _hand_back(self, slot: Slot) -> None:
        """Open the slot at once; where the database is away, its lease will run out."""
        with suppress(*DATABASE_ERRORS):
            self._study.slots.hand_back(slot)

    def _hung(self, reason: str) -> None:
        """In the watchdog's thread: leave the slot to others, as a worker that was lost does."""
        assert self._lease is not None and self._on_hang is not None
        self._lease.abandon()
        with suppress(*DATABASE_ERRORS):  # where the database is away, the lease runs out
            release(self._study, self._name, ExitCode.HUNG)
        self._on_hang(reason)

    def _take_up(self, slot: Slot) -> Begun | None:
        """The slot's trial: begun already, a failed one's again, or new; None where it has ended.

        It looks before it begins, so that it can be called again after an error of the database.
        """
        study = self._study
        earlier = study.history.of_slot(slot.number)
        for record in earlier:  # told, but the teller was lost right after
            told = record.state in ("complete", "pruned")
            if told or (record.number == slot.trial and record.final):
                study.slots.finish(slot, SlotState(record.end))
                self._checkpoints.remove(record.number)
                return None
        running = [record for record in earlier if record.state == "running"]
        for twice in running[1:]:
            study.discard(twice.number)
        if running and slot.losses:
            codes = study.loss_codes(running[0].number, slot.checkpoint)
            reason = why_given_up(slot.losses, codes)
            if reason is not None:
                self._failed(slot, running[0].number, TaskError(reason), retry=False)
                return None
        family, params = self._schedule(slot, earlier)
        played = study.trace(family, params)
        who = {"worker": self._name, "device": str(self._device)}
        if running:
            number, values = running[0].number, running[0].values
            study.resume(number, who)
        else:
            attributes = who | epoch_ends(played.at_epoch_ends(study.facts.steps_per_epoch))
            number, values = study.begin(slot, params, attributes, family), {}
        if not study.slots.bind(slot, number):  # lost before it began
            if not running:
                study.discard(number)
            raise Interrupted
        identity = Identity(
            study=study.uuid,
            trial=number,
            family=family,
            params=params,
            attempt=slot.attempt,
        )
        return Begun(identity=identity, played=played, values=values, is_new=not running)

    def _attempt(self, slot: Slot, lease: Lease, run: Run, trial: Begun) -> Attempt:
        ends = trial.played.at_epoch_ends(self._study.facts.steps_per_epoch)
        family = trial.identity.family
        prunable = self._prunable(family, trial.identity.params)
        return Attempt(
            self._study,
            slot,
            lease,
            run,
            self._checkpoints,
            identity=trial.identity,
            stored=trial.values,
            rates=ends.rates[0].tolist(),
            rivals=partial(self._rivals, slot, family) if prunable else None,
            checkpoint_seconds=self._checkpoint_seconds,
            patience=self._patience,
            sleep=self._sleep,
            watchdog=self._watchdog,
            on_save=self._folder.look,
        )

    def _run(self, slot: Slot, lease: Lease, trial: Begun) -> Run:
        """A run of the trial from its beginning."""

        def interrupted() -> bool:
            self._watchdog.progress()
            return self._interruption.asked or lease.lost

        return self._make_run(
            trial.played,
            seed=self._study.plan.seed,
            seed_index=slot.seed_index,
            tests=self._study.stage == "confirm",
            interrupted=interrupted,
        )

    def _resumed(self, slot: Slot, lease: Lease, trial: Begun) -> Run:
        """A run of the trial from its checkpoint, or from its beginning where none was written.

        Raises:
            Unrestorable: there is a checkpoint that cannot be gone on from, or it is not to be had.
        """
        run = self._run(slot, lease, trial)
        if trial.is_new:
            return run
        state = self._checkpoints.load(trial.identity, self._device)
        if state is not None:
            run.restore(state)
        elif slot.checkpoint is not None:
            raise Unrestorable(f"it is missing (it was saved at epoch {slot.checkpoint})")
        if any(epoch not in trial.values for epoch in range(1, run.epoch + 1)):
            raise Unrestorable("it is ahead of the values in the database")
        return run

    def _schedule(self, slot: Slot, earlier: Sequence[Record]) -> tuple[str, Mapping[str, Value]]:
        """Family and values for a slot's trial: those of its ``earlier`` trials, if there are."""
        if earlier:
            return earlier[0].family, earlier[0].params
        if slot.finalist is not None:
            finalist = self._study.finalists()[slot.finalist]
            return finalist.family, finalist.params
        proposal = self._study.propose(slot, self._others(slot))
        if proposal.fallback and not self._fell_back:
            self._fell_back = True
            self._on_note(f"schedules are drawn at random for now: {proposal.fallback}")
        return proposal.family, proposal.params

    def _others(self, slot: Slot) -> list[Record]:
        """The trials of other slots, as they were a moment ago."""
        records = self._study.history.records(FRESH_SECONDS)
        return [record for record in records if record.slot != slot.number]

    def _rivals(self, slot: Slot, family: str) -> list[Record]:
        """Those of a family."""
        return [record for record in self._others(slot) if record.family == family]

    def _prunable(self, family: str, params: Mapping[str, Value]) -> bool:
        """Whether a trial may be stopped early: no first setting, baseline or confirmation is."""
        study = self._study
        if study.plan.pruner == "none" or study.stage != "search":
            return False
        if family == study.plan.baseline:
            return False
        traces = study.traces
        return traces.number(family, params) not in traces.first(family)

    def _failed(self, slot: Slot, trial: int, error: TaskError, *, retry: bool = True) -> None:
        """Store the traceback; open the slot for another try, or use it up.

        It can be called again after an error of the database: this failure counts once, whether it
        has been stored already or not.
        """
        study = self._study
        traceback = shortened(told(error), LONGEST_TRACEBACK)
        earlier = [each for each in study.history.records() if each.number != trial]
        failures = sum(each.slot == slot.number and each.state == "failed" for each in earlier)
        final = not retry or failures >= study.plan.retries
        study.fail(trial, {"error": traceback, "final": final})
        if final:
            study.slots.finish(slot, SlotState.FAILED)
        else:
            study.slots.hand_back(slot, anew=True)
        live = [claim.worker for claim in study.slots.claims() if not claim.expired]
        if keeps_failing(study.history.records(), live):
            study.stop(traceback)
        self._checkpoints.remove(trial)


def needed(study: Study) -> Needed:
    """Whose files a study's checkpoint folder must keep."""
    trials = [each.number for each in study.history.records() if each.state == "running"]
    return Needed(trials=trials, workers=[claim.worker for claim in study.slots.claims()])


def epoch_ends(ends: Trace) -> dict[str, Any]:
    """What is stored of a trace to be looked at: rates and momenta, (groups, epochs) each.

    Of one that MySQL's 64 kB would not hold, nothing is; it follows from the parameters anyway.
    """
    if ends.rates.size > LONGEST_CURVES:
        return {}
    momenta = {} if ends.momenta is None else {"momenta": ends.momenta.tolist()}
    return {"rates": ends.rates.tolist(), **momenta}
