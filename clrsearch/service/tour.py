"""The tutorial: a first study, step by step, each with the command that it runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clrsearch.errors import ExitCode, StorageError
from clrsearch.proposals import command

FOLDER = "clrsearch-tutorial"
TRIALS, SEEDS = 30, 8
_STUDY, _IN_FOLDER = "tutorial", {"storage": "sqlite:///tutorial.db"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the tutorial.

    Attributes:
        title: what it shows.
        text: two or three sentences about it.
        command: the command that it runs in the tutorial's folder.
        opens: the page that it writes, to be opened in a browser.
        keeps: the file that it writes, if it writes over none.
    """

    title: str
    text: str
    command: str
    opens: str | None = None
    keeps: str | None = None


def tutorial_steps() -> tuple[Step, ...]:
    """The steps in their order; all together take a few minutes on two cores."""
    return (
        Step(
            title="Search",
            text=f"This trains a small network, which removes noise from images of digits, under "
            f"{TRIALS} different learning-rate schedules, constant rates among them. Hopeless ones "
            "are stopped early, and the best are trained again with fresh random seeds. --storage "
            "keeps the study in a file in this folder; without it, studies go to your data folder.",
            command=command("run", name=_STUDY, trials=TRIALS, **_IN_FOLDER),
        ),
        Step(
            title="The schedule",
            text="This is the schedule that the study recommends: the learning rate at the start "
            "of each epoch, from the first at the top to the end of the run at the bottom. The "
            "bars are its curve.",
            command=command("preview", _STUDY, **_IN_FOLDER),
        ),
        Step(
            title="The verdict",
            text="The best of many trials owes part of its score to a lucky seed. So the best "
            "schedules and the best constant rate are trained on seeds that the search has not "
            f"used. Step 1 did so with a few; now each of them gets {SEEDS}. The verdict, below "
            "the second table, names as beaten only what is worse by more than chance; schedules "
            "that cannot be told apart may be equally good.",
            command=command("confirm", _STUDY, seeds=SEEDS, **_IN_FOLDER),
        ),
        Step(
            title="The code",
            text="This prints the recommended schedule as a PyTorch function to paste into a "
            "training script, and --format writes it for Lightning, Transformers, Keras, Optax or "
            "timm. Call scheduler.step() after every batch, not once per epoch.",
            command=command("best", _STUDY, **_IN_FOLDER),
        ),
        Step(
            title="The report",
            text="This writes the whole study to one page: the verdict, the code, all curves and "
            "all trials. The page needs no network, so you can send it by mail.",
            command=command("report", _STUDY, output="report.html", **_IN_FOLDER),
            opens="report.html",
        ),
        Step(
            title="Your own model",
            text="This writes a task that runs as it is. In mine.py, replace what is marked "
            "CHANGE: the data, the model, the optimizer with the learning rate that you use today, "
            "the loss and the metrics. If you would rather keep your training loop, write one to "
            "start from with clrsearch new --loop.",
            command=command("new", "mine.py"),
            keeps="mine.py",
        ),
    )


def tutorial_folder() -> Path:
    """The folder in which the tutorial works: made in the current one, unless it is this one.

    Raises:
        StorageError: it cannot be made.
    """
    here = Path.cwd()
    folder = here if here.name == FOLDER else here / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {folder} cannot be created: {error.strerror}: start the tutorial in "
            "another folder"
        ) from error
    return folder


def run_in(folder: Path, arguments: Sequence[str]) -> int:
    """Run ``python -m`` with these arguments in a folder; the exit code.

    Ctrl-C is left to the process, which ends in its own way; the code then is that of an
    interruption.
    """
    interrupted = []
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    try:
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    return ExitCode.INTERRUPTED if interrupted else done.returncode
