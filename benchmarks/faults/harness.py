"""What the fault-injection scripts share: studies, workers that may be killed, what must hold.

The process of a script is a zygote: it imports torch and clrsearch once and forks its workers, so
that a new one is at work after half a second instead of five. What computes with torch or keeps a
connection runs in a forked process too, so that no worker inherits either.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch
from optuna.trial import TrialState

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database, quiet_optuna
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe
from clrsearch.training.device import one_thread
from clrsearch.worker import WorkerSettings, worker_name

TASKS = Path(__file__).parent
TASK = "task.py:Noisy"
STUDY = "faults"
CPU = torch.device("cpu")
DATABASES = ("sqlite", "postgresql", "mysql")
SERVERS = {
    "postgresql": ("CLRSEARCH_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test"),
    "mysql": ("CLRSEARCH_TEST_MYSQL", "mysql://root@127.0.0.1:3306/test"),
}
FORK = multiprocessing.get_context("fork")


def plan(trials: int) -> StudyPlan:
    """A search of so many trials, none of them pruned, without a confirmation."""
    return StudyPlan(task=TASK, trials=trials, pruner="none", confirm=ConfirmPlan(enabled=False))


def in_child(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a forked process."""
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: sender.send(call(*arguments)))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{call.__name__} failed in its process") from None
    finally:
        child.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRow:
    """A row of the slot table."""

    number: int
    state: str
    trial: int | None
    worker: str | None
    attempt: int
    losses: int
    expires: float | None
    checkpoint: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a study is kept: a database, and a folder for checkpoints and logs."""

    url: str
    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def log(self) -> Path:
        return self.folder / "epochs.log"

    def slots(self) -> list[SlotRow]:
        """The slots of the only study, in order, none before it is made; nothing is left open."""
        url = StorageUrl(self.url)
        if url.file is not None and not url.file.exists():
            return []
        wait = {"timeout": 60} if url.dialect == "sqlite" else {}
        engine = sa.create_engine(url.reveal(), poolclass=sa.NullPool, connect_args=wait)
        names = ", ".join(SlotRow.__slots__)
        query = sa.text(f"SELECT {names} FROM clrsearch_slots ORDER BY number")
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("clrsearch_slots"):
                return []
            return [SlotRow(**row) for row in connection.execute(query).mappings()]

    def epochs_trained(self) -> list[tuple[float, int]]:
        """When and in which process each epoch was finished, repeated ones included."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [(float(at), int(pid)) for at, pid in map(str.split, lines)]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is kept where the block fails, so that its logs can be read."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        yield folder
    except BaseException:
        print(f"kept for inspection: {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)


@contextmanager
def fresh(kind: str) -> Iterator[Place]:
    """An empty database of a kind, removed afterwards."""
    with temporary_folder() as folder:
        if kind == "sqlite":
            yield Place(url=f"sqlite:///{folder / 'studies.db'}", folder=folder)
            return
        variable, default = SERVERS[kind]
        server = os.environ.get(variable) or default
        name = f"faults_{os.getpid()}"
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        execute(server, f"CREATE DATABASE {name}")
        try:
            url = sa.make_url(server).set(database=name)
            yield Place(url=url.render_as_string(hide_password=False), folder=folder)
        finally:
            execute(server, f"DROP DATABASE {name}{force}")


def execute(url: str, *statements: str) -> None:
    """Run statements outside of any transaction, on a connection of their own."""
    engine = sa.create_engine(
        StorageUrl(url).reveal(), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def begin(place: Place, plan: StudyPlan) -> None:
    """Make the study, in a process of its own; its workers' epochs are counted."""
    os.environ.pop("FAULTS_LOG", None)
    in_child(_begin, place, plan)
    count_epochs(place)


def count_epochs(place: Place) -> None:
    """Let the task write its finished epochs to the place's log, in processes begun from now on."""
    os.environ["FAULTS_LOG"] = str(place.log)


def _begin(place: Place, plan: StudyPlan) -> None:
    quiet_optuna()
    with open_database(StorageUrl(place.url), create=True) as database, one_thread(CPU):
        facts = probe(load_task(plan.task, folder=TASKS), epochs=plan.epochs, device=CPU)
        Study.create(database, STUDY, plan, facts, service.versions(TASKS))


@dataclass
class Herd:
    """Forked workers on the study at a place; what each writes to its terminal is kept."""

    place: Place
    patience: float = 600.0
    loops: int = 1  # in threads of each process
    living: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def hire(self) -> str:
        """Start one worker; its name."""
        name = worker_name()
        self.living[name] = FORK.Process(target=self._work, args=(name,), daemon=True)
        self.living[name].start()
        return name

    def kill(self, name: str) -> None:
        """End a worker by SIGKILL, and wait until it is gone."""
        worker = self.living.pop(name)
        worker.kill()
        worker.join()
        self.codes[name] = worker.exitcode

    def reap(self) -> list[str]:
        """Those that have left by themselves since the last call."""
        left = [name for name, worker in self.living.items() if worker.exitcode is not None]
        for name in left:
            self.codes[name] = self.living.pop(name).exitcode
        return left

    def wait(self, seconds: float) -> None:
        """Until all have left by themselves; those that have not by then stay in ``living``."""
        deadline = time.monotonic() + seconds
        while self.living and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.1)

    def close(self) -> None:
        """End all that are left."""
        for name in list(self.living):
            self.kill(name)

    def words(self, name: str) -> str:
        """What a worker has written."""
        return (self.place.folder / f"{name}.log").read_text(encoding="utf-8")

    def complaints(self, killed: Iterable[str]) -> list[str]:
        """Those that did not leave, or not in good order, although they were not killed."""
        stuck = [f"worker {name} has not left" for name in self.living]
        by_us = set(killed)
        others = {name: code for name, code in self.codes.items() if name not in by_us}
        return stuck + [
            f"worker {name} ended with {code}: {self.words(name)[-2000:]}"
            for name, code in others.items()
            if code != 0
        ]

    def _work(self, name: str) -> None:
        with (self.place.folder / f"{name}.log").open("w", buffering=1) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        service.work(
            STUDY,
            storage=self.place.url,
            settings=WorkerSettings(
                device="cpu",
                task_dir=TASKS,
                checkpoint_dir=self.place.checkpoints,
                checkpoint_seconds=0,
                storage_patience=self.patience,
            ),
            worker=name,
            on_wait=lambda cause: print(f"waits in {_waiting()}: {cause}", flush=True),
        )


def _waiting() -> str:
    """The function of a worker that is waiting for the database."""
    frames = reversed(traceback.extract_stack())
    return next(
        f.name for f in frames if "worker" in Path(f.filename).parts and f.name[1:] != "patiently"
    )


def complaints(place: Place, trials: int) -> list[str]:
    """What is not as an undisturbed study would have it: budget, orphans, curves."""
    slots = place.slots()
    found = []
    if [slot.number for slot in slots] != list(range(trials)):
        found.append(f"{len(slots)} slots, not {trials}")
    found += [f"slot not complete: {slot}" for slot in slots if slot.state != "complete"]
    if len({slot.trial for slot in slots}) != len(slots):
        found.append(f"slots that share a trial: {[slot.trial for slot in slots]}")
    left = sorted(path.name for path in place.checkpoints.glob("*/*"))
    if any(name.endswith(".pt") for name in left):
        found.append(f"checkpoints of ended trials are left: {left}")
    return found + in_child(_trial_complaints, place, {slot.trial: slot.number for slot in slots})


def _trial_complaints(place: Place, slot_of: dict[int, int]) -> list[str]:
    """In every trial of the study, as Optuna has it, and as it comes out when it is run alone."""
    os.environ.pop("FAULTS_LOG", None)
    os.environ["FAULTS_EPOCH_SECONDS"] = "0"
    found = []
    with open_database(StorageUrl(place.url)) as database, one_thread(CPU):
        study = Study.open(database, STUDY)
        plan, facts = study.plan, study.facts
        study_id = database.optuna.get_study_id_from_name(STUDY)
        trials = database.optuna.get_all_trials(study_id)
        if [trial.number for trial in trials] != list(range(len(slot_of))):
            found.append(f"trials {[(t.number, t.state.name) for t in trials]}")
        task = load_task(plan.task, folder=TASKS).task
        data = TaskData(task, facts.batch_size, CPU)
        for trial in trials:
            attributes, curve = trial.user_attrs, trial.intermediate_values
            if (
                trial.state != TrialState.COMPLETE
                or slot_of.get(trial.number) != attributes["slot"]
            ):
                found.append(f"trial {trial.number} is {trial.state.name}: {attributes}")
                continue
            if (
                sorted(curve) != list(range(1, facts.epochs + 1))
                or trial.value != curve[max(curve)]
            ):
                found.append(f"trial {trial.number} is not whole: {trial.value} of {curve}")
            record = study.trial(trial.number)
            trace = study.trace(record.family, record.params)
            seeds = {"seed": plan.seed, "seed_index": record.seed_index}
            alone = SequentialRun(task, facts, data, trace, **seeds, device=CPU)
            again = [alone.next_epoch().metrics[facts.metric] for _ in range(facts.epochs)]
            if [curve.get(n) for n in range(1, facts.epochs + 1)] != again or record.drift:
                found.append(f"trial {trial.number}: {curve}, alone {again}, drift {record.drift}")
            if not service.replay(STUDY, trial.number, storage=place.url, task_dir=TASKS).matches:
                found.append(f"trial {trial.number} does not match its replay")
    return found


class PrivatePostgres:
    """A PostgreSQL server of its own, with stock settings, that may be stopped at any time."""

    def __init__(self, folder: Path) -> None:
        found = subprocess.run(
            ["pg_config", "--bindir"], capture_output=True, text=True, check=True
        )
        self._programs = Path(found.stdout.strip())
        self._data, self.log = folder / "data", folder / "server.log"
        self._as = ("runuser", "-u", "postgres", "--") if os.getuid() == 0 else ()
        if self._as:
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._options = f"-p {port} -c unix_socket_directories={folder}"
        self._run("initdb", "-A", "trust", "-U", "postgres")

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self._run("pg_ctl", "-w", "-l", str(self.log), "-o", self._options, "start")

    def stop(self, mode: str) -> None:
        """Stop it (``fast`` or ``immediate``), and wait until it is gone."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def empty_database(self) -> str:
        """The URL of the database for studies, which is made anew."""
        name = "studies"
        execute(self.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
        return f"{self.url.removesuffix('postgres')}{name}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as, self._programs / program, "-D", self._data, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._data.parent,
        )


@contextmanager
def private_postgres() -> Iterator[PrivatePostgres]:
    """A running server in a temporary folder, stopped and removed afterwards."""
    with temporary_folder() as folder:
        server = PrivatePostgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


def spread(values: Sequence[float]) -> str:
    """The least, the median and the greatest of some seconds."""
    if not values:
        return "-"
    return f"{min(values):.1f} / {statistics.median(values):.1f} / {max(values):.1f}"


def row(*cells: Any) -> None:
    """Print a row of a markdown table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def header(*cells: str) -> None:
    """Print the head of a markdown table."""
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def require(found: Sequence[str]) -> None:
    """End the script with exit code 1 where a claim does not hold, saying which."""
    for line in found:
        print(line, file=sys.stderr)
    if found:
        raise SystemExit(1)


def choose(names: Iterable[str], chance: random.Random) -> str:
    """One of some workers."""
    return chance.choice(sorted(names))
