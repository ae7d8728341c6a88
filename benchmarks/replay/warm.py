"""How soon a search that starts from an earlier one is as good as a cold one in the end.

From `benchmarks/`, hours on a busy core:

    python -m replay.warm [--repetitions 6] [--store FILE]

A cold search of 100 runs of each held-out task says what is to be reached: the median regret of
what it recommends. Counted are the trials until a search has tried a schedule as good as that, on
the same deals of the seeds. Regrets are the surface's.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypedDict

import numpy as np

from clrsearch.search import Record, StudyPlan, beliefs
from clrsearch.search.plan import ConfirmPlan
from clrsearch.search.study_record import StudyRecord
from clrsearch.search.trace_features import LENGTHS
from clrsearch.search.warm_start import EarlierStudy, WarmStart, remembered
from replay.now import Search
from replay.play import Game, Modelled
from replay.portfolio import chosen
from replay.record import space_of
from replay.tables import read
from replay.tasks import EVERY

SHARE = 0.25  # of the runs, for the confirmation
WORST = 3.0  # regrets after few trials count no more than this
PAIRS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "autoencoder": {
        "cold": [],
        "portfolio": ["portfolio"],
        "a variant": ["autoencoder-short"],
        "the most unlike": ["diabetes"],
    },
    "friedman": {
        "cold": [],
        "portfolio": ["portfolio"],
        "a variant": ["friedman-wide"],
        "the most unlike": ["diabetes"],
    },
    "spirals": {
        "cold": [],
        "portfolio": ["portfolio"],
        "a variant": ["spirals-few at 0.05"],
        "a variant with another own rate": ["spirals-few"],
        "the most unlike": ["diabetes"],
    },
}
"""What each task's search starts from; ``at`` says what counts as the own rate there."""


@cache
def modelled(task: str) -> Modelled:
    """A task that can be played."""
    return Modelled(read(task), space_of(EVERY[task]()))


def search(task: str, runs: int, repetition: int, warm: Sequence[EarlierStudy]) -> Search:
    """One study, not yet begun."""
    game = Game(modelled(task), runs=runs, repetition=repetition)
    plan = StudyPlan(
        trials=round(runs * (1 - SHARE)),
        confirm=ConfirmPlan(share=SHARE),
        like=tuple(each.name for each in warm if each.runs),
    )
    rng = np.random.default_rng((repetition, runs))
    start = WarmStart(warm, game.space) if warm else None
    return Search(game, plan, rng, LENGTHS, 1, start)


@cache
def earlier(task: str, repetition: int) -> EarlierStudy:
    """What is copied of a cold search of 100 runs, with its confirmation."""
    found = search(task, 100, 1000 + repetition, ())
    found.run()
    settled = found.confirm()
    records = found.log.records
    best = next(each for each in records if found.log.schedules[each.number] == settled)
    others = [each for each in found.candidates if each.number != best.number]
    study = StudyRecord(
        id=0,
        name=task,
        uuid=uuid.UUID(int=0),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        versions={},
        plan=found.plan,
        facts=found.game.facts,
    )
    return remembered(study, [best, *others], records, found.again.records)


def started_from(name: str, repetition: int) -> EarlierStudy:
    """What is copied of a search of the task of a name in ``PAIRS``."""
    task, _, own = name.partition(" at ")
    found = earlier(task, repetition)
    return found.model_copy(update={"base_lr": float(own)}) if own else found


def recommended(found: Search) -> list[float]:
    """The regret of what would be recommended after each trial."""
    regrets = []
    records = found.log.records
    for count in range(1, len(records) + 1):
        told = records[:count]
        believed = beliefs(told, (), found.searched)
        complete = [each for each in told if each.state == "complete"]
        if not complete:
            regrets.append(float("inf"))
            continue

        def worth(each: Record, believed=believed) -> float:
            return believed[each.number].mean if believed else each.value or 0.0

        best = min(complete, key=worth)
        regrets.append(found.game.regret(found.log.schedules[best.number]))
    return regrets


class Played(TypedDict):
    """Regrets of one search: of what is recommended at its end, of what would be after each trial,
    and of each trial's schedule.
    """

    final: float
    curve: list[float]
    tried: list[float]


def play(task: str, names: Sequence[str], runs: int, repetition: int) -> Played:
    """One search that starts from those of other tasks."""
    warm = [chosen(task) if name == "portfolio" else earlier(name, repetition) for name in names]
    found = search(task, runs, repetition, warm)
    found.run()
    curve = recommended(found) if runs == 100 else []
    tried = [found.game.regret(each) for each in found.log.schedules]
    return Played(final=found.game.regret(found.confirm()), curve=curve, tried=tried)


def reached(curve: Sequence[float], target: float) -> int:
    """After how many trials a regret is the target or less; one more than there are, if never."""
    return next((n for n, regret in enumerate(curve, 1) if regret <= target), len(curve) + 1)


def report(stored: Mapping[str, list[Played]]) -> str:
    """A row per task and start: medians of trials, means of regrets."""
    lines = [
        "| task | start | trials to the target | as recommended | regret after 10 | after 25 | "
        "100 runs | 33 runs |",
        "|---" * 8 + "|",
    ]
    for task, starts in PAIRS.items():
        target = float(np.median([each["final"] for each in stored.get(f"{task}|cold|100", ())]))
        for start, names in starts.items():
            rows = stored.get(f"{task}|{start}|100", [])
            counts = [reached(each["tried"], target) for each in rows]
            later = [reached(each["curve"], target) for each in rows]
            ten, more = ([min(each["curve"][n], WORST) for each in rows] for n in (9, 24))
            finals = [
                [each["final"] for each in stored.get(f"{task}|{start}|{runs}", ())]
                for runs in (100, 33)
            ]
            cells = [f"{np.median(each):g}" for each in (counts, later) if each]
            cells += [f"{np.mean(each):.3f}" if each else "" for each in (ten, more, *finals)]
            lines.append(f"| {task} | {', '.join((start, *names))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 33])
    parser.add_argument("--tasks", nargs="+", default=list(PAIRS))
    parser.add_argument("--starts", nargs="+", default=list(PAIRS["spirals"]))
    parser.add_argument("--store", type=Path, help="results are read from here, and kept here")
    asked = parser.parse_args()
    stored: dict[str, list[Played]] = {}
    if asked.store and asked.store.exists():
        stored = json.loads(asked.store.read_text())
    for repetition in range(asked.repetitions):
        for task in asked.tasks:
            for start in asked.starts:
                for runs in asked.runs:
                    rows = stored.setdefault(f"{task}|{start}|{runs}", [])
                    if len(rows) > repetition:
                        continue
                    begun = time.monotonic()
                    rows.append(play(task, PAIRS[task][start], runs, repetition))
                    print(task, start, runs, f"{time.monotonic() - begun:.1f} s", flush=True)
        if asked.store:
            asked.store.write_text(json.dumps(stored))
    print(report(stored))


if __name__ == "__main__":
    main()
