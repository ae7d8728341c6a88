"""How good schedules are at each length, from the command to the report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from running import PATIENCE, children, wait_for

from clrsearch import service
from clrsearch.errors import PlanError, StudyError
from clrsearch.results import Horizon
from clrsearch.schedules import execute
from clrsearch.search import Study, StudyPlan, load_plan
from clrsearch.service.plans import run_command
from clrsearch.storage import open_database
from clrsearch.worker import WorkerSettings

LENGTHS = (2, 4, 8)


def measured(task_dir, **changes) -> Horizon:
    plan = service.horizon_plan(
        StudyPlan(task="tiny.py:Noisy"),
        LENGTHS,
        **{"rates": (0.001, 0.003), "seeds": 2} | changes,
    )
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(plan, name="lengths", workers=0, settings=settings)
    return service.horizon("lengths")


def records() -> list:
    return list(service.show("lengths").snapshot.records)


def test_runs_of_each_length_are_those_of_a_study_of_that_length(url, task_dir) -> None:
    found = measured(task_dir)
    assert [each.epochs for each in found.lengths] == [2, 4, 8]
    assert found.left == 0 and not any(each.end != "complete" for each in records())
    assert {record.epoch for record in records()} == set(LENGTHS)
    per_trunk = 2 * 2
    assert found.trained == per_trunk * (8 + 1 + 1 + 1 + 2 + 4)  # at most twice the longest
    assert found.trained + found.shared == per_trunk * 2 * (2 + 4 + 8)
    for record in records()[:12]:  # of the first seed, which is that of a search
        epochs = record.params["epochs"]
        fixed = {f"bounds.wsd.{name}": each for name, each in record.params.items()}
        del fixed["bounds.wsd.epochs"]
        one = {"task": "tiny.py:Noisy", "epochs": epochs, "families": ["wsd"], "trials": 1}
        alone = service.run(
            load_plan(None, {**one, **fixed, "baseline": "wsd", "confirm.enabled": False}),
            name=f"alone-{record.number}",
            workers=0,
            settings=WorkerSettings(device="cpu", task_dir=task_dir),
        )
        (dedicated,) = alone.snapshot.records
        assert dedicated.values == record.values
        assert dedicated.metrics == record.metrics
        assert dedicated.inherited == 0


def test_means_intervals_and_what_a_held_rate_needs(url, task_dir) -> None:
    found = measured(task_dir)
    runs = {
        (each.params["lr"], each.params["shape"], each.params["epochs"], each.seed_index): each
        for each in records()
    }
    seeds = sorted({key[3] for key in runs})
    for each in found.lengths:
        means = {
            key[:2]: np.mean([runs[*key[:3], seed].value for seed in seeds])
            for key in runs
            if key[2] == each.epochs
        }
        assert (each.rate, each.shape) == min(means, key=means.__getitem__)
        assert each.mean == pytest.approx(min(means.values()))
        variances = [
            np.var([runs[each.rate, shape, each.epochs, seed].value for seed in seeds], ddof=1)
            for shape in ("1-sqrt", "linear")
        ]
        half = 4.302653 * np.sqrt(np.mean(variances) / 2)  # Student's t, 2 degrees of freedom
        assert each.high - each.mean == pytest.approx(half)
        assert each.mean - each.low == pytest.approx(half)
        needed = [
            epoch
            for epoch in range(1, 7)  # the decay of the longest takes its last two
            if min(
                np.mean([runs[rate, "1-sqrt", 8, seed].values[epoch] for seed in seeds])
                for rate in (0.001, 0.003)
            )
            <= each.mean
        ]
        assert each.held == (needed[0] if needed else None)


def test_more_seeds_are_added_to_those_that_are_there(url, task_dir) -> None:
    measured(task_dir)
    before = records()
    found = measured(task_dir, seeds=3)
    assert records()[: len(before)] == before
    assert len(records()) == len(before) // 2 * 3
    assert all(len(each.scores) == 3 for each in found.lengths)
    measured(task_dir, seeds=2)  # fewer change nothing
    assert len(records()) == len(before) // 2 * 3
    with pytest.raises(StudyError, match="exists with a different plan: horizon is "):
        measured(task_dir, rates=(0.001, 0.002))


def test_the_command_from_end_to_end(clrsearch, url, task_dir, tmp_path) -> None:
    how = ("--task", "tiny.py:Noisy", "--task-dir", str(task_dir), "--device", "cpu")
    code, out, errors = clrsearch(
        *("horizon", *how, "--epochs", "8,2,4", "--rates", "0.001,0.003", "--seeds", "2"),
        *("--workers", "0"),
    )
    assert code == 0, errors
    assert "tiny-horizon: 24 of 24 trials done." in out
    assert out.count(", last ") == 3 and "epochs  error " in out
    assert "Training for 2 epochs instead of 4 costs " in out
    assert "68 epochs trained; 44 saved by training shared beginnings once." in out
    assert "  complete  epoch  2/2  " in out
    code, _, errors = clrsearch("best", "tiny-horizon")
    assert code == 0, errors
    code, out, _ = clrsearch("horizon", *how, "--epochs", "2,4,8", "--rates", "1e-3,3e-3", "--json")
    told = json.loads(out.splitlines()[-1])
    assert [each["epochs"] for each in told["lengths"]] == [2, 4, 8]
    assert told["epochs_trained"] + told["epochs_shared"] == 168  # three seeds are the default
    for command in (
        ("plot", "tiny-horizon", "horizon", "-o", str(tmp_path / "lengths.svg")),
        ("report", "tiny-horizon", "-o", str(tmp_path / "report.html")),
        ("db", "check"),
        ("status", "tiny-horizon"),
        ("show", "tiny-horizon"),
    ):
        code, out, errors = clrsearch(*command)
        assert code == 0, (out, errors)
    assert "best schedule of each length" in (tmp_path / "lengths.svg").read_text()
    assert "best schedule of each length" in (tmp_path / "report.html").read_text()
    code, _, errors = clrsearch("confirm", "tiny-horizon", "--batch-size", "16")
    assert code == 2 and "tiny-horizon is no search, but measures several lengths: " in errors
    code, _, errors = clrsearch("confirm", "tiny-horizon")
    assert code == 2 and "runs each of its schedules on 3 seeds already" in errors


def test_the_code_is_that_of_the_longest_run(url, task_dir) -> None:
    import torch

    found = measured(task_dir)
    best = service.best("lengths")
    assert best.trial.number == found.lengths[-1].trial.number
    assert "the best for 8 epochs on 2 seeds" in best.code
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = execute(best.code)(optimizer, 4)
    rates = []
    for _ in range(32):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    with open_database(url) as database:
        study = Study.open(database, "lengths")
        assert rates == pytest.approx(study.trace("wsd", best.params).rates[0].tolist())


def test_the_code_for_each_length(clrsearch, url, task_dir) -> None:
    found = measured(task_dir)
    for each in found.lengths:
        best = service.best("lengths", epochs=each.epochs)
        assert best.trial == each.trial and best.rescaled is None
        assert f"the best for {each.epochs} epochs on 2 seeds" in best.code
        assert f"EPOCHS = {each.epochs}\n" in best.code
        assert best.facts.horizon == 4 * each.epochs
    between = service.best("lengths", epochs=5)  # nobody has trained for that long
    assert between.trial == found.lengths[1].trial
    assert between.schedule.horizon == 20
    code, out, _ = clrsearch("best", "lengths", "--epochs", "5")
    assert code == 0 and "not confirmed" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--epochs: give two lengths or more, as in --epochs 5,10,20,40"),
        (("--epochs", "5"), "--epochs: give two lengths or more, as in --epochs 5,10,20,40"),
        (("--epochs", "5,ten"), "expected numbers separated by commas, not '5,ten'"),
        (("--epochs", "0,5"), "--epochs: input should be greater than or equal to 1, not 0"),
        (
            ("--epochs", "5,10", "--rates", "0.1,-1"),
            "--rates: input should be greater than 0, not -1.0",
        ),
        (
            ("--epochs", "5,10", "--rates", "0.1,nan"),
            "--rates: input should be greater than 0, not nan",
        ),
        (
            ("--epochs", "5,10", "--seeds", "1"),
            "--seeds: input should be greater than or equal to 2, not 1",
        ),
        (
            ("--epochs", "5,10", "--set", "validate_every=3"),
            "validate_every: leave it out, a horizon cannot have it",
        ),
        (
            ("--epochs", "5,10", "--set", "horizon.seeds=3"),
            "horizon: leave this out, and use clrsearch horizon --epochs 5,10,20",
        ),
    ],
)
def test_wrong_input_is_answered_in_a_line(clrsearch, url, task_dir, arguments, says) -> None:
    how = ("--task", "tiny.py:Tiny", "--task-dir", str(task_dir))
    code, _, errors = clrsearch("horizon", *how, *arguments)
    assert code == 2
    assert says in " ".join(errors.replace("│", " ").split())


def test_a_search_has_no_horizon(url, task_dir) -> None:
    plan = StudyPlan(task="tiny.py:Tiny", families=("wsd",), trials=1)
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(plan, name="search", workers=0, settings=settings)
    with pytest.raises(StudyError, match="search is a search: its trials all have the same length"):
        service.horizon("search")
    with pytest.raises(StudyError, match="search is a search: clrsearch horizon measures several"):
        service.picture("search", "horizon")
    with pytest.raises(PlanError, match="horizon: leave this out"):
        load_plan(None, {"horizon.epochs": [5, 10]})


def test_workers_that_are_killed_do_it_no_harm(url, task_dir) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "clrsearch", "horizon", "--task", "tiny.py:Paced"),
            *("--epochs", "2,4,8", "--rates", "0.001", "--seeds", "2", "--name", "lengths"),
            *("--workers", "2", "--device", "cpu", "--task-dir", str(task_dir)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=task_dir,
    )

    def states() -> list[str]:
        if not url.file.exists():
            return []
        try:
            return [record.state for record in records()]
        except StudyError:
            return []

    wait_for(lambda: states().count("complete") >= 2 and "running" in states())
    for worker in children(process.pid):
        subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(worker)], check=False)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert [record.state for record in records()] == ["complete"] * 12
    assert all(record.drift == 0 for record in records())
    last = max(records(), key=lambda each: each.inherited)
    assert last.inherited
    assert service.replay("lengths", last.number, device="cpu", task_dir=task_dir).matches


def test_from_a_notebook(url, task_dir) -> None:
    """A study and its horizon, in whose plan nothing is left of a search."""
    import clrsearch

    study = clrsearch.run(
        "tiny.py:Noisy",
        name="notebook",
        task_dir=task_dir,
        trials=2,
        families=["step"],
        bounds={"step": {"lr": 0.001}},
        confirm={"enabled": False},
        workers=0,
        device="cpu",
        progress=False,
    )
    assert not study.lengths
    how = {"workers": 0, "device": "cpu", "progress": False}
    found = study.horizon([2, 4], rates=[0.001], seeds=2, **how)
    assert found.name == "notebook-horizon"
    assert [each.epochs for each in found.lengths] == [2, 4]
    assert found.best.trial == found.lengths[-1].trial
    assert "4 epochs" in repr(found) or "8 of 8 trials" in repr(found)
    with pytest.raises(PlanError, match="--epochs: give two lengths or more"):
        study.horizon([2])


def test_seeds_added_under_a_running_worker_are_run_by_it(url, task_dir) -> None:
    """A worker has opened the study before it grows, and is given a slot that it did not know."""
    measured(task_dir)
    with open_database(url) as database:
        earlier, later = (Study.open(database, "lengths") for _ in range(2))
        later.more_seeds(3)
        later.grow(later.plan.trials)
        slot = earlier.slots.claim("late")
        assert slot.number == 24
        planned = earlier.planned(slot.number)
        assert planned == later.planned(24) and planned.seed_index == slot.seed_index
        assert earlier.partings(slot, planned.family, planned.params) == {1, 2, 3, 4}
        assert slot.attempt == 1


def test_seeds_that_are_cancelled_leave_what_was_found(url, task_dir) -> None:
    found = measured(task_dir)
    with open_database(url) as database:
        study = Study.open(database, "lengths")
        study.more_seeds(4)
        study.grow(study.plan.trials)
        study.cancel()
    assert service.horizon("lengths").lengths == found.lengths
    assert service.best("lengths", epochs=2).trial == found.lengths[0].trial


def test_nothing_is_recommended_before_two_seeds(url, task_dir) -> None:
    plan = service.horizon_plan(StudyPlan(task="tiny.py:Tiny"), (2, 4), rates=(0.001,), seeds=2)
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=3)
    service.run(plan, name="lengths", workers=0, settings=settings)
    assert service.horizon("lengths").lengths == ()
    with pytest.raises(StudyError, match="lengths has no complete trial yet"):
        service.best("lengths", epochs=4)


def test_the_command_that_is_proposed_is_one_that_goes_on(url, task_dir) -> None:
    measured(task_dir)
    with open_database(url) as database:
        study = Study.open(database, "lengths")
        told = run_command(study, trials=study.plan.trials)
        assert told == (
            "clrsearch horizon --name lengths --task tiny.py:Noisy --epochs 2,4,8 --seeds 2 "
            "--rates 0.001,0.003"
        )
        assert " --seeds 4 " in run_command(study, trials=study.plan.trials + 50)


def test_a_loop_of_ones_own_has_a_horizon(url, task_dir) -> None:
    """It is stopped where a shorter run ends; nothing is shared, as it saves what it will."""
    plan = service.horizon_plan(
        StudyPlan(task="loops.py:train", metric="error", direction="minimize"),
        (2, 4),
        rates=(0.001,),
        seeds=2,
    )
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(plan, name="lengths", workers=0, settings=settings)
    found = service.horizon("lengths")
    assert [each.epochs for each in found.lengths] == [2, 4] and found.shared == 0
    assert [(record.end, record.epoch) for record in records()] == [
        ("complete", record.params["epochs"]) for record in records()
    ]
