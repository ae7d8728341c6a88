"""The commands that train: each parses, calls one function of the service, and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clrsearch.cli.options import (
    CheckpointDirOption,
    CheckpointSecondsOption,
    DataDirOption,
    DeviceOption,
    DownloadOption,
    DriftOption,
    EpochsOption,
    IdleWaitOption,
    JsonLinesOption,
    JsonOption,
    MaxMinutesOption,
    MaxTrialsOption,
    NameArgument,
    NameOption,
    NoConfirmOption,
    OutputOption,
    PatienceOption,
    RangeTestOption,
    SeedOption,
    SetOption,
    StorageFileOption,
    StorageOption,
    StudyFileArgument,
    TaskDirOption,
    TaskOption,
    TrialsOption,
    WorkersOption,
    asked_plan,
    storage_option,
    task_folder,
    tested_study,
)

if TYPE_CHECKING:
    from clrsearch.reports import Watch
    from clrsearch.search import StudyPlan
    from clrsearch.service import Result


def run(
    study_file: StudyFileArgument = None,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    name: NameOption = None,
    task: TaskOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    range_test: RangeTestOption = False,
    no_confirm: NoConfirmOption = False,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    json: JsonLinesOption = False,
) -> None:
    """Search for the best schedule, or resume a search.

    Run the same command again to resume an interrupted study, or with more --trials to extend a
    finished one. At the end, the best schedules are re-run on fresh seeds.
    """
    given = {"trials": trials, "task": task, "epochs": epochs, "seed": seed}
    given |= {"range_test": range_test or None}
    watch_work(
        asked_plan(study_file, given, changes, no_confirm=no_confirm),
        json=json,
        name=study_file.stem if name is None and study_file else name,
        storage=storage_option(storage, storage_file),
        workers=workers,
        device=device,
        task_dir=task_folder(study_file, task_dir),
        data_dir=data_dir,
        download=download,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
    )


def compare(
    study_file: StudyFileArgument = None,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    name: NameOption = None,
    task: TaskOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    range_test: RangeTestOption = False,
    no_confirm: NoConfirmOption = False,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    download: DownloadOption = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    json: JsonLinesOption = False,
) -> None:
    """Search every family with the same number of trials.

    The best schedule of each family is then re-run on fresh seeds. Families that do not fit the
    number of epochs are left out; choose them yourself with --set 'families=["cyclic", "cosine"]'.
    """
    from clrsearch import service
    from clrsearch.reports import say

    given = {"trials": trials, "task": task, "epochs": epochs, "seed": seed}
    given |= {"range_test": range_test or None}
    plan = asked_plan(study_file, given, changes, no_confirm=no_confirm)
    folder = task_folder(study_file, task_dir)
    database = storage_option(storage, storage_file)
    if name is None:
        name = f"{study_file.stem if study_file else service.default_name(plan)}-compare"
    comparison = service.comparison(
        plan,
        name=name,
        storage=database,
        device=device,
        task_dir=folder,
        data_dir=data_dir,
        download=download,
    )
    for note in comparison.notes:
        say(note, error=True)
    watch_work(
        comparison.plan,
        json=json,
        name=name,
        storage=database,
        workers=workers,
        device=device,
        task_dir=folder,
        data_dir=data_dir,
        download=download,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
    )


def confirm(
    name: NameArgument,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Number of finalists besides the baseline."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", min=1, help="Fresh seeds per finalist. Default: as many as needed."
        ),
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    json: JsonLinesOption = False,
) -> None:
    """Re-run the best schedules on fresh seeds.

    The recommended schedule is chosen by these runs alone. Without --seeds, runs are added where
    the verdict depends on them, until it is settled or a quarter of the epochs has been spent. With
    more seeds or finalists than before, only the missing runs are added.
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
        data_dir=data_dir,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
    )


def worker(
    name: NameArgument,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    checkpoint_dir: CheckpointDirOption = None,
    checkpoint_seconds: CheckpointSecondsOption = 10,
    allow_drift: DriftOption = False,
    max_minutes: MaxMinutesOption = None,
    max_trials: MaxTrialsOption = None,
    idle_wait: IdleWaitOption = None,
    worker_name: Annotated[str | None, typer.Option("--worker-name", hidden=True)] = None,
    ends_with_parent: Annotated[bool, typer.Option("--ends-with-parent", hidden=True)] = False,
) -> None:
    """Join a study and work until no trial is left."""
    from clrsearch import service
    from clrsearch.cli import output

    service.work(
        name,
        storage=storage_option(storage, storage_file),
        device=device,
        task_dir=task_dir,
        data_dir=data_dir,
        checkpoint_dir=checkpoint_dir,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
        max_minutes=max_minutes,
        max_trials=max_trials,
        idle_wait=idle_wait,
        worker=worker_name,
        ends_with_parent=ends_with_parent,
        on_end=output.print_trial,
        on_wait=output.print_wait,
        on_note=output.print_note,
        on_hang=output.end_hung,
    )


def range_test(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            help="FILE.toml, or the name of a study. Default: the built-in task denoise.",
        ),
    ] = None,
    task: TaskOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    to: OutputOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    allow_drift: DriftOption = False,
    json: JsonOption = False,
) -> None:
    """Find the learning rates at which a task trains.

    The rate grows from step to step until the loss rises again. The result is stored only when
    STUDY is the name of an existing study.
    """
    from clrsearch import service
    from clrsearch.cli import output

    given = {"task": task, "seed": seed}
    asked, folder = tested_study(study, given, changes, task_dir)
    found = service.range_test(
        asked,
        storage=storage_option(storage, storage_file),
        device=device,
        task_dir=folder,
        data_dir=data_dir,
        allow_drift=allow_drift,
    )
    output.print_tested(found, to=to, json=json)


def watch_work(plan: StudyPlan, *, json: bool, **how: Any) -> None:
    """Run a study, showing how it goes, and print the result; ``how`` is for the service."""
    from clrsearch import service
    from clrsearch.cli import output

    watch = chosen_watch(json=json)
    with watch:
        result = service.run(
            plan,
            on_change=watch.show,
            on_note=output.print_note,
            on_range_test=output.print_range_test,
            **how,
        )
    print_ended(result, json=json)


def chosen_watch(*, json: bool) -> Watch:
    """What shows how a study goes: live on a terminal, else line by line."""
    from clrsearch.reports import Lines, LiveView, Terminal

    console = Terminal()
    return LiveView(console) if console.is_terminal and not json else Lines(console, json=json)


def print_ended(result: Result, *, json: bool) -> None:
    """Print what a study has come to; exit with its code if that is not all that was asked for."""
    from clrsearch.cli import output
    from clrsearch.errors import ExitCode

    output.print_result(result, json=json)
    if result.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if result.shortfall is not None:
        output.print_note(result.shortfall)
        raise typer.Exit(ExitCode.INCOMPLETE)
