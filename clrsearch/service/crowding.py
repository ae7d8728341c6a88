"""How many worker processes are to share a device: as many as make it faster, tried out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from clrsearch import training
from clrsearch.errors import ClrsearchError
from clrsearch.search import Study
from clrsearch.service.tryout import Pace, Tryout
from clrsearch.worker import WorkerSettings

SECONDS = 3.0  # of training that are timed, for each number of processes
ROOM = 0.9  # share of the free memory that may be taken


def crowd(
    study: Study, settings: WorkerSettings, device: str | None, *, most: int
) -> tuple[int, str]:
    """The number of workers to share a device, at most ``most``, and why, in one line.

    1, 2, 4, ... processes train the study's task at the same time, while there is memory and it
    pays. The first one must be able to train.

    Raises:
        ClrsearchError: the task does not load, or cannot be trained.
    """
    paces: dict[int, float] = {}
    with ExitStack() as opened:
        tryouts: list[Tryout] = []
        count = 1
        while count <= most:
            try:
                while len(tryouts) < count:
                    tryouts.append(opened.enter_context(_tryout(study, settings, device)))
                    tryouts[-1].pace(study.facts, 0.0)  # loads and warms up
                found = _together(study, tryouts)
            except ClrsearchError:  # such as one for whom there was no memory after all
                if not paces:
                    raise
                break
            paces[count] = sum(each.pace for each in found)
            if paces[count] < max(paces.values()) or not _has_room(found):
                break
            count *= 2
    chosen = training.fewest(paces)
    tried = ", ".join(f"{paces[each] / paces[1]:.1f} with {each}" for each in [*paces][1:])
    more = f" (times as fast as one: {tried})" if tried else ""
    return chosen, f"{chosen} worker{'s' if chosen > 1 else ''} per device{more}"


def _tryout(study: Study, settings: WorkerSettings, device: str | None) -> Tryout:
    return Tryout(study.plan, device=device, task_dir=settings.task_dir, data_dir=settings.data_dir)


def _together(study: Study, tryouts: Sequence[Tryout]) -> list[Pace]:
    """The paces of processes that train at the same time."""
    with ThreadPoolExecutor(len(tryouts)) as pool:
        return [*pool.map(lambda each: each.pace(study.facts, SECONDS), tryouts)]


def _has_room(found: Sequence[Pace]) -> bool:
    """Whether there is memory for as many processes again."""
    taken, free = sum(each.taken for each in found), min(each.free for each in found)
    return not taken or taken <= ROOM * free
