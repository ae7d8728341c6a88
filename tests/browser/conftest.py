"""A real browser, and what no page of ours may do in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

VARIABLE = "CLRSEARCH_TEST_CHROMIUM"
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; where it is missing that is a reason to skip, unless its variable is set.

    The variable names the binary.
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
