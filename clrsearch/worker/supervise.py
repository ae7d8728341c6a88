"""Supervision of launched workers: replaces lost ones, handles Ctrl-C, reports why they left."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from clrsearch import proposals
from clrsearch.causes import complaint
from clrsearch.errors import ClrsearchError, ExitCode, FailsHere, StudyStopped
from clrsearch.launch import Command, Ended, Launcher
from clrsearch.search import State, Study
from clrsearch.storage import Patience, Tolerance
from clrsearch.worker.losses import release
from clrsearch.worker.names import worker_name

POLL_SECONDS = 0.5
LEFT_IN_ORDER = (ExitCode.DONE, ExitCode.STOPPED)
LEFT_BY_FAILURE = (ExitCode.FAILS_HERE, ExitCode.OUT_OF_MEMORY, ExitCode.DEVICE_FAILED)
NOT_REPLACED = (*LEFT_IN_ORDER, ExitCode.ERROR)
EARLY_DEATHS = 5  # consecutive exits before any trial started, to give up a post
FAILING_ENDS = 3  # consecutive exits with only failed trials, likewise
DEVICE_ENDS = 2  # consecutive failures of the device, likewise
MOST_FRUITLESS: Mapping[int, int] = {
    ExitCode.FAILS_HERE: FAILING_ENDS,
    ExitCode.DEVICE_FAILED: DEVICE_ENDS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A place for one worker at a time: a device, and the command of a worker with a given name."""

    device: str
    command: Callable[[str], Command]


