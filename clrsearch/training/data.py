"""Batches of a task's data, on its device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from clrsearch.errors import TaskError
from clrsearch.tasks import describe
from clrsearch.training.seeding import random_state, restore_random_state, seed_everything

RESIDENT = 0.25
"""Largest share of a GPU's free memory for a split; a larger one stays in the host's memory."""
_END = object()

Collate = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of each batch that one process of a group takes: the ``rank``-th of ``ranks``."""

    rank: int = 0
    ranks: int = 1

    def within(self, length: int) -> slice:
        """Its samples in a batch of this length; of an uneven batch it may be fewer, or none."""
        size = -(-length // self.ranks)
        return slice(self.rank * size, min((self.rank + 1) * size, length))

    def require_equal(self, what: str, length: int) -> None:
        """Refuse a training batch that is not shared equally.

        Raises:
            TaskError: naming the batch by ``what``.
        """
        if length % self.ranks:
            fits = length // self.ranks * self.ranks or self.ranks
            raise TaskError(
                f"{what} is {length}, which {self.ranks} processes cannot share equally: choose "
                f"one that {self.ranks} divides, such as {fits}, or another --gpus-per-trial"
            )


WHOLE = Share()
"""All of each batch, for a process that trains alone."""


class Shuffled(Protocol):
    """Batches in random orders; ``full`` is the number of full ones, None if unknown."""

    @property
    def full(self) -> int | None: ...

    def shuffled(self, seed: int, start: int = 0) -> Iterator[Any]:
        """Full batches in an order determined by ``seed``, starting at batch ``start``.

        An incomplete last batch is dropped.
        """


class Batches(Shuffled, Protocol):
    """One split cut into batches on the device: any structure of tensors.

    ``samples`` is their number; None if unknown.
    """

    @property
    def samples(self) -> int | None: ...

    def in_order(self) -> Iterator[Any]:
        """Every sample once; the last batch may be smaller.

        In a group, None stands for a batch of which this rank's share is empty.
        """

    def apart(self, readers: int) -> Batches | None:
        """A reader of the same data for one of so many runs that draw from it in turn.

        None if the data can be read in one order at a time only.
        """


class TensorBatches:
    """Batches of a dataset of tensors in memory: on the device, if they fit there."""

    def __init__(
        self,
        dataset: TensorDataset,
        batch_size: int,
        device: torch.device,
        share: Share = WHOLE,
    ) -> None:
        self.samples = len(dataset)
        self.full = self.samples // batch_size
        self._batch_size = batch_size
        self._part = share.within(batch_size)
        self._device = device
        self._stays = fits(dataset.tensors, device)
        tensors = dataset.tensors
        self._tensors = [tensor.to(device) for tensor in tensors] if self._stays else [*tensors]

    def shuffled(self, seed: int, start: int = 0) -> Iterator[tuple[torch.Tensor, ...]]:
        """See :class:`Batches`."""
        order = permutation(self.samples, seed).to(self._tensors[0].device)
        size = self._batch_size
        if self._device.type != "cpu":
            for indices in order[start * size : self.full * size].view(-1, size)[:, self._part]:
                yield self._moved([tensor[indices] for tensor in self._tensors])
            return
        # Slices of one copy, as ever: sums on a CPU depend on where in memory a batch begins.
        whole = [tensor[order] for tensor in self._tensors]
        for first in range(start * size, self.full * size, size):
            batch = slice(first + self._part.start, first + self._part.stop)
            yield tuple([each[batch] for each in whole])

    def in_order(self) -> Iterator[tuple[torch.Tensor, ...] | None]:
        """See :class:`Batches`."""
        for first in range(0, self.samples, self._batch_size):
            begin, end = first + self._part.start, first + self._part.stop
            if begin < self.samples:
                yield self._moved([tensor[begin:end] for tensor in self._tensors])
            else:
                yield None

    def apart(self, readers: int) -> Batches:
        """See :class:`Batches`; nothing is changed by reading."""
        return self

    def rows(self) -> Shuffled:
        """The same batches as the numbers of their samples, on the CPU; see :meth:`at`."""
        return _Rows(self.samples, self._batch_size)

    def at(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The samples of these numbers, in the shape of ``rows``."""
        rows = rows.to(self._tensors[0].device)
        return self._moved([tensor[rows] for tensor in self._tensors])

    def _moved(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if self._stays:
            return tuple(parts)
        return tuple(
            part.to(self._device)
            if part.device.type != "cpu"
            else part.pin_memory().to(self._device, non_blocking=True)
            for part in parts
        )


class _Rows:
    """Batches of sample numbers; see :class:`Shuffled`."""

    def __init__(self, samples: int, batch_size: int) -> None:
        self.full = samples // batch_size
        self._samples = samples
        self._batch_size = batch_size

    def shuffled(self, seed: int, start: int = 0) -> Iterator[torch.Tensor]:
        size = self._batch_size
        order = permutation(self._samples, seed)
        yield from order[start * size : self.full * size].view(-1, size)


class DatasetBatches:
    """Batches of any map-style dataset, by torch's DataLoader with ``workers`` processes.

    With workers, each batch is drawn under a seed of its own, so that augmentation does not depend
    on their number and a run resumes within an epoch. Without them, samples draw from the run's
    generators.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        device: torch.device,
        collate: Collate,
        workers: int = 0,
        share: Share = WHOLE,
    ) -> None:
        self.samples = len(cast(Sized, dataset))
        self.full = self.samples // batch_size
        self._batch_size = batch_size
        self._part = share.within(batch_size)
        self._device = device
        self._seeded = workers > 0
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None
        self._make = partial(DatasetBatches, dataset, batch_size, device, collate, share=share)
        self._workers = workers
        self._make_loader = partial(
            DataLoader[Any],
            _Seeded(dataset) if workers else dataset,
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # otherwise it draws a seed from the global one
        )

    def shuffled(self, seed: int, start: int = 0) -> Iterator[Any]:
        """See :class:`Batches`."""
        size = self._batch_size
        order: list[int] = permutation(self.samples, seed).tolist()
        yield from self._load(order[start * size : self.full * size], seed)

    def in_order(self) -> Iterator[Any]:
        """See :class:`Batches`."""
        missing = -(-self.samples // self._batch_size)
        for batch in self._load(range(self.samples), seed=0):
            missing -= 1
            yield batch
        yield from [None] * missing

    def apart(self, readers: int) -> Batches:
        """See :class:`Batches`; the readers share the number of loading processes."""
        return self._make(workers=-(-self._workers // readers))

    def _load(self, order: Sequence[int], seed: int) -> Iterator[Any]:
        size = self._batch_size
        parts = [order[first : first + size][self._part] for first in range(0, len(order), size)]
        batches = [list(part) for part in parts if len(part)]
        if self._seeded:
            batches = [[(seed + batch[0]) % 2**63, *batch] for batch in batches]
        self._order.batches = batches
        if self._loader is None:
            self._loader = self._make_loader()
        try:
            for batch in self._loader:
                yield moved(batch, self._device)
        except Exception:
            self._loader = None  # it goes on failing, once one of its processes has died
            raise


class LoaderBatches:
    """Batches of a task's own loader: a DataLoader, or anything else that is iterated over.

    ``full`` is its length, None if it has none.
    """

    def __init__(
        self, loader: Iterable[Any], device: torch.device, split: str, share: Share = WHOLE
    ) -> None:
        self.samples = None
        try:
            self.full: int | None = len(cast(Sized, loader))
        except TypeError:
            self.full = None
        self._loader = loader
        self._device = device
        self._split = split
        self._share = share

    def shuffled(self, seed: int, start: int = 0) -> Iterator[Any]:
        """See :class:`Batches`; shuffling is up to the loader, which is seeded for it.

        To begin at ``start``, the batches before it are drawn and dropped. A rank of a group draws
        whole batches, and takes its share of each.
        """
        what = f"loaders(): the length of a batch of the {self._split} loader"
        for batch in self._drawn(seed, start):
            if self._share.ranks > 1:
                self._share.require_equal(what, batch_length(batch))
            yield moved(self._part_of(batch), self._device)

    def in_order(self) -> Iterator[Any]:
        """See :class:`Batches`."""
        for batch in self._drawn(0, 0):
            part = self._part_of(batch)
            yield None if part is None else moved(part, self._device)

    def apart(self, readers: int) -> None:
        """See :class:`Batches`."""
        return

    def _drawn(self, seed: int, start: int) -> Iterator[Any]:
        with _drawn_under(seed):
            reseed(self._loader, seed)
            iterator = iter(self._loader)
        for number in count():
            with _drawn_under((seed + number) % 2**63):  # whatever the run draws in between
                batch = next(iterator, _END)
            if batch is _END:
                return
            require_batch(f"loaders(): the {self._split} loader yields", batch)
            if number >= start:
                yield batch

    def _part_of(self, batch: Any) -> Any:
        """This rank's share of a batch; None if it is empty."""
        if self._share.ranks == 1:
            return batch
        length = batch_length(batch)
        if not length:
            raise self._uncut(batch)
        part = self._share.within(length)
        if part.start >= part.stop:
            return None

        def cut(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor):
                return leaf[part] if leaf.dim() and len(leaf) == length else leaf
            if isinstance(leaf, Mapping):  # with a to() of its own, as a tokenizer's
                kind: Any = type(leaf)
                return kind({key: mapped(value, cut) for key, value in leaf.items()})
            if hasattr(leaf, "to") or isinstance(leaf, str):
                raise self._uncut(leaf)
            return leaf

        return mapped(batch, cut)

    def _uncut(self, content: object) -> TaskError:
        return TaskError(
            f"loaders(): the {self._split} loader yields {describe(content)}, of which a process "
            "of a group cannot take its share: yield tensors, or a dict, list or tuple of them"
        )


def reseed(loader: Any, seed: int) -> None:
    """Seed the generators of a loader, of its samplers and of its dataset.

    Those with ``set_epoch`` are told the pass over the data by this seed.
    """
    generator = getattr(loader, "generator", None)
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(seed % 2**31)
    for name in ("sampler", "batch_sampler", "dataset"):
        part = getattr(loader, name, None)
        if part is not None:
            reseed(part, seed)


class _Order(Sampler[Any]):
    """The batches of an epoch, set before it."""

    def __init__(self) -> None:
        self.batches: Sequence[Sequence[int]] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Seeded(Dataset[Any]):
    """A dataset whose batches are drawn under the seed that comes before their indices."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset: Any = dataset

    def __getitems__(self, place: Sequence[int]) -> Any:
        seed, *indices = place
        _seed_host(seed)
        if hasattr(self._dataset, "__getitems__"):
            return self._dataset.__getitems__(indices)
        return [self._dataset[index] for index in indices]


def _seed_host(seed: int) -> None:
    """Seed the generators that loading draws from: not a GPU's, which takes far longer."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def _drawn_under(seed: int) -> Iterator[None]:
    """As :func:`drawn_apart`, for the generators that loading draws from."""
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    _seed_host(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


@contextmanager
def drawn_apart(seed: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers from ``seed`` in the block; the generators are as before afterwards."""
    before = random_state(device)
    seed_everything(seed)
    try:
        yield
    finally:
        restore_random_state(before, device)


def fits(tensors: Sequence[torch.Tensor], device: torch.device) -> bool:
    """Whether tensors may stay on the device for good; they always may where they already are."""
    if device.type != "cuda":
        return True
    elsewhere = [each for each in tensors if each.device.type != device.type]
    free, _ = torch.cuda.mem_get_info(device)
    return sum(each.nbytes for each in elsewhere) <= RESIDENT * free


def permutation(samples: int, seed: int) -> torch.Tensor:
    """A random order of ``samples`` indices, the same for every kind of :class:`Batches`."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))


def moved(content: Any, device: torch.device) -> Any:
    """Tensors and other objects with ``to()`` on ``device``, in any containers; see :func:`mapped`.

    Everything else stays as it is.
    """

    def move(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device, non_blocking=leaf.is_pinned())
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return mapped(content, move)


def channels_last(batch: Any) -> Any:
    """The batch with its (N, C, H, W) tensors stored with the channels last."""

    def lay_out(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.dim() == 4:
            return leaf.to(memory_format=torch.channels_last)
        return leaf

    return mapped(batch, lay_out)


def mapped(content: Any, change: Callable[[Any], Any]) -> Any:
    """The content with ``change`` applied to what its containers hold.

    Containers are dicts, lists, tuples and named tuples without a ``to()`` of their own.
    """
    if hasattr(content, "to"):
        return change(content)
    if isinstance(content, dict):
        return {key: mapped(value, change) for key, value in content.items()}
    if isinstance(content, tuple) and hasattr(content, "_fields"):
        return type(content)(*(mapped(value, change) for value in content))
    if type(content) in (list, tuple):
        return type(content)(mapped(value, change) for value in content)
    return change(content)


def require_batch(what: str, batch: object) -> None:
    """Reject a batch without a tensor in it, such as a string.

    Raises:
        TaskError: beginning with ``what``.
    """
    if not _holds_tensors(batch):
        raise TaskError(
            f"{what} {describe(batch)}, but a batch must be a tensor, an object with to(), or a "
            "dict, list or tuple with one in it"
        )


def _holds_tensors(content: object) -> bool:
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        return any(map(_holds_tensors, content))
    return hasattr(content, "to")


def batch_length(batch: Any) -> int:
    """The number of samples in a batch: the first dimension of its first tensor with one."""
    parts = list(batch.values()) if isinstance(batch, Mapping) else batch
    if isinstance(parts, (list, tuple)):
        return next((length for part in parts if (length := batch_length(part))), 0)
    return len(parts) if isinstance(parts, torch.Tensor) and parts.dim() else 0
