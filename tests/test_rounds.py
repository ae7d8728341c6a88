"""A confirmation whose seeds are spent round by round, with real workers and databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from clrsearch import service
from clrsearch.search import (
    ConfirmPlan,
    Studies,
    Study,
    StudyPlan,
    beliefs,
    budget,
    expected_of,
    next_runs,
    read_fresh,
)
from clrsearch.service.confirming import begin_confirmation, has_ended
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

CPU = torch.device("cpu")
ADAPTIVE = ConfirmPlan(top=2, share=0.6)
PLAN = StudyPlan(  # with 18 runs on fresh seeds
    task="tiny.py:Noisy", families=("cyclic",), trials=12, confirm=ADAPTIVE
)


def make(task_dir, plan=PLAN) -> None:
    """Make a study."""
    facts = probe(load_task(plan.task, folder=task_dir), device=CPU)
    with open_database(service.storage_url(None), create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))


def searched(task_dir, plan=PLAN) -> None:
    """Make a study and work off its search, and nothing of its confirmation."""
    alone = {"confirm": plan.confirm.model_copy(update={"enabled": False})}
    make(task_dir, plan.model_copy(update=alone))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    with open_database(service.storage_url(None)) as database:
        Study.open(database, "mine").plan_confirmation(plan.confirm)


def runs_of(study) -> list[tuple[int, int]]:
    """Finalist and seed index of every slot of the confirmation, in order."""
    with study.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT finalist, seed_index FROM clrsearch_slots WHERE stage = 'confirm' "
            "ORDER BY number"
        )
        return [(finalist, seed) for finalist, seed in rows]


def require_sound(database) -> list[tuple[int, int]]:
    """Each run is there once, ended once, and is one that follows from those before its round."""
    study = Study.open(database, "mine")
    sibling = study.confirmation()
    runs = runs_of(study)
    assert len(set(runs)) == len(runs) <= budget(study.plan)
    assert sibling.slots.counts() == {SlotState.COMPLETE: len(runs)}
    records = sibling.history.records()
    assert sorted((each.finalist, each.seed_index) for each in records) == sorted(runs)
    fresh = read_fresh(study, sibling)
    asked: list[tuple[int, int]] = []
    while len(asked) < len(runs):
        scores = {
            trial: {seed: score for seed, score in row.items() if (trial, seed) in asked}
            for trial, row in fresh.scores.items()
        }
        told = [each for each in records if (each.finalist, each.seed_index) in asked]
        believed = beliefs(study.history.records(), told, study.searched)
        new = next_runs(
            fresh.finalists,
            scores,
            asked,
            direction="minimize",
            baseline="constant",
            left=budget(study.plan) - len(asked),
            expected=expected_of(fresh.finalists, believed),
        )
        assert new
        assert set(new) == set(runs[len(asked) : len(asked) + len(new)])
        asked += new
    assert has_ended(study)
    return runs


def test_one_worker_goes_from_round_to_round_until_all_is_settled(any_url, task_dir) -> None:
    make(task_dir)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    with open_database(any_url) as database:
        runs = require_sound(database)
    assert len(runs) > 6  # three finalists on two seeds are the first round
    confirmed = service.show("mine").snapshot.confirmed
    assert (confirmed.left, confirmed.total) == (0, len(runs))
    verdict = confirmed.verdict
    assert {len(each.scores) for each in verdict.standings} != {2}


def test_two_workers_wait_for_each_other_at_the_end_of_a_round(url, task_dir) -> None:
    plan = StudyPlan(task="tiny.py:Noisy", trials=20, confirm=ADAPTIVE)  # of all families
    result = service.run(
        plan, name="mine", workers=2, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    assert not result.interrupted
    with open_database(url) as database:
        runs = runs_of(Study.open(database, "mine"))
        assert len(runs) > 6
        sibling = Study.open(database, "mine").confirmation()
        assert sibling.slots.counts() == {SlotState.COMPLETE: len(runs)}
        records = sibling.history.records()
        assert sorted((each.finalist, each.seed_index) for each in records) == sorted(runs)
        assert has_ended(Study.open(database, "mine"))
    again = service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    assert again.began_finished


def test_many_that_decide_at_once_ask_for_the_same_runs_once(any_url, task_dir) -> None:
    searched(task_dir)
    together = 4
    barrier = Barrier(together)

    def decide(_: int) -> None:
        with open_database(any_url) as database:
            study = Study.open(database, "mine")
            study.history.records()
            barrier.wait()
            begin_confirmation(study)

    with open_database(any_url) as database:
        for _ in range(3):
            with ThreadPoolExecutor(together) as pool:
                list(pool.map(decide, range(together)))
            study = Study.open(database, "mine")
            sibling = study.confirmation()
            runs = runs_of(study)
            assert len(set(runs)) == len(runs)
            while (slot := sibling.slots.claim("w")) is not None:
                family, seed = slot.family, slot.seed_index
                params = sibling.finalists()[slot.finalist].params
                number = sibling.begin(slot, params, {"worker": "w", "device": "cpu"})
                value = {"cyclic": 0.1, "constant": 0.15}[family] + (slot.finalist * seed % 7) / 100
                sibling.log.report(number, {4: value})
                sibling.log.complete(number, value, {})
                sibling.slots.finish(slot, SlotState.COMPLETE)
        require_sound_so_far(study)


def require_sound_so_far(study) -> None:
    runs = runs_of(study)
    assert len(runs) > 6
    for trial in {trial for trial, _ in runs}:
        seeds = [seed for each, seed in runs if each == trial]
        assert seeds == list(range(1, len(seeds) + 1))


def test_a_worker_that_was_lost_in_a_round_and_one_that_left_lose_and_double_nothing(
    url, task_dir
) -> None:
    searched(task_dir)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir, max_trials=4))
    with open_database(url) as database:
        study = Study.open(database, "mine")
        sibling = study.confirmation()
        assert sibling.slots.unfinished() == 2
        slot = sibling.slots.claim("killed")
        params = sibling.finalists()[slot.finalist].params
        number = sibling.begin(slot, params, {"worker": "killed", "device": "cpu"})
        sibling.slots.bind(slot, number)
        sibling.slots.release("killed")
        assert not has_ended(study)
    service.work(
        "mine", settings=WorkerSettings(device="cpu", task_dir=task_dir, max_trials=2)
    )  # the end of the round
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.confirmation().slots.unfinished() == 0
        assert not has_ended(study)  # though nobody has begun the next one
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    with open_database(url) as database:
        assert len(require_sound(database)) > 6


def test_seeds_for_all_may_be_asked_for_later_and_the_rounds_go_on_afterwards(
    url, task_dir
) -> None:
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    how = {"name": "mine", "workers": 0, "settings": settings}
    service.run(PLAN, **how)
    before = service.show("mine").snapshot.confirmed
    beaten = {each.trial for each in before.verdict.standings if (each.p or 1.0) <= 0.05}
    result = service.run(service.confirmation_plan("mine", seeds=12), **how)
    standings = result.snapshot.confirmed.verdict.standings
    assert all(sorted(each.scores) == list(range(1, 13)) for each in standings)
    assert result.snapshot.confirmed.total == 12 * len(standings)
    assert {each.trial for each in standings if (each.p or 1.0) <= 0.05} >= beaten - {
        standings[0].trial
    }
    again = service.run(service.confirmation_plan("mine"), **how)
    assert again.began_finished  # the share is spent
    with open_database(url) as database:
        assert Study.open(database, "mine").plan.confirm == ADAPTIVE
    more = PLAN.model_copy(update={"trials": 40, "confirm": PLAN.confirm})
    grown = service.run(more, **how).snapshot
    assert (grown.done, grown.confirmed.left) == (40, 0)
    assert min(len(each.scores) for each in grown.confirmed.verdict.standings) >= 2


def test_a_plan_that_was_stored_with_a_number_of_seeds_goes_on_with_it(url, task_dir) -> None:
    stored = {"enabled": True, "top": 1, "seeds": 2}  # as earlier versions wrote it
    searched(task_dir, PLAN.model_copy(update={"confirm": ConfirmPlan(**stored)}))
    with open_database(url) as database:
        study = Study.open(database, "mine")
        Studies(database).change_plan(study.record, confirm=stored)
        assert Study.open(database, "mine").plan.confirm.seeds == 2
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    with open_database(url) as database:
        runs = runs_of(Study.open(database, "mine"))
    finalists = list(dict.fromkeys(trial for trial, _ in runs))
    assert runs == [(trial, seed) for seed in (1, 2) for trial in finalists]


def test_after_cancel_no_further_round_begins_until_it_is_asked_for(url, task_dir) -> None:
    make(task_dir)
    cancelled = []

    def cancel(record, study) -> None:
        if study.stage == "confirm" and record.seed_index == 2 and not cancelled:
            cancelled.append(service.cancel("mine"))

    how = {"settings": WorkerSettings(device="cpu", task_dir=task_dir)}
    service.work("mine", on_end=cancel, **how)
    assert cancelled == [2]
    service.work("mine", **how)
    assert service.show("mine").snapshot.confirmed.total == 4
    asked = service.confirmation_plan("mine")
    again = service.run(asked, name="mine", workers=0, **how).snapshot.confirmed
    assert again.total > 6
    assert set(again.slots) == {SlotState.COMPLETE}


def test_a_small_study_confirms_as_many_as_its_share_lets_run_twice(url, task_dir) -> None:
    make(task_dir, StudyPlan(task="tiny.py:Noisy", families=("cyclic",), trials=12))  # 4 runs
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    with open_database(url) as database:
        assert len(require_sound(database)) == 4


@pytest.mark.parametrize("share", [0, 1, "half"])
def test_a_share_is_between_nothing_and_all(share) -> None:
    with pytest.raises(ValueError, match="share"):
        ConfirmPlan(share=share)
