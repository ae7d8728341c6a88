"""Options and arguments that several commands share, and what they turn into."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from clrsearch import proposals

if TYPE_CHECKING:
    from clrsearch.notices import Notices
    from clrsearch.search import StudyPlan
    from clrsearch.service import WorkerSettings
    from clrsearch.storage import StorageUrl

T = TypeVar("T")


def _carry(parameter: typer.CallbackParam, value: Any) -> Any:
    """Let the commands that are proposed have the option too."""
    if value is not None:
        proposals.carry(parameter.opts[0], value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Which database."""

    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Database URL, such as sqlite:///studies.db or postgresql://me@host/db. "
            "Default: CLRSEARCH_STORAGE, else a SQLite file in your data folder.",
        ),
    ] = None
    storage_file: Annotated[
        Path | None,
        typer.Option(
            "--storage-file",
            help="File that contains the database URL; use it for a URL with a password. "
            "Default: CLRSEARCH_STORAGE_FILE.",
        ),
    ] = None

    def url(self) -> StorageUrl | None:
        """The database that the options name.

        Raises:
            StorageError: both name one, or the URL holds a password, which the list of processes
                shows.
        """
        from clrsearch.errors import StorageError
        from clrsearch.storage import FILE_VARIABLE, STORAGE_VARIABLE, StorageUrl

        if self.storage_file is not None:
            if self.storage is not None:
                raise StorageError("--storage and --storage-file both name a database: give one")
            proposals.carry("--storage-file", self.storage_file)
            return StorageUrl.from_file(self.storage_file)
        if self.storage is None:
            return None
        found = StorageUrl(self.storage)
        if found.has_password:
            raise StorageError(
                "a password in --storage is visible in the process list: put the URL in "
                f"{STORAGE_VARIABLE}, or in a file for --storage-file or {FILE_VARIABLE}"
            )
        proposals.carry("--storage", self.storage)
        return found


PatienceOption = Annotated[
    float | None,
    typer.Option(
        "--storage-patience",
        min=0,
        metavar="SECONDS",
        help="How long to wait for an unreachable database. Default: 600.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientStorageOptions(StorageOptions):
    """Which database, and how long to wait for it."""

    storage_patience: PatienceOption = None

    def patience(self) -> float:
        """How many seconds to wait for the database."""
        from clrsearch.storage import PATIENCE_SECONDS

        return PATIENCE_SECONDS if self.storage_patience is None else self.storage_patience


DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=_carry,
        help="cuda, cuda:1, mps or cpu. Default: the first one available.",
    ),
]
TaskDirOption = Annotated[
    Path | None,
    typer.Option(
        "--task-dir",
        callback=_carry,
        help="Folder of the task's file or package. Default: the study file's folder, or this one.",
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        callback=_carry,
        help="Folder of the task's data. Default: CLRSEARCH_DATA_DIR, else your data folder.",
    ),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Download the task's data if it is missing.")
]
CheckpointDirOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint-dir",
        callback=_carry,
        help="Folder for checkpoints; workers that share it can resume each other's trials. "
        "Default: CLRSEARCH_CHECKPOINT_DIR, else beside the SQLite file, else your data folder.",
    ),
]
DriftOption = Annotated[
    bool,
    typer.Option(
        "--allow-drift",
        help="Continue even if the task's source, clrsearch or torch has changed.",
    ),
]