class Supervisor:
    """Keeps one worker running at each post until no slot is left."""

    def __init__(
        self,
        study: Study,
        launcher: Launcher,
        posts: Sequence[Post],
        *,
        patience: float,
        on_change: Callable[[], None],
        on_note: Callable[[str], None] = lambda text: None,
        on_loss: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Set up workers for the ``posts``; :meth:`watch` starts them.

        ``patience`` is the longest outage to wait out, in seconds; ``on_change`` is called on each
        poll, ``on_note`` with messages, and ``on_loss`` with those of them that say how a worker
        was lost.
        """
        self._study = study
        self._launcher = launcher
        self._posts = posts
        self._on_change = on_change
        self._on_note = on_note
        self._on_loss = on_loss
        self._patience = Patience(patience)
        self._tolerance = Tolerance(patience)
        self._names: list[str] = []  # of all workers ever started, by the launcher's index
        self._post_of: list[int] = []
        self._fruitless = [0] * len(posts)  # consecutive workers without a result, by post
        self._given_up: set[int] = set()  # posts whose workers are not replaced any more
        self._lost: list[Ended] = []  # whose slots are not released yet
        self._complaints: dict[int, Ended] = {}  # of each post's last worker
        self._told: set[int] = set()  # exit codes already reported
        self._interrupted = False

    def watch(self) -> bool:
        """Start the workers and watch until all have left; returns whether they were told to.

        Workers that are killed or crash are replaced, and their slots are reopened at once; so are
        those that left because trials failed in their process. Ctrl-C, SIGTERM and SIGHUP ask the
        workers to leave; a second Ctrl-C or SIGTERM kills them.

        Raises:
            StudyStopped: the task's code failed repeatedly.
            ClrsearchError: slots are left because workers gave up; with the last worker's error.
            FailsHere: slots are left because trials kept failing here.
            SQLAlchemyError, StorageInternalError: a permanent database error, or an outage longer
                than the patience.
        """
        try:
            self._hire(range(len(self._posts)))
            with self._interruptible():
                while self._launcher.running() or self._lost:
                    try:
                        self._look()
                        time.sleep(POLL_SECONDS)
                    except KeyboardInterrupt:
                        self._interrupt()
        finally:
            self._launcher.stop()  # leave no worker behind on an error
        self._patience(self._on_change)
        stages = self._patience(self._study.stages)
        stopped = self._patience(lambda: next(filter(None, (s.stopped for s in stages)), None))
        if stopped is not None:
            raise StudyStopped(
                f"{self._study.name} was stopped: its task failed repeatedly. "
                f"Fix it, then resume: {proposals.again()}",
                stopped,
            )
        left = self._patience(lambda: sum(each.slots.unfinished() for each in stages))
        if self._complaints and left and not self._interrupted:
            *_, last = self._complaints.values()
            kind = FailsHere if last.code in LEFT_BY_FAILURE else ClrsearchError
            raise kind(self._why(left, last))
        return self._interrupted

    def _interrupt(self) -> None:
        if self._interrupted:
            self._launcher.kill()
            return
        self._interrupted = True
        self._launcher.stop()
        self._on_note(
            "workers are saving their trials and exiting; Ctrl-C again kills them at once, and "
            "training since their last checkpoints must be repeated"
        )

    def _hire(self, posts: Sequence[int]) -> None:
        commands = []
        for post in posts:
            name = worker_name()
            self._names.append(name)
            self._post_of.append(post)
            commands.append(self._posts[post].command(name))
        self._launcher.start(commands)

    def _look(self) -> None:
        """Handle workers that have left: release their slots, and replace them if sensible."""
        for ended in self._launcher.poll():
            self._lost.append(ended)
            post = self._post_of[ended.index]
            self._complaints.pop(post, None)
            if ended.code not in LEFT_IN_ORDER:
                self._complaints[post] = ended
        with self._tolerance():
            while self._lost:
                ended = self._lost[0]
                name, stages = self._names[ended.index], self._study.stages()
                ends = [end for each in stages for end in _ends(each, name)]
                successful = any(end not in ("running", "failed") for end in ends)
                held = sum(self._release(each, ended) for each in stages)
                lost = held and (ends or ended.code < 0)  # with a trial, or killed by a signal
                del self._lost[0]
                post = self._post_of[ended.index]
                hung = ended.code == ExitCode.HUNG  # it has reopened its slot itself
                fruitful = successful or lost or hung
                self._fruitless[post] = 0 if fruitful else self._fruitless[post] + 1
                self._tell(ended)
                if self._interrupted or ended.code in NOT_REPLACED or self._gives_up(post, ended):
                    self._given_up.add(post)
                else:
                    self._hire([post])
            self._on_change()

    def _gives_up(self, post: int, ended: Ended) -> bool:
        """Whether to leave a post empty; of workers that share a device, who has no memory goes."""
        device = self._posts[post].device
        sharing = [
            other
            for other in range(len(self._posts))
            if other not in {post, *self._given_up} and self._posts[other].device == device
        ]
        if ended.code == ExitCode.OUT_OF_MEMORY and sharing:
            go = "1 goes" if len(sharing) == 1 else f"{len(sharing)} go"
            self._on_note(f"{device} has no memory for so many workers: {go} on there")
            return True
        return self._fruitless[post] >= MOST_FRUITLESS.get(ended.code, EARLY_DEATHS)

    def _release(self, stage: Study, ended: Ended) -> int:
        """Reopen a worker's slots; record how it was lost unless it was told to leave."""
        name = self._names[ended.index]
        if self._interrupted:
            return stage.slots.release(name)
        return release(stage, name, ended.code)

    def _tell(self, ended: Ended) -> None:
        """Report how a worker was lost, once per exit code."""
        if self._interrupted or ended.code in (*LEFT_IN_ORDER, *self._told):
            return
        self._told.add(ended.code)
        text = f"a worker {ended.how}{_last_words(ended)}; its output is in {ended.log}"
        self._on_note(text)
        self._on_loss(text)

    def _why(self, left: int, ended: Ended) -> str:
        words, again = _last_words(ended), proposals.again()
        trials = "1 trial is left" if left == 1 else f"{left} trials are left"
        if ended.code in LEFT_BY_FAILURE:
            return f"{trials}, but trials kept failing here{words}. To resume: {again}"
        return f"{trials}, but the last worker {ended.how}{words}. To resume: {again}"

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Make SIGTERM, and SIGHUP unless it is ignored, raise KeyboardInterrupt too.

        Only in the main thread, where signals arrive. A closing terminal may send several SIGHUP:
        only the first one counts.
        """

        def terminate(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        def hang_up(_number: int, _frame: object) -> None:
            if not self._interrupted:
                raise KeyboardInterrupt

        if threading.current_thread() is not threading.main_thread():  # in a notebook or a server
            yield
            return
        handlers: dict[int, Callable[[int, object], None]] = {signal.SIGTERM: terminate}
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handlers[signal.SIGHUP] = hang_up
        before = {number: signal.signal(number, each) for number, each in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ends(stage: Study, worker: str) -> list[State]:
    """The states of the trials held by the worker."""
    return [each.state for each in stage.history.records() if each.worker == worker]


def _last_words(ended: Ended) -> str:
    """The error message of a worker that exited by itself, in parentheses."""
    said = complaint(ended.said) if ended.code > 0 else ""
    return f" ({said})" if said else ""
