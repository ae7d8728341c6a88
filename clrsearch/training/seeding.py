"""Random seeds of a run: derived from study seed, seed index and epoch, never from the worker."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

Purpose = Literal["init", "order", "epoch", "data", "statistics"]


def derive(seed: int, seed_index: int, purpose: Purpose, epoch: int = 0) -> int:
    """A 63-bit seed, independent for each combination of arguments.

    ``seed_index`` distinguishes runs of a study that should differ in their randomness; all runs of
    a search share index 0 (common random numbers).
    """
    entropy = (seed, seed_index, get_args(Purpose).index(purpose), epoch)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def of_rank(seed: int, rank: int) -> int:
    """The seed of one process of a group for what differs between them; rank 0 keeps it."""
    if rank == 0:
        return seed
    return int(np.random.SeedSequence((seed, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch (all devices), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generators:
    """The states of the global generators of torch, on the CPU and a device, NumPy and Python."""

    host: torch.Tensor
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]
    device: torch.Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Generators:
        """Their present states."""
        found = None
        if device.type == "cuda":
            found = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            found = torch.mps.get_rng_state()
        numpy = cast(tuple[Any, ...], np.random.get_state(legacy=True))
        own = torch.get_rng_state()
        return cls(host=own, numpy=numpy, python=random.getstate(), device=found)

    def same_in_torch(self, other: Generators) -> bool:
        """Whether torch's generators are in the same states."""
        pairs = [(self.host, other.host)]
        if self.device is not None and other.device is not None:
            pairs.append((self.device, other.device))
        return all(torch.equal(*pair) for pair in pairs)

    def same_on_host(self, other: Generators) -> bool:
        """Whether NumPy's and Python's generators are in the same states."""
        equal = all(map(np.array_equal, self.numpy, other.numpy))
        return equal and self.python == other.python

    def restore(self, device: torch.device) -> None:
        """Return the generators to these states."""
        torch.set_rng_state(self.host.cpu())
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device.cpu(), device)
        elif self.device is not None and device.type == "mps":
            torch.mps.set_rng_state(self.device.cpu())


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the global generators, as types that ``torch.load`` considers safe."""
    return plain_state(Generators.now(device), device)


def plain_state(states: Generators, device: torch.device) -> dict[str, Any]:
    """States of generators as :func:`random_state` returns them."""
    name, keys, *rest = states.numpy
    state: dict[str, Any] = {
        "torch": states.host,
        "numpy": (name, keys.tolist(), *rest),
        "python": states.python,
    }
    if states.device is not None:
        state[device.type] = states.device
    return state


def generators_in(state: Mapping[str, Any], device: torch.device) -> Generators:
    """The states returned by :func:`random_state`."""
    return Generators(
        host=state["torch"],
        numpy=tuple(state["numpy"]),
        python=state["python"],
        device=state.get(device.type),
    )


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore the global generators to a state returned by :func:`random_state`."""
    generators_in(state, device).restore(device)
