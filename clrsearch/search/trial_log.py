"""The life cycle of a study's trials, as written to the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from clrsearch.schedules import Value
from clrsearch.search.history import DISCARDED, END
from clrsearch.storage import Slot, Trials

LOST = "lost"
"""Trial attribute with the losses of its workers: exit code and last checkpoint, by worker."""


class TrialLog:
    """The trials of one study: created, reported to and ended."""

    def __init__(self, storage: BaseStorage, study_id: int, trials: Trials) -> None:
        self._storage = storage
        self._study_id = study_id
        self._trials = trials
        self._ids: dict[int, int] = {}  # by trial number

    def begin(
        self,
        slot: Slot,
        family: str,
        params: Mapping[str, Value],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> int:
        """Create a RUNNING trial for a slot atomically and return its number.

        ``distributions`` are those the ``params`` of the ``family`` were chosen from.
        """
        again = {} if slot.finalist is None else {"finalist": slot.finalist}
        trial_id = self._storage.create_new_trial(
            self._study_id,
            create_trial(
                state=TrialState.RUNNING,
                params={f"{family}.{name}": value for name, value in params.items()},
                distributions={f"{family}.{name}": each for name, each in distributions.items()},
                user_attrs={
                    "slot": slot.number,
                    "family": family,
                    "seed_index": slot.seed_index,
                    **again,
                    **attributes,
                },
            ),
        )
        number = self._storage.get_trial_number_from_id(trial_id)
        self._ids[number] = trial_id
        return number

    def resume(self, trial: int, attributes: Mapping[str, Any]) -> bool:
        """Record which worker resumes a running trial; False if the trial has ended."""
        try:
            for name, attribute in attributes.items():
                self._storage.set_trial_user_attr(self._id(trial), name, attribute)
        except UpdateFinishedTrialError:
            return False
        return True

    def note_loss(self, trial: int, worker: str, code: int, checkpoint: int | None) -> None:
        """Record a lost worker's exit code and the epoch of the trial's last checkpoint."""
        lost = {**self._losses(trial), worker: [code, checkpoint]}
        self.resume(trial, {LOST: lost})

    def loss_codes(self, trial: int, checkpoint: int | None) -> list[int]:
        """Recorded exit codes of the workers lost since the last checkpoint."""
        return [code for code, since in self._losses(trial).values() if since == checkpoint]

    def _losses(self, trial: int) -> dict[str, list[Any]]:
        trial_id = self._id(trial)
        found = self._trials.attributes([trial_id], [LOST])[trial_id]
        return dict(found.get(LOST, {}))

    def report(self, trial: int, values: Mapping[int, float]) -> bool:
        """Store the metric of finished epochs in one call; False if the trial has ended."""
        return self._trials.report(self._id(trial), values)

    def as_optuna(self, trial: int) -> FrozenTrial:
        """The trial as Optuna reads it."""
        return self._storage.get_trial(self._id(trial))

    def complete(self, trial: int, value: float, attributes: Mapping[str, Any]) -> bool:
        """Complete a trial with its last epoch's value; False if it has already ended."""
        return self._end(trial, TrialState.COMPLETE, attributes, value)

    def prune(self, trial: int, attributes: Mapping[str, Any], *, diverged: bool = False) -> bool:
        """Prune a trial; False if it has already ended.

        A diverged trial is marked infeasible, so that samplers avoid similar ones.
        """
        return self._end(trial, TrialState.PRUNED, attributes, diverged=diverged)

    def fail(self, trial: int, attributes: Mapping[str, Any]) -> bool:
        """Fail a trial; False if it has already ended."""
        return self._end(trial, TrialState.FAIL, attributes)

    def discard(self, trial: int) -> None:
        """Fail a trial that was created twice for one slot, and exclude it from the history."""
        if self.resume(trial, {DISCARDED: True}):
            self.fail(trial, {})

    def _end(
        self,
        trial: int,
        state: TrialState,
        attributes: Mapping[str, Any],
        value: float | None = None,
        *,
        diverged: bool = False,
    ) -> bool:
        try:
            if diverged:
                key = "constraints:diverged"  # what Trial.set_constraint writes
                self._storage.set_trial_system_attr(self._id(trial), key, 1.0)
            self._storage.set_trial_user_attr(self._id(trial), END, dict(attributes))
            values = None if value is None else [value]
            self._storage.set_trial_state_values(self._id(trial), state, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._study_id, number
            )
        return self._ids[number]
