"""Sharing the beginnings of trials: those that are the same are trained once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from clrsearch.errors import TaskError
from clrsearch.search import Study
from clrsearch.storage import Slot
from clrsearch.training import Identity, SequentialRun, Trunks, Unrestorable, beginnings


class Sharing:
    """The trunks that the trials of a study leave to each other, for one worker."""

    def __init__(
        self, study: Study, trunks: Trunks, place: str, on_note: Callable[[str], None]
    ) -> None:
        """Share with workers that use the same folder and train on the same kind of ``place``."""
        self._study = study
        self._trunks = trunks
        self._place = place
        self._on_note = on_note
        self._fails = False

    def of(self, slot: Slot, identity: Identity, run: SequentialRun) -> Beginning | None:
        """What the run of a slot's trial has in common with others; None if that is nothing."""
        family, params = identity.family, identity.params
        partings = self._study.partings(slot, family, params)
        if not partings or self._fails:
            return None
        ends = self._study.facts.ends[: max(partings)]
        names = beginnings(
            self._study.trace(family, params),
            ends,
            seed_index=slot.seed_index,
            place=self._place,
        )
        return Beginning(run, self._trunks, names, partings, self._failed)

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
    """The beginning of a run, up to the last interval at whose end others part from it."""

    def __init__(
        self,
        run: SequentialRun,
        trunks: Trunks,
        names: Sequence[str],
        partings: Collection[int],
        on_error: Callable[[OSError | TaskError], None],
    ) -> None:
        """``names`` are those of the trunks at the end of each interval, from the first on."""
        self._run = run
        self._trunks = trunks
        self._names = names
        self._partings = partings
        self._on_error = on_error

    def take(self) -> Mapping[int, float]:
        """Let the new run begin from the longest trunk; returns the values until there.

        Raises:
            Unrestorable: the run cannot be used; another one can.
        """
        trunk = self._trunks.longest(reversed(self._names))
        if trunk is None:
            return {}
        try:
            self._run.begin_from(trunk.state)
        except Unrestorable:
            trunk.path.unlink(missing_ok=True)
            raise
        return trunk.values

    def leave(self, values: Mapping[int, float]) -> None:
        """Keep the run's state at the end of an interval, if others go on from there.

        ``values`` are those of the metric until then, by interval.
        """
        interval = self._run.epoch
        if interval not in self._partings or self._trunks.has(self._names[interval - 1]):
            return
        until = {number: values[number] for number in range(1, interval + 1)}
        try:
            self._trunks.save(self._names[interval - 1], until, self._run.state())
        except (OSError, TaskError) as error:
            self._on_error(error)
