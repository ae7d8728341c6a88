"""What it takes to get a learning-rate schedule for one's own script, and what one gets.

The script is `tests/tasks_for_tests/script_before.py`: an MLP on scikit-learn's digits, 12 epochs.
`script_after.py` beside it is the same for clrsearch, `with_*.py` here are for its peers, changed
as their own documentation shows it. Each is run as it is documented, 30 trials where a tool has
trials, all four in turn. Lines are those of a diff that are not empty. Seconds are from the start
of the command until its result is printed. The accuracy is that of the script under this result,
over ten seeds of its own. From `benchmarks/`, with the tools installed:

    pip install 'ray[tune]' lightning optuna-dashboard
    python -m newcomer                  # the table of tools, 10 minutes or more
    python -m newcomer.mistakes         # the table of mistakes, 30 minutes or more
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

import torch
from optuna.trial import FixedTrial
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import DataLoader

from newcomer import with_optuna, with_ray
from newcomer.sizes import TOOLS, megabytes, needed, required

HERE = Path(__file__).parent
BEFORE = HERE.parents[1] / "tests/tasks_for_tests/script_before.py"
SCRIPT = SimpleNamespace(**runpy.run_path(str(BEFORE)))
EPOCHS, BATCH, RATE, WIDTH = 12, 50, 1e-3, 64  # the script's own
FRESH = range(100, 110)  # seeds
Making = Callable[[torch.optim.Optimizer, int], LRScheduler]
"""A scheduler for each batch, from an optimizer and the steps of an epoch."""


@dataclass(frozen=True, slots=True)
class Trying:
    """A script, its command, and what its result is.

    ``result`` begins the line that has it; ``made`` takes the text from there on.
    """

    script: Path
    command: tuple[str, ...]
    result: str
    made: Callable[[str], Making]


def of_clrsearch(text: str) -> Making:
    code: dict[str, Any] = {}
    exec(text[: text.index("\nSaved in ")], code)
    return code["make_scheduler"]


def params_of(text: str) -> dict[str, Any]:
    return ast.literal_eval(text.splitlines()[0].split(" with ")[1])


def of_optuna(text: str) -> Making:
    trial = FixedTrial(params_of(text))
    return lambda optimizer, steps: with_optuna.make_scheduler(trial, optimizer, EPOCHS * steps)


def of_ray(text: str) -> Making:
    config = params_of(text)
    return lambda optimizer, steps: with_ray.make_scheduler(config, optimizer, EPOCHS * steps)


def at_rate(rate: float) -> Making:
    """The script's own schedule, which falls once per epoch, from another rate."""

    def made(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
        for group in optimizer.param_groups:
            group["lr"] = rate
        own = CosineAnnealingLR(optimizer, EPOCHS)
        taken = iter(range(1, EPOCHS * steps + 1))

        class OncePerEpoch:
            def step(self) -> None:
                if next(taken) % steps == 0:
                    own.step()

        return OncePerEpoch()

    return made


RUN = ("-m", "clrsearch", "run", "--task", "script.py:main", "--epochs", str(EPOCHS))
TRYING: Mapping[str, Trying] = {
    "clrsearch": Trying(
        BEFORE.with_name("script_after.py"),
        (*RUN, "--set", "metric=accuracy", "--set", "direction=maximize", "--trials", "30"),
        '"""The ',
        of_clrsearch,
    ),
    "Optuna": Trying(HERE / "with_optuna.py", ("script.py",), "best: ", of_optuna),
    "Ray Tune": Trying(HERE / "with_ray.py", ("script.py",), "best: ", of_ray),
    "lr_find": Trying(
        HERE / "with_lightning.py",
        ("script.py",),
        "suggested: ",
        lambda text: at_rate(float(text.split()[1])),
    ),
}


def lines(script: Path) -> tuple[int, int]:
    """The lines that are added and taken away, of those that are not empty."""
    texts = (each.read_text().splitlines() for each in (BEFORE, script))
    marks = [each[0] for each in difflib.ndiff(*texts) if each[2:].strip()]
    return marks.count("+"), marks.count("-")


def result(trying: Trying) -> tuple[float, str]:
    """The seconds until a result is printed, and all that is printed from there on."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shutil.copy(trying.script, Path(folder) / "script.py")
        own = {"HOME": folder, "CLRSEARCH_STORAGE": f"sqlite:///{folder}/studies.db"}
        began, seconds, kept = time.perf_counter(), 0.0, []
        with subprocess.Popen(
            [sys.executable, *trying.command],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            for line in process.stdout:
                if not seconds and line.startswith(trying.result):
                    seconds = time.perf_counter() - began
                if seconds:
                    kept.append(line)
        if process.returncode or not seconds:
            raise SystemExit(f"{trying.script.name} ended with {process.returncode}")
        return seconds, "".join(kept)


def accuracy(made: Making) -> float:
    """Of the script under a schedule, over seeds of its own."""
    return mean(trained(made, seed) for seed in FRESH)


def trained(made: Making, seed: int) -> float:
    torch.manual_seed(seed)
    training, validation = SCRIPT.splits("cpu")
    loader = DataLoader(training, BATCH, shuffle=True)
    model = SCRIPT.build(WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    scheduler = made(optimizer, len(loader))
    for _ in range(EPOCHS):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
            scheduler.step()
    return SCRIPT.evaluate(model, validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {tool: [] for tool in TRYING}
    scores: dict[str, list[float]] = {tool: [] for tool in TRYING}
    print(f"the script as it is: {accuracy(at_rate(RATE)):.4f}\n")
    print("| tool | load before | s | accuracy |\n|---|---|---|---|")
    for _ in range(asked.repeats):
        for tool, trying in TRYING.items():
            load = os.getloadavg()[0]
            took, text = result(trying)
            seconds[tool].append(took)
            scores[tool].append(accuracy(trying.made(text)))
            print(f"| {tool} | {load:.1f} | {took:.0f} | {scores[tool][-1]:.4f} |", flush=True)
    print("\n| | version | packages, MB | lines | s, median (range) | accuracy, mean (range) |")
    print("|---|---|---|---|---|---|")
    has = needed(["torch", "scikit-learn"])
    for tool, trying in TRYING.items():
        added = needed(TOOLS[tool]) - has
        size = f"{len(added)}, {sum(map(megabytes, added)):.0f}"
        of, scored = seconds[tool], scores[tool]
        took = f"{median(of):.0f} ({min(of):.0f} to {max(of):.0f})"
        score = f"{mean(scored):.4f} ({min(scored):.4f} to {max(scored):.4f})"
        changed = "+{} -{}".format(*lines(trying.script))
        row = (tool, required(TOOLS[tool][0]).version, size, changed, took, score)
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