def numbers(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A parser of an option with several numbers, separated by commas."""

    def parse(text: str) -> tuple[T, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise typer.BadParameter(
                f"expected numbers separated by commas, not {text!r}"
            ) from None

    return parse


EpochsListOption = Annotated[
    Any,
    typer.Option(
        "--epochs", parser=numbers(int), metavar="E,E,...", help="The lengths, such as 5,10,20,40."
    ),
]
RatesOption = Annotated[
    Any,
    typer.Option(
        "--rates",
        parser=numbers(float),
        metavar="LR,LR,...",
        help="The peak rates. Default: 1, 3 and 10 times the task's own.",
    ),
]


def number_or(*words: str) -> Callable[[str], str | int]:
    """A parser of an option that is a number or one of these words."""

    def parse(text: str) -> str | int:
        if text in words:
            return text
        try:
            return int(text)
        except ValueError:
            known = ", ".join(words)
            raise typer.BadParameter(f"choose {known} or a number, not {text!r}") from None

    return parse


LanesOption = Annotated[
    Any,
    typer.Option(
        "--lanes",
        parser=number_or("auto", "off"),
        metavar="auto|off|K",
        help="Train K trials together in each worker, as one vectorized step; auto measures how "
        "many are worth it. Default: auto on a GPU, otherwise off.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Where a task trains, and where its files are."""

    device: DeviceOption = None
    task_dir: TaskDirOption = None
    data_dir: DataDirOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions(TaskOptions):
    """How workers work."""

    checkpoint_dir: CheckpointDirOption = None
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(
            "--checkpoint-seconds",
            min=0,
            metavar="SECONDS",
            help="Minimum time between two checkpoints of a trial. Default: 10.",
        ),
    ] = None
    storage_patience: PatienceOption = None
    stall_minutes: Annotated[
        float | None,
        typer.Option(
            "--stall-minutes",
            min=0,
            help="Replace a worker whose task has finished no step for so long. Default: ten times "
            "its longest step, at least 10.",
        ),
    ] = None
    gpus_per_trial: Annotated[
        int,
        typer.Option(
            "--gpus-per-trial",
            min=1,
            help="Train each trial on so many GPUs, which share every batch.",
        ),
    ] = 1
    lanes: LanesOption = None
    trunk_gb: Annotated[
        float | None,
        typer.Option(
            "--trunk-gb",
            min=0,
            help="Disk space for the states that trials with the same beginning share. 0: train "
            "each from its start. Default: 10.",
        ),
    ] = None
    allow_drift: DriftOption = False

    def settings(self) -> WorkerSettings:
        """The settings of the workers; what is not given has its default there."""
        from clrsearch.service import WorkerSettings

        names = [each.name for each in fields(WorkerSettings) if hasattr(self, each.name)]
        given = {name: getattr(self, name) for name in names}
        return WorkerSettings(**{name: each for name, each in given.items() if each is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedWorkerOptions(WorkerOptions):
    """How workers work, and when they exit."""

    max_minutes: Annotated[
        float | None,
        typer.Option(
            "--max-minutes",
            min=0,
            help="After this time a worker saves a checkpoint, releases its trial and exits.",
        ),
    ] = None
    max_trials: Annotated[
        int | None,
        typer.Option("--max-trials", min=1, help="A worker exits after this many trials."),
    ] = None
    idle_wait: Annotated[
        float | None,
        typer.Option(
            "--idle-wait",
            min=0,
            metavar="SECONDS",
            help="How long a worker without a trial waits for new ones.",
        ),
    ] = None


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="Print JSON Lines: one object per line.")
]
StudyFileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="Study file in TOML. Default: the built-in task denoise."),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task", help="What to train: denoise, digits, ..., package.module:NAME or file.py:NAME."
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the study. Default: 0.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of a study file, such as confirm.seeds=10.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Worker processes. Default: one per GPU, or per core. 0: train in this process, "
        "where a debugger can stop it.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyOptions:
    """Whom to tell what becomes of a study."""

    notify: Annotated[
        list[str] | None,
        typer.Option(
            "--notify",
            metavar="URL",
            help="Send a message to this apprise URL at the end, at an error, and when a worker is "
            "lost; may be repeated. The list of processes shows it: put a URL with a token in "
            "CLRSEARCH_NOTIFY, where spaces separate several.",
        ),
    ] = None

    def notices(self) -> Notices:
        """Where to send messages. No other process gets to know it, and no message repeats it.

        Raises:
            PlanError: apprise is not installed, or does not understand a URL.
        """
        from clrsearch.notices import VARIABLE, Notices

        proposals.forget("--notify")
        inherited = os.environ.pop(VARIABLE, "").split()
        return Notices([*(self.notify or ()), *inherited])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What to search."""

    trials: Annotated[
        Any,
        typer.Option(
            "--trials",
            parser=number_or("auto"),
            metavar="N|auto",
            help="Number of schedules to try; auto: stop once another is unlikely to help. "
            "Default: 100, or as many as the budget pays for.",
        ),
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", help="Time limit in minutes for this command, confirmation included."
        ),
    ] = None
    gpu_hours: Annotated[
        float | None,
        typer.Option(
            "--gpu-hours",
            help="Total GPU hours of the study, confirmation included; on a CPU, worker hours.",
        ),
    ] = None
    epochs_total: Annotated[
        int | None,
        typer.Option(
            "--epochs-total", help="Total epochs of the study's trials, confirmation included."
        ),
    ] = None
    task: TaskOption = None
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs per trial. Default: the task's.")
    ] = None
    seed: SeedOption = None
    changes: SetOption = None
    range_test: Annotated[
        bool,
        typer.Option(
            "--range-test", help="Search only the learning rates that a range test finds."
        ),
    ] = False
    no_confirm: Annotated[
        bool, typer.Option("--no-confirm", help="Do not re-run the best schedules on fresh seeds.")
    ] = False
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="STUDY",
            help="Start from what a stored study of a similar task has found; may be repeated.",
        ),
    ] = None

    def plan(self, study_file: Path | None) -> StudyPlan:
        """The plan of a study file with the options laid over it."""
        names = ("trials", "minutes", "gpu_hours", "epochs_total", "task", "epochs", "seed", "like")
        keys: dict[str, Any] = {name: getattr(self, name) for name in names}
        keys["range_test"] = self.range_test or None
        if self.no_confirm:
            keys["confirm.enabled"] = False
        return asked_plan(study_file, keys, self.changes)


def _picture_file(path: Path | None) -> Path | None:
    """Refuse what no picture can be written to before anything is computed."""
    from clrsearch.plots import require_picture

    if path is not None:
        require_picture(path)
    return path


_OUTPUT = typer.Option(
    "--output",
    "-o",
    metavar="FILE",
    callback=_picture_file,
    help="Write a figure to FILE.html, FILE.png or FILE.svg.",
)
OutputOption = Annotated[Path | None, _OUTPUT]
PictureOption = Annotated[Path, _OUTPUT]
NameArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")]


def asked_plan(
    study_file: Path | None, keys: Mapping[str, Any], changes: list[str] | None
) -> StudyPlan:
    """The plan of a study file with ``keys`` laid over it, those that are not None."""
    from clrsearch.search import load_plan

    asked = {key: value for key, value in keys.items() if value is not None}
    return load_plan(study_file, {**assignments(changes or []), **asked})


def tested_study(
    study: str | None,
    keys: Mapping[str, Any],
    changes: list[str] | None,
    task_dir: Path | None,
) -> tuple[StudyPlan | str, Path | None]:
    """The plan of a file with the options laid over it, or a study's name; where its task lies.

    Raises:
        PlanError: options are given with a study's name, or the file is not as it must be.
    """
    from clrsearch.errors import PlanError
    from clrsearch.search import refuse_task

    if study is not None and study.partition(":")[0].endswith(".py"):
        refuse_task(study)
    if study is None or study.endswith(".toml"):
        file = None if study is None else Path(study)
        return asked_plan(file, keys, changes), task_folder(file, task_dir)
    if changes or any(value is not None for value in keys.values()):
        raise PlanError(
            f"{study} is a study, which is tested as is: leave out --task, --seed and "
            "--set, or give a FILE.toml"
        )
    return study, task_dir


def task_folder(study_file: Path | None, task_dir: Path | None) -> Path | None:
    """Where a plan's task lies: in the folder given, else in that of its file."""
    if task_dir is not None or study_file is None:
        return task_dir
    if study_file.parent != Path():
        proposals.carry("--task-dir", study_file.parent)
    return study_file.parent


