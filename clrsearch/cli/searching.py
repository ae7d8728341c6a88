"""The commands that train: each parses, calls one function of the service, and prints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clrsearch import proposals
from clrsearch.cli.options import (
    DownloadOption,
    DriftOption,
    EpochsListOption,
    JsonLinesOption,
    JsonOption,
    LimitedWorkerOptions,
    NameArgument,
    NotifyOptions,
    OutputOption,
    PlanOptions,
    RatesOption,
    SeedOption,
    SetOption,
    StorageOptions,
    StudyFileArgument,
    TaskOption,
    TaskOptions,
    WorkerOptions,
    WorkersOption,
    asked_plan,
    task_folder,
    tested_study,
    variations,
)

if TYPE_CHECKING:
    from clrsearch.notices import Notices
    from clrsearch.reports import Watch
    from clrsearch.results import Snapshot
    from clrsearch.search import StudyPlan
    from clrsearch.service import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions(PlanOptions):
    """What to search, under which name, with how many workers."""

    workers: WorkersOption = None
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the study. Default: that of the file or the task."),
    ] = None
    download: DownloadOption = False


def run(
    study_file: StudyFileArgument = None,
    *,
    study: StudyOptions,
    worker: WorkerOptions,
    storage: StorageOptions,
    notify: NotifyOptions,
    json: JsonLinesOption = False,
) -> None:
    """Search for the best schedule, or resume a search.

    Run the same command again to resume an interrupted study, or with more --trials to extend a
    finished one. At the end, the best schedules are re-run on fresh seeds.
    """
    began = time.monotonic()
    watch_work(
        study.plan(study_file),
        notify.notices(),
        json=json,
        began=began,
        name=study_file.stem if study.name is None and study_file else study.name,
        storage=storage.url(),
        workers=study.workers,
        download=study.download,
        settings=replace(worker.settings(), task_dir=task_folder(study_file, worker.task_dir)),
    )


def compare(
    study_file: StudyFileArgument = None,
    *,
    study: StudyOptions,
    worker: WorkerOptions,
    storage: StorageOptions,
    notify: NotifyOptions,
    json: JsonLinesOption = False,
) -> None:
    """Search every family with the same number of trials.

    The best schedule of each family is then re-run on fresh seeds. Families that do not fit the
    number of epochs are left out; choose them yourself with --set 'families=["cyclic", "cosine"]'.
    With --set baseline=schedule_free the verdict says whether you need a schedule at all.
    """
    began = time.monotonic()
    from clrsearch import service
    from clrsearch.reports import say

    plan, database, notices = study.plan(study_file), storage.url(), notify.notices()
    folder = task_folder(study_file, worker.task_dir)
    name = study.name
    if name is None:
        name = f"{study_file.stem if study_file else service.default_name(plan)}-compare"
    comparison = service.comparison(
        plan,
        name=name,
        storage=database,
        device=worker.device,
        task_dir=folder,
        data_dir=worker.data_dir,
        download=study.download,
    )
    for note in comparison.notes:
        say(note, error=True)
    watch_work(
        comparison.plan,
        notices,
        json=json,
        began=began,
        name=name,
        storage=database,
        workers=study.workers,
        download=study.download,
        settings=replace(worker.settings(), task_dir=folder),
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
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Confirm it for this batch size."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Confirm it for so many epochs.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=1,
            help="With --batch-size or --epochs: trials that search the peak rate. Default: 8.",
        ),
    ] = None,
    new_name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="With --batch-size or --epochs: name of the new study. Default: STUDY-b512-e90.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUES",
            help="Compare it with its rivals under a changed weight_decay=0.3x,3x, batch_size, "
            "epochs, seed or options.NAME.",
        ),
    ] = None,
    workers: WorkersOption = None,
    *,
    worker: WorkerOptions,
    storage: StorageOptions,
    notify: NotifyOptions,
    json: JsonLinesOption = False,
) -> None:
    """Re-run the best schedules on fresh seeds.

    The recommended schedule is chosen by these runs alone. Without --seeds, runs are added where
    the verdict depends on them, until it is settled or a quarter of the epochs has been spent. With
    more seeds or finalists than before, only the missing runs are added.

    With --batch-size or --epochs, a new study searches the peak rate of the recommended schedule
    again, within a factor of 4 of the rescaled one that clrsearch best prints with these options,
    and compares it on fresh seeds with the baseline, whose rate is tuned in as many trials.

    With --vary, the recommended schedule, its runner-up (--top: more of them) and the baseline's
    best run on 3 fresh seeds under one changed value at a time, with the rates and the shares of
    the run that they have. Give --vary once per key.
    """
    from clrsearch import service

    database, settings, notices = storage.url(), worker.settings(), notify.notices()
    how = {"storage": database, "workers": workers, "settings": settings}
    if changes:
        _require_none(
            {
                "--batch-size": batch_size,
                "--epochs": epochs,
                "--trials": trials,
                "--name": new_name,
                "--notify": notify.notify,
            },
            "cannot be given with --vary",
        )
    if batch_size is None and epochs is None:
        _require_none({"--trials": trials, "--name": new_name}, "needs --batch-size or --epochs")
        if changes:
            _vary(name, changes, top=top, seeds=seeds, json=json, **how)
            return
        plan = service.confirmation_plan(name, top=top, seeds=seeds, storage=database)
        watch_work(plan, notices, json=json, name=name, **how)
        return
    found = service.transfer(
        name,
        batch_size=batch_size,
        epochs=epochs,
        trials=trials,
        top=top,
        seeds=seeds,
        name=new_name,
        storage=database,
        task_dir=settings.task_dir,
    )
    watch_work(found.plan, notices, json=json, name=found.name, **how)


def _vary(
    name: str,
    changes: list[str],
    *,
    top: int | None,
    seeds: int | None,
    json: bool,
    **how: Any,
) -> None:
    """Compare schedules under changed conditions; exit with its code if that was interrupted."""
    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.errors import ExitCode
    from clrsearch.reports import Lines, Terminal

    watches: dict[str, Watch] = {}  # by condition

    def show(now: Snapshot) -> None:
        watches.setdefault(now.name, Lines(Terminal())).show(now)

    found = service.vary(
        name,
        variations(changes),
        top=top,
        seeds=seeds,
        on_change=(lambda now: None) if json else show,
        on_note=output.print_note,
        **how,
    )
    output.print_variation(found, json=json)
    if found.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _require_none(options: Mapping[str, object], why: str) -> None:
    """Refuse options that do not go with the others, and never propose them."""
    from clrsearch.errors import PlanError

    for option, value in options.items():
        if value is not None:
            raise PlanError(f"{option} {why}")
    proposals.exclude(*options)


def horizon(
    study_file: StudyFileArgument = None,
    epochs: EpochsListOption = None,
    rates: RatesOption = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Seeds per schedule, 2 or more. Default: 3.")
    ] = None,
    task: TaskOption = None,
    seed: SeedOption = None,
    changes: SetOption = None,
    workers: WorkersOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the study. Default: as for run, and -horizon."),
    ] = None,
    download: DownloadOption = False,
    *,
    worker: WorkerOptions,
    storage: StorageOptions,
    notify: NotifyOptions,
    json: JsonLinesOption = False,
) -> None:
    """Measure how good the best schedule is at each number of epochs.

    Some rates are held, and for each length a decay branches off. What runs have in common is
    trained once: if the lengths double, each rate and seed costs about twice the longest run. With
    more --seeds than before, only the missing runs are added. What a study file says of a search,
    such as its trials and families, does not count here.
    """
    from clrsearch import service
    from clrsearch.cli import output

    database, notices = storage.url(), notify.notices()
    asked = asked_plan(study_file, {"task": task, "seed": seed}, changes)
    plan = service.horizon_plan(asked, epochs or (), rates=rates, seeds=seeds)
    watch = chosen_watch(json=json)
    with watch:
        result = service.run_notifying(
            plan,
            notices,
            name=name or f"{study_file.stem if study_file else service.default_name(plan)}-horizon",
            storage=database,
            workers=workers,
            download=download,
            settings=replace(worker.settings(), task_dir=task_folder(study_file, worker.task_dir)),
            on_change=watch.show,
            on_note=output.print_note,
        )
    found = service.horizon(result.snapshot.name, storage=result.storage)
    output.print_horizon(found, result, json=json)
    end_as(result)


def worker(
    name: NameArgument,
    *,
    options: LimitedWorkerOptions,
    storage: StorageOptions,
    worker_name: Annotated[str | None, typer.Option("--worker-name", hidden=True)] = None,
    ends_with_parent: Annotated[bool, typer.Option("--ends-with-parent", hidden=True)] = False,
    as_rank: Annotated[bool, typer.Option("--as-rank", hidden=True)] = False,
    crew: Annotated[int, typer.Option("--crew", hidden=True)] = 1,
) -> None:
    """Join a study and work until no trial is left."""
    from clrsearch import service
    from clrsearch.cli import output

    service.work(
        name,
        storage=storage.url(),
        settings=replace(options.settings(), crew=crew),
        own_process=True,
        worker=worker_name,
        ends_with_parent=ends_with_parent,
        as_rank=as_rank,
        on_end=output.print_trial,
        on_wait=output.print_wait,
        on_note=output.print_note,
        on_hang=output.end_hung,
        on_leave=output.end_rank,
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
    to: OutputOption = None,
    *,
    options: TaskOptions,
    storage: StorageOptions,
    allow_drift: DriftOption = False,
    json: JsonOption = False,
) -> None:
    """Find the learning rates at which a task trains.

    The rate grows from step to step until the loss rises again. The result is stored only when
    STUDY is the name of an existing study.
    """
    from clrsearch import service
    from clrsearch.cli import output

    keys = {"task": task, "seed": seed}
    asked, folder = tested_study(study, keys, changes, options.task_dir)
    found = service.range_test(
        asked,
        storage=storage.url(),
        device=options.device,
        task_dir=folder,
        data_dir=options.data_dir,
        allow_drift=allow_drift,
    )
    output.print_tested(found, to=to, json=json)


def watch_work(plan: StudyPlan, notices: Notices, *, json: bool, **how: Any) -> None:
    """Run a study, showing how it goes, and print the result; ``how`` is for the service."""
    from clrsearch import service
    from clrsearch.cli import output

    watch = chosen_watch(json=json)
    with watch:
        result = service.run_notifying(
            plan,
            notices,
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

    output.print_result(result, json=json)
    end_as(result)


def end_as(result: Result) -> None:
    """Exit with the code of a study that was interrupted, or lacks something."""
    from clrsearch.cli import output
    from clrsearch.errors import ExitCode

    if result.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if result.shortfall is not None:
        output.print_note(result.shortfall)
        raise typer.Exit(ExitCode.INCOMPLETE)
