"""The runs of a confirmation, grouped by finalist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clrsearch.search.history import Record
from clrsearch.search.study import Study
from clrsearch.search.traces import one_each


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """The confirmation runs of a search's finalists on fresh seeds.

    Finalists with equal traces are merged: the first one represents them all and gets all their
    runs.

    Attributes:
        finalists: one finalist per distinct trace.
        stands_for: maps each confirmed trial to its representative in ``finalists``.
        runs: all runs that have started.
        ended: the runs that completed or diverged, by trial and seed index.
    """

    finalists: tuple[Record, ...]
    stands_for: Mapping[int, int]
    runs: tuple[Record, ...]
    ended: Mapping[int, Mapping[int, Record]]

    @property
    def scores(self) -> dict[int, dict[int, float | None]]:
        """Scores by trial and seed index; None for a run that diverged."""
        return {
            trial: {seed: None if run.diverged else run.value for seed, run in of_trial.items()}
            for trial, of_trial in self.ended.items()
        }


def read_fresh(study: Study, confirmation: Study) -> Fresh:
    """Read the present runs of a search's confirmation."""
    runs = tuple(confirmation.history.records())
    confirmed = [study.trial(number) for number in sorted(confirmation.finalists())]
    finalists = one_each(confirmed, study.traces.of)
    of_trace = {study.traces.of(each): each.number for each in finalists}
    stands_for = {each.number: of_trace[study.traces.of(each)] for each in confirmed}
    ended: dict[int, dict[int, Record]] = {each.number: {} for each in finalists}
    for run in runs:
        if run.finalist in stands_for and run.state in ("complete", "pruned"):
            ended[stands_for[run.finalist]].setdefault(run.seed_index, run)
    return Fresh(finalists=tuple(finalists), stands_for=stands_for, runs=runs, ended=ended)
