"""Random seeds of a run: derived from study seed, seed index and epoch, never from the worker."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

Purpose = Literal["init", "order", "epoch", "data"]


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


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the global generators, as types that ``torch.load`` considers safe."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, keys.tolist(), *rest),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore the global generators to a state returned by :func:`random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state["mps"].cpu())
