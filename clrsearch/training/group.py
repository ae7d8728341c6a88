"""A group of processes that train one trial together, its ranks: one per GPU.

Tensors of the training are reduced over torch's default process group. What the ranks agree on
besides goes over a group of its own, on the CPU, which waits for as long as rank 0 takes: a rank
that has died is noticed at once, and one that is silent by rank 0's watchdog.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from itertools import chain, zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, ProcessGroup, Store
from torch.distributed.rendezvous import rendezvous

from clrsearch.errors import RankLost, RanksApart, TaskError, TaskRaised
from clrsearch.training.data import Share

FOREVER = timedelta(days=365)
COLLECTIVE = timedelta(minutes=30)  # for one operation of the training itself
SETTLE = timedelta(seconds=10)  # for the others to fail as well, once a rank has

_LOST = re.compile(r"gloo|NCCL|Connection (?:closed|reset|refused)", re.IGNORECASE)


class Phase(IntEnum):
    """Where in a run the ranks meet; they are never at two of these places at once."""

    POLL = 1
    INTERVAL = 2
    DONE = 3
    LEFT = 4
    DIVERGED = 5
    INTERRUPTED = 6
    UNRESTORABLE = 7
    REPORT = 8
    GATHER = 9


class Status(IntEnum):
    """What a rank says when they meet; the highest counts."""

    GO_ON = 0
    STOP = 1
    FAILED = 2


class Apart(BaseException):
    """Unwinds a run of which another rank has failed, or is elsewhere in its run.

    It is not an ``Exception``, so that no task catches it.
    """


class Group:
    """The group that this process belongs to.

    Attributes:
        rank: this process's number in it; rank 0 leads.
        size: the number of processes.
        device: where this one trains.
        torn: whether a rank failed alone or is gone, after which the group is of no use.
    """

    def __init__(self, rank: int, size: int, device: torch.device, store: Store) -> None:
        """Join through a ``store``; use :func:`joined`."""
        self.rank = rank
        self.size = size
        self.device = device
        self.torn = False
        self._store = store
        self._trial = 0
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("training", store),
            rank=rank,
            world_size=size,
            timeout=COLLECTIVE,
        )
        control = dist.new_group(backend="gloo", timeout=FOREVER)
        assert isinstance(control, ProcessGroup)  # all ranks are in it
        self._control = control

    @property
    def share(self) -> Share:
        """This rank's part of each batch."""
        return Share(rank=self.rank, ranks=self.size)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over all ranks of a tensor on the device."""
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors on the device with those of rank 0."""
        for each in tensors:
            dist.broadcast(each, src=0)

    def gathered(self, content: Any) -> list[Any]:
        """The contents of all ranks, by rank.

        Raises:
            Apart, RankLost: see :meth:`agree`.
        """
        self.agree(Phase.GATHER)
        found: list[Any] = [None] * self.size
        with _noticing():
            dist.all_gather_object(found, content, group=self._control)
        return found

    def in_turn(self, parts: Sequence[Any]) -> list[Any]:
        """All ranks' parts of each batch, batch after batch: so the samples are in order."""
        batches = zip_longest(*self.gathered(list(parts)), fillvalue=None)
        return [part for part in chain.from_iterable(batches) if part is not None]

    def of_first(self, content: Any) -> Any:
        """The content that rank 0 has passed; where all ranks are known to be at the same place."""
        found = [content]
        with _noticing():
            dist.broadcast_object_list(found, src=0, group=self._control)
        return found[0]

    def begin(self) -> None:
        """Begin another trial; on all ranks."""
        self._trial += 1

    def agree(self, phase: Phase, status: Status = Status.GO_ON) -> Status:
        """Meet the other ranks; returns the highest status.

        Raises:
            Apart: one of them has failed, or is elsewhere.
            RankLost: one of them is gone.
        """
        highest, _, last, first = self._meet(phase, status, FOREVER)
        if highest == Status.FAILED:
            raise Apart
        if first != last:
            self._note(
                TaskError(
                    "the processes of a group went apart: each must take the same steps and "
                    "report as often"
                )
            )
            raise Apart
        return Status(highest)

    def fail(self, error: Exception) -> None:
        """Tell the other ranks that this one has failed; returns if they have, too.

        Raises:
            Apart: this one failed alone, or others are gone.
        """
        self._note(error)
        try:
            _, lowest, _, _ = self._meet(Phase.DONE, Status.FAILED, SETTLE)
        except RankLost:
            raise Apart from error
        if lowest != Status.FAILED:
            raise Apart from error

    def blame(self) -> RanksApart | RankLost:
        """What tore the group apart: the first rank that failed, or one that is gone."""
        keys = [self._key(rank) for rank in range(self.size)]
        try:
            noted = [json.loads(self._store.get(key)) for key in keys if self._store.check([key])]
        except dist.DistError:
            noted = []
        for each in noted:
            if each["kind"] != "lost":
                found = RanksApart(each["message"], each["traceback"])
                found.__cause__ = _KINDS[each["kind"]](each["message"])
                return found
        return RankLost("another process of the group was lost")

    def _meet(self, phase: Phase, status: Status, wait: timedelta) -> tuple[int, int, int, int]:
        """The highest and lowest status, and the last and first phase."""
        word = torch.tensor([status, -status, phase, -phase])
        with _noticing():
            work = dist.all_reduce(word, dist.ReduceOp.MAX, group=self._control, async_op=True)
            assert work is not None
            work.wait(wait)
        highest, lowest, last, first = word.tolist()
        return highest, -lowest, last, -first

    def _note(self, error: Exception) -> None:
        """Have the others know of an error; they can read it when this process is gone."""
        content = {
            "kind": _kind(error),
            "message": str(error),
            "traceback": error.traceback if isinstance(error, TaskRaised) else str(error),
        }
        try:
            self._store.set(self._key(self.rank), json.dumps(content))
        except dist.DistError:
            return  # whoever started the group is gone

    def _key(self, rank: int) -> str:
        return f"failed/{self._trial}/{rank}"


_KINDS: dict[str, type[Exception]] = {
    "task": RuntimeError,
    "memory": torch.OutOfMemoryError,
    "device": torch.AcceleratorError,
}
"""How an error is told: by the task, for want of memory, or by the device; or a lost connection."""


def _kind(error: BaseException) -> str:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError | torch.OutOfMemoryError):
            return "memory"
        if is_lost_connection(found):
            return "lost"
        if isinstance(found, torch.AcceleratorError):
            return "device"
        found = found.__cause__
    return "task"


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says that another rank is gone, or did not answer."""
    if isinstance(error, RankLost | dist.DistError):
        return True
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


@contextmanager
def _noticing() -> Iterator[None]:
    """Wraps an operation of all ranks.

    Raises:
        RankLost: another rank is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_connection(error) and "timed out" not in str(error).lower():
            raise
        said = str(error).partition("\n")[0]
        raise RankLost(f"another process of the group was lost: {said}") from error


def own_rank() -> int:
    """The number of this process in its group, from the environment."""
    return int(os.environ["RANK"])


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the group that the environment describes, as torch's launchers set it.

    With several GPUs, ``device`` is that of this rank.
    """
    if sys.platform == "linux":  # all ranks are on this machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store, rank, size = next(rendezvous("env://"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    yield Group(rank, size, device, store)
    dist.destroy_process_group()  # not after an error, for it may wait for the others
