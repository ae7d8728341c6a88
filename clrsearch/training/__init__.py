"""Runs traces on tasks; knows nothing of Optuna or of the search."""

from clrsearch.training.probe import probe
from clrsearch.training.run import Diverged, Epoch, Run
from clrsearch.training.sequential import SequentialRun, TaskData, warm_up

__all__ = ["Diverged", "Epoch", "Run", "SequentialRun", "TaskData", "probe", "warm_up"]
