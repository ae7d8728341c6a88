"""Weights & Biases: a project with one run per trial, online or as files to be synced later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from clrsearch.errors import TrackerError
from clrsearch.trackers.tracker import Mirrored, Run, safe, told

if TYPE_CHECKING:
    import wandb

LONGEST_PROJECT = 128  # characters


def connect(study: Mirrored, into: str | None) -> Online | Offline:
    """Open the project ``into``; by default the one of WANDB_PROJECT, or one named as the study.

    Raises:
        TrackerError: nobody is logged in, and WANDB_MODE is not ``offline``.
    """
    import wandb
    from wandb.errors import Error

    project = into or os.environ.get("WANDB_PROJECT")
    project = project or safe(study.name)[:LONGEST_PROJECT]
    with told("wandb", Error, ValueError, OSError):
        settings = wandb.setup().settings
        if settings.mode == "disabled":
            raise TrackerError("wandb: WANDB_MODE=disabled writes nothing: unset it")
        if settings.mode == "offline":
            return Offline(project, study, Path(settings.wandb_dir))
        if not wandb.login(prompt=False):
            raise TrackerError(
                "wandb: not logged in: run wandb login, or set WANDB_MODE=offline and run wandb "
                "sync later"
            )
        return Online(project, study)


class Online:
    """A project on a server. Its run identifiers say which trials of which study they are."""

    def __init__(self, project: str, study: Mirrored) -> None:
        self._project = project
        self._study = study
        self._open: dict[str, wandb.Run] = {}  # the runs that go on
        self._steps: dict[str, int] = {}  # the last one logged

    @property
    def place(self) -> str:
        """The project."""
        return f"the project {self._project}"

    def ended(self) -> Collection[str]:
        """Nothing: what is there is only known once a run has been resumed."""
        return frozenset()

    def update(self, run: Run) -> None:
        """Log what is new of a run, which the server resumes if it has it already."""
        from wandb.errors import Error

        with told("wandb", Error, OSError):
            if run.key not in self._open:
                begun = _begin(run, self._study, self._project)
                self._open[run.key], self._steps[run.key] = begun, begun.step - 1
            for point in run.points:
                if point.step > self._steps[run.key]:
                    self._open[run.key].log(dict(point.values), step=point.step)
                    self._steps[run.key] = point.step
            if run.ended is not None:
                del self._steps[run.key]
                _end(self._open.pop(run.key), run)

    def close(self) -> None:
        """Let the server know that no more is to come for now."""
        from wandb.errors import Error

        with told("wandb", Error, OSError):
            for each in self._open.values():
                each.finish()
        self._open.clear()


class Offline:
    """A folder with one folder per run that has ended, for ``wandb sync``.

    Each is written beside it and then moved there, so those that are there are whole. A run that
    goes on is not written, as nobody could look at it.
    """

    def __init__(self, project: str, study: Mirrored, folder: Path) -> None:
        self._project = project
        self._study = study
        self._folder = folder
        self._beside = folder.parent / f".clrsearch-{study.short}"

    @property
    def place(self) -> str:
        """The folder."""
        return f"{self._folder}, for wandb sync"

    def ended(self) -> Collection[str]:
        """The keys of the runs that are there whole."""
        ours = f"-{self._study.short}-"
        return {each.name.partition(ours)[2] for each in self._folders("*")}

    def update(self, run: Run) -> None:
        """Write a run that has ended, in place of an earlier one."""
        from wandb.errors import Error

        if run.ended is None:
            return
        with told("wandb", Error, OSError):
            earlier = self._folders(run.key)
            self._remove_beside()
            self._beside.mkdir(parents=True)
            begun = _begin(run, self._study, self._project, self._beside)
            for point in run.points:
                begun.log(dict(point.values), step=point.step)
            _end(begun, run)
            self._folder.mkdir(exist_ok=True)
            for each in earlier:
                shutil.rmtree(each)
            (made,) = self._beside.glob("*/offline-run-*")
            made.rename(self._folder / made.name)

    def close(self) -> None:
        """Remove what a run that was not finished has left."""
        self._remove_beside()

    def _folders(self, key: str) -> list[Path]:
        return list(self._folder.glob(f"offline-run-*-{self._study.short}-{key}"))

    def _remove_beside(self) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)


def _begin(run: Run, study: Mirrored, project: str, folder: Path | None = None) -> wandb.Run:
    """Begin or resume a run; with a folder, in files there.

    Nothing is taken down of this machine, which is not the one that trained.
    """
    import wandb

    return wandb.init(
        project=project,
        group=study.name,
        id=f"{study.short}-{run.key}",
        name=run.name,
        job_type="study" if run.is_study else run.tags["stage"],
        config={**run.params, **run.tags},
        dir=folder,
        resume=None if folder else "allow",
        reinit="create_new",
        settings=wandb.Settings(
            mode="offline" if folder else "online",
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            x_save_requirements=False,
        ),
    )


def _end(begun: wandb.Run, run: Run) -> None:
    """Write what is known at the end, and finish the run."""
    begun.summary.update({**run.final, "state": run.state})
    for name, text in run.texts.items():
        (Path(begun.dir) / name).write_text(text, encoding="utf-8")
        begun.save(str(Path(begun.dir) / name), base_path=begun.dir, policy="now")
        if name.endswith(".md"):
            begun.notes = text
    begun.finish(exit_code=1 if run.failed else 0)
