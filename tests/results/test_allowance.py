"""A study's budget in words."""

from __future__ import annotations

from clrsearch.results import forecast, spent, too_little, what_is_left
from clrsearch.search import ConfirmPlan, Purse, StudyPlan
from clrsearch.tasks import Spacing

SPACING = Spacing(epochs=20, steps_per_epoch=10)


def minutes(granted: float, left: float | None = None, *, run: float, workers: int = 2) -> Purse:
    return Purse(
        key="minutes",
        granted=60 * granted,
        left=60 * (granted if left is None else left),
        run=run,
        together=workers,
    )


def epochs(granted: int, left: int) -> Purse:
    return Purse(key="epochs_total", granted=granted, left=left, run=20.0)


def gpu_hours(granted: float, left: float) -> Purse:
    return Purse(key="gpu_hours", granted=3600 * granted, left=3600 * left, run=462.0)


def told(purses, further: int, **keys) -> str:
    return forecast(purses, StudyPlan(**keys), SPACING, workers=2, trials=further)


def test_minutes_are_shared_by_the_search_and_the_confirmation() -> None:
    assert told([minutes(30, run=6.2)], 434, minutes=30) == (
        "30 minutes on 2 workers: about 434 trials of 6.2 s (22 min) and a confirmation (8 min)"
    )


def test_gpu_hours_and_epochs_name_what_a_trial_takes_of_them() -> None:
    assert told([gpu_hours(12, 12)], 70, gpu_hours=12) == (
        "12 GPU hours: about 70 trials of 8 min (9.0 h) and a confirmation (3.0 h)"
    )
    assert told([epochs(2000, 2000)], 75, epochs_total=2000) == (
        "2000 epochs: about 75 trials of 20 epochs (1500) and a confirmation (500)"
    )


def test_a_number_of_trials_that_is_reached_first_leaves_more_than_is_used() -> None:
    assert told([epochs(2000, 2000)], 10, epochs_total=2000, trials=10) == (
        "2000 epochs: about 10 trials of 20 epochs (200) and a confirmation (up to 1800)"
    )


def test_without_a_confirmation_none_is_promised() -> None:
    keys = {"epochs_total": 2000, "confirm": ConfirmPlan(enabled=False)}
    assert told([epochs(2000, 2000)], 100, **keys) == (
        "2000 epochs: about 100 trials of 20 epochs (2000)"
    )


def test_a_search_that_ends_when_it_is_settled_says_so() -> None:
    settled = (
        "fewer if another is expected to gain less than a tenth of the deviation between seeds"
    )
    assert told([], 200, trials="auto") == f"up to 200 trials, {settled}"
    assert told([epochs(2000, 2000)], 75, trials="auto", epochs_total=2000) == (
        f"2000 epochs: at most 75 trials of 20 epochs (1500) and a confirmation, {settled}"
    )


def test_what_is_left_is_told_for_each_limit() -> None:
    purses = [minutes(3, 1.2, run=1), gpu_hours(1, 0.5), epochs(2000, 812)]
    assert what_is_left(purses, StudyPlan(trials=9)) == (
        "72 s of 3 minutes left, 30 min of 1 GPU hour left, 812 of 2000 epochs left"
    )
    assert what_is_left([minutes(1, -4, run=1)], StudyPlan()) == "0 s of 1 minute left"
    assert what_is_left([], StudyPlan()) == ""
    assert what_is_left([], StudyPlan(trials="auto")) == "at most 200 trials"


def test_the_limit_that_is_reached_is_named() -> None:
    assert spent([minutes(3, 0, run=1), epochs(2000, 812)]) == "the 3 minutes were over"
    assert spent([minutes(1, 0, run=1)]) == "the 1 minute was over"
    assert spent([epochs(2000, 12), minutes(3, 1, run=1)]) == "the 2000 epochs were spent"


def test_too_little_says_what_would_do() -> None:
    plan = StudyPlan(minutes=2)
    said = too_little([minutes(2, run=80)], plan, SPACING, workers=2)
    # one trial and two runs for each worker, of 80 s
    assert said == (
        "2 minutes on 2 workers are about 2 runs of 80 s, too few for 2 trials and a confirmation "
        "of 4: give at least --minutes 4, or fewer --epochs"
    )
    started = too_little([minutes(2, 1.5, run=80)], plan, SPACING, workers=2)
    assert "--minutes 4.5," in started  # half a minute has passed
