"""Trains tasks under schedule traces; independent of Optuna and of the search."""

from clrsearch.training.checkpoint import (
    Checkpoints,
    Identity,
    Needed,
    checkpoint_path,
    needless,
    read_checkpoint,
)
from clrsearch.training.custom_loop import OwnRun
from clrsearch.training.making import RunMaker, run_maker
from clrsearch.training.probing import probe
from clrsearch.training.rate_ramp import Ramp, ramp
from clrsearch.training.run import Diverged, Epoch, Interrupted, Run, Unrestorable
from clrsearch.training.sequential import SequentialRun, TaskData, warm_up

__all__ = [
    "Checkpoints",
    "Diverged",
    "Epoch",
    "Identity",
    "Interrupted",
    "Needed",
    "OwnRun",
    "Ramp",
    "Run",
    "RunMaker",
    "SequentialRun",
    "TaskData",
    "Unrestorable",
    "checkpoint_path",
    "needless",
    "probe",
    "ramp",
    "read_checkpoint",
    "run_maker",
    "warm_up",
]
