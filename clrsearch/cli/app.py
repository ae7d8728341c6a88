"""The commands: each parses, calls one function of the service, and prints."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from clrsearch.search import StudyPlan
    from clrsearch.storage import StorageUrl

app = typer.Typer(
    name="clrsearch",
    help="Find the learning-rate schedule for your model, and get it back as code.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

db = typer.Typer(help="Keep the database in order.", no_args_is_help=True)
app.add_typer(db, name="db")

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="Database, such as sqlite:///studies.db or postgresql://me@host/db. "
        "Default: CLRSEARCH_STORAGE, else one file in your data folder.",
    ),
]
StorageFileOption = Annotated[
    Path | None,
    typer.Option(
        "--storage-file",
        help="A file that holds the database URL, for one with a password. "
        "Default: CLRSEARCH_STORAGE_FILE.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cuda, cuda:1, mps or cpu. Default: the first there is."),
]
TaskDirOption = Annotated[
    Path | None,
    typer.Option("--task-dir", help="Where a task's file.py lies. Default: the current folder."),
]
CheckpointDirOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint-dir",
        help="Default: CLRSEARCH_CHECKPOINT_DIR, else beside the SQLite file, else in your data "
        "folder. Workers on several machines resume each other's trials if they share it.",
    ),
]
CheckpointSecondsOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-seconds", min=0, help="At least so long between two checkpoints of a trial."
    ),
]
PatienceOption = Annotated[
    float,
    typer.Option(
        "--storage-patience", min=0, help="How long to wait for a lost database, in seconds."
    ),
]
DriftOption = Annotated[
    bool,
    typer.Option(
        "--allow-drift",
        help="Go on although the task's source, clrsearch or torch is not as it was.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
StudyFileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="A study in TOML. Default: the task digits."),
]
TrialsOption = Annotated[
    int | None, typer.Option("--trials", help="How many schedules to try. Default: 100.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Processes. Default: one per GPU, or per core.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Default: the file's or the task's name.")
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="digits, package.module:NAME or file.py:NAME."),
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", help="Per trial. Default: the task's.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Default: 0.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of a study, such as 'bounds.cyclic.max_lr=[1e-3,1]'.",
    ),
]
NoConfirmOption = Annotated[
    bool, typer.Option("--no-confirm", help="Do not run the best again on fresh seeds.")
]
NameArgument = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")]


@app.command()
def run(
    study_file: StudyFileArgument = None,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    name: NameOption = None,
    task: TaskOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    no_confirm: NoConfirmOption = False,
    device: DeviceOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    json: JsonOption = False,
) -> None:
    """Search a schedule, or go on with a search.

    The same command again goes on with an unfinished study; with more --trials it adds to a
    finished one. In the end the best are run again on fresh seeds.
    """
    given = {"trials": trials, "task": task, "epochs": epochs, "seed": seed}
    watch_work(
        asked_plan(study_file, given, changes, no_confirm=no_confirm),
        json=json,
        name=name or (study_file.stem if study_file else None),
        storage=storage_option(storage, storage_file),
        workers=workers,
        device=device,
        task_dir=study_file.parent if study_file else None,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
    )


@app.command()
def compare(
    study_file: StudyFileArgument = None,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    name: NameOption = None,
    task: TaskOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    no_confirm: NoConfirmOption = False,
    device: DeviceOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    json: JsonOption = False,
) -> None:
    """Search all families with as many trials each, and confirm the best of each.

    Families that do not fit the epochs are left out; --set families=[...] names those to compare.
    """
    from clrsearch import service

    given = {"trials": trials, "task": task, "epochs": epochs, "seed": seed}
    plan = asked_plan(study_file, given, changes, no_confirm=no_confirm)
    folder = study_file.parent if study_file else None
    comparison = service.comparison(plan, task_dir=folder)
    for note in comparison.notes:
        typer.echo(note, err=True)
    default = study_file.stem if study_file else service.default_name(plan)
    watch_work(
        comparison.plan,
        json=json,
        name=name or f"{default}-compare",
        storage=storage_option(storage, storage_file),
        workers=workers,
        device=device,
        task_dir=folder,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
    )


@app.command()
def confirm(
    name: NameArgument,
    top: Annotated[
        int, typer.Option("--top", min=1, help="How many schedules besides the baseline's best.")
    ] = 3,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Fresh seeds for each.")] = 5,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    json: JsonOption = False,
) -> None:
    """Run the best of a finished search again on fresh seeds, and choose by these.

    Again with more seeds or schedules it runs what is missing.
    """
    from clrsearch import service

    database = storage_option(storage, storage_file)
    watch_work(
        service.confirmation_plan(name, top=top, seeds=seeds, storage=database),
        json=json,
        name=name,
        storage=database,
        workers=workers,
        device=device,
        task_dir=task_dir,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
    )


@app.command()
def worker(
    name: NameArgument,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    worker_name: Annotated[str | None, typer.Option("--worker-name", hidden=True)] = None,
) -> None:
    """Join a study: work on it until no trial is left."""
    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.errors import StudyStopped

    try:
        service.work(
            name,
            storage=storage_option(storage, storage_file),
            device=device,
            task_dir=task_dir,
            checkpoint_dir=checkpoint_dir,
            checkpoint_seconds=checkpoint_seconds,
            storage_patience=storage_patience,
            allow_drift=allow_drift,
            worker=worker_name,
            on_end=output.print_trial,
            on_wait=output.print_wait,
        )
    except StudyStopped as stopped:
        output.print_error(stopped)
        raise typer.Exit(3) from stopped  # launchers do not replace a worker that ends with 3


@app.command()
def best(
    name: NameArgument,
    format: Annotated[
        Literal["torch", "json", "toml"],
        typer.Option("--format", help="A Python file for torch, or the values."),
    ] = "torch",
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Print the best schedule: a file that runs alone, or values."""
    from clrsearch import service
    from clrsearch.cli import output

    typer.echo(
        output.best_text(service.best(name, storage=storage_option(storage, storage_file)), format),
        nl=False,
    )


