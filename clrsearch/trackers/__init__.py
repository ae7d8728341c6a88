"""Trackers of experiments, to which a study's trials are written as runs."""

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from clrsearch.errors import TrackerError
from clrsearch.trackers import to_mlflow, to_tensorboard, to_trackio, to_wandb
from clrsearch.trackers.study_runs import key_of, study_run, trial_run
from clrsearch.trackers.tracker import STUDY, Connect, Mirrored, Point, Run, Tracker

TRACKERS: Mapping[str, Connect] = MappingProxyType(
    {
        "mlflow": to_mlflow.connect,
        "wandb": to_wandb.connect,
        "trackio": to_trackio.connect,
        "tensorboard": to_tensorboard.connect,
    }
)
"""All trackers by name, which is also that of their package and of our extra."""


def require_tracker(name: str) -> None:
    """Refuse a tracker that is unknown or not installed.

    Raises:
        TrackerError: saying what to do.
    """
    if name not in TRACKERS:
        raise TrackerError(f"unknown tracker {name!r}: it must be one of {', '.join(TRACKERS)}")
    found = find_spec(name)
    if found is None or found.origin is None:  # a folder of that name, which wandb itself makes
        raise TrackerError(f"{name} is not installed: pip install 'clrsearch[{name}]'")


def connect(name: str, study: Mirrored, into: str | None = None) -> Tracker:
    """Open a tracker for a study, in a place of the tracker's own kind, or in its usual one.

    Raises:
        TrackerError: it is unknown, not installed, or cannot be reached or written.
    """
    require_tracker(name)
    return TRACKERS[name](study, into)


__all__ = [
    "STUDY",
    "TRACKERS",
    "Connect",
    "Mirrored",
    "Point",
    "Run",
    "Tracker",
    "connect",
    "key_of",
    "require_tracker",
    "study_run",
    "trial_run",
]
