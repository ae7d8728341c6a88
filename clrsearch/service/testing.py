"""Range tests: for a search that is about to begin, for a study that is there, or for neither."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from clrsearch.errors import PlanError
from clrsearch.reports import picture_of_range_test, to_plotly
from clrsearch.search import RangeTest, Study, StudyPlan, read_range_test
from clrsearch.service.drift import load_code, load_same
from clrsearch.service.place import Storage, storage_url
from clrsearch.storage import open_database
from clrsearch.tasks import LoadedTask, Loop, TaskFacts


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
        code = load_code(study, task_dir, data_dir)
        facts = probe_task(code.task, study, device)
        began = time.monotonic()
        found = test_task(code.task, facts, study, device)
        seconds = time.monotonic() - began
        return Tested(study=None, task=study.task, facts=facts, test=found, seconds=seconds)
    with open_database(storage_url(storage)) as database:
        there = Study(database, study)
        began = time.monotonic()
        if there.range_test is None:
            task = load_same(there, task_dir, data_dir, allow_drift=allow_drift)
            there.keep_range_test(test_task(task, there.facts, there.plan, device))
            show_range_test(there)
        assert there.range_test is not None
        return Tested(
            study=study,
            task=there.plan.task,
            facts=there.facts,
            test=there.range_test,
            seconds=time.monotonic() - began,
        )


def probe_task(task: LoadedTask, plan: StudyPlan, device: str | None) -> TaskFacts:
    """The facts of a task under a plan's epochs, batch size, metric and direction."""
    from clrsearch.training import probe
    from clrsearch.training.device import find_device, one_thread

    chosen = find_device(device)
    with one_thread(chosen):
        return probe(
            task,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            metric=plan.metric,
            direction=plan.direction,
            device=chosen,
            precision=plan.precision,
        )


def test_task(task: LoadedTask, facts: TaskFacts, plan: StudyPlan, device: str | None) -> RangeTest:
    """Train a task for a few steps at rising rates, and read the bounds off its losses.

    The seed and the precision are the plan's.

    Raises:
        PlanError: it is a loop of the user's own, whose steps are not ours to take.
    """
    from clrsearch.training import TaskData, ramp
    from clrsearch.training.device import find_device, one_thread

    if isinstance(task.task, Loop) or facts.batch_size is None:
        raise PlanError(
            "a range test steps through the batches by itself, which a loop of your own does not "
            "let it: give the bounds, --set 'bounds.cyclic.max_lr=[1e-3, 1]', or write a Task"
        )
    chosen = find_device(device)
    with one_thread(chosen):
        data = TaskData(task.task, facts.batch_size, chosen)
        losses = ramp(
            task.task, facts, data, seed=plan.seed, device=chosen, precision=plan.precision
        )
    return read_range_test(losses.rates, losses.training, losses.validation)


def show_range_test(study: Study) -> None:
    """Have optuna-dashboard show the range test that a study keeps."""
    assert study.range_test is not None
    study.show_figure("range-test", to_plotly(picture_of_range_test(study.range_test)))
