"""Whether the code here is the code that a study was made with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from clrsearch.errors import PlanMismatch
from clrsearch.search import Study
from clrsearch.tasks import LoadedTask, load_task


def versions(folder: Path) -> dict[str, str]:
    """What a study is made with: packages, Python, and the git commit of ``folder`` if any."""
    packages = ("clrsearch", "torch", "optuna", "numpy")
    found = {package: importlib.metadata.version(package) for package in packages}
    found["python"] = platform.python_version()
    git = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        found["commit"] = git.stdout.strip()
    return found


def load_same(study: Study, task_dir: Path | None, *, allow_drift: bool) -> LoadedTask:
    """The study's task.

    Raises:
        StudyError: its source or a package is not the one that the study was made with.
    """
    plan = study.plan
    folder = (task_dir or Path.cwd()).absolute()
    loaded = load_task(plan.task, options=plan.options, folder=folder)
    if not allow_drift:
        refuse_drift(study, drift_of(study, loaded))
    return loaded


def drift_of(study: Study, loaded: LoadedTask) -> list[str]:
    """In what the code here differs from the code that the study was made with."""
    changed = loaded.source != study.facts.source
    found = [f"the source of {study.plan.task} has changed"] if changed else []
    for package in ("clrsearch", "torch"):
        there, here = study.versions[package], importlib.metadata.version(package)
        if there.partition("+")[0] != here.partition("+")[0]:  # not the build: +cpu or +cu128
            found.append(f"{package} was {there} and is {here}")
    return found


def refuse_drift(study: Study, drift: list[str]) -> None:
    if drift:
        raise PlanMismatch(
            f"since {study.name} was made, {' and '.join(drift)}: new trials could not be compared "
            "with its own. Begin another with --name, or go on all the same with --allow-drift"
        )
