"""Runs of a group: rank 0 decides as a worker does, and the others do the same at the same time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, Unpack

import torch

from clrsearch.errors import RankLost, RanksApart, TaskError
from clrsearch.schedules import Trace
from clrsearch.training.data import moved
from clrsearch.training.group import Apart, Group, Phase, Status
from clrsearch.training.making import RunMaker, RunOptions
from clrsearch.training.run import Diverged, Epoch, Interrupted, Run, Unrestorable

RANKS = "ranks"
"""The part of a state that holds what differs from rank to rank, beginning with rank 1."""
OWN = ("random", "loss")

Result = TypeVar("Result")
_PHASES: Mapping[type[BaseException], Phase] = {
    Diverged: Phase.DIVERGED,
    Interrupted: Phase.INTERRUPTED,
    Unrestorable: Phase.UNRESTORABLE,
}


@dataclass(frozen=True, slots=True)
class _Begin:
    trace: Trace
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Restore:
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Ended:
    """An interval's end is over: whether to go on; None if rank 0 leaves the run there."""

    goes_on: bool | None


TRAIN, STATE, TEST, END = "train", "state", "test", "end"


class Left(BaseException):
    """Unwinds a follower's run at the end of an interval where rank 0 has left it."""


@contextmanager
def lead(make_run: RunMaker, group: Group) -> Iterator[RunMaker]:
    """For rank 0: a maker of runs that all ranks make; the others :func:`follow` until the end."""

    def make(trace: Trace, **options: Unpack[RunOptions]) -> Run:
        return LedRun(make_run, group, trace, options)

    try:
        yield make
    finally:
        if not group.torn:  # or this would wait for ranks that no longer listen
            with suppress(RankLost):
                group.of_first(END)


class LedRun:
    """Rank 0's part of a run; see :class:`Run`.

    Its methods raise a RanksApart, which is a TaskError, if a rank failed alone, and a RankLost if
    one is gone. After both, the group is of no use any more.
    """

    def __init__(self, make_run: RunMaker, group: Group, trace: Trace, options: RunOptions) -> None:
        interrupted = options.get("interrupted", lambda: False)
        told: dict[str, Any] = {
            key: value for key, value in options.items() if key != "interrupted"
        }
        self._group = group
        if group.torn:
            raise RankLost("the group was torn apart in the trial before")
        group.of_first(_Begin(trace, told))
        group.begin()

        def poll() -> bool:
            asked = Status.STOP if interrupted() else Status.GO_ON
            return group.agree(Phase.POLL, asked) == Status.STOP

        self._run = _together(group, lambda: make_run(trace, interrupted=poll, **told))

    @property
    def epoch(self) -> int:
        """See :class:`Run`."""
        return self._run.epoch

    @property
    def seconds(self) -> float:
        """See :class:`Run`."""
        return self._run.seconds

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """See :meth:`Run.train`."""

        def ended(epoch: Epoch) -> bool:
            self._group.agree(Phase.INTERVAL)
            try:
                goes_on = on_epoch(epoch)
            except (RankLost, RanksApart):
                raise
            except BaseException as error:
                self._group.of_first(_Ended(None))
                raise Left from error
            self._group.of_first(_Ended(goes_on))
            return goes_on

        self._group.of_first(TRAIN)
        try:
            _together(self._group, lambda: self._run.train(ended))
        except Left as left:
            cause = left.__cause__
            assert cause is not None
            raise cause from cause.__cause__

    def test(self) -> dict[str, float]:
        """See :meth:`Run.test`."""
        self._group.of_first(TEST)
        return _together(self._group, self._run.test)

    def state(self) -> dict[str, Any] | None:
        """See :meth:`Run.state`."""
        self._group.of_first(STATE)
        return _state(self._run, self._group)

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`."""
        self._group.of_first(_Restore(state))
        _restore(self._run, self._group, state)


def follow(make_run: RunMaker, group: Group) -> None:
    """For all other ranks: make and train the runs that rank 0 does, until it ends the group.

    Raises:
        RanksApart: a rank failed alone.
        RankLost: another rank is gone.
    """
    follower = _Follower(make_run, group)
    while (said := group.of_first(None)) != END:
        with _left_to_rank_0():
            follower.do(said)


class _Follower:
    """Another rank's part of the runs."""

    def __init__(self, make_run: RunMaker, group: Group) -> None:
        self._make_run = make_run
        self._group = group
        self._run: Run | None = None

    def do(self, said: Any) -> None:
        """Do what rank 0 has said it does."""
        if isinstance(said, _Begin):
            self._run = None
            _collect(self._group)
            self._group.begin()
            self._run = _together(self._group, lambda: self._begun(said))
            return
        run = self._run
        assert run is not None
        if isinstance(said, _Restore):
            _restore(run, self._group, said.state)
        elif said == TRAIN:
            _together(self._group, lambda: run.train(self._ended))
        elif said == TEST:
            _together(self._group, run.test)
        else:
            _state(run, self._group)

    def _begun(self, said: _Begin) -> Run:
        return self._make_run(said.trace, interrupted=self._poll, **said.options)

    def _poll(self) -> bool:
        return self._group.agree(Phase.POLL) == Status.STOP

    def _ended(self, _: Epoch) -> bool:
        """At the end of an interval: do as rank 0 does, until it goes on or leaves."""
        self._group.agree(Phase.INTERVAL)
        while not isinstance(said := self._group.of_first(None), _Ended):
            with _left_to_rank_0():
                self.do(said)
        if said.goes_on is None:
            raise Left
        return said.goes_on


def _together(group: Group, act: Callable[[], Result]) -> Result:
    """Do on all ranks what ends in the same way on all of them.

    Raises:
        RanksApart: it failed on one of them alone.
        RankLost: one of them is gone.
    """
    try:
        try:
            result = act()
        except RanksApart:
            raise
        except RankLost as error:
            raise Apart from error
        except Left:
            group.agree(Phase.LEFT)
            raise
        except (Diverged, Interrupted, Unrestorable) as end:
            group.agree(_PHASES[type(end)])
            raise
        except Exception as error:
            group.fail(error)
            raise
        group.agree(Phase.DONE)
        return result
    except Apart:
        _blame(group)


def _blame(group: Group) -> NoReturn:
    group.torn = True
    error = group.blame()
    raise error from error.__cause__


@contextmanager
def _left_to_rank_0() -> Iterator[None]:
    """Wraps what ended alike on all ranks: rank 0 says what follows from it."""
    try:
        yield
    except RanksApart:
        raise
    except (Left, Interrupted, Diverged, Unrestorable, TaskError, RuntimeError, MemoryError):
        return


def _state(run: Run, group: Group) -> dict[str, Any] | None:
    def gathered() -> dict[str, Any] | None:
        state = run.state()
        if state is None:
            return None
        own = {key: state[key] for key in OWN if key in state}
        return {**state, RANKS: group.gathered(moved(own, torch.device("cpu")))[1:]}

    return _together(group, gathered)


def _restore(run: Run, group: Group, state: Mapping[str, Any]) -> None:
    ranks = state.get(RANKS, ())
    if 0 < group.rank <= len(ranks):
        state = {**state, **ranks[group.rank - 1]}
    restored = state
    _together(group, lambda: run.restore(restored))


def _collect(group: Group) -> None:
    """Free the device's memory of the run before, as rank 0's worker does."""
    if group.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
