"""HTML reports: a study as a single file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from clrsearch.errors import PlanError
from clrsearch.plots import require_place
from clrsearch.reports import Page, read_page, render_page
from clrsearch.schedules import Manual
from clrsearch.search import Study
from clrsearch.service.confirming import has_ended
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import bind_rate
from clrsearch.storage import PATIENCE_SECONDS, Patience, cause, open_database

RENEW_SECONDS = 5.0
SHARE = 10  # at most one part in this many of the time is spent on rendering


def report(
    name: str,
    to: Path,
    *,
    storage: Storage = None,
    task_dir: Path | None = None,
    watch: bool = False,
    storage_patience: float = PATIENCE_SECONDS,
    on_write: Callable[[Page], None] = lambda page: None,
    on_wait: Callable[[str], None] = lambda cause: None,
) -> None:
    """Write a study's report to ``to``, a self-contained .html file.

    With ``watch`` the page is rewritten every five seconds, or less often if rendering takes longer
    than half a second, until the study and its confirmation have ended. The file is replaced
    atomically, so readers always see a complete page. On interruption the last page is rewritten
    without automatic reload. ``on_write`` is called with each page. Database outages are handled as
    in :func:`status`.

    Raises:
        PlanError: the file cannot be written.
        StudyError: there is no such study.
        TaskError: the custom rate function does not load.
    """
    to = Path(to)
    if to.suffix.lower() != ".html":
        raise PlanError(f"{to}: a report's file name must end in .html")
    require_place(to)
    patience = Patience(
        storage_patience if watch else 0.0, on_wait=lambda error: on_wait(cause(error))
    )
    with open_database(storage_url(storage), patience=patience) as database:
        study = patience(lambda: Study.open(database, name))
        bind_rate(study, Manual.family, task_dir)
        while True:
            began = time.monotonic()
            made = datetime.now().astimezone()
            last = not watch or patience(partial(has_ended, study))
            pause = None if last else round(RENEW_SECONDS)
            page = patience(partial(read_page, study, made=made, renewed=pause))
            _replace(to, render_page(page))
            on_write(page)
            if last:
                return
            try:
                time.sleep(max(RENEW_SECONDS, SHARE * (time.monotonic() - began)))
            except KeyboardInterrupt:
                _replace(to, render_page(replace(page, renewed=None)))
                raise
            study = patience(study.reopen)


def _replace(to: Path, text: str) -> None:
    """Replace a file atomically."""
    try:
        with NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            dir=to.parent,
            prefix=f".{to.name}.",
            delete=False,
        ) as beside:
            try:
                beside.write(text)
                beside.close()
                os.chmod(beside.name, 0o644)
                os.replace(beside.name, to)
            except BaseException:
                os.unlink(beside.name)
                raise
    except OSError as error:
        raise PlanError(f"{to} cannot be written: {error.strerror}") from error
