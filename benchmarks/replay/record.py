"""Record the tables: schedules of all families on the small tasks, each on the same seeds.

From `benchmarks/`, some minutes on one thread:

    python -m replay.record [TASK ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import numpy as np
import torch

from clrsearch.schedules import FAMILIES, Constant, Cyclic, Manual, ScheduleFree, Value, trace
from clrsearch.search import StudyPlan, StudySpace, build_space, suggest
from replay.fused import train
from replay.tables import FOLDER, Table, write
from replay.tasks import EVERY, SmallTask

SEEDS = 16
LANES = 60
CYCLIC, CONSTANT, EACH = 96, 24, 27
"""How many schedules: of the family that has the most to set, of the one with a single value, of
each of the others."""

Drawn = tuple[str, Mapping[str, Value]]


def space_of(task: SmallTask) -> StudySpace:
    """What may be tried: every family that is no rate by hand."""
    aside = (Manual.family, ScheduleFree.family)
    families = tuple(family for family in FAMILIES if family not in aside)
    return build_space(StudyPlan(families=families), task.facts)


def drawn(space: StudySpace) -> list[Drawn]:
    """The schedules of a table: each family's first settings, and random ones; rates on a grid."""
    found: list[Drawn] = []
    for index, (family, own) in enumerate(space.families.items()):
        if family == Constant.family:
            rates = space.setting.rates
            grid = np.geomspace(rates.low, rates.high, CONSTANT)
            found += [(family, {"lr": float(rate)}) for rate in grid]
            continue
        first = space.seed_points(family)
        room = (CYCLIC if family == Cyclic.family else EACH) - len(first)
        found += [(family, params) for params in first]
        found += [
            (family, suggest([], own, direction="minimize", seed=1000 * index + each))
            for each in range(room)
        ]
    return found


def record(task: SmallTask) -> Table:
    """All runs of one task."""
    space = space_of(task)
    schedules = drawn(space)
    traces = [
        trace(space.build(family, params), task.facts.horizon) for family, params in schedules
    ]
    values = np.empty((len(schedules), SEEDS, task.training.epochs), dtype=np.float32)
    for begin in range(0, len(traces), LANES):
        lanes = slice(begin, begin + LANES)
        for seed in range(SEEDS):
            values[lanes, seed] = train(task, traces[lanes], seed)
    return Table(name=task.name, facts=task.facts, schedules=tuple(schedules), values=values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(EVERY), metavar="TASK")
    torch.set_num_threads(1)
    for name in parser.parse_args().tasks:
        begun = time.monotonic()
        table = record(EVERY[name]())
        write(table, FOLDER)
        final = table.values[:, :, -1]
        best = np.nanmin(np.where(np.isnan(final).any(axis=1), np.nan, final.mean(axis=1)))
        print(
            f"{name}: {final.size} runs in {time.monotonic() - begun:.0f} s, "
            f"{np.isnan(final).mean():.1%} diverged, best mean {best:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