@app.command("list")
def list_command(
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonOption = False,
) -> None:
    """List the studies."""
    from clrsearch import service
    from clrsearch.cli import output

    output.print_list(
        service.list_studies(storage=storage_option(storage, storage_file)), json=json
    )


@app.command()
def status(
    name: NameArgument,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it anew every 2 seconds, until all trials have ended."),
    ] = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    json: JsonOption = False,
) -> None:
    """Show how a study stands: its workers, the time left, what failed."""
    from rich.console import Console

    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.errors import PlanError
    from clrsearch.reports import Status, StatusView

    console = Console()
    if watch and not json and not console.is_terminal:
        raise PlanError("--watch draws on a terminal: add --json for a line every 2 seconds")
    on_change: Callable[[Status], None] = partial(output.print_status, json=json)
    on_wait = output.print_wait
    with ExitStack() as leaving:
        if watch and not json:
            view = leaving.enter_context(StatusView(console))
            on_change, on_wait = view.show, view.wait
        if watch:
            leaving.enter_context(suppress(KeyboardInterrupt))
        service.status(
            name,
            storage=storage_option(storage, storage_file),
            watch=watch,
            storage_patience=storage_patience,
            on_change=on_change,
            on_wait=on_wait,
        )


@app.command()
def show(
    name: NameArgument,
    trial: Annotated[int | None, typer.Argument(metavar="TRIAL", help="A trial's number.")] = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show a study's trials, or one of them epoch by epoch."""
    from clrsearch import service
    from clrsearch.cli import output

    output.print_shown(
        service.show(name, trial, storage=storage_option(storage, storage_file)), json=json
    )


@app.command()
def replay(
    name: NameArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="A trial's number.")],
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Run a trial again: does it come out the same?

    Exit code 1 if it does not.
    """
    from clrsearch import service
    from clrsearch.cli import output

    again = service.replay(
        name, trial, storage=storage_option(storage, storage_file), device=device, task_dir=task_dir
    )
    output.print_replayed(again)
    if not again.matches:
        raise typer.Exit(1)


@app.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Remove a study with all of its trials."""
    from clrsearch import service

    if not yes:
        typer.confirm(f"Remove the study {name} and all of its trials?", abort=True)
    service.delete(name, storage=storage_option(storage, storage_file))
    typer.echo(f"removed {name}")