def assignments(texts: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as keys and values; a value is TOML, or else a plain word.

    Raises:
        PlanError: a text without an equals sign, or a list that is not TOML.
    """
    from clrsearch.errors import PlanError
    from clrsearch.search import read_toml

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or "\n" in text:
            raise PlanError(f"--set {shlex.quote(text)}: expected KEY=VALUE")
        try:
            found[key.strip()] = read_toml(f"value = {value}")["value"]
        except ValueError as error:
            if value.strip().startswith(("[", "{", '"', "'")) or value.strip().isdecimal():
                raise PlanError(f"--set {shorten(text, 60)}: not valid TOML: {error}") from error
            found[key.strip()] = value
    return found


def variations(texts: list[str]) -> dict[str, list[Any]]:
    """``KEY=VALUE,VALUE`` texts as keys and their values, each TOML or else a plain word.

    Raises:
        PlanError: a text without an equals sign or a value.
    """
    from clrsearch.errors import PlanError
    from clrsearch.search import read_toml

    found: dict[str, list[Any]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        pieces = [each.strip() for each in values.split(",")]
        if not key.strip() or not all(pieces):
            raise PlanError(f"--vary {shlex.quote(text)}: expected KEY=VALUE or KEY=VALUE,VALUE")
        for piece in pieces:
            try:
                value = read_toml(f"value = {piece}")["value"]
            except ValueError:
                value = piece
            found.setdefault(key.strip(), []).append(value)
    return found
