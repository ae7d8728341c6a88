"""Passes over the training data, which another library's loop makes: where a run is in them.

An interval between two validations may end within a pass, and a run go on from there. What is drawn
in a pass therefore has seeds of its own, whatever was drawn before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clrsearch.training import OwnRun
from clrsearch.training.seeding import derive, seed_everything

ENDED = (
    "the training loader ended after fewer batches than the run has taken: without a length, it "
    "has to last for the whole run, or a trial cannot be resumed"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run is.

    Attributes:
        step: number of optimizer steps taken.
        passes: number of passes finished.
        batches: number of batches of the current pass that they took.
    """

    step: int
    passes: int
    batches: int


def steps_in(batches: float, accumulate: int) -> float:
    """The optimizer steps of a pass: each takes ``accumulate`` batches, the last what is left."""
    return batches if math.isinf(batches) else math.ceil(batches / accumulate)


def reached(run: OwnRun, batches: float, accumulate: int) -> Place:
    """Where a run is by its reports, if passes have so many batches; see :func:`steps_in`.

    A pass of infinitely many lasts for the whole run.
    """
    steps = steps_in(batches, accumulate)
    if run.validate_every is None:
        return Place(step=int(run.done_epochs * steps), passes=run.done_epochs, batches=0)
    step = run.done_epochs * run.validate_every
    passes, rest = divmod(step, steps)
    return Place(step=step, passes=int(passes), batches=int(rest) * accumulate)


def seed_pass(run: OwnRun, number: int, batch: int = 0) -> None:
    """Seed what is drawn from the beginning of a pass, counted from 0, or from a batch of it on."""
    seed_everything(derive(run.seed, number, "order", batch))
