"""Record the histories that `test_histories.py` replays.

    python tests/histories/record.py FOLDER [NAME ...]

Four studies of one worker, each in a SQLite file; one is interrupted in the middle of a trial. With
them, as `expected.json`, what this version says of each, of the interrupted one after it has been
resumed. Run it with the version whose behaviour is to be kept.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from clrsearch import service
from clrsearch.results import Snapshot

TASKS = Path(__file__).parents[1] / "tasks_for_tests"
STUDIES = {
    "led": ["--task", "tiny.py:Noisy", "--epochs", "8", "--trials", "40"],
    "compared": [
        *("--task", "tiny.py:Noisy", "--epochs", "8", "--trials", "36"),
        *("--set", 'families=["cyclic", "linear", "step"]', "--set", "allocation=equal"),
        *("--set", "pruner=median", "--set", "confirm.seeds=4"),
    ],
    "by-tpe": [
        *("--task", "tiny.py:Noisy", "--epochs", "8", "--trials", "30"),
        *("--set", 'families=["cyclic"]', "--set", "sampler=tpe", "--set", "seeds=1"),
    ],
    "interrupted": ["--task", "tiny.py:Gated", "--trials", "12", "--set", "confirm.seeds=2"],
}
"""By name, the options of `clrsearch run`."""
BEGUN = 8  # trials of the interrupted study, of which the last is broken off


def command(name: str, folder: Path) -> list[str]:
    """What runs a study."""
    storage = f"sqlite:///{folder / name}.db"
    options = ["--workers", "1", "--device", "cpu", "--task-dir", str(TASKS), "--storage", storage]
    return [sys.executable, "-m", "clrsearch", "run", "--name", name, *STUDIES[name], *options]


def interrupt(name: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a study up to the fifth epoch of a trial, and end it there."""
    gate, database = Path(environment["CLRSEARCH_TEST_GATE"]), folder / f"{name}.db"
    gate.touch()
    with subprocess.Popen(command(name, folder), env=environment) as running:
        while begun(database) < BEGUN:
            time.sleep(0.05)
        gate.unlink()
        time.sleep(2.0)  # up to the gate
        running.send_signal(signal.SIGINT)
        time.sleep(0.5)
        gate.touch()  # the signal is heeded at the next batch


def begun(database: Path) -> int:
    """How many trials there are."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def said(now: Snapshot) -> dict[str, object]:
    """What is said of a study, in numbers."""
    assert now.search_best and now.recommended and now.confirmed and now.verdict
    verdict = now.verdict
    return {
        "search best": now.search_best.number,
        "recommended": now.recommended.number,
        "standings": {each.trial: each.mean for each in verdict.standings},
        "p": {each.trial: each.p for each in verdict.standings},
        "undecided": verdict.undecided,
        "winner": verdict.winner,
        "seeds needed": verdict.seeds_needed,
        "runs": sorted((run.finalist, run.seed_index) for run in now.confirmed.runs),
    }


def pack(name: str, source: Path, target: Path) -> None:
    """Compress a database, without the names of the machine and its processes."""
    with closing(sqlite3.connect(source / f"{name}.db", timeout=60)) as connection:
        rows = connection.execute(
            "SELECT trial_user_attribute_id, key, value_json FROM trial_user_attributes"
        ).fetchall()
        for row, key, value in rows:
            told = json.loads(value)
            if key == "worker":
                told = "worker-1"
            elif isinstance(told, dict) and "worker" in told:
                told["worker"] = "worker-1"
            connection.execute(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?",
                (json.dumps(told), row),
            )
        connection.execute("UPDATE clrsearch_slots SET worker = 'worker-1' WHERE worker != ''")
        connection.commit()
        connection.execute("VACUUM INTO ?", (str(source / "packed"),))
    with gzip.GzipFile(target / f"{name}.db.gz", "wb", mtime=0) as packed:
        packed.write((source / "packed").read_bytes())
    (source / "packed").unlink()


def main() -> None:
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    expected = {}
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as resumed:
        environment = os.environ | {"CLRSEARCH_TEST_GATE": f"{made}/gate"}
        for name in sys.argv[2:] or STUDIES:
            if name == "interrupted":
                interrupt(name, Path(made), environment)
                shutil.copy(f"{made}/{name}.db", resumed)
                subprocess.run(command(name, Path(resumed)), env=environment, check=True)
            else:
                subprocess.run(command(name, Path(made)), env=environment, check=True)
                shutil.copy(f"{made}/{name}.db", resumed)
            storage = f"sqlite:///{resumed}/{name}.db"
            expected[name] = said(service.show(name, storage=storage).snapshot)
            pack(name, Path(made), target)
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
