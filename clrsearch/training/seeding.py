"""Where a run's randomness comes from: study seed, seed index and epoch, never the worker."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import torch

Purpose = Literal["init", "order", "epoch"]


def derive(seed: int, seed_index: int, purpose: Purpose, epoch: int = 0) -> int:
    """A 63-bit seed, independent for each combination of its arguments.

    ``seed_index`` tells runs of one study apart that are meant to differ in their randomness; all
    runs of a search share index 0 (common random numbers).
    """
    entropy = (seed, seed_index, ("init", "order", "epoch").index(purpose), epoch)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_everything(seed: int) -> None:
    """Set the global generators of torch (every device), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