@app.command()
def retry(
    name: NameArgument,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Give the failed trials another try, with the same parameters."""
    from clrsearch import service
    from clrsearch.cli import output

    opened = service.retry(name, storage=storage_option(storage, storage_file))
    output.print_retried(name, opened)


@app.command()
def cancel(
    name: NameArgument,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Begin no more trials: what has not begun is taken out, what runs goes on."""
    from clrsearch import service
    from clrsearch.cli import output

    cancelled = service.cancel(name, storage=storage_option(storage, storage_file))
    output.print_cancelled(name, cancelled)


@db.command()
def upgrade(
    yes: Annotated[bool, typer.Option("--yes", help="There is a backup: do not ask.")] = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Bring a database of earlier versions to those installed. Back it up first."""
    from clrsearch import service
    from clrsearch.cli import output

    if not yes:
        typer.confirm("Is there a backup, and does nobody work on it?", abort=True)
    output.print_upgraded(service.upgrade_database(storage=storage_option(storage, storage_file)))


def asked_plan(
    study_file: Path | None,
    given: Mapping[str, Any],
    changes: list[str] | None,
    *,
    no_confirm: bool,
) -> StudyPlan:
    """The plan of a study file with the options laid over it."""
    from clrsearch.search import load_plan

    asked = {key: value for key, value in given.items() if value is not None}
    if no_confirm:
        asked["confirm.enabled"] = False
    return load_plan(study_file, {**assignments(changes or []), **asked})


def watch_work(plan: StudyPlan, *, json: bool, **how: Any) -> None:
    """Run a study, showing how it goes, and print the result; ``how`` is for the service."""
    from rich.console import Console

    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.reports import Lines, LiveView, Watch

    console = Console()
    watch: Watch = (
        LiveView(console) if console.is_terminal and not json else Lines(console, json=json)
    )
    with watch:
        result = service.run(plan, on_change=watch.show, **how)
    output.print_result(result, json=json)
    if result.interrupted:
        raise typer.Exit(130)


def storage_option(url: str | None, file: Path | None) -> StorageUrl | None:
    """The database that the options name.

    Raises:
        StorageError: both name one, or the URL holds a password, which the list of processes shows.
    """
    from clrsearch.errors import StorageError
    from clrsearch.storage import FILE_VARIABLE, STORAGE_VARIABLE, StorageUrl

    if file is not None:
        if url is not None:
            raise StorageError("--storage and --storage-file both name a database: give one")
        return StorageUrl.from_file(file)
    if url is None:
        return None
    found = StorageUrl(url)
    if found.has_password:
        raise StorageError(
            "a password in --storage can be read in the list of processes: put the URL into "
            f"{STORAGE_VARIABLE}, or into a file for --storage-file or {FILE_VARIABLE}"
        )
    return found


def assignments(texts: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as keys and values; a value is TOML, or else a plain word.

    Raises:
        PlanError: a text without an equals sign, or a list that is not TOML.
    """
    from clrsearch.errors import PlanError

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise PlanError(f"--set {text}: KEY=VALUE is wanted")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            if value.strip().startswith(("[", "{", '"', "'")):
                raise PlanError(f"--set {text}: not valid TOML: {error}") from error
            found[key.strip()] = value
    return found


def main() -> None:
    """The entry point: an error of ours is one line on stderr, and exit code 2."""
    from clrsearch.errors import ClrsearchError

    try:
        app()
    except ClrsearchError as error:
        from clrsearch.cli.output import print_error

        print_error(error)
        sys.exit(2)
