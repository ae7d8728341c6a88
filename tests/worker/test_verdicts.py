"""Whole comparisons of which it is known beforehand who wins, or that nobody does."""

from __future__ import annotations

from pathlib import Path

import torch

from clrsearch import service
from clrsearch.search import Study, Verdict, load_plan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def compare(url, task) -> Verdict:
    """Work a comparison off in this process, its confirmation included."""
    changes = {"task": f"planted_task.py:{task}", "trials": 15}
    asked = load_plan(BENCHMARKS / "planted.toml", changes)
    plan = service.comparison(asked, task_dir=BENCHMARKS).plan
    facts = probe(load_task(plan.task, folder=BENCHMARKS), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(BENCHMARKS))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=BENCHMARKS))
    confirmed = service.show("mine").snapshot.confirmed
    assert (confirmed.total, confirmed.left) == (50, 0)
    assert confirmed.verdict is not None
    return confirmed.verdict


def test_the_only_family_that_reaches_the_floor_is_named(url) -> None:
    verdict = compare(url, "Planted")
    leader, *others = verdict.standings
    assert leader.family == "linear"
    assert sorted(each.family for each in others) == ["constant", "cyclic", "step", "wsd"]
    assert verdict.undecided == (leader.trial,)
    assert verdict.chosen == leader.trial
    assert verdict.sentence.startswith(f"linear (trial {leader.trial}) is best")


def test_where_all_are_equal_nobody_is_named(url) -> None:
    verdict = compare(url, "Equal")
    assert len(verdict.undecided) > 1
    assert verdict.sentence.startswith("No single winner on 10 fresh seeds")
