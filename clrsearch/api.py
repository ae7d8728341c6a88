"""What a person types in a notebook or a script: run, open, lr_find, and a study to look at."""

from __future__ import annotations

import html
import sys
import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clrsearch import service
from clrsearch.errors import PlanError, TaskError
from clrsearch.plots import picture, picture_of_range_test, to_plotly
from clrsearch.results import (
    AtLength,
    Snapshot,
    Variation,
    ends,
    number,
    schedule_line,
    verdict_sentence,
    worth,
)
from clrsearch.search import (
    LIMITS,
    RangeTest,
    Record,
    StudyPlan,
    Verdict,
    limited,
    load_plan,
)
from clrsearch.service import Best, Picture, Replayed, Storage, WorkerSettings
from clrsearch.storage import StorageUrl
from clrsearch.tasks import describe, importable_name, keep, refuse_while_importing

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure as PlotlyFigure
    from tqdm.auto import tqdm

    from clrsearch.tasks import Task


def run(
    task: type[Task] | Callable[..., Any] | str | Path | StudyPlan | None = None,
    *,
    name: str | None = None,
    storage: Storage = None,
    workers: int | None = None,
    device: str | None = None,
    task_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    download: bool = False,
    allow_drift: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Study:
    """Search a schedule for a task, and confirm the best on fresh seeds.

    The same call again resumes an unfinished study; with more ``trials`` it extends a finished one.

    Args:
        task: a :class:`Task` class, a function ``train(run)``, the name of a task (``"digits"``,
            ``"file.py:NAME"``, ``"package.module:NAME"``), a study file (``"mine.toml"``) or a
            :class:`StudyPlan`. Default: the built-in task ``denoise``.
        name: the study's name; default: that of the file, or of the task.
        storage: a database URL; default: ``CLRSEARCH_STORAGE``, or a SQLite file in your data
            folder.
        workers: processes; default: one per GPU, or per core without one. A task that was defined
            in a notebook is trained in this process, by one worker.
        device: ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"cpu"``; default: the first there is.
        task_dir: where the task's file or package is, if it is named.
        data_dir: where the task finds its data; ``download`` fetches it to there.
        allow_drift: go on although the task's source, clrsearch or torch has changed.
        progress: show a progress bar.
        keys: any key of a study file, such as ``trials=100``, ``minutes=30``, ``epochs=20``,
            ``seed=0``, ``families=["cyclic", "onecycle"]``, ``like="OLD"`` or
            ``confirm={"seeds": 10}``.

    Raises:
        ClrsearchError: the plan, the task or the storage cannot be used; nothing was written.
        StudyStopped: the task's code failed again and again.
        KeyboardInterrupt: it was interrupted; what has been trained is saved.
    """
    refuse_while_importing("clrsearch.run(...)")
    asked = _asked(task, keys, task_dir)
    return _run(
        asked.plan,
        name=name or asked.name,
        storage=storage,
        workers=workers,
        download=download,
        settings=WorkerSettings(
            device=device,
            task_dir=asked.folder,
            data_dir=_path(data_dir),
            allow_drift=allow_drift,
        ),
        progress=progress,
    )


def open(name: str, *, storage: Storage = None, task_dir: Path | str | None = None) -> Study:
    """A study that is stored already, finished or not.

    ``task_dir`` is where the task's file or package is, for what trains or draws with its code.

    Raises:
        StudyError: there is none of that name; near ones are listed.
    """
    url = service.storage_url(storage)
    service.show(name, storage=url)
    return Study(name, storage=url, task_dir=_path(task_dir))


def lr_find(
    task: type[Task] | Callable[..., Any] | str | Path | StudyPlan | None = None,
    *,
    device: str | None = None,
    task_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    **keys: Any,
) -> RangeFound:
    """Find the learning rates at which a task trains: a range test, of which nothing is stored.

    The arguments are those of :func:`run`. The loss is followed while the rate grows from step to
    step, on copies of the model (L. N. Smith, arXiv:1506.01186, section 3.3).

    Raises:
        PlanError: the task is a function ``train(run)``, whose steps are not ours to take.
        TaskError: the task does not load, or its code raised.
    """
    refuse_while_importing("clrsearch.lr_find(...)")
    asked = _asked(task, keys, task_dir)
    found = service.range_test(
        asked.plan, device=device, task_dir=asked.folder, data_dir=_path(data_dir)
    )
    return RangeFound(task=found.task, test=found.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFound:
    """What a range test has found: the bounds between which schedules are worth searching."""

    task: str
    test: RangeTest

    @property
    def base_lr(self) -> float | None:
        """The rate at which the loss starts to fall; None where it never does."""
        return self.test.base

    @property
    def max_lr(self) -> float | None:
        """The highest rate before it turns up again; None where none was found."""
        return self.test.maximum

    def plot(self) -> PlotlyFigure:
        """The losses over the rates."""
        return to_plotly(picture_of_range_test(self.test))

    def __repr__(self) -> str:
        return f"<lr_find {self.task}: {self.test.sentence}>"


class Study:
    """A study in its database, read anew whenever it is asked something.

    It comes from :func:`run` or :func:`open`.
    """

    def __init__(self, name: str, *, storage: StorageUrl, task_dir: Path | None) -> None:
        self.name = name
        self.storage = storage
        self.plot = Plots(name, storage, task_dir)
        self._task_dir = task_dir

    @property
    def best(self) -> Best:
        """The recommended schedule: chosen on fresh seeds, or expected to be the best so far.

        Its ``make_scheduler(optimizer, length)`` takes the steps per epoch or, if the study's
        length is in steps or its epochs differ in length, the number of all steps.

        Raises:
            StudyError: no trial is complete yet.
        """
        return service.best(self.name, storage=self.storage, task_dir=self._task_dir)

    def rescaled(self, *, batch_size: int | None = None, epochs: int | None = None) -> Best:
        """The recommended schedule for another batch size or length, which is not confirmed.

        Its rates follow the batch size by :attr:`Best.rescaled`'s rule, its lengths the epochs.

        Raises:
            PlanError: the schedule cannot be rescaled so.
            StudyError: no trial is complete yet.
        """
        return service.best(
            self.name,
            batch_size=batch_size,
            epochs=epochs,
            storage=self.storage,
            task_dir=self._task_dir,
        )

    @property
    def verdict(self) -> Verdict | None:
        """What the fresh seeds say; None before all finalists have run with one."""
        return self._now.verdict

    @property
    def trials(self) -> Sequence[Record]:
        """All trials of the search, in the order of their numbers."""
        return self._now.records

    @property
    def runs(self) -> Sequence[Record]:
        """The runs of its confirmation, each a finalist on a fresh seed."""
        found = self._now.confirmed
        return () if found is None else found.runs

    def trials_dataframe(self) -> DataFrame:
        """The trials as a pandas DataFrame: a row each, and a column per searched value.

        ``epochs`` counts validations if the study has them every so many steps.

        Raises:
            PlanError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise PlanError("a DataFrame needs pandas: pip install pandas") from error
        rows = [
            {
                "number": each.number,
                "family": each.family,
                "state": each.end,
                "value": each.value,
                "epochs": each.epoch,
                "seed_index": each.seed_index,
                "seconds": each.seconds,
                **{f"params_{name}": value for name, value in each.params.items()},
            }
            for each in self.trials
        ]
        return pandas.DataFrame(rows)

    def run(
        self,
        trials: int | Literal["auto"] | None = None,
        *,
        minutes: float | None = None,
        gpu_hours: float | None = None,
        epochs_total: int | None = None,
        workers: int | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> Study:
        """Finish what is left, or have it grow to so many trials or by a budget; see :func:`run`.

        ``gpu_hours`` and ``epochs_total`` are those of the whole study, ``minutes`` count from now.
        """
        budget = {"minutes": minutes, "gpu_hours": gpu_hours, "epochs_total": epochs_total}
        plan = service.show(self.name, storage=self.storage).plan
        return self._work(limited(plan, trials, **budget), workers, device, progress)

    def confirm(
        self,
        *,
        top: int | None = None,
        seeds: int | None = None,
        workers: int | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> Study:
        """Run the best again on fresh seeds, ``seeds`` of them or as many as it takes.

        Raises:
            StudyError: the search has not ended, or no trial of it is complete.
        """
        asked = service.confirmation_plan(self.name, top=top, seeds=seeds, storage=self.storage)
        return self._work(asked, workers, device, progress)

    def transfer(
        self,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        trials: int | None = None,
        top: int | None = None,
        seeds: int | None = None,
        name: str | None = None,
        workers: int | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> Study:
        """A study of its own that confirms the recommended schedule for a batch size or length.

        It searches the peak rate around the rescaled one in so many ``trials``, 8 by default, and
        that of the baseline, and runs the ``top`` of them on fresh ``seeds``. It is named after
        this study, such as ``NAME-b512-e90``.

        Raises:
            PlanError: a value is out of range, or the schedule cannot be rescaled so.
            PlanMismatch: another study has the name.
            StudyError: no trial is complete yet.
        """
        found = service.transfer(
            self.name,
            batch_size=batch_size,
            epochs=epochs,
            trials=trials,
            top=top,
            seeds=seeds,
            name=name,
            storage=self.storage,
            task_dir=self._task_dir,
        )
        return self._work(found.plan, workers, device, progress, name=found.name)

    def vary(
        self,
        changes: Mapping[str, Any],
        *,
        seeds: int | None = None,
        top: int | None = None,
        workers: int | None = None,
        device: str | None = None,
    ) -> Variation:
        """Run the recommended schedule and its rivals under changed conditions, one at a time.

            study.vary({"weight_decay": ["0.3x", "3x"], "options.model": ["small"]}).sentence

        ``changes`` has one value or a list of values by key; see :func:`clrsearch.service.vary`.

        Raises:
            PlanError: nothing is changed, a key cannot be, or a value is invalid or as it was.
            StudyError: there is no recommendation on fresh seeds yet.
            KeyboardInterrupt: it was interrupted; what has been trained is saved.
        """
        listed = {
            str(key): list(values) if isinstance(values, list | tuple) else [values]
            for key, values in changes.items()
        }
        found = service.vary(
            self.name,
            listed,
            seeds=seeds,
            top=top,
            storage=self.storage,
            workers=workers,
            settings=WorkerSettings(device=device, task_dir=self._task_dir),
            on_note=lambda text: print(text, file=sys.stderr),
        )
        if found.interrupted:
            raise KeyboardInterrupt
        return found

    def compare(
        self,
        trials: int | None = None,
        *,
        workers: int | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> Study:
        """A study of its own, ``NAME-compare``, that gives each family as many trials."""
        name = f"{self.name}-compare"
        plan = service.show(self.name, storage=self.storage).plan
        kept = plan.model_dump(exclude_unset=True, exclude={"families", "allocation", "like"})
        asked = StudyPlan(**kept | ({} if trials is None else {"trials": trials}))
        found = service.comparison(
            asked, name=name, storage=self.storage, device=device, task_dir=self._task_dir
        )
        for note in found.notes:
            warnings.warn(note, stacklevel=2)
        return self._work(found.plan, workers, device, progress, name=name)

    def horizon(
        self,
        epochs: Sequence[int],
        *,
        rates: Sequence[float] | None = None,
        seeds: int | None = None,
        workers: int | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> Study:
        """A study of its own, ``NAME-horizon``, that measures the best schedule of each length.

        Its ``lengths`` have them.

        Args:
            epochs: the lengths, two or more.
            rates: the peak rates; by default 1, 3 and 10 times the task's own.
            seeds: the number of seeds per schedule, 3 by default.
            workers: as for :func:`run`, like ``device`` and ``progress``.

        Raises:
            PlanError: a value is out of range, or the length of the study is in steps.
        """
        plan = service.show(self.name, storage=self.storage).plan
        kept = plan.model_dump(exclude_unset=True, exclude={*LIMITS, "like"})
        asked = service.horizon_plan(StudyPlan(**kept), epochs, rates=rates, seeds=seeds)
        return self._work(asked, workers, device, progress, name=f"{self.name}-horizon")

    @property
    def lengths(self) -> Sequence[AtLength]:
        """The best schedule of each length in a study of :meth:`horizon`; empty in others."""
        found = self._now.horizon
        return () if found is None else found.lengths

    def replay(self, trial: int | None = None, *, device: str | None = None) -> Replayed:
        """Train a trial again, the recommended one by default, and compare every epoch."""
        trial = self.best.number if trial is None else trial
        return service.replay(
            self.name, trial, storage=self.storage, device=device, task_dir=self._task_dir
        )

    def export(self, format: str = "torch", to: Path | str | None = None) -> str:
        """The recommended schedule as code for a library, also written to a file.

        Args:
            format: one of ``torch``, ``lightning``, ``transformers``, ``keras``, ``optax``,
                ``timm``, ``table``.
            to: the file, if one is wanted.

        Raises:
            PlanError: there is no such format, or it cannot express the schedule.
        """
        found = service.best(
            self.name, format=format, storage=self.storage, task_dir=self._task_dir
        )
        if to is not None:
            Path(to).write_text(found.code, encoding="utf-8")
        return found.code

    def report(self, to: Path | str) -> None:
        """Write the study to one HTML file that needs no network.

        Raises:
            PlanError: the file cannot be written.
        """
        service.report(self.name, Path(to), storage=self.storage, task_dir=self._task_dir)

    def delete(self) -> None:
        """Remove it, its trials and its confirmation from the database."""
        service.delete(self.name, storage=self.storage)

    @property
    def _now(self) -> Snapshot:
        return service.show(self.name, storage=self.storage).snapshot

    def _work(
        self,
        plan: StudyPlan,
        workers: int | None,
        device: str | None,
        progress: bool,
        *,
        name: str | None = None,
    ) -> Study:
        """Run a plan where this study is, as this one or under another name."""
        return _run(
            plan,
            name=name or self.name,
            storage=self.storage,
            workers=workers,
            settings=WorkerSettings(device=device, task_dir=self._task_dir),
            progress=progress,
        )

    def __repr__(self) -> str:
        return f"<clrsearch.Study {self.name!r}: {_standing(self._now)}>"

    def _repr_html_(self) -> str:
        """Progress, verdict, recommended schedule and its picture, as a notebook shows them."""
        now = self._now
        lines = [f"<b>{html.escape(self.name)}</b>: {html.escape(_standing(now))}"]
        found = now.recommended
        if found is not None:
            lines += [
                html.escape(_said(now)),
                html.escape(schedule_line(now.schedules[found.number])),
            ]
            drawn = service.picture(
                self.name, "schedule", storage=self.storage, task_dir=self._task_dir
            )
            still = b64encode(picture(drawn, "svg")).decode()
            alt = html.escape(f"The {found.family} schedule of trial {found.number}")
            source = f"data:image/svg+xml;base64,{still}"
            lines.append(f'<img alt="{alt}" style="max-width: 640px" src="{source}">')
        return "".join(f"<p>{line}</p>" for line in lines if line)


class Plots:
    """The figures of a study, as plotly's: ``study.plot.curves().show()``."""

    def __init__(self, name: str, storage: StorageUrl, task_dir: Path | None) -> None:
        self._name = name
        self._storage = storage
        self._task_dir = task_dir

    def schedule(self) -> PlotlyFigure:
        """The rates and momenta of the recommended schedule."""
        return self._drawn("schedule")

    def curves(self) -> PlotlyFigure:
        """The learning curves of the finalists on fresh seeds, and their rates."""
        return self._drawn("curves")

    def scores(self) -> PlotlyFigure:
        """The finalists' scores on fresh seeds, beside those of the search."""
        return self._drawn("scores")

    def trials(self) -> PlotlyFigure:
        """The learning curves of all trials."""
        return self._drawn("trials")

    def progress(self, by: Literal["trials", "time"] = "trials") -> PlotlyFigure:
        """The best score so far, over trials or over time."""
        return self._drawn("time" if by == "time" else "progress")

    def range_test(self) -> PlotlyFigure:
        """The losses of its range test over the rates."""
        return self._drawn("range-test")

    def _drawn(self, what: Picture) -> PlotlyFigure:
        drawn = service.picture(self._name, what, storage=self._storage, task_dir=self._task_dir)
        return to_plotly(drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A plan, the folder from which its task is loaded, and the name that its file suggests."""

    plan: StudyPlan
    folder: Path | None
    name: str | None = None


def _asked(task: object, keys: Mapping[str, Any], task_dir: Path | str | None) -> _Asked:
    """What a person has asked for, as a plan."""
    folder = _path(task_dir)
    if isinstance(task, StudyPlan):
        if keys:
            raise PlanError(f"{', '.join(keys)}: set in the StudyPlan, not as arguments")
        return _Asked(plan=task, folder=folder)
    if isinstance(task, Path) or (isinstance(task, str) and task.endswith(".toml")):
        file = Path(task)
        plan = load_plan(file, keys)
        return _Asked(plan=plan, folder=folder or file.absolute().parent, name=file.stem)
    if task is None or isinstance(task, str):
        named = {} if task is None else {"task": task}
        return _Asked(plan=load_plan(None, {**named, **keys}), folder=folder)
    if not (isinstance(task, type) or hasattr(task, "__qualname__")):
        raise TaskError(
            "run() needs a class derived from clrsearch.Task, a function train(run), or the name "
            f'of one ("digits", "file.py:NAME"), not {describe(task)}'
        )
    assert callable(task)
    known = importable_name(task)
    name, found = (keep(task), folder) if known is None else known
    return _Asked(plan=load_plan(None, {"task": name, **keys}), folder=found)


def _run(
    plan: StudyPlan,
    *,
    name: str | None,
    storage: Storage,
    workers: int | None,
    settings: WorkerSettings,
    progress: bool,
    download: bool = False,
) -> Study:
    """Run a study with a progress bar; what it lacks in the end is warned of."""
    with _bar(progress) as bar:
        result = service.run(
            plan,
            name=name,
            storage=storage,
            workers=workers,
            download=download,
            settings=settings,
            on_change=lambda now: _show(bar, now),
            on_note=lambda text: bar.write(text, file=sys.stderr),
        )
    if result.interrupted:
        raise KeyboardInterrupt
    if result.shortfall is not None:
        warnings.warn(result.shortfall, stacklevel=3)
    return Study(result.snapshot.name, storage=result.storage, task_dir=result.task_dir)


def _bar(progress: bool) -> tqdm[Any]:
    """A bar in the notebook's own way, or the terminal's."""
    from tqdm.auto import tqdm

    return tqdm(disable=not progress, unit="trial", desc="loading the task")


def _show(bar: tqdm[Any], now: Snapshot) -> None:
    confirmed = now.confirmed
    bar.total = now.total + (confirmed.total if confirmed else 0)
    bar.n = now.done + (confirmed.total - confirmed.left if confirmed else 0)
    bar.set_description_str("confirming" if confirmed else "searching", refresh=False)
    if now.search_best is not None:
        bar.set_postfix_str(f"best {now.metric} {number(now.search_best.value)}", refresh=False)
    bar.refresh()


def _standing(now: Snapshot) -> str:
    """How far a study is, in one line."""
    progress = f"{now.done} of {now.total} trials ({ends(now)})"
    found = now.recommended
    if found is None:
        return f"{progress}, none complete yet"
    return f"{progress}, recommended {found.family} (trial {found.number})"


def _said(now: Snapshot) -> str:
    """The verdict, with the call that would settle it."""
    verdict = now.verdict
    if verdict is None or now.confirmed is None or now.confirmed.left:
        return verdict_sentence(now)
    seeds = None if verdict.winner is not None else verdict.seeds_needed
    more = "" if seeds is None else f"study.confirm(seeds={seeds}) runs that many seeds."
    return " ".join(filter(None, (verdict.sentence, worth(now), more)))


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)
