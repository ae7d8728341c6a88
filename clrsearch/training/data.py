"""Batches of a dataset: tensors stay on the device, anything else goes through a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from clrsearch.training.contract import collate


class Batches(Protocol):
    """A dataset cut into batches of inputs and targets on the device."""

    samples: int

    def shuffled(self, seed: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Full batches in an order determined by ``seed``, starting at batch ``start``.

        An incomplete last batch is dropped.
        """

    def in_order(self) -> Iterator[tuple[Any, Any]]:
        """Every sample once; the last batch may be smaller."""


def batches(dataset: Dataset[Any], batch_size: int, device: torch.device, split: str) -> Batches:
    """The fastest way to batch ``dataset``; ``split`` is its name in error messages."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return TensorBatches(dataset, batch_size, device)
    return LoaderBatches(dataset, batch_size, device, split)


class TensorBatches:
    """Batches of two tensors that stay on the device: each batch is a slice."""

    def __init__(self, dataset: TensorDataset, batch_size: int, device: torch.device) -> None:
        self.samples = len(dataset)
        self._batch_size = batch_size
        self._inputs, self._targets = (tensor.to(device) for tensor in dataset.tensors)

    def shuffled(self, seed: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See :class:`Batches`."""
        order = permutation(self.samples, seed).to(self._inputs.device)
        inputs, targets = self._inputs[order], self._targets[order]
        size = self._batch_size
        for first in range(start * size, self.samples - size + 1, size):
            batch = slice(first, first + size)
            yield inputs[batch], targets[batch]

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See :class:`Batches`."""
        yield from zip(
            torch.split(self._inputs, self._batch_size),
            torch.split(self._targets, self._batch_size),
            strict=True,
        )


class LoaderBatches:
    """Batches of any map-style dataset, collated by torch's DataLoader."""

    def __init__(
        self, dataset: Dataset[Any], batch_size: int, device: torch.device, split: str
    ) -> None:
        assert isinstance(dataset, Sized)
        self.samples = len(dataset)
        self._dataset = dataset
        self._batch_size = batch_size
        self._device = device
        self._collate = collate(split)

    def shuffled(self, seed: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """See :class:`Batches`."""
        order: list[int] = permutation(self.samples, seed).tolist()[start * self._batch_size :]
        yield from self._load(
            DataLoader(
                self._dataset,
                self._batch_size,
                sampler=order,
                drop_last=True,
                collate_fn=self._collate,
                generator=torch.Generator(),  # otherwise it draws a seed from the global one
            )
        )

    def in_order(self) -> Iterator[tuple[Any, Any]]:
        """See :class:`Batches`."""
        yield from self._load(
            DataLoader(
                self._dataset,
                self._batch_size,
                collate_fn=self._collate,
                generator=torch.Generator(),
            )
        )

    def _load(self, loader: DataLoader[Any]) -> Iterator[tuple[Any, Any]]:
        for inputs, targets in loader:
            yield inputs.to(self._device), targets.to(self._device)


def permutation(samples: int, seed: int) -> torch.Tensor:
    """A random order of ``samples`` indices, the same for every kind of :class:`Batches`."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))


def moved(content: Any, device: torch.device) -> Any:
    """Tensors in dicts, lists and tuples on ``device``; everything else as it is."""
    match content:
        case torch.Tensor():
            return content.to(device)
        case dict():
            return {key: moved(value, device) for key, value in content.items()}
        case list():
            return [moved(value, device) for value in content]
        case tuple() if type(content) is tuple:
            return tuple(moved(value, device) for value in content)
        case _:
            return content
