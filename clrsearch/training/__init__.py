"""Trains tasks under schedule traces; independent of Optuna and of the search.

The names are imported when they are first used: they need torch, and a command that lists studies
does not.
"""

from typing import TYPE_CHECKING

from clrsearch.lazy import deferred

if TYPE_CHECKING:
    from clrsearch.training.checkpoint import (
        Checkpoints,
        Identity,
        Needed,
        checkpoint_path,
        needless,
        open_checkpoint,
    )
    from clrsearch.training.custom_loop import OwnRun
    from clrsearch.training.device import (
        computing,
        find_device,
        free_memory,
        model_of,
        per_gpu_devices,
        place,
        require_gpus,
        see_only,
        usable_cores,
        worker_devices,
    )
    from clrsearch.training.group import Group, joined, own_rank
    from clrsearch.training.lane_choice import Choice, choose_lanes, fewest
    from clrsearch.training.lanes import LaneRun, Lanes
    from clrsearch.training.leading import follow, lead
    from clrsearch.training.making import RunMaker, load_data, run_maker
    from clrsearch.training.probing import probe
    from clrsearch.training.rate_ramp import Ramp, ramp
    from clrsearch.training.requests import Requests
    from clrsearch.training.run import Diverged, Epoch, Interrupted, Run, Unrestorable, restoring
    from clrsearch.training.sequential import SequentialRun, warm_up
    from clrsearch.training.task_data import TaskData
    from clrsearch.training.trunks import Trunks, beginnings
else:
    __getattr__ = deferred(
        __name__,
        {
            "clrsearch.training.checkpoint": (
                *("Checkpoints", "Identity", "Needed", "checkpoint_path", "needless"),
                "open_checkpoint",
            ),
            "clrsearch.training.custom_loop": ("OwnRun",),
            "clrsearch.training.device": (
                *("find_device", "computing", "free_memory", "per_gpu_devices", "usable_cores"),
                *("model_of", "place", "require_gpus", "see_only"),
                "worker_devices",
            ),
            "clrsearch.training.group": ("Group", "joined", "own_rank"),
            "clrsearch.training.lane_choice": ("Choice", "choose_lanes", "fewest"),
            "clrsearch.training.lanes": ("LaneRun", "Lanes"),
            "clrsearch.training.leading": ("follow", "lead"),
            "clrsearch.training.making": ("RunMaker", "load_data", "run_maker"),
            "clrsearch.training.probing": ("probe",),
            "clrsearch.training.rate_ramp": ("Ramp", "ramp"),
            "clrsearch.training.requests": ("Requests",),
            "clrsearch.training.run": (
                *("Diverged", "Epoch", "Interrupted", "Run", "Unrestorable", "restoring"),
            ),
            "clrsearch.training.sequential": ("SequentialRun", "warm_up"),
            "clrsearch.training.task_data": ("TaskData",),
            "clrsearch.training.trunks": ("Trunks", "beginnings"),
        },
    )

__all__ = [
    "Checkpoints",
    "Choice",
    "Diverged",
    "Epoch",
    "Group",
    "Identity",
    "Interrupted",
    "LaneRun",
    "Lanes",
    "Needed",
    "OwnRun",
    "Ramp",
    "Requests",
    "Run",
    "RunMaker",
    "SequentialRun",
    "TaskData",
    "Trunks",
    "Unrestorable",
    "beginnings",
    "checkpoint_path",
    "choose_lanes",
    "computing",
    "fewest",
    "find_device",
    "follow",
    "free_memory",
    "joined",
    "lead",
    "load_data",
    "model_of",
    "needless",
    "open_checkpoint",
    "own_rank",
    "per_gpu_devices",
    "place",
    "probe",
    "ramp",
    "require_gpus",
    "restoring",
    "run_maker",
    "see_only",
    "usable_cores",
    "warm_up",
    "worker_devices",
]
