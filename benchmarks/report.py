"""What a report and the dashboard's pages of a large study take.

    python benchmarks/report.py [TRIALS] [URL]

A study with so many complete trials of 30 epochs (1,000) is written into a new database by bulk
inserts, in the form in which workers leave it; by default in SQLite. Then the seconds of the whole
command ``clrsearch report`` and the size of its page; and of ``clrsearch dashboard``, the seconds
from its start until it listens, and those in which headless Chromium has loaded and drawn the list
of studies, the study's page, a trial with its rate curve, and the study's page once more.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from size import EPOCHS, fill, made_with
from storage import CPU, TASKS, new_database

from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe

CLRSEARCH = (sys.executable, "-m", "clrsearch")
PATIENCE = 120_000  # milliseconds


def make_study(url: StorageUrl, trials: int) -> None:
    """A study of the tests' smallest task, all of whose trials are complete."""
    plan = StudyPlan(
        task="tiny.py:Tiny", trials=trials, epochs=EPOCHS, confirm=ConfirmPlan(enabled=False)
    )
    facts = probe(load_task(plan.task, folder=TASKS), epochs=EPOCHS, device=CPU)
    with open_database(url, create=True) as database:
        study = Study.create(database, "large", plan, facts, made_with())
        fill(database, study, trials, 0)


def report(url: StorageUrl, folder: Path) -> tuple[float, float, float]:
    """Seconds of the command, those that it computed for, and megabytes of the page."""
    to = folder / "report.html"
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*CLRSEARCH, "report", "large", "-o", str(to)]
    subprocess.run(command, env={**os.environ, **url.environment()}, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, computed, to.stat().st_size / 1e6


@contextmanager
def dashboard(url: StorageUrl) -> Iterator[tuple[str, float]]:
    """A dashboard's address, and the seconds until it listened."""
    began = time.perf_counter()
    server = subprocess.Popen(
        [*CLRSEARCH, "dashboard", "--port", "0"],
        env={**os.environ, **url.environment()},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        yield address, time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()


def opened(page: Page, address: str, text: str) -> float:
    """Seconds until a page shows a text."""
    began = time.perf_counter()
    page.goto(address)
    expect(page.get_by_text(re.compile(text)).first).to_be_visible(timeout=PATIENCE)
    return time.perf_counter() - began


def pages(address: str) -> dict[str, float]:
    """Seconds of each page."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        found = {"list of studies": opened(page, address, "1. large")}
        study = f"{address}/studies/1"
        found["study, first time"] = opened(page, study, "Learning-rate schedules")
        began = time.perf_counter()
        page.goto(f"{study}/trials?numbers=7")
        picture = page.locator("img[src*='/artifacts/']").first
        expect(picture).to_have_js_property("naturalWidth", 1600, timeout=PATIENCE)
        found["trial with its rate curve"] = time.perf_counter() - began
        found["study, again"] = opened(page, study, "Learning-rate schedules")
        browser.close()
    return found


def main() -> None:
    """Print the table."""
    trials = int((sys.argv[1:2] or ["1000"])[0])
    server = (sys.argv[2:3] or ["sqlite:///studies.db"])[0]
    with new_database(server) as url, tempfile.TemporaryDirectory() as folder:
        make_study(url, trials)
        seconds, computed, size = report(url, Path(folder))
        with dashboard(url) as (address, ready):
            found = pages(address)
    print(f"{trials} trials of {EPOCHS} epochs, {StorageUrl(server).dialect}:")
    print("| what | seconds |\n|---|---|")
    print(f"| report, {size:.2f} MB | {seconds:.1f}, of the processor {computed:.1f} |")
    print(f"| dashboard listens | {ready:.1f} |")
    for name, value in found.items():
        print(f"| {name} | {value:.1f} |")


if __name__ == "__main__":
    main()
