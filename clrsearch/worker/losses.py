"""Whether a trial is given up, for the workers that it had were lost."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence

from clrsearch.launch import how_it_ended

LOSSES = 5  # of workers without a new checkpoint fail a trial
CRASHES = 2  # of a process by itself, which nothing outside can have caused, do so too
KILLED = -9  # SIGKILL
FROM_OUTSIDE = (KILLED, -signal.SIGTERM, -signal.SIGINT, -1)  # and SIGHUP


def why_given_up(losses: int, codes: Sequence[int]) -> str | None:
    """Why a trial is given up that lost so many workers since its last checkpoint; None if not.

    ``codes`` are the exit codes of those that somebody watched over.
    """
    crashes = [code for code in codes if code not in FROM_OUTSIDE]
    if losses < LOSSES and len(crashes) < CRASHES:
        return None
    ends = [f"{count} {how}" for how, count in Counter(map(how_it_ended, codes)).items()]
    unwatched = losses - len(codes)
    if unwatched > 0:
        ends.append(f"how {unwatched if codes else 'they'} ended is not known")
    memory = ", as the system ends a process when memory runs out" if KILLED in codes else ""
    return (
        f"{losses} workers were lost with this trial, and none left a new checkpoint: "
        f"{', '.join(ends)}{memory}"
    )
