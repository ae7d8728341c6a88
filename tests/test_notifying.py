"""Messages that arrive, or do not, at a receiver on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from running import children, records, wait_for

from clrsearch.errors import PlanError
from clrsearch.notices import Notices

TOKEN = "s3cret-t0ken"
TINY = ("--trials", "2", "--workers", "1", "--device", "cpu", "--no-confirm")


class Receiver:
    """A web hook: the messages that it was sent, each with its path; it refuses all on request."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str]]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, json.loads(body)))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str = "") -> str:
        return f"json://user:{TOKEN}@127.0.0.1:{self.server.server_port}/{path}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for _, message in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_study_that_ends(clrsearch, url, task_dir, receiver) -> None:
    first, second = receiver.url("a"), receiver.url("b")
    words = ["--task", "tiny.py:Tiny", "--task-dir", str(task_dir), "--name", "mine", *TINY]
    code, out, err = clrsearch("run", *words, "--notify", first, "--notify", second)
    assert code == 0, err
    assert [path for path, _ in receiver.got] == ["/a", "/b"]
    message = receiver.got[0][1]
    assert message["title"] == "mine has ended"
    assert message["message"].startswith("Search best: ")
    assert f"The code: clrsearch best mine --task-dir {task_dir}" in message["message"]
    assert TOKEN not in out + err + json.dumps(receiver.got)
    again, _, _ = clrsearch("run", *words, "--notify", first)
    assert again == 0
    assert len(receiver.got) == 2  # it had ended before


def test_a_verdict_by_a_url_in_the_environment(
    clrsearch, url, task_dir, receiver, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_NOTIFY", f"{receiver.url('a')} {receiver.url('b')}")
    where = ("--task-dir", str(task_dir), "--workers", "1", "--device", "cpu")
    code, _, err = clrsearch(
        *("run", "--task", "tiny.py:Tiny", "--trials", "3", "--name", "mine", *where),
        *("--set", "confirm.seeds=2", "--set", "confirm.top=1"),
    )
    assert code == 0, err
    assert receiver.titles == ["mine has a verdict"] * 2
    assert "fresh seeds" in receiver.got[0][1]["message"]
    assert "CLRSEARCH_NOTIFY" not in os.environ  # so that no worker gets it
    monkeypatch.setenv("CLRSEARCH_NOTIFY", receiver.url("c"))
    code, _, err = clrsearch("confirm", "mine", "--seeds", "3", *where)
    assert code == 0, err
    assert [path for path, _ in receiver.got] == ["/a", "/b", "/c"]


def test_a_task_that_fails(clrsearch, url, task_dir, receiver) -> None:
    code, _, err = clrsearch(
        *("run", "--task", "tiny.py:FailsLater", "--task-dir", str(task_dir), "--name", "mine"),
        *("--trials", "8", "--workers", "1", "--device", "cpu", "--notify", receiver.url()),
    )
    assert code == 3, err
    assert receiver.titles[-1].startswith("mine was stopped, ")
    assert "its task failed repeatedly" in receiver.got[-1][1]["message"]
    assert TOKEN not in err + json.dumps(receiver.got)


@pytest.mark.parametrize("status", [500, None])
def test_a_message_that_cannot_be_delivered(clrsearch, url, task_dir, receiver, status) -> None:
    to = receiver.url()
    if status is None:
        receiver.server.shutdown()
        receiver.server.server_close()
    else:
        receiver.status = status
    code, out, err = clrsearch(
        *("run", "--task", "tiny.py:Tiny", "--task-dir", str(task_dir), "--name", "mine", *TINY),
        *("--notify", to),
    )
    assert code == 0, err
    assert "make_scheduler" in out
    warned = [line for line in err.splitlines() if "could not be delivered" in line]
    assert warned == [
        "clrsearch: a notification could not be delivered to json://***: mine has ended"
    ]
    assert TOKEN not in out + err


@pytest.fixture
def running(url, task_dir, receiver, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A command that trains for some time."""
    words = [
        *("run", "--task", "tiny.py:Paced", "--task-dir", str(task_dir), "--name", "mine"),
        *("--trials", "4", "--epochs", "8", "--workers", "1", "--device", "cpu", "--no-confirm"),
        *("--notify", receiver.url()),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "clrsearch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    wait_for(lambda: begun(url))
    yield process
    process.kill()
    process.communicate()


def begun(url) -> bool:
    return url.file.exists() and any(each.epoch for each in (records(url) if ready(url) else []))


def ready(url) -> bool:
    from clrsearch import service

    return [each.name for each in service.list_studies(storage=url)] == ["mine"]


def test_an_interrupted_study(running, receiver) -> None:
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 130, err
    (title,) = receiver.titles
    assert title.startswith("mine was interrupted, ")
    told = receiver.got[0][1]["message"]
    assert "To resume: clrsearch run --task tiny.py:Paced" in told
    assert "To resume: clrsearch run --task tiny.py:Paced" in out
    for text in (told, out, err):
        assert TOKEN not in text
        assert "--notify" not in text


def test_a_lost_worker(running, receiver) -> None:
    worker = wait_for(lambda: workers_of(running.pid))[0]
    command_line = Path(f"/proc/{worker}/cmdline").read_text()
    environment = Path(f"/proc/{worker}/environ").read_text()
    assert TOKEN not in command_line + environment
    os.kill(worker, signal.SIGKILL)
    _, err = running.communicate(timeout=400)
    assert running.returncode == 0, err
    assert len(receiver.got) == 2
    assert receiver.titles[0].startswith("mine has lost a worker, ")
    assert "SIGKILL" in receiver.got[0][1]["message"]
    assert receiver.titles[1] == "mine has ended"


def workers_of(pid: int) -> list[int]:
    """The processes that a command has started for work."""
    lines = {each: Path(f"/proc/{each}/cmdline").read_text() for each in children(pid)}
    return [each for each, line in lines.items() if "\0worker\0" in line]


@pytest.mark.parametrize(
    "wrong", [f"json:/{TOKEN}", f"nosuch://{TOKEN}", TOKEN, f"slack://{TOKEN}"]
)
def test_a_url_that_apprise_does_not_understand(clrsearch, url, wrong) -> None:
    code, out, err = clrsearch("run", "--notify", wrong)
    assert code == 2
    assert "not a URL that apprise can send to" in err
    assert len(err.splitlines()) == 1
    assert TOKEN not in out + err
    assert not url.file.exists()


def test_without_apprise(clrsearch, url, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    code, _, err = clrsearch("run", "--notify", "json://localhost")
    assert code == 2
    assert err == "clrsearch: notifications need apprise: pip install 'clrsearch[notify]'\n"


def test_nothing_shows_a_secret() -> None:
    notices = Notices([f"json://user:{TOKEN}@localhost/{TOKEN}", f"ntfy://{TOKEN}"])
    for shown in (str(notices), repr(notices)):
        assert TOKEN not in shown
    assert str(notices) == "json://***, ntfys://***"
    with pytest.raises(PlanError) as refused:
        Notices([f"{TOKEN}"])
    assert TOKEN not in str(refused.value)
    with pytest.raises(TypeError, match="cannot be pickled"):
        notices.__reduce__()
