"""What is said of who won, and the command that would settle it."""

from __future__ import annotations

from typing import Any

import pytest
from records import STEPS, UNEVEN, WITHIN, make_record, make_snapshot

from clrsearch.results import Snapshot, settling, verdict_sentence
from clrsearch.results.confirmation import Confirmed
from clrsearch.search import judge
from clrsearch.storage import SlotState

FIRST = [0.0, 0.1, 0.0, 0.1, 0.0]
SECOND = [0.1, 0.0, 0.1, 0.0, 0.1]
LAST = [9.0, 9.1, 9.1, 9.0, 9.0]


def snapshot(
    *scores: list[float],
    families: tuple[str, ...] = ("cyclic", "step"),
    baseline: int | None = None,
    reached: int | None = None,
    **changes: Any,
) -> Snapshot:
    """A study of which some trials have been confirmed, with these scores on the fresh seeds."""
    records = [make_record(1.0, number=n, family=each) for n, each in enumerate(families)]
    fresh = {n: dict(enumerate(row, start=1)) for n, row in enumerate(scores)}
    counts = dict.fromkeys(SlotState, 0) | {SlotState.COMPLETE: len(records)}
    return make_snapshot(
        records,
        name="my study",
        confirmed=Confirmed(
            slots=counts,
            runs=(),
            verdict=judge(records, fresh, direction="minimize"),
            baseline=baseline,
            reached=reached,
            test={},
            absent=(),
        ),
        **changes,
    )


@pytest.mark.parametrize(
    ("scores", "seeds"),
    [
        ([[0.0] * 3, [1.0, 1.01, 0.99]], 4),
        ([[0.0], [1.0]], 3),  # of one seed nothing can be said
    ],
)
def test_the_seeds_that_would_settle_it_come_with_the_command_that_runs_them(scores, seeds) -> None:
    now = snapshot(*scores)
    assert settling(now) == f"clrsearch confirm 'my study' --seeds {seeds}"
    sentence = verdict_sentence(now)
    assert sentence.endswith(f" clrsearch confirm 'my study' --seeds {seeds} runs that many seeds.")


@pytest.mark.parametrize(
    ("scores", "families"),
    [
        ([FIRST, LAST], ("cyclic", "step")),  # settled
        ([FIRST], ("cyclic",)),  # no rival
        ([FIRST, SECOND, LAST], ("cyclic", "cyclic", "step")),
    ],
)
def test_no_command_is_proposed_where_the_winner_is_known(scores, families) -> None:
    now = snapshot(*scores, families=families)
    assert settling(now) is None
    assert verdict_sentence(now) == now.verdict.sentence
    assert now.recommended.number == now.verdict.chosen


def test_what_it_is_worth_is_said_in_epochs_of_the_baseline() -> None:
    now = snapshot(FIRST, LAST, families=("cyclic", "constant"), baseline=1, reached=3)
    p = f"{now.verdict.standing(1).p:.2g}"
    assert float(p) < 0.05
    assert verdict_sentence(now) == (
        f"{now.verdict.sentence} It beats constant (trial 1; p = {p}) and reaches its final "
        "score after 3 of 4 epochs."
    )
    near = snapshot(FIRST, SECOND, families=("cyclic", "constant"), baseline=1, reached=3)
    assert (
        "It reaches the final score of constant (trial 1) after 3 of 4 epochs."
        in verdict_sentence(near)
    )
    behind = snapshot(
        FIRST, SECOND, [0.6, 0.7], families=("cyclic", "step", "constant"), baseline=2, reached=3
    )
    assert behind.verdict.behind == (2,)  # with fewer seeds, but not significantly worse
    assert "It reaches the final score of constant (trial 2) after" in verdict_sentence(behind)
    alone = snapshot(FIRST, LAST, families=("cyclic", "constant"), baseline=1)
    assert verdict_sentence(alone) == alone.verdict.sentence


@pytest.mark.parametrize(
    ("scores", "families", "said"),
    [
        (
            [FIRST, LAST],
            ("cosine", "schedule_free"),
            "You do need a schedule here: schedule_free (trial 1) is beaten.",
        ),
        (
            [FIRST, SECOND, LAST],
            ("cosine", "schedule_free", "step"),
            "Whether you need a schedule at all stays open: schedule_free (trial 1) has not been "
            "beaten.",
        ),
        ([FIRST, LAST], ("schedule_free", "cosine"), "So you need no schedule here."),
        (
            [FIRST, SECOND, LAST],
            ("schedule_free", "cosine", "step"),
            "So you may need no schedule here.",
        ),
        ([[0.0], [1.0]], ("cosine", "schedule_free"), None),  # of one seed nothing can be said
        ([FIRST, LAST], ("cosine", "step"), None),
    ],
)
def test_whether_a_schedule_is_needed_is_said_if_there_was_one_without(
    scores, families, said
) -> None:
    sentence = verdict_sentence(snapshot(*scores, families=families))
    if said is None:
        assert "need" not in sentence
    else:
        assert said in sentence


def test_a_diverged_schedule_free_is_told() -> None:
    now = snapshot(FIRST, [*FIRST[:4], None], families=("cosine", "schedule_free"))
    assert "You do need a schedule here: schedule_free (trial 1) diverged." in verdict_sentence(now)


@pytest.mark.parametrize(
    ("spacing", "reached", "said"),
    [
        (STEPS, 2, "after 40 of 50 steps."),
        (STEPS, 3, "after 50 of 50 steps."),
        (WITHIN, 2, "after 10 of 33 steps."),
        (UNEVEN, 2, "after 2 of 4 epochs."),
    ],
)
def test_between_epochs_it_is_said_in_steps(spacing, reached, said) -> None:
    families = ("cyclic", "constant")
    now = snapshot(FIRST, LAST, families=families, baseline=1, reached=reached, spacing=spacing)
    assert verdict_sentence(now).endswith(f" and reaches its final score {said}")
