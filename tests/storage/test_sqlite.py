"""A SQLite file: one that is only read, one that is gone, and that none is made in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from clrsearch import service
from clrsearch.errors import StorageError
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

COMMANDS = """
import contextlib, io, json, sys
from clrsearch import cli

found = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["clrsearch", *command]
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
    found.append([code, out.getvalue(), errors.getvalue()])
print(json.dumps(found))
"""
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
WRITER = """
import os, sys, time
from clrsearch.search import Study
from clrsearch.storage import StorageUrl, open_database
with open_database(StorageUrl(sys.argv[1])) as database:
    study = Study.open(database, "mine")
    study.plan_confirmation(study.plan.confirm.model_copy(update={"seeds": 7}))
    print("written", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, task_dir):
    """A folder with a database, which has one study of two finished trials."""
    folder = tmp_path / "place"
    folder.mkdir()
    url = StorageUrl(f"sqlite:///{folder / 'studies.db'}")
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Tiny", trials=2, confirm=ConfirmPlan(top=1, seeds=2)
    )
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))
    service.work("mine", storage=url, settings=WorkerSettings(task_dir=task_dir, device="cpu"))
    assert [path.name for path in folder.glob("studies.db*")] == ["studies.db"]
    return folder, url


@pytest.fixture
def read_only(place, tmp_path):
    """Runs command lines, one after the other, where nothing can be written into the folder.

    The superuser may write anywhere: for it the folder is mounted anew, for this call alone.
    """
    folder, url = place

    def run(*commands):
        alone = ["unshare", "-m", "sh", "-c", MOUNT, folder] if os.geteuid() == 0 else []
        python = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
        if not alone:
            folder.chmod(0o555)
        try:
            found = subprocess.run(
                [*alone, *python],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env={**os.environ, "CLRSEARCH_STORAGE": url.reveal()},
            )
        finally:
            folder.chmod(0o755)
        assert (found.returncode, found.stderr) == (0, "")
        return json.loads(found.stdout)

    return run


def looks(tmp_path) -> list[list[str]]:
    """What only reads."""
    return [
        ["list"],
        ["best", "mine"],
        ["show", "mine"],
        ["show", "mine", "0"],
        ["status", "mine"],
        ["report", "mine", "-o", str(tmp_path / "page.html")],
        ["plot", "mine", "scores", "-o", str(tmp_path / "scores.png")],
        ["db", "check"],
    ]


def test_what_only_reads_needs_no_more(place, read_only, tmp_path) -> None:
    folder, _ = place
    before = {path.name: path.read_bytes() for path in folder.glob("studies.db*")}
    for code, out, errors in read_only(*looks(tmp_path)):
        assert code == 0
        assert out or errors.startswith("wrote ")
    assert {path.name: path.read_bytes() for path in folder.glob("studies.db*")} == before
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert (tmp_path / "scores.png").stat().st_size > 10_000


def test_what_writes_is_told_in_one_line(place, read_only, task_dir) -> None:
    _, url = place
    where = ["--task-dir", str(task_dir)]
    run = ["run", "--task", "tiny.py:Tiny", *where, "--trials", "3", "--no-confirm"]
    found = read_only(
        [*run, "--name", "mine"],
        [*run, "--name", "new"],
        ["worker", "mine", *where],
        ["delete", "mine", "--yes"],
        ["cancel", "mine"],
        ["retry", "mine"],
        ["confirm", "mine", *where],
    )
    for code, out, errors in found:
        assert (code, out) == (2, "")
        (line,) = errors.splitlines()
        assert line.startswith(f"clrsearch: {url}: ")
        assert line.endswith("the file or its folder is read-only")
    (there,) = service.list_studies(storage=url)
    assert (there.name, there.total) == ("mine", 2)


def write(url) -> subprocess.Popen[str]:
    """Another process that has the file open, and has written to it."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url.reveal()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline() == "written\n"
    return writer


def test_what_a_living_or_a_killed_writer_has_not_moved_over_yet_is_seen(
    place, read_only, tmp_path
) -> None:
    folder, url = place
    with write(url) as writer:
        living = read_only(*looks(tmp_path), ["show", "mine", "--json"])
        writer.send_signal(signal.SIGKILL)
    log = folder / "studies.db-wal"
    assert log.stat().st_size > 0
    killed = read_only(*looks(tmp_path), ["show", "mine", "--json"])
    for found in (living, killed):
        assert [code for code, _, _ in found] == [0] * 9
    (folder / "studies.db-shm").unlink()
    for code, out, errors in read_only(["list"], ["best", "mine"]):
        assert (code, out) == (2, "")
        (line,) = errors.splitlines()
        assert f"{log} has changes that cannot be read without write access" in line


def test_who_reads_a_file_that_is_then_written_to_sees_it(place, monkeypatch) -> None:
    _, url = place
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.reopen().plan.confirm.seeds == 2
        monkeypatch.undo()
        with write(url) as writer:
            assert study.reopen().plan.confirm.seeds == 7
            writer.communicate("")
        assert study.reopen().plan.confirm.seeds == 7


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_is_told_and_not_made_anew(place, replaced) -> None:
    folder, url = place
    for each in (folder / "studies.db", folder / "kept.db"):
        (folder / "kept.db").write_bytes(each.read_bytes())
    says = "was replaced by another one" if replaced else "was deleted or moved"
    with (
        pytest.raises(StorageError, match=f"studies.db: the file {says} while it was open$"),
        open_database(url) as database,
    ):
        study = Study.open(database, "mine")
        (folder / "studies.db").unlink()
        if replaced:
            (folder / "kept.db").rename(folder / "studies.db")
        study.slots.counts()
    assert (folder / "studies.db").exists() == replaced
    with (
        pytest.raises(StorageError, match=r"the file was deleted or moved while it was open$"),
        open_database(url, create=True) as database,
    ):
        (folder / "studies.db").unlink()
        database.engine.dispose()  # and a connection is made anew
        database.optuna.get_all_studies()
    assert not (folder / "studies.db").exists()
