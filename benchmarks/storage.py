"""What a trial costs a worker in the database, beside plain Optuna on the same server.

    python benchmarks/storage.py [URL ...]

A worker of clrsearch runs trials of 20 epochs of a task that trains in no time: claim, proposal,
birth, 20 reports with their pruning decisions, tell. The time that it spends in training is taken
off. Plain Optuna does the same with ask, report, should_prune and tell, with TPE as clrsearch sets
it up and its median pruner. Both in one run, in a new database each; the server is
``CLRSEARCH_TEST_POSTGRES``, or that of the URLs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy as sa
import torch

from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import Checkpoints, probe, run_maker
from clrsearch.training.device import one_thread
from clrsearch.worker.loop import Worker

TRIALS = 60
EPOCHS = 20
TASKS = Path(__file__).parent.parent / "tests" / "tasks_for_tests"
CPU = torch.device("cpu")


@contextmanager
def new_database(text: str) -> Iterator[StorageUrl]:
    """A database of its own on the server of a URL, or a SQLite file."""
    url = sa.make_url(StorageUrl(text).reveal())
    if url.get_backend_name() == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield StorageUrl(f"sqlite:///{folder}/studies.db")
        return
    name = f"clrsearch_benchmark_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield StorageUrl(url.set(database=name).render_as_string(hide_password=False))
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
        engine.dispose()


def ours(url: StorageUrl) -> float:
    """Seconds per trial of clrsearch, training left out."""
    loaded = load_task("tiny.py:Tiny", folder=TASKS)
    plan = StudyPlan(
        task="tiny.py:Tiny", trials=TRIALS, epochs=EPOCHS, confirm=ConfirmPlan(enabled=False)
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        open_database(url, create=True) as database,
        one_thread(CPU),
    ):
        facts = probe(loaded, epochs=EPOCHS, device=CPU)
        study = Study.create(database, "benchmark", plan, facts, {})
        worker = Worker(
            study,
            run_maker(loaded.task, facts, CPU),
            CPU,
            Checkpoints(Path(folder)),
            name="worker",
            checkpoint_seconds=10.0,
        )
        began = time.perf_counter()
        worker.work()
        seconds = time.perf_counter() - began
        records = study.history.records()
    pruned = sum(record.epoch < EPOCHS for record in records)
    print(f"clrsearch: {TRIALS - pruned} trials of {TRIALS} came to the end", file=sys.stderr)
    return (seconds - sum(record.seconds for record in records)) / TRIALS


def plain(url: StorageUrl) -> float:
    """Seconds per trial of plain Optuna with the same number of parameters and reports."""
    sampler = optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=0
    )
    storage = optuna.storages.RDBStorage(url.reveal())
    study = optuna.create_study(storage=storage, sampler=sampler)
    began = time.perf_counter()
    for _ in range(TRIALS):
        trial = study.ask()
        mode = trial.suggest_categorical("mode", ["triangular", "triangular2", "exp_range"])
        x = trial.suggest_float("max_lr", 1e-3, 1.0, log=True)
        y = trial.suggest_float("base_ratio", 1e-3, 0.5, log=True)
        cycles = trial.suggest_int("cycles", 1, 5)
        trial.suggest_categorical("cycle_momentum", [True, False])
        score = abs(x - 0.1) + y + cycles / 100 + len(mode) / 1000
        for epoch in range(1, EPOCHS + 1):
            trial.report(score + 1 / epoch, epoch)
            trial.should_prune()  # what it says is not done: all 20 epochs are to be compared
        study.tell(trial, score)
    seconds = time.perf_counter() - began
    storage.remove_session()
    storage.engine.dispose()
    return seconds / TRIALS


def main() -> None:
    """Print one row per server."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    usual = "postgresql://postgres@127.0.0.1:5432/test"
    print("| database | clrsearch, ms per trial | plain Optuna, ms per trial | ratio |")
    print("|---|---|---|---|")
    for text in sys.argv[1:] or [os.environ.get("CLRSEARCH_TEST_POSTGRES", usual)]:
        with new_database(text) as url:
            one = ours(url)
        with new_database(text) as url:
            other = plain(url)
        dialect = StorageUrl(text).dialect
        print(f"| {dialect} | {one * 1e3:.0f} | {other * 1e3:.0f} | {one / other:.2f} |")


if __name__ == "__main__":
    main()
