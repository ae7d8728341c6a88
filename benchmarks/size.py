"""What a decision costs in a large study, beside plain Optuna on the same database.

    python benchmarks/size.py [FINISHED] [RUNNING] [URL]

A study with so many finished and running trials is written into a new database by bulk inserts,
in the form in which workers leave it. Then, as medians: a pruning decision of a worker after the
others have reported anew; a claim with proposal and birth; the same of plain Optuna (`should_prune`
and `ask` with as many parameters), on the same tables. At last, how long a new worker takes from
its start to its first trial.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import optuna
import sqlalchemy as sa
import torch
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from storage import CPU, TASKS, new_database

from clrsearch.schedules import Choice
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.search.sampler import distribution
from clrsearch.storage import Database, SlotState, StorageUrl, open_database
from clrsearch.storage.slots import _slots as slots
from clrsearch.tasks import load_task
from clrsearch.training import Checkpoints, probe, run_maker
from clrsearch.training.device import computing
from clrsearch.worker.loop import Worker

EPOCHS = 30
DECISIONS, BIRTHS, PLAIN = 30, 15, 4
OTHERS = 100  # values that arrive between two decisions

Rows = dict[type, list[dict[str, object]]]


def fill(database: Database, study: Study, finished: int, running: int) -> None:
    """Trials as workers leave them, and their slots."""
    draw = random.Random(0)
    with database.engine.begin() as connection:
        study_id = connection.scalar(sa.select(models.StudyModel.study_id))
        rows: Rows = {}
        for number in range(finished + running):
            add_trial(rows, study, study_id, number, draw, ended=number < finished)
        for model, content in rows.items():
            for first in range(0, len(content), 5000):
                connection.execute(sa.insert(model), content[first : first + 5000])
        for number in range(finished + running):
            ended = number < finished
            connection.execute(
                slots.update()
                .where(slots.c.number == number)
                .values(
                    state=SlotState.COMPLETE if ended else SlotState.CLAIMED,
                    trial=number,
                    attempt=1,
                    worker=f"other:{number}",
                    expires=None if ended else 4e9,
                )
            )
        if database.url.dialect == "postgresql":  # as if the sequence had given the numbers
            top = "SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))"
            connection.exec_driver_sql(top)
            connection.exec_driver_sql("ANALYZE")


def add_trial(
    rows: Rows, study: Study, study_id: int, number: int, draw: random.Random, *, ended: bool
) -> None:
    """One trial's rows: a complete one, or one that is somewhere under way."""
    family = study.plan.searched[number % len(study.plan.searched)]
    now = datetime.now(UTC).replace(tzinfo=None)
    trial_id = number + 1

    def add(model: type, **content: object) -> None:
        rows.setdefault(model, []).append({"trial_id": trial_id, **content})

    add(
        models.TrialModel,
        number=number,
        study_id=study_id,
        state=TrialState.COMPLETE if ended else TrialState.RUNNING,
        datetime_start=now,
        datetime_complete=now if ended else None,
    )
    params: dict[str, object] = {}
    for name, parameter in study.space.families[family].items():
        if not parameter.applies(params):  # type: ignore[arg-type]
            continue
        domain, kind = parameter.domain, distribution(parameter)
        if isinstance(domain, Choice):
            params[name] = draw.choice(domain.options)
        elif domain.integer:
            params[name] = draw.randint(int(domain.low), int(domain.high))
        else:
            params[name] = domain.low * (domain.high / domain.low) ** draw.random()
        add(
            models.TrialParamModel,
            param_name=f"{family}.{name}",
            param_value=kind.to_internal_repr(params[name]),
            distribution_json=distribution_to_json(kind),
        )
    attributes = {
        "slot": str(number),
        "family": f'"{family}"',
        "worker": '"other"',
        "device": '"cpu"',
        "rates": str([[0.1234567890123] * EPOCHS]),
        **({"end": '{"metrics": {"error": 0.5}, "seconds": 1.0}'} if ended else {}),
    }
    for key, value in attributes.items():
        add(models.TrialUserAttributeModel, key=key, value_json=value)
    level = draw.random()
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    for epoch in range(1, 1 + (EPOCHS if ended else draw.randint(EPOCHS // 2, EPOCHS - 1))):
        add(
            models.TrialIntermediateValueModel,
            step=epoch,
            intermediate_value=level + 1 / epoch,
            intermediate_value_type=finite,
        )
    if ended:
        finite_value = models.TrialValueModel.TrialValueType.FINITE
        add(models.TrialValueModel, objective=0, value=level, value_type=finite_value)


def report_anew(database: Database, finished: int, running: int, epoch: int) -> None:
    """What others have reported meanwhile."""
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    content = [
        {
            "trial_id": finished + 1 + index,
            "step": 1000 + epoch,
            "intermediate_value": 0.5,
            "intermediate_value_type": finite,
        }
        for index in random.Random(epoch).sample(range(running), min(OTHERS, running))
    ]
    with database.engine.begin() as connection:
        if content:
            connection.execute(sa.insert(models.TrialIntermediateValueModel), content)


def clocked(call: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def ours(url: StorageUrl, finished: int, running: int) -> dict[str, float]:
    """Our own figures; the study stays in the database."""
    loaded = load_task("tiny.py:Tiny", folder=TASKS)
    plan = StudyPlan(
        task="tiny.py:Tiny",
        trials=finished + running + 100,
        epochs=EPOCHS,
        confirm=ConfirmPlan(enabled=False),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        open_database(url, create=True) as database,
        computing(CPU),
    ):
        facts = probe(loaded, epochs=EPOCHS, device=CPU)
        study = Study.create(database, "large", plan, facts, made_with())
        fill(database, study, finished, running)
        study = Study.open(database, "large")
        make_run, checkpoints = run_maker(loaded.task, facts, CPU), Checkpoints(Path(folder))
        worker = Worker(study, make_run, CPU, checkpoints, name="own", checkpoint_seconds=10.0)
        births = []
        for _ in range(BIRTHS):
            births.append(clocked(lambda: take(study, worker)))
        slot = take(study, worker)
        decisions = []
        values = {epoch: 0.4 + 1 / epoch for epoch in range(1, EPOCHS // 2 + 1)}
        rates = [1 / epoch for epoch in range(1, EPOCHS + 1)]
        for epoch in range(DECISIONS):
            report_anew(database, finished, running, epoch)
            decisions.append(clocked(lambda: decide(study, worker, slot, values, rates)))
    return {
        "first birth": births[0],
        "birth": statistics.median(births[1:]),
        "decision": statistics.median(decisions),
    }


def made_with() -> dict[str, str]:
    from clrsearch.service import versions

    return versions(TASKS)


def take(study: Study, worker: Worker) -> object:
    """Claim a slot, propose and bear its trial, and let it lie as if it were under way."""
    slot = study.slots.claim(f"own:{random.random()}")
    assert slot is not None
    worker._take_up(slot)
    return slot


def decide(study: Study, worker: Worker, slot: object, values: object, rates: object) -> None:
    from clrsearch.search import hopeless

    study.history._read_at = -float("inf")  # what others have reported is read anew each time
    hopeless(values, worker._family(slot), rates, direction="minimize")  # type: ignore[arg-type]


def plain(url: StorageUrl) -> dict[str, float]:
    """Plain Optuna on the same tables: `ask` and four parameters, `report` and `should_prune`."""
    sampler = optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=0
    )
    storage = optuna.storages.RDBStorage(url.reveal())
    study = optuna.load_study(study_name="large", storage=storage, sampler=sampler)
    asks, prunes = [], []
    for _ in range(PLAIN):

        def ask() -> None:
            trial = study.ask()
            trial.suggest_categorical("mode", ["triangular", "triangular2", "exp_range"])
            trial.suggest_float("max_lr", 1e-3, 1.0, log=True)
            trial.suggest_float("base_ratio", 1e-3, 0.5, log=True)
            trial.suggest_int("cycles", 1, 5)
            prune = clocked(lambda: (trial.report(0.5, 15), trial.should_prune()))
            prunes.append(prune)

        asks.append(clocked(ask))
    storage.remove_session()
    storage.engine.dispose()
    return {
        "first birth": asks[0] - prunes[0],
        "birth": statistics.median(a - p for a, p in zip(asks[1:], prunes[1:], strict=True)),
        "decision": statistics.median(prunes),
    }


def ready(url: StorageUrl) -> float:
    """Seconds from the start of a worker's process to its first trial."""
    with open_database(url) as database, tempfile.TemporaryDirectory() as folder:
        before = Study.open(database, "large").slots.counts()[SlotState.OPEN]
        began = time.perf_counter()
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "clrsearch", "worker", "large", "--device", "cpu"),
                *("--task-dir", str(TASKS), "--checkpoint-dir", folder),
            ],
            env={**os.environ, **url.environment()},
            stdout=subprocess.DEVNULL,
        )
        claims = sa.select(sa.func.count()).select_from(models.TrialModel)
        trials = -1
        while worker.poll() is None:
            with database.engine.connect() as connection:
                count = connection.scalar(claims)
            trials = count if trials < 0 else trials
            if count > trials:
                break
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        worker.kill()
        worker.wait()
        assert Study.open(database, "large").slots.counts()[SlotState.OPEN] < before
    return seconds


def main() -> None:
    """Print the rows of one size."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    finished, running = (int(text) for text in (sys.argv[1:3] or ("1000", "1000")))
    usual = "postgresql://postgres@127.0.0.1:5432/test"
    server = (sys.argv[3:4] or [os.environ.get("CLRSEARCH_TEST_POSTGRES", usual)])[0]
    with new_database(server) as url:
        own = ours(url, finished, running)
        own["ready, s"] = ready(url)
        other = plain(url)
    print(f"{finished} finished and {running} running trials on {StorageUrl(server).dialect}:")
    for name, value in own.items():
        beside = f"{other[name]:.0f} ms" if name in other else ""
        print(f"| {name} | {value:.1f} | {beside} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
