"""Range tests of a plan's task or of an existing study."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from optuna import load_study

from clrsearch.plots import picture_of_range_test, to_plotly
from clrsearch.search import RangeTest, Study, StudyPlan
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import refuse_drift, sources_of
from clrsearch.service.tryout import Tryout
from clrsearch.storage import open_database
from clrsearch.tasks import TaskFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A range test.

    Attributes:
        study: the study that stores it, if any.
        task: the task's name.
        facts: the facts of the task.
        test: the range test.
        seconds: how long it took; about 0 if the study already had it.
    """

    study: str | None
    task: str
    facts: TaskFacts
    test: RangeTest
    seconds: float


def range_test(
    study: StudyPlan | str,
    *,
    storage: Storage = None,
    device: str | None = None,
    task_dir: Path | None = None,
    data_dir: Path | None = None,
    allow_drift: bool = False,
) -> Tested:
    """Run a learning-rate range test on the task of a plan, or of a study given by name.

    For a plan nothing is stored. A study stores its range test, and later calls return it.

    Raises:
        ClrsearchError: the plan, task or storage is not valid, or there is no such study.
    """
    if isinstance(study, StudyPlan):
        with Tryout(study, device=device, task_dir=task_dir, data_dir=data_dir) as tryout:
            facts = tryout.facts
            began = time.monotonic()
            found = tryout.range_test(facts)
        seconds = time.monotonic() - began
        return Tested(study=None, task=study.task, facts=facts, test=found, seconds=seconds)
    with open_database(storage_url(storage)) as database:
        there = Study.open(database, study)
        began = time.monotonic()
        if there.range_test is None:
            plan = there.plan
            if not allow_drift:
                refuse_drift(there, sources_of(plan, task_dir))
            with Tryout(plan, device=device, task_dir=task_dir, data_dir=data_dir) as tryout:
                there.keep_range_test(tryout.range_test(there.facts))
            show_range_test(there)
        assert there.range_test is not None
        return Tested(
            study=study,
            task=there.plan.task,
            facts=there.facts,
            test=there.range_test,
            seconds=time.monotonic() - began,
        )


def show_range_test(study: Study) -> None:
    """Show the study's stored range test in optuna-dashboard."""
    from optuna_dashboard import save_plotly_graph_object

    assert study.range_test is not None
    figure = to_plotly(picture_of_range_test(study.range_test))
    shown = load_study(study_name=study.name, storage=study.database.optuna)
    save_plotly_graph_object(shown, figure, graph_object_id="range-test")
