"""Regrets of strategies as a table, with intervals of their ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

BEFORE = "before"
DRAWS = 5000
STOCK = "Optuna"


def report(regrets: Mapping[str, Sequence[float]], tasks: Sequence[str], repetitions: int) -> str:
    """Mean regret over the tasks, and its ratio to the version before and to the best stock.

    ``regrets`` maps ``kind|runs|strategy|task`` to a regret per repetition. Intervals are 95 %,
    by a paired bootstrap over the repetitions of each task.
    """
    groups: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    names = dict.fromkeys(tuple(key.split("|")[:3]) for key in regrets)
    for kind, runs, name in names:
        rows = [regrets.get(f"{kind}|{runs}|{name}|{task}", ())[:repetitions] for task in tasks]
        if all(len(row) == repetitions for row in rows):
            groups.setdefault((kind, runs), {})[name] = np.array(rows)  # (tasks, repetitions)
    lines = []
    for (kind, runs), found in groups.items():
        means = {name: float(each.mean()) for name, each in found.items()}
        stock = min((n for n in means if n.startswith(STOCK)), key=means.__getitem__, default=None)
        lines += [
            f"\n{kind}, {runs} runs; best stock: {stock}\n",
            f"| strategy | regret | x before | x best stock | {' | '.join(tasks)} |",
            "|---" * (len(tasks) + 4) + "|",
        ]
        for name in sorted(means, key=means.__getitem__):
            each = found[name]
            ratios = [
                "" if other is None or other not in found else _ratio(each, found[other])
                for other in (BEFORE, stock)
            ]
            per_task = " | ".join(f"{mean:.2f}" for mean in each.mean(axis=1))
            lines.append(f"| {name} | {means[name]:.3f} | {' | '.join(ratios)} | {per_task} |")
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
