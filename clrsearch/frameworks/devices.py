"""Where a library's Trainer trains, compared with where the trial is to."""

from __future__ import annotations

import torch

from clrsearch.errors import TaskError


def require_own_device(trainer: str, own: torch.device, found: torch.device, count: int) -> None:
    """Refuse a Trainer that trains on ``count`` devices, or elsewhere than on the trial's ``own``.

    Raises:
        TaskError: naming the ``trainer``, and what to pass to it.
    """
    if count > 1:
        raise TaskError(
            f"{trainer} trains on {count} devices, and a trial has one: leave the number of "
            "devices at 1, and start one worker per GPU"
        )
    if found.type != own.type:
        raise TaskError(
            f"{trainer} trains on {found.type}, and the trial on {own.type}: choose run.device"
        )
