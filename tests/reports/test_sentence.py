"""What is said of who won, and the command that would settle it."""

from __future__ import annotations

import pytest
from records import make_record

from clrsearch.reports import Snapshot, settling, verdict_sentence
from clrsearch.reports.confirmed import Confirmed
from clrsearch.search import judge
from clrsearch.storage import SlotState


def snapshot(*scores: list[float], families: tuple[str, ...] = ("cyclic", "step")) -> Snapshot:
    """A study of which some trials have been confirmed, with these scores on the fresh seeds."""
    records = [make_record(1.0, number=n, family=each) for n, each in enumerate(families)]
    fresh = {n: dict(enumerate(row, start=1)) for n, row in enumerate(scores)}
    counts = dict.fromkeys(SlotState, 0) | {SlotState.COMPLETE: len(records)}
    return Snapshot(
        name="my study",
        task="mine.py:Mine",
        metric="error",
        direction="minimize",
        epochs=4,
        steps_per_epoch=4,
        slots=counts,
        confirmed=Confirmed(
            slots=counts,
            runs=(),
            verdict=judge(records, fresh, direction="minimize"),
            test={},
            absent=(),
        ),
        records=records,
        leader=records[0],
        baseline=None,
        baseline_family="constant",
        schedules={},
    )


@pytest.mark.parametrize(
    ("scores", "seeds"),
    [
        ([[0.0, 0.0], [1.0, 1.3]], 3),  # of normal deviates two would do
        ([[0.0], [1.0]], 3),  # of one seed nothing can be said
    ],
)
def test_the_seeds_that_would_settle_it_come_with_the_command_that_runs_them(scores, seeds) -> None:
    now = snapshot(*scores)
    assert settling(now) == f"clrsearch confirm 'my study' --seeds {seeds}"
    sentence = verdict_sentence(now)
    assert sentence.endswith(f" clrsearch confirm 'my study' --seeds {seeds} runs as many seeds.")


@pytest.mark.parametrize(
    ("scores", "families"),
    [
        ([[0.0, 0.1, 0.0], [9.0, 9.0, 9.1]], ("cyclic", "step")),  # settled
        ([[0.0, 0.1, 0.0]], ("cyclic",)),  # no rival
        ([[0.0, 0.1, 0.0], [0.1, 0.0, 0.0], [9.0, 9.0, 9.1]], ("cyclic", "cyclic", "step")),
    ],
)
def test_no_command_is_proposed_where_the_winner_is_known(scores, families) -> None:
    now = snapshot(*scores, families=families)
    assert settling(now) is None
    assert verdict_sentence(now) == now.verdict.sentence
    assert now.recommended.number == now.verdict.chosen
