"""Studies that end with their minutes, GPU hours or epochs, or once they are settled."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from running import ALONE, begin, children, records, wait_for

import clrsearch
from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.search import ConfirmPlan, Granted, Study, StudyPlan, tend
from clrsearch.service.confirming import begin_confirmation, has_ended
from clrsearch.service.granting import settle_up
from clrsearch.storage import SlotState, open_database, read_clock
from clrsearch.worker import WorkerSettings

LOOSE = 3.0  # in times of the minutes granted: a machine may be busy


def run(task_dir, workers=0, **keys):
    """Run the study ``mine`` of a tiny task."""
    given = {"task": "tiny.py:Noisy", "families": ("cyclic",), "pruner": "none"} | keys
    notes: list[str] = []
    result = service.run(
        StudyPlan(**given),
        name="mine",
        workers=workers,
        settings=WorkerSettings(device="cpu", task_dir=task_dir),
        on_note=notes.append,
    )
    return result, notes


def epochs(url) -> tuple[int, int]:
    """The epochs trained by the search and by its confirmation."""
    with open_database(url) as database:
        stages = Study.open(database, "mine").stages()
        first, second = (sum(r.epoch for r in each.history.records()) for each in stages)
        return first, second


def test_the_epochs_are_spent_on_the_search_and_its_confirmation_and_no_more(url, task_dir) -> None:
    result, notes = run(task_dir, epochs_total=80)
    assert notes == ["80 epochs: about 15 trials of 4 epochs (60) and a confirmation (20)"]
    now = result.snapshot
    assert (now.total, now.done, now.slots[SlotState.COMPLETE]) == (15, 15, 15)
    assert now.verdict is not None
    assert epochs(url)[0] == 60
    assert 16 <= epochs(url)[1] <= 20
    assert not result.interrupted
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert has_ended(study)
        assert study.plan.trials == 15
    again, _ = run(task_dir, epochs_total=80)
    assert again.began_finished


def test_a_small_budget_is_not_overspent_by_many_workers(url, task_dir) -> None:
    result, notes = run(task_dir, workers=4, epochs_total=24)
    assert notes == ["24 epochs: about 2 trials of 4 epochs (8) and a confirmation (16)"]
    assert result.snapshot.done == 2
    assert epochs(url) == (8, 16)
    assert {each.family for each in result.snapshot.records} == {"cyclic", "constant"}


def test_no_more_slots_are_open_than_the_budget_pays_for(url, task_dir) -> None:
    begin(url, task_dir, trials=100, epochs_total=80)  # 10 trials
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.slots.counts() == {SlotState.OPEN: 10}
        study.limit(StudyPlan(epochs_total=32, confirm=ALONE), Granted())
        claimed = [study.slots.claim(f"w{turn}") for turn in range(2)]
        tend(study)
        assert [each.number for each in claimed] == [0, 1]
        states = study.slots.counts()
        assert states == {SlotState.CLAIMED: 2, SlotState.OPEN: 2, SlotState.CANCELLED: 6}


def test_a_running_worker_learns_of_changed_limits(url, task_dir) -> None:
    begin(url, task_dir, trials=100, epochs_total=24)  # 3 trials
    with open_database(url) as database:
        at_work, asked = Study.open(database, "mine"), Study.open(database, "mine")
        asked.limit(StudyPlan(epochs_total=80, confirm=ALONE), Granted())
        tend(at_work)
        assert at_work.slots.counts() == {SlotState.OPEN: 3}  # and none cancelled
        at_work.slots.cancel(keep=1)
        tend(at_work)
        assert at_work.slots.counts()[SlotState.OPEN] == 10
        asked.limit(StudyPlan(minutes=9), Granted(deadline=read_clock(database.engine) - 1))
        tend(at_work)
        assert at_work.slots.unfinished() == 0


def test_more_epochs_make_the_search_and_the_confirmation_go_on(url, task_dir) -> None:
    run(task_dir, epochs_total=80)
    result, notes = run(task_dir, epochs_total=200)
    assert len(notes) == 1
    first, second = epochs(url)
    assert first > 60
    assert second > 16
    assert first + second <= 200
    assert result.snapshot.done == result.snapshot.total
    plain, _ = run(task_dir)
    assert plain.began_finished  # its limits have not changed
    trials, _ = run(task_dir, trials=result.snapshot.total + 2, confirm=ConfirmPlan(enabled=False))
    assert trials.snapshot.done == result.snapshot.total + 2


def test_several_workers_keep_to_the_epochs_together(url, task_dir) -> None:
    result, _ = run(task_dir, workers=3, epochs_total=160)
    assert sum(epochs(url)) <= 160
    assert epochs(url)[0] >= 100
    assert result.snapshot.verdict is not None


def test_the_trials_are_a_limit_beside_a_budget(url, task_dir) -> None:
    result, notes = run(task_dir, epochs_total=400, trials=12)
    assert notes == ["400 epochs: about 12 trials of 4 epochs (48) and a confirmation (up to 352)"]
    assert result.snapshot.done == 12
    assert result.snapshot.confirmed.total == 4  # the share of 12 trials
    assert result.ran_out is None


def test_gpu_hours_are_the_seconds_of_all_trials(url, task_dir) -> None:
    result, _ = run(task_dir, task="tiny.py:Paced", epochs=4, gpu_hours=12 / 3600)
    now = result.snapshot
    seconds = sum(each.seconds for each in (*now.records, *now.confirmed.runs))
    assert seconds < 13.5  # and not those of 1000 slots
    assert now.done >= 3
    assert now.verdict is not None


def test_minutes_end_a_study_with_its_verdict_and_more_can_be_given(url, task_dir) -> None:
    keys = {"task": "tiny.py:Paced", "epochs": 4, "minutes": 0.6}
    result, notes = run(task_dir, **keys)
    assert notes[0].startswith("0.6 minutes on 1 worker: about ")
    assert result.seconds < 36 * LOOSE
    now = result.snapshot
    assert now.verdict is not None
    assert not result.interrupted
    with open_database(url) as database:
        assert has_ended(Study.open(database, "mine"))
    again, _ = run(task_dir, **keys)
    assert not again.began_finished
    assert again.snapshot.done > now.done
    assert again.snapshot.confirmed.total > now.confirmed.total


def test_a_worker_killed_in_a_budgeted_study_loses_nothing(url, task_dir) -> None:
    known = set(children(os.getpid()))

    def kill() -> None:
        def holder() -> int:
            try:
                with open_database(url) as database:
                    claims = Study.open(database, "mine").slots.claims()
            except Exception:
                return 0
            pids = set(children(os.getpid())) - known
            return len(claims) and max(pids, default=0)

        os.kill(wait_for(holder), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result, notes = run(task_dir, workers=2, task="tiny.py:Paced", epochs=4, epochs_total=100)
    killer.join()
    assert any("SIGKILL" in note for note in notes)
    assert sum(epochs(url)) <= 100
    now = result.snapshot
    assert now.done == now.total
    assert now.slots[SlotState.COMPLETE] == now.done
    assert not [each for each in now.records if each.state == "running"]
    assert now.verdict is not None


def test_what_has_begun_when_the_time_is_over_is_resumed_when_more_is_given(url, task_dir) -> None:
    keys = {"task": "tiny.py:Paced", "epochs": 40, "confirm": ConfirmPlan(enabled=False)}
    begin(url, task_dir, **keys, minutes=1)  # whose trials take 8 seconds, which nobody knows yet
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.slots.unfinished() == 4
        soon = read_clock(database.engine) + 5
        study.limit(study.record.plan, Granted(deadline=soon))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    (broken,) = records(url)
    assert broken.state == "running"
    assert 0 < broken.epoch < 40
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.slots.counts() == {SlotState.OPEN: 1, SlotState.CANCELLED: 3}
        assert has_ended(study)
    watched = service.status("mine", watch=True)  # returns though a trial is left
    assert (watched.over, watched.left) == (True, 1)
    late, _ = run(task_dir, **keys)
    assert late.began_finished  # without more, it stays as it is
    result, _ = run(task_dir, **keys, minutes=0.7)
    first = result.snapshot.records[0]
    assert first.state == "complete"
    assert broken.values.items() <= first.values.items()


def test_nothing_is_opened_after_cancel(url, task_dir) -> None:
    run(task_dir, epochs_total=80)
    with open_database(url) as database:
        study = Study.open(database, "mine")
        study.limit(StudyPlan(epochs_total=800), Granted())
        study.extend(16)
        assert study.slots.unfinished() == 1
        study.cancel()
        tend(study)
        assert study.slots.unfinished() == 0
        assert study.slots.counts()[SlotState.CANCELLED] >= 1


def test_a_budget_is_not_spent_when_workers_leave_before(url, task_dir) -> None:
    begin(url, task_dir, task="tiny.py:Noisy", trials=100, epochs_total=400, confirm=ConfirmPlan())
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=2)
    service.work("mine", settings=settings)
    with open_database(url) as database:
        assert settle_up(Study.open(database, "mine")) is None


def test_minutes_without_a_deadline_are_not_over(url, task_dir) -> None:
    begin(url, task_dir, minutes=1, confirm=ConfirmPlan())  # as if killed before they were granted
    with open_database(url) as database:
        study = Study.open(database, "mine")
        study.slots.cancel()
        assert settle_up(study) is None


def test_runs_that_have_begun_are_paid_for_once(url, task_dir) -> None:
    keys = {"trials": 100, "epochs_total": 32, "confirm": ConfirmPlan(top=1, seeds=3)}
    begin(url, task_dir, task="tiny.py:Noisy", **keys)  # 2 trials of 4 epochs, and 6 runs
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=3)
    service.work("mine", settings=settings)
    with open_database(url) as database:
        study = Study.open(database, "mine")
        sibling = study.confirmation()
        assert sibling.slots.counts() == {SlotState.COMPLETE: 1, SlotState.OPEN: 5}
        slot = sibling.slots.claim("w")
        number = sibling.begin(
            slot, sibling.finalists()[slot.finalist].params, {"worker": "w", "device": "cpu"}
        )
        sibling.slots.bind(slot, number)
        study.limit(StudyPlan(epochs_total=40), Granted())
        study.plan_confirmation(ConfirmPlan(top=1, seeds=9))
        begin_confirmation(study)
        assert len(sibling.slots.runs()) == 8


def test_a_confirmation_that_is_asked_for_has_no_limit_but_its_seeds(url, task_dir) -> None:
    run(task_dir, epochs_total=80)
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    asked = service.confirmation_plan("mine", seeds=9)
    confirmed = service.run(asked, name="mine", workers=0, settings=settings).snapshot.confirmed
    assert all(len(each.scores) == 9 for each in confirmed.verdict.standings)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"epochs_total": 20},
            "20 epochs are about 5 runs of 4 epochs, too few for 2 trials and a confirmation of 4: "
            "give at least --epochs-total 24, or fewer --epochs",
        ),
        (
            {"epochs_total": 7, "confirm": ConfirmPlan(enabled=False)},
            "7 epochs are about 1 run of 4 epochs, too few for 2 trials: "
            "give at least --epochs-total 8, or fewer --epochs",
        ),
    ],
)
def test_a_budget_for_too_few_runs_is_refused_and_nothing_is_written(
    url, task_dir, keys, said
) -> None:
    with pytest.raises(PlanError) as error:
        run(task_dir, **keys)
    assert str(error.value) == said
    assert not url.file.exists()


def test_minutes_for_too_few_runs_are_refused_with_how_many_are_needed(url, task_dir) -> None:
    with pytest.raises(PlanError, match=r"^0\.2 minutes on 1 worker are about \d runs? of .* s, "):
        run(task_dir, task="tiny.py:Slow", minutes=0.2)
    assert not url.file.exists()


def test_a_search_until_it_is_settled_ends_by_itself(url, task_dir) -> None:
    result, notes = run(task_dir, task="tiny.py:Tiny", trials="auto")
    assert notes == [
        "up to 200 trials, fewer if another is expected to gain less than a tenth of the deviation "
        "between seeds"
    ]
    assert 50 <= result.snapshot.done <= 200
    assert result.snapshot.done == result.snapshot.total
    assert result.snapshot.confirmed.total > 0
    again, _ = run(task_dir, task="tiny.py:Tiny")
    assert again.began_finished


def test_the_deadline_is_one_of_the_databases_clock(any_url, task_dir) -> None:
    begin(any_url, task_dir, minutes=1)
    with open_database(any_url) as database:
        study = Study.open(database, "mine")
        assert study.seconds_left is None
        study.limit(StudyPlan(minutes=2), Granted(deadline=read_clock(database.engine) + 100))
        study = Study.open(database, "mine")
        assert 40 < study.seconds_left <= 100
        assert (study.record.plan.minutes, study.record.plan.trials) == (2, 100_000)
        assert study.plan.trials == 4
        study.slots.cancel()
        study.extend(6)
        study.extend(6)  # the four that were cancelled, and two more
        assert study.slots.counts() == {SlotState.OPEN: 6}
        assert Study.open(database, "mine").plan.trials == 6


def test_a_study_of_the_front_door_may_be_given_more(url, task_dir) -> None:
    how = {"workers": 1, "device": "cpu", "progress": False}
    study = clrsearch.run("tiny.py:Noisy", epochs_total=80, task_dir=task_dir, **how)
    before = len(study.trials)
    assert before >= 15
    study.run(epochs_total=160, **how)
    after = len(study.trials)
    assert after > before
    study.run(after + 1, **how)
    assert len(study.trials) == after + 1
    with pytest.raises(PlanError, match="minutes: -3 is not a finite number above 0"):
        study.run(minutes=-3, **how)
