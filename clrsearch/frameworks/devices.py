"""Where a library's Trainer trains, compared with where the trial is to."""

from __future__ import annotations

import torch
import torch.distributed as dist

from clrsearch.errors import TaskError


def require_own_device(trainer: str, own: torch.device, found: torch.device, count: int) -> None:
    """Refuse a Trainer that trains on ``count`` devices, or elsewhere than on the trial's ``own``.

    With several GPUs per trial, it has to train on all of them, through the group that is there.

    Raises:
        TaskError: naming the ``trainer``, and what to pass to it.
    """
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if ranks > 1 and count != ranks:
        raise TaskError(
            f"{trainer} trains on {count} devices, and the trial on {ranks} (--gpus-per-trial): "
            f"set the number of devices to {ranks}, or leave it to the environment"
        )
    if count > 1 and ranks == 1:
        raise TaskError(
            f"{trainer} trains on {count} devices, and a trial has one: leave the number of "
            "devices at 1, and start one worker per GPU"
        )
    if found.type != own.type:
        raise TaskError(
            f"{trainer} trains on {found.type}, and the trial on {own.type}: choose run.device"
        )
