"""Identities of checkpoints, for tests of whatever else there is to a checkpoint."""

from __future__ import annotations

from typing import Any

from clrsearch.training import Identity


def writer(trial: int, **changes: Any) -> Identity:
    """Of an attempt that writes the checkpoint of a trial."""
    given: dict[str, Any] = {"study": "s", "family": "cyclic", "params": {}, "attempt": 1}
    return Identity(trial=trial, **(given | changes))


def reader(trial: int, **changes: Any) -> Identity:
    """Of the attempt after :func:`writer`'s, which goes on from it."""
    return writer(trial, **({"attempt": 2} | changes))
