"""The disk is full or read-only, or the server away, under ``clrsearch run``; later it goes on.

    python benchmarks/faults/full_disk.py [--cases database-full checkpoints-full ...]

Each case is struck while two workers work. The command must end with exit code 2 and one line that
names the cause; the case is mended, and the same command again goes on to the exact budget. The
first three mount small file systems, which needs root; PostgreSQL is a server of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import harness
from harness import Place
from script import command_line

TRIALS = 10
LIMIT = 180.0  # seconds for one command


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A place, what is done to it and undone, and the words of the line that must follow."""

    place: Place
    strike: Callable[[], None]
    mend: Callable[[], None]
    words: tuple[str, ...]
    options: tuple[str, ...] = ()


def command(*arguments: object) -> None:
    subprocess.run([str(each) for each in arguments], check=True, capture_output=True)


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system in memory."""
    folder.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield folder
    finally:
        command("umount", "-l", folder)


def fill(disk: Path) -> None:
    """Write until not a page is left."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            print(f"filled with {file.tell() / 1e6:.1f} MB: {error.strerror}", file=sys.stderr)


@contextmanager
def full(name: str, size: str, database: str, words: str) -> Iterator[Case]:
    """A folder with a small disk of this name, which is filled; the database may lie on it."""
    with harness.temporary_folder() as folder, tmpfs(folder / name, size) as disk:
        yield Case(
            place=Place(url=f"sqlite:///{folder / database}", folder=folder),
            strike=lambda: fill(disk),
            mend=lambda: (disk / "filler").unlink(),
            words=(words,),
        )


@contextmanager
def database_read_only() -> Iterator[Case]:
    """As ext4 does it at an error of the disk: mount refuses to while files are open for writing.

    What the kernel has not written by then is lost, and SQLite's WAL does not wait for it
    (synchronous=NORMAL): so it is told to write everything right before.
    """
    with harness.temporary_folder() as folder:
        image, disk = folder / "image", folder / "disk"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(64 << 20)
        command("mkfs.ext4", "-q", image)

        def strike() -> None:
            command("sync", "-f", disk)
            command("mount", "-o", "remount,abort", disk)

        def mend() -> None:
            command("umount", disk)
            checked = subprocess.run(["e2fsck", "-p", image], capture_output=True, check=False)
            if checked.returncode not in (0, 1):  # 1: the errors are mended
                raise SystemExit(f"e2fsck: {checked.stdout!r}")
            command("mount", "-o", "loop", image, disk)

        command("mount", "-o", "loop", image, disk)
        try:
            yield Case(
                place=Place(url=f"sqlite:///{disk / 'studies.db'}", folder=folder),
                strike=strike,
                mend=mend,
                words=("readonly database", "disk I/O error", "unable to open database file"),
            )
        finally:
            command("umount", "-l", disk)


@contextmanager
def server_read_only() -> Iterator[Case]:
    with harness.private_postgres() as server, harness.temporary_folder() as folder:
        setting = "ALTER DATABASE studies SET default_transaction_read_only"
        close = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'studies'"
        yield Case(
            place=Place(url=server.empty_database(), folder=folder),
            strike=lambda: harness.execute(server.url, f"{setting} = on", close),
            mend=lambda: harness.execute(server.url, f"{setting} = off"),
            words=("in a read-only transaction",),
            options=("--storage-patience", "5"),
        )


@contextmanager
def server_gone() -> Iterator[Case]:
    with harness.private_postgres() as server, harness.temporary_folder() as folder:
        yield Case(
            place=Place(url=server.empty_database(), folder=folder),
            strike=lambda: server.stop("fast"),
            mend=server.start,
            words=("Connection refused", "connection failed"),
            options=("--storage-patience", "5"),
        )


CASES = {
    "database-full": partial(full, "disk", "16m", "disk/studies.db", "database or disk is full"),
    "checkpoints-full": partial(full, "checkpoints", "1m", "studies.db", "No space left on device"),
    "database-read-only": database_read_only,
    "server-read-only": server_read_only,
    "server-gone": server_gone,
}


def run(case: Case, meanwhile: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """The command from its beginning to its end: its exit code, and what it wrote to stderr."""
    place = case.place
    with (place.folder / "run.err").open("w+") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "clrsearch", "run", "--no-confirm", "--workers", "2"),
                *("--name", harness.STUDY, "--task", harness.TASK, "--trials", str(TRIALS)),
                *("--set", "pruner=none", "--checkpoint-seconds", "0", "--device", "cpu"),
                *("--storage", place.url, "--checkpoint-dir", str(place.checkpoints)),
                *case.options,
            ],
            cwd=harness.TASKS,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
        try:
            meanwhile(process)
            code = process.wait(LIMIT)
        finally:
            process.kill()
        errors.seek(0)
        return code, errors.read()


def examine(case: Case) -> tuple[list[object], list[str]]:
    """One case: the cells of its row, and what should not have been seen."""
    struck_at = done = 0.0

    def strike(process: subprocess.Popen[str]) -> None:
        nonlocal struck_at, done
        while process.poll() is None:
            slots = case.place.slots()
            done = sum(slot.state == "complete" for slot in slots)
            if done >= 2 and any(slot.checkpoint for slot in slots if slot.state == "claimed"):
                break
            time.sleep(0.2)
        struck_at = time.monotonic()
        case.strike()

    code, said = run(case, strike)
    seconds = time.monotonic() - struck_at
    found = [f"exit code {code}"] if code != 2 else []
    lines = said.strip().splitlines()
    if len(lines) != 1 or not any(words in lines[0] for words in case.words):
        found.append(f"not one line with one of {case.words}: {said}")
    case.mend()
    slots = case.place.slots()
    left = sum(slot.state != "complete" for slot in slots)
    if len(slots) - left < done:
        found.append(f"of {done} complete slots {len(slots) - left} are left")
    code, again = run(case, lambda process: None)
    if code != 0 or not left:
        found.append(f"the second run, with {left} slots left, ended with {code}: {again}")
    found += harness.complaints(case.place, TRIALS)
    line = lines[-1].replace(str(case.place.folder), "…") if lines else ""
    return [done, f"{seconds:.1f}", left, f"`{line}`"], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    asked = command_line(parser, epoch_seconds="0.4", root_to="mounts file systems")
    harness.header(
        *("case", "complete when struck", "s until it left", "slots left", "the line on stderr")
    )
    for name in asked.cases:
        with ExitStack() as stack:
            cells, found = examine(stack.enter_context(CASES[name]()))
            harness.row(name, *cells)
            harness.require(found)


if __name__ == "__main__":
    main()
