"""The study's weight decay in place of the optimizer's own."""

from __future__ import annotations

import pytest
import torch

from clrsearch.errors import TaskError
from clrsearch.tasks import load_task
from clrsearch.training import probe, run_maker
from clrsearch.training.contract import build
from clrsearch.training.optimizer import own_trace

CPU = torch.device("cpu")
OWN = """
import sys; sys.path.insert(0, {folder!r})
import torch
from tiny import Tiny


class Decaying(Tiny):
    def optimizer(self, model):
        weight, bias = model.parameters()
        groups = [{{"params": [weight], "weight_decay": 0.1}}, {{"params": [bias]}}]
        return torch.optim.SGD(groups, lr=0.02, momentum=0.9)


class Searching(Tiny):
    def optimizer(self, model):
        return torch.optim.Rprop(model.parameters(), lr=0.02)
"""


@pytest.fixture
def load(task_dir, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.format(folder=str(task_dir)))

    def load_mine(name, weight_decay):
        return load_task(f"mine.py:{name}", folder=tmp_path, weight_decay=weight_decay)

    return load_mine


def decays(loaded):
    _, optimizer = build(loaded.task, CPU)
    return [group["weight_decay"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("asked", "found"),
    [(None, [0.1, 0]), ("3x", [pytest.approx(0.3), 0]), (0.5, [0.5, 0]), ("0x", [0, 0])],
)
def test_groups_with_a_weight_decay_get_another_and_the_others_none(load, asked, found) -> None:
    assert decays(load("Decaying", asked)) == found


def test_where_no_group_has_any_a_number_is_for_all(task_dir) -> None:
    loaded = load_task("tiny.py:Grouped", folder=task_dir, weight_decay="1e-2")
    assert decays(loaded) == [0.01, 0.01]
    assert "weight_decay=0.01" in probe(loaded, device=CPU).optimizer


def test_a_run_is_that_of_an_optimizer_made_so(load, task_dir, tmp_path) -> None:
    """Ten times 0.01 against 0.1, which is written into the task."""
    source = OWN.format(folder=str(task_dir)).replace("0.1}", "0.01}")
    (tmp_path / "lighter.py").write_text(source)
    lighter = load_task("lighter.py:Decaying", folder=tmp_path, weight_decay="10x")
    metrics = []
    for loaded in (load("Decaying", None), lighter):
        facts = probe(loaded, device=CPU)
        _, optimizer = build(loaded.task, CPU)
        trace = own_trace(optimizer)
        rates = trace.rates.repeat(facts.horizon, axis=1)
        run = run_maker(loaded.task, facts, CPU)(
            type(trace)(rates=rates, momenta=None), seed=0, seed_index=0
        )
        seen: list[float] = []
        run.train(lambda epoch, seen=seen: seen.append(epoch.metrics["error"]) or True)
        metrics.append(seen)
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    assert len(metrics[0]) == 4


def test_what_it_cannot_change_is_refused(load, task_dir) -> None:
    with pytest.raises(TaskError, match="weight_decay: Rprop has none"):
        decays(load("Searching", 0.1))
    plain = load_task("tiny.py:Tiny", folder=task_dir, weight_decay="3x")
    with pytest.raises(TaskError, match=r"that of SGD is 0, which a factor of 3 does not change"):
        decays(plain)
    with pytest.raises(TaskError, match=r"weight_decay: loops.py:train is a custom .* loop"):
        load_task("loops.py:train", folder=task_dir, weight_decay=0.1)
