"""A study as a page: what it says at every stage, and that nothing in it is run."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clrsearch import service
from clrsearch.errors import FailsHere, PlanError, StudyError
from clrsearch.reports import read_page, render_page
from clrsearch.search import ConfirmPlan, Study, StudyPlan, load_plan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.training.device import find_device
from clrsearch.worker import WorkerSettings

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)> $(reboot) {{ 7*7 }}"


def begin(task_dir, name="mine", **keys) -> None:
    given = {
        "families": ("cyclic",),
        "task": "tiny.py:Noisy",
        "trials": 6,
        "confirm": ConfirmPlan(enabled=False),
    }
    plan = StudyPlan(**(given | keys))
    facts = probe(load_task(plan.task, folder=task_dir), device=find_device("cpu"))
    with open_database(service.storage_url(None), create=True) as database:
        Study.create(database, name, plan, facts, service.versions(task_dir))


def work(task_dir, name="mine", **keys) -> None:
    begin(task_dir, name, **keys)
    service.work(name, settings=WorkerSettings(device="cpu", task_dir=task_dir))


def page_of(url, name="mine", **keys) -> str:
    with open_database(url) as database:
        return render_page(read_page(Study.open(database, name), made=NOW, **keys))


class Parsed(HTMLParser):
    """The tags of a page, its texts, and every address in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.events: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "data"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.events.append(name)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def text_of(page: str) -> str:
    return " ".join(" ".join(Parsed(page).texts).split())


def test_a_finished_study(url, task_dir) -> None:
    work(task_dir, trials=8)
    page = page_of(url)
    text = text_of(page)
    leader = service.show("mine").snapshot.search_best
    assert f"trial {leader.number}), error" in text
    assert "clrsearch confirm mine compares the best trials on fresh seeds" in text
    assert "8 of 8 trials done" in text
    assert "2026-01-01 12:00:00 UTC" in text
    best = service.best("mine")
    assert best.code in "".join(Parsed(page).texts)
    assert f"clrsearch replay mine {best.trial.number}" in text
    assert page.count("<tr") >= 9


def test_a_study_that_has_not_begun(url, task_dir) -> None:
    begin(task_dir)
    text = text_of(page_of(url))
    assert "No trial is complete yet, so there is no schedule to use." in text
    assert "No trial has begun yet." in text
    assert "0 of 6 trials done" in text
    assert "Copy the code" not in text
    assert "clrsearch best" not in text


def test_a_study_that_is_under_way(url, task_dir) -> None:
    begin(task_dir, trials=6)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir, max_trials=3))
    text = text_of(page_of(url, renewed=5))
    assert "3 of 6 trials done" in text
    assert "it is updated while the study runs" in text


@pytest.mark.parametrize(
    ("task", "says"),
    [("Explodes", "3 diverged"), ("FailsLater", "KeyError")],
)
def test_a_study_of_which_no_trial_is_complete(url, task_dir, task, says) -> None:
    begin(task_dir, task=f"tiny.py:{task}", trials=3, retries=0)
    with suppress(FailsHere):
        service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    text = text_of(page_of(url))
    assert says in text
    assert "No trial is complete yet" in text


def test_a_failed_trial_shows_its_traceback_as_text(url, tmp_path) -> None:
    (tmp_path / "own.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent / 'tasks_for_tests')!r})\n"
        "from tiny import Tiny\n\n\n"
        "class Bad(Tiny):\n"
        "    batches = 0\n\n"
        "    def loss(self, output, target):\n"
        "        self.batches += 1\n"
        "        if self.batches > 6:\n"
        f"            raise ValueError({HOSTILE!r})\n"
        "        return super().loss(output, target)\n"
    )
    begin(tmp_path, task="own.py:Bad", trials=2, retries=0)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=tmp_path))
    page = page_of(url)
    assert "ValueError: </title><script>" in text_of(page)
    assert Parsed(page).tags.count("script") == 1


