"""The user's code behind a study, and whether it has changed since the study was created."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from clrsearch import proposals
from clrsearch.errors import PlanMismatch
from clrsearch.schedules import Manual, RateFunction
from clrsearch.search import Study, StudyPlan
from clrsearch.service.paths import data_folder, task_folder
from clrsearch.tasks import (
    LoadedRate,
    LoadedTask,
    load_rate,
    load_task,
    rate_source,
    task_source,
)

RATE_SOURCE = "rate source"


class Sources(NamedTuple):
    """Hashes of a plan's source files: the task's, and the custom rate function's if any."""

    task: str
    rate: str | None


class Code(NamedTuple):
    """A plan's user code: the task, and the custom rate function if any."""

    task: LoadedTask
    rate: LoadedRate | None

    @property
    def rate_function(self) -> RateFunction | None:
        """The rate function, if the plan names one."""
        return None if self.rate is None else self.rate.function


def sources_of(plan: StudyPlan, task_dir: Path | None) -> Sources:
    """Hash the source files that a plan names, as found on this machine, without executing them.

    Raises:
        TaskError: a file is missing.
    """
    folder = task_folder(task_dir)
    manual = plan.manual
    return Sources(
        task=task_source(plan.task, folder=folder),
        rate=rate_source(manual, folder=folder) if isinstance(manual, str) else None,
    )


def load_code(plan: StudyPlan, task_dir: Path | None, data_dir: Path | None) -> Code:
    """Load the code that a plan names, from ``task_dir`` or the current folder.

    The task reads its data from ``data_dir``, or from the default data folder.

    Raises:
        TaskError: the code does not load.
    """
    return Code(
        task=load_task(
            plan.task,
            options=plan.options,
            arguments=plan.arguments,
            folder=task_folder(task_dir),
            data_dir=data_folder(data_dir),
            weight_decay=plan.weight_decay,
        ),
        rate=load_rate_of(plan, task_dir),
    )


def load_rate_of(plan: StudyPlan, task_dir: Path | None) -> LoadedRate | None:
    """Load the plan's custom rate function; None if it names none.

    Raises:
        TaskError: it does not load.
    """
    if not isinstance(plan.manual, str):
        return None
    return load_rate(plan.manual, arguments=plan.arguments, folder=task_folder(task_dir))


def bind_rate(study: Study, family: str, task_dir: Path | None) -> None:
    """Load the custom rate function of a study's plan if ``family`` uses it.

    Raises:
        TaskError: it does not load.
        PlanMismatch: its source has changed since the study was created.
    """
    manual = study.plan.manual
    if family != Manual.family or not isinstance(manual, str):
        return
    folder = task_folder(task_dir)
    if rate_source(manual, folder=folder) != study.record.versions.get(RATE_SOURCE):
        raise PlanMismatch(
            f"the source of {manual} has changed since {study.name} was created: its rates may no "
            "longer be those that the trials were trained with"
        )
    study.bind(load_rate(manual, arguments=study.plan.arguments, folder=folder).function)


def versions(folder: Path, rate: str | None = None) -> dict[str, str]:
    """Versions to record with a new study: packages, Python, the git commit of ``folder`` if any.

    ``rate`` is the hash of the rate function's source and is included; the task's hash is stored
    in the task facts.
    """
    packages = ("clrsearch", "torch", "optuna", "numpy")
    found = {package: importlib.metadata.version(package) for package in packages}
    found["python"] = platform.python_version()
    if shutil.which("git") is not None:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        git = subprocess.run(command, capture_output=True, text=True, check=False)
        if git.returncode == 0:
            found["commit"] = git.stdout.strip()
    if rate is not None:
        found[RATE_SOURCE] = rate
    return found


def load_same(
    study: Study, task_dir: Path | None, data_dir: Path | None, *, allow_drift: bool
) -> LoadedTask:
    """Load the study's task, and bind its custom rate function if any; see :func:`load_code`.

    Raises:
        StudyError: a source file or package version differs from those the study was created with.
    """
    if not allow_drift:
        refuse_drift(study, sources_of(study.plan, task_dir))
    code = load_code(study.plan, task_dir, data_dir)
    if code.rate_function is not None:
        study.bind(code.rate_function)
    return code.task


def refuse_drift(study: Study, sources: Sources) -> None:
    """Raise if the user's code, clrsearch or torch differs from what the study was created with.

    Anyone who works on a study may change the files it names, so they are checked before loading.

    Raises:
        PlanMismatch: something differs; the message says what.
    """
    found = []
    if sources.task != study.facts.source:
        found.append(f"the source of {study.plan.task} has changed")
    if sources.rate is not None and sources.rate != study.record.versions.get(RATE_SOURCE):
        found.append(f"the source of {study.plan.manual} has changed")
    for package in ("clrsearch", "torch"):
        there = study.record.versions.get(package, "unknown")
        here = importlib.metadata.version(package)
        if there.partition("+")[0] != here.partition("+")[0]:  # ignore the build: +cpu or +cu128
            found.append(f"{package} was {there} and is now {here}")
    if found:
        ways = {
            "starts a new study": proposals.again(name=f"{study.name}-2"),
            "continues anyway": proposals.again(allow_drift=True),
        }
        advice = ", ".join(f"{line} {does}" for does, line in ways.items() if line is not None)
        raise PlanMismatch(
            f"since {study.name} was created, {' and '.join(found)}: new trials would not be "
            f"comparable with the existing ones. {advice}".rstrip()
        )
