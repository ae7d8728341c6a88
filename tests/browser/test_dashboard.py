"""The dashboard on a real study in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from clrsearch import service
from clrsearch.storage import open_database


@contextmanager
def serving(study) -> Iterator[str]:
    with service.dashboard("small", storage=study.url, port=0) as opened:
        thread = threading.Thread(target=opened.serve)
        thread.start()
        yield opened.url
        opened.server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def dashboard(study) -> Iterator[str]:
    with serving(study) as url:
        yield url


def test_from_the_list_to_a_trials_rate_curve_and_code(dashboard, study, open_page) -> None:
    page = open_page(dashboard.rpartition("/studies/")[0])
    page.get_by_text("1. small", exact=True).click()
    page.wait_for_url("**/studies/1")
    page.goto(f"{dashboard}/trials")
    page.get_by_text("Trial 3", exact=True).click()
    expect(page.get_by_text("Trial 3 (trial_id=4)")).to_be_visible()
    picture = page.locator("img[alt='learning-rate.png']").or_(
        page.locator("img[src*='/artifacts/']")
    )
    expect(picture.first).to_be_visible()
    expect(picture.first).to_have_js_property("naturalWidth", 1600, timeout=30_000)
    assert page.get_by_text("schedule.py").count()
    answer = page.request.get(picture.first.evaluate("(each) => each.src").replace("4-1", "4-2"))
    assert "def make_scheduler" in answer.text()


def test_the_note_holds_verdict_and_code(dashboard, study, open_page) -> None:
    page = open_page(f"{dashboard}/note")
    expect(page.get_by_role("heading", name="small")).to_be_visible()
    verdict = service.best("small", storage=study.url).verdict
    expect(page.get_by_text(re.compile(re.escape(verdict.sentence[:60])))).to_be_visible()
    expect(page.get_by_text("def make_scheduler")).to_be_visible()


def test_the_studys_page_has_our_figures(dashboard, open_page) -> None:
    page = open_page(dashboard)
    for title in ("Learning-rate schedules", "Learning curves", "Learning-rate range test"):
        expect(page.get_by_text(title, exact=True).first).to_be_visible()


def test_every_page_of_a_study_lives_with_the_policy(dashboard, open_page) -> None:
    for name in ("", "/analytics", "/trials", "/trialTable", "/note"):
        page = open_page(f"{dashboard}{name}")
        page.wait_for_load_state("networkidle")
        assert page.locator("body").inner_text()


NOTE = """<script>document.title = 'run'</script>

<img src="data:image/png;base64,x" onerror="document.title = 'run'">

<iframe srcdoc="<script>parent.document.title = 'run'</script>"></iframe>

<a href="javascript:document.title = 'run'">press</a> [press](javascript:document.title='run')

The note of a stranger.
"""


def test_a_note_that_a_stranger_wrote_runs_nothing(study, browser) -> None:
    with open_database(study.url) as database:
        database.optuna.set_study_system_attr(1, "dashboard:note_ver", 10**6)
        database.optuna.set_study_system_attr(1, "dashboard:note_str:0", NOTE)
    with serving(study) as url:
        page = browser.new_page()
        page.goto(f"{url}/note")
        expect(page.get_by_text("The note of a stranger.")).to_be_visible()
        for press in page.get_by_text("press").all():
            press.click()
        assert page.title() != "run"
        page.close()
