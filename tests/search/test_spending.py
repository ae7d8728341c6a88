"""What is left of a budget, and how much of it the search and the confirmation may have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from facts import make_facts
from records import make_record

from clrsearch.search import ConfirmPlan, Purse, StudyPlan, further_runs, further_trials, purses
from clrsearch.search.spending import Cost, cost_of_run, fewest_runs, workers_at_work

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FACTS = make_facts(epochs=10)


def ended(number: int, at: float, seconds: float, *, epochs: int = 10, **changes):
    """A trial that ended so many seconds after noon."""
    when = NOON + timedelta(seconds=at)
    return make_record(
        *[0.5] * epochs, number=number, seconds=seconds, started=when, ended=when, **changes
    )


def running(number: int, epochs: int = 1, **changes):
    return make_record(
        *[0.5] * epochs, number=number, state="running", seconds=0.0, started=NOON, **changes
    )


def purse(**changes) -> Purse:
    given = {"key": "minutes", "granted": 1000.0, "left": 1000.0, "run": 10.0, "together": 2}
    return Purse(**given | changes)


def test_the_search_leaves_the_confirmation_its_share() -> None:
    plan = StudyPlan(minutes=16)
    # 750 of 1000 s for the search: 75 runs after another on each of two workers
    assert further_trials([purse()], plan) == 150
    assert further_runs([purse()]) == 200
    assert further_trials([purse(left=260.0)], plan) == 2
    assert further_trials([purse(left=259.0)], plan) == 0
    assert further_runs([purse(left=259.0)]) == 50


def test_the_share_is_no_less_than_two_seeds_for_the_best_and_the_baseline() -> None:
    plan = StudyPlan(minutes=2)
    # 12 runs one after another: a quarter would be 3, and the fewest are 4
    alone = purse(granted=120.0, left=120.0, together=1)
    assert further_trials([alone], plan) == 8
    two = purse(granted=120.0, left=120.0)
    assert further_trials([two], plan) == 18  # 9 on each: a quarter is more than two on each


@pytest.mark.parametrize(
    ("keys", "runs"),
    [
        ({}, 4),
        ({"families": ("cyclic",)}, 4),
        ({"families": ("cyclic", "linear", "cosine", "constant")}, 8),
        ({"confirm": ConfirmPlan(seeds=3, top=2)}, 9),
        ({"confirm": ConfirmPlan(enabled=False)}, 0),
    ],
)
def test_the_fewest_runs_of_a_confirmation(keys, runs) -> None:
    assert fewest_runs(StudyPlan(**keys)) == runs


def test_without_a_confirmation_the_search_has_it_all() -> None:
    plan = StudyPlan(minutes=16, confirm=ConfirmPlan(enabled=False))
    assert further_trials([purse()], plan) == 200


def test_of_several_limits_the_first_to_be_reached_counts() -> None:
    epochs = purse(key="epochs_total", granted=400.0, left=400.0, run=10.0, together=1)
    plan = StudyPlan(minutes=16, epochs_total=400)
    assert further_trials([purse(), epochs], plan) == 30
    assert further_runs([purse(), epochs]) == 40
    assert further_trials([], StudyPlan()) == 100_000


def test_what_the_confirmation_has_had_counts_as_its_share() -> None:
    epochs = purse(key="epochs_total", granted=400.0, left=160.0, run=10.0, together=1)
    plan = StudyPlan(epochs_total=400)
    assert further_trials([epochs], plan) == 6
    # of its 100 epochs 40 are left, which are the fewest runs as well
    assert further_trials([purse(**_fields(epochs), confirmed=60.0)], plan) == 12


def _fields(found: Purse) -> dict[str, object]:
    return {"key": found.key, "granted": found.granted, "left": found.left, "run": found.run} | {
        "together": found.together
    }


def test_a_run_that_takes_no_time_that_is_known_is_never_too_long() -> None:
    assert purse(run=0.0).runs() == 100_000


def test_before_a_trial_has_ended_the_interval_that_was_tried_tells_the_cost() -> None:
    assert cost_of_run([running(0)], 10, interval_seconds=0.5) == Cost(seconds=5.0)


def test_the_latest_trials_tell_the_cost_of_a_full_run_and_of_the_pause_between_two() -> None:
    records = [
        ended(0, 2, 2.0, worker="a"),
        ended(1, 3, 3.0, worker="b"),
        ended(2, 5, 1.0, worker="a", epochs=5, state="pruned"),  # 0.2 s an epoch, 2 s of pause
        ended(3, 7, 4.0, worker="b"),  # no pause
    ]
    found = cost_of_run(records, 10, interval_seconds=9.0)
    # 0.2, 0.2, 0.3 and 0.4 s an epoch
    assert found == Cost(seconds=pytest.approx(2.5), overhead=1.0)
    assert found.wall == pytest.approx(3.5)


def test_lanes_share_the_seconds_of_a_worker_and_are_paid_for_together() -> None:
    records = [ended(i, 60, 1.0, lanes=8) for i in range(3)]
    assert cost_of_run(records, 10).wall == pytest.approx(8.15)
    (found,) = purses(
        StudyPlan(minutes=10), FACTS, records, seconds_left=90.0, interval_seconds=0.1, workers=2
    )
    # 8.965 s with 10 % to spare
    assert (found.together, found.runs()) == (16, 160)


def test_epochs_of_running_trials_are_spent_to_their_ends() -> None:
    trials = [ended(0, 1, 1.0), ended(1, 2, 1.0, epochs=4, state="pruned"), running(2)]
    (found,) = purses(StudyPlan(epochs_total=100), FACTS, trials, [ended(0, 3, 1.0)])
    assert (found.left, found.run, found.confirmed, found.runs()) == (66.0, 10.0, 10.0, 6)


def test_epochs_are_counted_as_epochs_where_validation_is_within_them() -> None:
    facts = make_facts(epochs=3, steps_per_epoch=10, validate_every=5)
    (found,) = purses(StudyPlan(epochs_total=30), facts, [ended(0, 1, 1.0, epochs=4)])
    assert (found.left, found.run) == (28.0, 3.0)


def test_gpu_hours_are_seconds_on_each_gpu() -> None:
    trials = [ended(0, 1, 360.0, ranks=2), running(1, ranks=2)]
    (found,) = purses(StudyPlan(gpu_hours=1), FACTS, trials)
    assert (found.granted, found.run, found.left) == (3600.0, 720.0, 2160.0)


def test_a_trial_that_diverges_or_fails_has_cost_the_epoch_in_which_it_did() -> None:
    trials = [
        ended(0, 1, 0.0, epochs=0, state="failed"),
        ended(1, 2, 1.0, epochs=2, state="complete", diverged=True),
        ended(2, 3, 1.0, epochs=10, state="failed"),
    ]
    (found,) = purses(StudyPlan(epochs_total=100), FACTS, trials)
    assert found.left == 100 - 1 - 3 - 10


def test_epochs_that_another_trial_trained_are_not_paid_for_again() -> None:
    trials = [
        ended(0, 1, 10.0),
        ended(1, 2, 4.0, inherited=6),
        ended(2, 3, 0.5, inherited=10),  # all of it
    ]
    (found,) = purses(StudyPlan(epochs_total=100), FACTS, trials)
    assert found.left == 100 - 10 - 4
    assert cost_of_run(trials, 10).seconds == pytest.approx(10.0)


def test_a_failed_trial_has_cost_its_epochs() -> None:
    trials = [ended(0, 1, 100.0), ended(1, 2, 0.0, epochs=3, state="failed")]
    (found,) = purses(StudyPlan(gpu_hours=1), FACTS, trials)
    assert found.left == pytest.approx(3600 - 140)


def test_workers_at_work_are_those_that_ran_trials_when_the_last_one_started() -> None:
    assert workers_at_work([]) == 1
    records = [
        ended(0, 0, 1.0, worker="gone"),
        make_record(0.5, number=1, worker="a", started=NOON, ended=NOON + timedelta(seconds=9)),
        make_record(
            0.5,
            number=2,
            worker="b",
            state="running",
            started=NOON + timedelta(seconds=5),
        ),
    ]
    assert workers_at_work(records) == 2
