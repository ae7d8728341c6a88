"""The main job against a hand-written Optuna script, both as whole processes, in one run.

    python benchmarks/main_job.py --trials 100 --repeats 1

Prints the wall times, their ratio, and the share of the workers' time, from first claim to last
tell, that went into training and validation.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from clrsearch import service
from clrsearch.training.device import usable_cores


def seconds(*command: str) -> float:
    """How long a command takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def training_share(storage: str) -> float:
    """Seconds in training and validation over those from first claim to last tell, all workers."""
    by_worker = defaultdict(list)
    for record in service.show("digits", storage=storage).snapshot.records:
        by_worker[record.worker].append(record)
    spans = sum(
        (max(r.ended for r in records) - min(r.started for r in records)).total_seconds()
        for records in by_worker.values()
    )
    return sum(r.seconds for records in by_worker.values() for r in records) / spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", default="100")
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    script = str(Path(__file__).parent / "handwritten.py")
    print(f"{platform.processor() or platform.machine()}, {usable_cores()} cores")
    print("hand-written s | clrsearch s | ratio | training share")
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            storage = f"sqlite:///{folder}/studies.db"
            other = f"sqlite:///{folder}/handwritten.db"
            theirs = seconds(sys.executable, script, "--trials", asked.trials, "--storage", other)
            ours = seconds(
                *(
                    sys.executable,
                    "-m",
                    "clrsearch",
                    "run",
                    "--task",
                    "digits",
                    "--set",
                    'families=["cyclic"]',
                    "--no-confirm",
                    "--trials",
                    asked.trials,
                ),
                *("--storage", storage),
            )
            share = training_share(storage)
        print(f"{theirs:.1f} | {ours:.1f} | {ours / theirs:.3f} | {share:.3f}", flush=True)


if __name__ == "__main__":
    main()