def test_nothing_that_comes_from_the_study_is_run(url, task_dir) -> None:
    work(task_dir, name="mine")
    work(task_dir, name=HOSTILE)
    plain, hostile = Parsed(page_of(url)), Parsed(page_of(url, HOSTILE))
    assert set(hostile.tags) == set(plain.tags)
    assert hostile.tags.count("script") == plain.tags.count("script") == 1
    assert hostile.addresses == plain.addresses == ["data:,"]
    assert hostile.events == []
    assert HOSTILE in " ".join(hostile.texts)
    assert "--name '</title>" in " ".join(hostile.texts)  # one word for a shell


def test_the_study_file_asks_for_the_same_study(url, task_dir, tmp_path) -> None:
    keys = {
        "families": ("cyclic", "cosine"),
        "bounds": {"cyclic": {"max_lr": (1e-3, 0.1), "mode": ("triangular", "exp_range")}},
        "seed": 3,
        "confirm": ConfirmPlan(top=2, seeds=2),
    }
    work(task_dir, **keys)
    with open_database(url) as database:
        study = Study.open(database, "mine")
        (tmp_path / "study.toml").write_text(read_page(study, made=NOW).study_file)
        assert load_plan(tmp_path / "study.toml") == study.plan


def test_rates_by_hand_are_drawn_too(url, task_dir) -> None:
    plan = {"families": ("manual",), "manual": "tiny.py:hand_written", "trials": 3}
    folder = service.storage_url(None).file.parent
    begin_with_function(task_dir, plan)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    service.report("mine", folder / "report.html", task_dir=task_dir)
    assert "manual" in (folder / "report.html").read_text()


def begin_with_function(task_dir, keys) -> None:
    """Only ``run`` stores what a function's source is."""
    given = {"families": ("cyclic",), "task": "tiny.py:Noisy"} | keys
    plan = StudyPlan(confirm=ConfirmPlan(enabled=False), **given)
    service.run(
        plan, name="mine", settings=WorkerSettings(device="cpu", task_dir=task_dir), workers=0
    )


def test_a_report_is_renewed_while_the_study_runs(url, task_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("clrsearch.service.pages.RENEW_SECONDS", 0.05)
    begin(task_dir, trials=4)
    to = tmp_path / "report.html"
    seen, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if to.exists():
                seen.append(to.read_text().rstrip().endswith("</html>"))
            time.sleep(0.001)

    pages = []
    reader = threading.Thread(target=read)
    reader.start()

    def on_write(page) -> None:
        pages.append(page)
        if page.now.done < 4:
            service.work(
                "mine", settings=WorkerSettings(device="cpu", task_dir=task_dir, max_trials=2)
            )

    try:
        service.report("mine", to, watch=True, on_write=on_write)
    finally:
        done.set()
        reader.join()
    assert [page.now.done for page in pages] == [0, 2, 4]
    assert [page.renewed is None for page in pages] == [False, False, True]
    assert all(seen)
    assert 'http-equiv="refresh"' not in to.read_text()
    assert list(tmp_path.glob(".report*")) == []


def test_a_watch_that_is_interrupted_promises_nothing(
    url, task_dir, tmp_path, monkeypatch, clrsearch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    begin(task_dir)
    monkeypatch.setattr("clrsearch.service.pages.time.sleep", interrupt)
    to = tmp_path / "report.html"
    code, _, err = clrsearch("report", "mine", "-o", str(to), "--watch")
    assert code == 0
    assert err.count("wrote") == 1
    assert "renewed" not in text_of(to.read_text())


def test_a_report_that_cannot_be_written(url, task_dir, tmp_path) -> None:
    begin(task_dir)
    with pytest.raises(PlanError, match=r"none.report\.html cannot be written: there is no folder"):
        service.report("mine", tmp_path / "none" / "report.html")
    with pytest.raises(PlanError, match=r"report\.pdf: a report's file name must end in \.html"):
        service.report("mine", tmp_path / "report.pdf")
    with pytest.raises(StudyError, match="no study other"):
        service.report("other", tmp_path / "report.html")


def test_the_command_says_where_the_report_is(url, task_dir, tmp_path, clrsearch) -> None:
    work(task_dir)
    code, out, err = clrsearch("report", "mine", "-o", str(tmp_path / "r.html"))
    assert (code, out) == (0, "")
    assert re.fullmatch(r"wrote .*r\.html at \d\d:\d\d:\d\d: 6 of 6 trials done\n", err)
