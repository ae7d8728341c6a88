"""Watching over workers that were launched: replacing the lost, Ctrl-C, why they left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from clrsearch import proposals
from clrsearch.causes import complaint
from clrsearch.errors import ClrsearchError, StudyStopped
from clrsearch.launch import Command, Ended, Launcher
from clrsearch.search import Study
from clrsearch.storage import Patience, Tolerance
from clrsearch.worker.names import worker_name

POLL_SECONDS = 0.5
LEFT_IN_ORDER = (0, 3)  # no slot is left; the study was stopped
NOT_REPLACED = (*LEFT_IN_ORDER, 2)  # 2: an error that another worker would meet as well
EARLY_DEATHS = 5  # in a row, before a slot was claimed, and a worker's post is given up


class Supervisor:
    """Keeps one worker at each post until no slot is left."""

    def __init__(
        self,
        study: Study,
        launcher: Launcher,
        posts: Sequence[Callable[[str], Command]],
        *,
        patience: float,
        on_change: Callable[[], None],
    ) -> None:
        """``posts`` give the command of a worker for its name; ``patience`` is for outages."""
        self._study = study
        self._launcher = launcher
        self._posts = posts
        self._on_change = on_change
        self._patience = Patience(patience)
        self._tolerance = Tolerance(patience)
        self._names: list[str] = []  # of all that were ever started, as the launcher counts them
        self._post_of: list[int] = []
        self._early = [0] * len(posts)
        self._lost: list[Ended] = []  # whose slots are not released yet
        self._complaints: list[Ended] = []

    def watch(self) -> bool:
        """Start the workers and watch until all have left; whether they were told to.

        A worker that is killed or crashes is replaced, and its slot is open at once. Ctrl-C and
        SIGTERM ask the workers to leave, a second one ends them.

        Raises:
            StudyStopped: the task's code failed again and again.
            ClrsearchError: slots are left because workers gave up; with the last one's complaint.
            SQLAlchemyError, StorageInternalError: an error of the database that does not pass, or
                an outage that outlasts patience.
        """
        interrupted = False
        try:
            self._hire(range(len(self._posts)))
            with _terminated_like_interrupted():
                while self._launcher.running() or self._lost:
                    try:
                        self._look(replace=not interrupted)
                        time.sleep(POLL_SECONDS)
                    except KeyboardInterrupt:
                        if interrupted:
                            self._launcher.kill()
                        else:
                            self._launcher.stop()
                        interrupted = True
        finally:
            self._launcher.stop()  # none is left behind by an error here
        self._patience(self._on_change)
        stages = self._patience(self._study.stages)
        stopped = self._patience(lambda: next(filter(None, (s.stopped for s in stages)), None))
        if stopped is not None:
            raise StudyStopped(
                f"{self._study.name} was stopped: the task failed again and again. "
                f"Mend it, then {proposals.again()} goes on",
                stopped,
            )
        left = self._patience(lambda: sum(each.slots.unfinished() for each in stages))
        if self._complaints and left and not interrupted:
            raise ClrsearchError(self._why(left, self._complaints[-1]))
        return interrupted

    def _hire(self, posts: Sequence[int]) -> None:
        commands = []
        for post in posts:
            name = worker_name()
            self._names.append(name)
            self._post_of.append(post)
            commands.append(self._posts[post](name))
        self._launcher.start(commands)

    def _look(self, *, replace: bool) -> None:
        """Take note of who has left, release what they held, and replace whom it makes sense to."""
        for ended in self._launcher.poll():
            self._lost.append(ended)
            if ended.code not in LEFT_IN_ORDER:
                self._complaints.append(ended)
        with self._tolerance():
            while self._lost:
                ended = self._lost[0]
                name = self._names[ended.index]
                held = sum(each.slots.release(name) for each in self._study.stages())
                del self._lost[0]
                post = self._post_of[ended.index]
                self._early[post] = 0 if held else self._early[post] + 1
                wanted = replace and ended.code not in NOT_REPLACED
                if wanted and self._early[post] < EARLY_DEATHS:
                    self._hire([post])
            self._on_change()

    def _why(self, left: int, ended: Ended) -> str:
        how = (
            f"was ended by {signal.Signals(-ended.code).name}"
            if ended.code < 0
            else f"ended with code {ended.code}"
        )
        said = complaint(ended.errors)
        words = f" ({said})" if said else ""
        again = proposals.again()
        return f"{left} trials are left, and the last worker {how}{words}: {again} goes on"


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
