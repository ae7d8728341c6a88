"""Giving up trials whose workers keep getting lost."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence

from clrsearch.errors import ExitCode
from clrsearch.launch import how_it_ended
from clrsearch.search import Study

LOSSES = 5  # lost workers without a new checkpoint that fail a trial
CRASHES = 2  # crashes with no external cause that fail a trial as well
KILLED = -9  # SIGKILL
HANGS = 3  # workers that made no progress fail a trial as well
HOW = {
    ExitCode.HUNG: "made no progress",
    ExitCode.OUT_OF_MEMORY: "ran out of memory",
    ExitCode.DEVICE_FAILED: "met a failure of the device",
    ExitCode.INTERRUPTED: "had to leave before the next checkpoint",
    ExitCode.RANK_LOST: "lost one of their processes",
}
FROM_OUTSIDE = (
    *(KILLED, -signal.SIGTERM, -signal.SIGINT, -1),  # -1: SIGHUP
    *(ExitCode.HUNG, ExitCode.OUT_OF_MEMORY, ExitCode.INTERRUPTED, ExitCode.RANK_LOST),
)


def why_given_up(losses: int, codes: Sequence[int]) -> str | None:
    """Why to give up a trial that lost this many workers since its last checkpoint, or None.

    ``codes`` are the exit codes of those that were supervised.
    """
    crashes = [code for code in codes if code not in FROM_OUTSIDE]
    hangs = codes.count(ExitCode.HUNG)
    if losses < LOSSES and len(crashes) < CRASHES and hangs < HANGS:
        return None
    ends = [f"{count} {how}" for how, count in Counter(map(_how, codes)).items()]
    unwatched = losses - len(codes)
    if unwatched > 0:
        ends.append(f"how {unwatched if codes else 'they'} ended is unknown")
    memory = " (a process is killed when memory runs out)" if KILLED in codes else ""
    return (
        f"{losses} workers were lost while running this trial, and none saved a new checkpoint: "
        f"{', '.join(ends)}{memory}"
    )


def release(stage: Study, worker: str, code: int) -> int:
    """Reopen the slots that a lost worker still held; returns their number.

    The exit code is recorded with their trials.
    """
    for claim in stage.slots.claims():
        if claim.worker == worker and claim.trial is not None:
            stage.log.note_loss(claim.trial, worker, code, claim.checkpoint)
    return stage.slots.release(worker, wary=code == ExitCode.DEVICE_FAILED)


def _how(code: int) -> str:
    return HOW[ExitCode(code)] if code in HOW else how_it_ended(code)
