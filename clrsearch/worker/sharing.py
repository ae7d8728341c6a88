"""Sharing the beginnings of trials: those that are the same are trained once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from clrsearch.errors import TaskError
from clrsearch.search import Study
from clrsearch.storage import Slot
from clrsearch.training import Identity, SequentialRun, Trunks, Unrestorable, beginnings

SAVES_APART = 4
"""In a search, which may keep a state after each epoch: in times of what the last one took."""


class Sharing:
    """The trunks that the trials of a study leave to each other, for one worker."""

    def __init__(
        self, study: Study, trunks: Trunks, context: str, on_note: Callable[[str], None]
    ) -> None:
        """Share with workers that use the same folder and have the same ``context``.

        That is what else shapes a run: the kind of device, and the task's source.
        """
        self._study = study
        self._trunks = trunks
        self._context = context
        self._on_note = on_note
        self._fails = False

    def of(self, slot: Slot, identity: Identity) -> Beginning | None:
        """What a slot's trial has in common with others; None if that is nothing."""
        family, params = identity.family, identity.params
        partings = self._study.partings(slot, family, params)
        if not partings or self._fails:
            return None
        names = beginnings(
            self._study.trace(family, params),
            self._study.facts.ends[: max(partings)],
            seed_index=slot.seed_index,
            context=self._context,
        )
        apart = SAVES_APART if self._study.plan.trunks is not None else 0
        return Beginning(self._trunks, names, partings, self._failed, apart=apart)

    def clean_up(self) -> None:
        """Delete all trunks, once no trial is left."""
        self._trunks.delete()

    def _failed(self, error: OSError | TaskError) -> None:
        """Train each trial from its start from here on: that needs no trunk."""
        if not self._fails:
            self._fails = True
            self._on_note(
                "equal beginnings of trials are no longer shared, since the state of one cannot be "
                f"stored: {error}"
            )


class Beginning:
    """The beginning of a trial, up to the last interval at whose end others part from it."""

    def __init__(
        self,
        trunks: Trunks,
        names: Sequence[str],
        partings: Collection[int],
        on_error: Callable[[OSError | TaskError], None],
        *,
        apart: int = 0,
    ) -> None:
        """``names`` are those of the trunks at the end of each interval, from the first on.

        Two states are kept at least ``apart`` times as long apart as it took to save the first.
        """
        self._trunks = trunks
        self._names = names
        self._partings = partings
        self._on_error = on_error
        self._apart = apart
        self._next_save = 0.0

    def take(self, run: SequentialRun) -> Mapping[int, float]:
        """Let a new run begin from the longest trunk; returns the values until there, by interval.

        Raises:
            Unrestorable: the run cannot be used; another one can.
        """
        trunk = self._trunks.longest(reversed(self._names))
        if trunk is None:
            return {}
        try:
            run.begin_from(trunk.state)
        except Unrestorable:
            trunk.path.unlink(missing_ok=True)
            raise
        return trunk.values

    def keep(self, run: SequentialRun, values: Mapping[int, float]) -> None:
        """Keep the run's state at the end of an interval, if others go on from there.

        ``values`` are those of the metric until then, by interval.
        """
        interval, began = run.epoch, time.monotonic()
        if interval not in self._partings or began < self._next_save:
            return
        name = self._names[interval - 1]
        if self._trunks.has(name):
            return
        until = {number: values[number] for number in range(1, interval + 1)}
        try:
            self._trunks.save(name, until, run.state())
        except FileNotFoundError:  # the last worker to leave has deleted the folder meanwhile
            return
        except (OSError, TaskError) as error:
            self._on_error(error)
        ended = time.monotonic()
        self._next_save = ended + self._apart * (ended - began)
