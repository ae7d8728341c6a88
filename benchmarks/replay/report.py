"""Regrets of strategies as a table, with intervals of their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FULL = "100"
REFERENCES = ("before", "random, 3 confirmed")
STOCK = "Optuna"
DRAWS = 5000


def report(regrets: Mapping[str, Sequence[float]], tasks: Sequence[str], repetitions: int) -> str:
    """Mean regret over the tasks, and its ratios to what others regret with 100 runs.

    Those are the version before, random sampling with a confirmation, and the best of Optuna's
    stock. ``regrets`` maps ``kind|runs|strategy|task`` to a regret per repetition. Intervals are
    95 %, by a paired bootstrap over the repetitions of each task.
    """
    groups: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    names = dict.fromkeys(tuple(key.split("|")[:3]) for key in regrets)
    for kind, runs, name in names:
        rows = [regrets.get(f"{kind}|{runs}|{name}|{task}", ())[:repetitions] for task in tasks]
        if all(len(row) == repetitions for row in rows):
            groups.setdefault((kind, runs), {})[name] = np.array(rows)  # (tasks, repetitions)
    lines = []
    for (kind, runs), found in groups.items():
        full = groups.get((kind, FULL), {})
        stock = [name for name in full if name.startswith(STOCK)]
        best = min(stock, key=lambda name: float(full[name].mean()), default=STOCK)
        references = [*REFERENCES, best]
        heads = " | ".join(f"x {name}, {FULL} runs" for name in references)
        lines += [
            f"\n{kind}, {runs} runs\n",
            f"| strategy | regret | {heads} | {' | '.join(tasks)} |",
            "|---" * (len(tasks) + 2 + len(references)) + "|",
        ]
        for name, each in sorted(found.items(), key=lambda item: float(item[1].mean())):
            ratios = [
                "" if other not in full or full[other] is each else _ratio(each, full[other])
                for other in references
            ]
            per_task = " | ".join(f"{mean:.2f}" for mean in each.mean(axis=1))
            lines.append(f"| {name} | {each.mean():.3f} | {' | '.join(ratios)} | {per_task} |")
    return "\n".join(lines)


def _ratio(one: np.ndarray, other: np.ndarray) -> str:
    """Of the mean regrets, with its interval."""
    rng = np.random.default_rng(0)
    tasks, repetitions = one.shape
    drawn = rng.integers(repetitions, size=(DRAWS, tasks, repetitions))
    task = np.arange(tasks)[:, None]
    ratios = one[task, drawn].mean(axis=(1, 2)) / other[task, drawn].mean(axis=(1, 2))
    low, high = np.quantile(ratios, (0.025, 0.975))
    return f"{one.mean() / other.mean():.2f} ({low:.2f} to {high:.2f})"
