"""Watching over workers that were launched: their slots when they die, Ctrl-C, why they left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from clrsearch.errors import ClrsearchError, StudyStopped
from clrsearch.launch import Command, Ended, Launcher
from clrsearch.search import Study

POLL_SECONDS = 0.5
LEFT_IN_ORDER = (0, 3)  # no slot is left; the study was stopped


def supervise(
    study: Study,
    launcher: Launcher,
    commands: Mapping[str, Command],
    on_change: Callable[[], None],
) -> bool:
    """Start the workers, by their names, and watch until all have left; whether they were told to.

    Ctrl-C and SIGTERM ask them to leave, a second one ends them.

    Raises:
        StudyStopped: the task's code failed again and again.
        ClrsearchError: slots are left because workers died; with what the last one complained of.
    """
    names = list(commands)
    died: list[Ended] = []
    interrupted = False
    try:
        launcher.start(list(commands.values()))
        with _terminated_like_interrupted():
            while launcher.running():
                try:
                    for ended in launcher.poll():
                        study.slots.release(names[ended.index])
                        died += [ended] if ended.code not in LEFT_IN_ORDER else []
                    on_change()
                    time.sleep(POLL_SECONDS)
                except KeyboardInterrupt:
                    if interrupted:
                        launcher.kill()
                    else:
                        launcher.stop()
                    interrupted = True
    finally:
        launcher.stop()  # none is left behind by an error here
    on_change()
    stopped = study.stopped
    if stopped is not None:
        raise StudyStopped(
            f"{study.name} was stopped: the task failed again and again. Mend it and run again",
            stopped,
        )
    left = study.slots.unfinished()
    if died and left and not interrupted:
        last_words = (died[-1].errors.splitlines() or ["it said nothing"])[-1]
        raise ClrsearchError(
            f"{left} trials are left, and the last worker ended with code {died[-1].code} "
            f"({last_words.removeprefix('clrsearch: ')}): run again to go on"
        )
    return interrupted


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt too, where signals arrive: in the main thread."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: a notebook's or a server's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
