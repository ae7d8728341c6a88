"""The adapters, in the real Trainers on a small model."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import torch
from contracts.test_families import MOMENTUM

from clrsearch import service
from clrsearch.errors import TaskError
from clrsearch.schedules import Cyclic, trace
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe, run_maker
from clrsearch.worker import WorkerSettings

CPU = torch.device("cpu")
METRIC = {"lightning": "val_error", "transformers": "eval_loss", "accelerate": "error"}
CYCLE = Cyclic(
    mode="triangular",
    base_lr=0.0001,
    max_lr=0.001,
    step_size_up=4.0,
    **MOMENTUM,
)
WARNINGS = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning"),
]
pytestmark = [pytest.mark.parametrize("library", METRIC), *WARNINGS]


def given(library):
    return {"epochs": 4, "metric": METRIC[library], "direction": "minimize"}


@pytest.fixture
def load(task_dir, library):
    def find(**options):
        return load_task(f"framed.py:with_{library}", options=options, folder=task_dir)

    return find


@pytest.fixture
def run(load, library):
    """A run of the library's Trainer under a cycle, and the steps that it is of."""

    def make(seed_index=0, **options):
        loaded = load(**options)
        facts = probe(loaded, device=CPU, **given(library))
        played = trace(CYCLE, facts.horizon)
        return run_maker(loaded.task, facts, CPU)(played, seed=0, seed_index=seed_index), played

    return make


def curve(run, library, until=4):
    values = {}

    def note(epoch):
        values[epoch.number] = epoch.metrics[METRIC[library]]
        return epoch.number < until

    run.train(note)
    return values


def rates_of(loaded):
    return sys.modules[loaded.task.function.__module__].RATES


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trial_is_played_step_by_step(library, run, load, accumulate) -> None:
    one, played = run(accumulate=accumulate)
    rates = rates_of(load())
    rates.clear()  # of the epoch that was tried out
    assert played.rates.shape == (1, 16 // accumulate)
    assert list(curve(one, library)) == [1, 2, 3, 4]
    assert rates[:: 1 if library == "transformers" else accumulate] == played.rates[0].tolist()


def test_runs_are_the_same_on_one_seed_and_not_on_another(library, run) -> None:
    first, again, other = (curve(run(seed)[0], library) for seed in (0, 0, 1))
    assert first == again
    assert all(first[epoch] != other[epoch] for epoch in first)


def test_it_stops_where_the_trial_does(library, run) -> None:
    one, _ = run()
    assert list(curve(one, library, until=2)) == [1, 2]


def test_a_run_that_goes_on_gives_the_same_values(library, run) -> None:
    whole = curve(run()[0], library)
    first, _ = run()
    kept = []

    def save(epoch):
        file = io.BytesIO()
        torch.save(first.state(), file)
        kept.append(file)
        return epoch.number < 2

    first.train(save)
    kept[-1].seek(0)
    second, _ = run()
    second.restore(torch.load(kept[-1], weights_only=True))
    assert curve(second, library) == {epoch: whole[epoch] for epoch in (3, 4)}


@pytest.mark.parametrize(
    ("only", "options", "says"),
    [
        (
            "lightning",
            {"trainer": {"max_epochs": 7}},
            "max_epochs is 7, and the study trains for 4",
        ),
        ("lightning", {"trainer": {"max_steps": 7}}, "max_steps is 7, .* leave max_steps out"),
        ("transformers", {"trainer": {"seed": 42}}, "seed is 42, and must be run.seed"),
        (
            "transformers",
            {"trainer": {"eval_strategy": "no"}},
            'eval_strategy is .*NO, and must be "epoch"',
        ),
    ],
)
def test_what_does_not_fit_the_study_is_refused(library, load, only, options, says) -> None:
    if library == only:
        with pytest.raises(TaskError, match=says):
            probe(load(**options), device=CPU, **given(library))


def test_of_several_evaluation_sets_one_has_the_metric(library, load) -> None:
    if library == "transformers":
        loaded = load(sets=True)
        told = {**given(library), "metric": "eval_far_loss"}
        facts = probe(loaded, device=CPU, **told)
        run = run_maker(loaded.task, facts, CPU)(trace(CYCLE, facts.horizon), seed=0, seed_index=0)
        epochs = []
        run.train(lambda epoch: epochs.append(epoch) or True)
        assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
        assert {"eval_near_loss", "eval_far_loss"} <= epochs[0].metrics.keys()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_trainer_with_several_devices_or_another_one_is_refused(library) -> None:
    if library == "lightning":
        import lightning

        from clrsearch.frameworks.lightning import scheduled

        run = SimpleNamespace(device=torch.device("cuda"), total_epochs=4)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        for given_, says in (
            ({"devices": 2, "strategy": "ddp_spawn"}, "trains on 2 devices, and a trial has one"),
            ({"devices": 1}, "the Trainer trains on cpu, and the trial on cuda: choose run.device"),
        ):
            trainer = lightning.Trainer(accelerator="cpu", max_epochs=4, logger=False, **given_)
            with pytest.raises(TaskError, match=says):
                scheduled(run, optimizer, trainer)


def test_a_search_comes_to_its_verdict(library, url, task_dir) -> None:
    plan = StudyPlan(
        families=("cyclic",),
        task=f"framed.py:with_{library}",
        trials=3,
        confirm=ConfirmPlan(top=1, seeds=2),
        **given(library),
    )
    facts = probe(load_task(plan.task, folder=task_dir), device=CPU, **given(library))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    now = service.show("mine").snapshot
    assert now.done == 3
    assert now.confirmed.left == 0
    assert service.replay("mine", 0, device="cpu", task_dir=task_dir).matches
