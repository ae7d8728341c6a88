"""Facts about tasks, for tests that search without one."""

from __future__ import annotations

from typing import Any

from clrsearch.tasks import TaskFacts


def make_facts(**changes: Any) -> TaskFacts:
    """Of 20 epochs of SGD with momentum on one parameter group, whose loss is to be small."""
    given: dict[str, Any] = {
        "metric": "loss",
        "direction": "minimize",
        "epochs": 20,
        "batch_size": 32,
        "steps_per_epoch": 40,
        "ratios": (1.0,),
        "groups": ("0",),
        "base_lr": 0.05,
        "momentum": "momentum",
        "optimizer": "SGD(momentum=0.9)",
        "source": "",
    }
    return TaskFacts(**(given | changes))


def make_two_groups(**changes: Any) -> TaskFacts:
    """The same with a head that learns ten times as fast as the body."""
    return make_facts(**({"ratios": (1.0, 10.0), "groups": ("body", "head")} | changes))
