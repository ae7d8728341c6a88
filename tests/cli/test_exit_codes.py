"""What the commands that train end with, and the one line that says why."""

from __future__ import annotations

import pytest
import torch

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.service.confirming import begin_confirmation
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

RUN = ("run", "--name", "a b", "--workers", "0")


@pytest.fixture
def ended(clrsearch, monkeypatch, url, task_dir):
    """Make a study, work it off here, let something happen to it, and ask ``run`` for it again."""
    monkeypatch.chdir(task_dir)

    def go(task, *options, happens=lambda study: None, confirm=None, **keys):
        confirm = confirm or ConfirmPlan(enabled=False)
        plan = StudyPlan(
            families=("cyclic",), task=f"tiny.py:{task}", trials=2, confirm=confirm, **keys
        )
        facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
        with open_database(url, create=True) as database:
            study = Study.create(database, "a b", plan, facts, service.versions(task_dir))
            happens(study)
        service.work("a b", settings=WorkerSettings(device="cpu", task_dir=task_dir))
        return clrsearch(*RUN, "--task", plan.task, *options)

    return go


def fail(study, slots=1) -> None:
    """Use slots up as a worker does that fails for the last time."""
    for _ in range(slots):
        slot = study.slots.claim("w")
        params = study.space.seed_points(slot.family)[0]
        trial = study.begin(slot, params, {"worker": "w", "device": "cpu"})
        study.log.fail(
            trial, {"error": "Traceback (most recent call last):\nKeyError: 'x'", "final": True}
        )
        study.slots.finish(slot, SlotState.FAILED)


def test_a_result_without_failures_is_0(ended) -> None:
    code, _, errors = ended("Tiny", "--no-confirm")
    assert (code, errors) == (0, "")


def test_trials_that_failed_for_good_are_1_beside_a_result(ended) -> None:
    code, out, errors = ended("Tiny", "--no-confirm", happens=fail)
    assert code == 1
    assert "def make_scheduler" in out
    assert errors == (
        "clrsearch: 1 trial of a b failed (KeyError: 'x'): clrsearch status 'a b' shows why, "
        "clrsearch retry 'a b' retries them\n"
    )


def test_a_study_without_a_complete_trial_is_1(ended) -> None:
    options = ("--no-confirm", "--json", "--set", "retries=0")
    code, out, errors = ended("FailsLater", *options, retries=0)
    assert code == 1
    assert out.startswith('{"study": "a b"')
    assert errors == (
        "clrsearch: a b has no result: no trial completed (0 complete, 0 pruned, 0 diverged, "
        "2 failed). clrsearch status 'a b' shows what failed\n"
    )


def test_where_all_diverged_lower_bounds_are_proposed(ended) -> None:
    code, _, errors = ended("Explodes", "--no-confirm")
    assert code == 1
    assert errors == (
        "clrsearch: a b has no result: every trial diverged at learning rates of 0.02 and "
        "above. Lower the bounds: add --set 'bounds.cyclic.max_lr=[6.7e-06, 0.00067]' "
        "--set 'bounds.constant.lr=[6.7e-06, 0.00067]' to clrsearch run --workers 0 --task "
        "tiny.py:Explodes --no-confirm --name 'a b-2'\n"
    )


def test_a_confirmation_without_a_result_is_1_and_can_be_retried(
    ended, clrsearch, url, monkeypatch
) -> None:
    confirm = ConfirmPlan(top=1, seeds=2)
    monkeypatch.setattr("clrsearch.service.confirming.begin_confirmation", lambda study: None)
    ended("Tiny", "--no-confirm", confirm=confirm)
    with open_database(url) as database:
        sibling = begin_confirmation(Study.open(database, "a b"))
        runs = sibling.slots.unfinished()
        fail(sibling, runs)
    keys = ("--set", "confirm.top=1", "--set", "confirm.seeds=2")
    code, _, errors = clrsearch(*RUN, "--task", "tiny.py:Tiny", *keys)
    assert code == 1
    assert errors == (
        "clrsearch: the confirmation of a b has no result: 0 complete, 0 pruned, "
        f"0 diverged, {runs} failed (KeyError: 'x'). clrsearch retry 'a b' retries the failed "
        "ones\n"
    )
    assert service.retry("a b") == runs
