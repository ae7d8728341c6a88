"""Range tests: for a search that is about to begin, for a study that is there, or for neither."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from clrsearch.reports import picture_of_range_test, to_plotly
from clrsearch.search import RangeTest, Study, StudyPlan
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import refuse_drift, sources_of
from clrsearch.service.tryout import Tryout
from clrsearch.storage import open_database
from clrsearch.tasks import TaskFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A range test, the facts of its task, and the study that keeps it, if one does.

    ``seconds`` is how long it took, 0 where the study had it already.
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
    """Test a range of learning rates for the task of a plan, or of a study by its name.

    Nothing is stored for a plan. A study keeps its range test, and is asked for it from then on.

    Raises:
        ClrsearchError: the plan, the task or the storage is not as it must be, or there is no such
            study.
    """
    if isinstance(study, StudyPlan):
        with Tryout(study, device=device, task_dir=task_dir, data_dir=data_dir) as tryout:
            facts = tryout.facts
            began = time.monotonic()
            found = tryout.range_test(facts)
        seconds = time.monotonic() - began
        return Tested(study=None, task=study.task, facts=facts, test=found, seconds=seconds)
    with open_database(storage_url(storage)) as database:
        there = Study(database, study)
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
    """Have optuna-dashboard show the range test that a study keeps."""
    assert study.range_test is not None
    study.show_figure("range-test", to_plotly(picture_of_range_test(study.range_test)))
