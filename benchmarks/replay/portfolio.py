"""A few schedules that cover the recorded tasks: chosen greedily, so that the best of the first so
many is as good as can be on average.

From `benchmarks/`, half a minute:

    python -m replay.portfolio
"""

from __future__ import annotations

import uuid
from functools import cache

import numpy as np

from clrsearch.search.warm_start import EarlierStudy, Schedule, translated
from replay.play import Modelled
from replay.play import Schedule as Played
from replay.record import space_of
from replay.surface import Array
from replay.tables import read
from replay.tasks import EVERY, HELD_OUT, TASKS

NAMES = (*TASKS, *HELD_OUT)
BEST = 90  # schedules of each table that are candidates
SIZE = 8
WORST = 1.0  # regrets beyond that of the median schedule are as bad


def of_task(name: str, *finalists: Schedule) -> EarlierStudy:
    """What a table's schedules refer to."""
    facts = read(name).facts
    return EarlierStudy(
        name=name,
        uuid=uuid.UUID(int=0),
        direction="minimize",
        epochs=facts.epochs,
        steps_per_epoch=facts.steps_per_epoch,
        base_lr=facts.base_lr,
        momentum=facts.momentum,
        stepsize="whole-cycles",
        finalists=tuple((family, dict(params)) for family, params in finalists),
        runs=(),
    )


@cache
def candidates() -> tuple[list[tuple[str, Schedule]], Array]:
    """The best schedules of each table, and their regret on each task, (schedules, tasks)."""
    models = {name: Modelled(read(name), space_of(EVERY[name]())) for name in NAMES}
    found: list[tuple[str, Schedule]] = []
    for name, model in models.items():
        schedules = read(name).schedules
        regrets = [model.regret(Played(family=f, params=p), ()) for f, p in schedules]
        found += [(name, schedules[row]) for row in np.argsort(regrets, kind="stable")[:BEST]]
    table = np.empty((len(found), len(NAMES)))
    for row, (name, schedule) in enumerate(found):
        for column, (task, model) in enumerate(models.items()):
            there = translated(schedule, of_task(name), space_of(EVERY[task]()))
            assert there is not None
            table[row, column] = model.regret(Played(family=there[0], params=there[1]), ())
    return found, table


def greedy(regrets: Array, size: int) -> list[int]:
    """Rows of a table, (schedules, tasks): each leaves the least mean of the tasks' best so far."""
    bounded, picked = np.minimum(regrets, WORST), []
    best = np.full(regrets.shape[1], WORST)
    for _ in range(size):
        picked.append(int(np.minimum(bounded, best).mean(axis=1).argmin()))
        best = np.minimum(best, bounded[picked[-1]])
    return picked


@cache
def chosen(without: str | None = None) -> EarlierStudy:
    """The portfolio, with rates relative to a task's own, from all tasks or all but one."""
    found, table = candidates()
    columns = [index for index, name in enumerate(NAMES) if name != without]
    regrets = table[:, columns]
    regrets[[name == without for name, _ in found]] = WORST
    relative = []
    for name, (family, params) in (found[row] for row in greedy(regrets, SIZE)):
        own = read(name).facts.base_lr
        rates = {key: params[key] / own for key in ("lr", "max_lr") if key in params}
        relative.append((family, {**params, **rates}))
    return of_task("denoiser", *relative).model_copy(update={"name": "portfolio", "base_lr": 1.0})


def main() -> None:
    """Print what portfolios from the other tasks regret on each, and the one from all."""
    for name in NAMES:
        study = chosen(name)
        model = Modelled(read(name), space_of(EVERY[name]()))
        regrets = []
        for schedule in study.finalists:
            there = translated(schedule, study, model.space)
            assert there is not None
            regrets.append(model.regret(Played(family=there[0], params=there[1]), ()))
        print(name, np.minimum.accumulate(regrets).round(3).tolist())
    for family, params in chosen().finalists:
        print(family, params)


if __name__ == "__main__":
    main()
