"""A real browser, and what no page of ours may do in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.training.device import find_device
from clrsearch.worker import WorkerSettings

VARIABLE = "CLRSEARCH_TEST_CHROMIUM"
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; where it is missing that is a reason to skip, unless its variable is set.

    The variable names the binary. It ends with its module, for it occupies the thread's event loop.
    """
    demanded = os.environ.get(VARIABLE)
    binary = demanded or shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        pytest.skip(f"no Chromium ({VARIABLE} names one)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=binary, args=list(OPTIONS))
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page; at the end, that it raised no error and asked no other origin for anything."""
    contexts, wrong = [], []

    def look(url: str, **options) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("request", lambda request: asked(request.url, url))
        page.goto(url)
        return page

    def asked(url: str, opened: str) -> None:
        of_a_file = opened.startswith("file:")
        home = opened if of_a_file else "/".join(opened.split("/")[:3])
        if not url.startswith((home, "data:", "blob:")):
            wrong.append(f"asked for {url}")

    yield look
    for context in contexts:
        context.close()
    assert wrong == []


@dataclass(frozen=True)
class Studied:
    """Where a study lies, and a folder for what is made of it."""

    url: StorageUrl
    folder: Path


@pytest.fixture(scope="module")
def study(tmp_path_factory, request) -> Studied:
    """A study of two families, with range test and confirmation; its name is small."""
    folder = tmp_path_factory.mktemp("small")
    tasks = request.config.rootpath / "tests" / "tasks_for_tests"
    url = StorageUrl(f"sqlite:///{folder / 'studies.db'}")
    plan = StudyPlan(
        task="tiny.py:Noisy",
        trials=30,
        families=("cyclic", "cosine"),
        confirm=ConfirmPlan(top=2, seeds=3),
    )
    facts = probe(load_task(plan.task, folder=tasks), device=find_device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "small", plan, facts, service.versions(tasks))
    service.range_test("small", storage=url, task_dir=tasks)
    service.work("small", storage=url, settings=WorkerSettings(device="cpu", task_dir=tasks))
    return Studied(url, folder)
