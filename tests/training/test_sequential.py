"""The sequential trainer against a plain torch loop with torch's own schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from contracts.test_families import MOMENTUM
from torch.optim.lr_scheduler import CyclicLR

from clrsearch.errors import TaskRaised
from clrsearch.schedules import Constant, Cyclic, trace
from clrsearch.tasks import load_task
from clrsearch.training import Diverged, SequentialRun, TaskData, probe
from clrsearch.training.seeding import derive, seed_everything

CPU = torch.device("cpu")
CYCLIC = {"base_lr": 0.005, "max_lr": 0.1, "step_size_up": 5.5, "mode": "triangular2"}


def start(name, task_dir, schedule, *, options=None, seed=0, seed_index=0, batch_size=None):
    loaded = load_task(name, options=options, folder=task_dir)
    facts = probe(loaded, batch_size=batch_size, device=CPU)
    return SequentialRun(
        loaded.task,
        facts,
        TaskData(loaded.task, facts.batch_size, CPU),
        trace(schedule, facts.horizon, facts.ratios),
        seed=seed,
        seed_index=seed_index,
        device=CPU,
    )


def by_hand(name, task_dir, options) -> list[tuple[float, float]]:
    """Training loss and validation error at each epoch, as a user's own script would have them."""
    task = load_task(name, options=options, folder=task_dir).task
    train, validation, _ = task.data()
    inputs, targets = (torch.stack(part) for part in zip(*train, strict=True))
    seed_everything(derive(3, 1, "init"))
    model = task.model()
    optimizer = task.optimizer(model)
    ratios = [group["lr"] / 0.02 for group in optimizer.param_groups]
    scheduler = CyclicLR(
        optimizer,
        base_lr=[0.005 * ratio for ratio in ratios],
        max_lr=[0.1 * ratio for ratio in ratios],
        step_size_up=5.5,
        mode="triangular2",
        **MOMENTUM,
    )
    curve = []
    for epoch in range(1, 5):
        model.train()
        generator = torch.Generator().manual_seed(derive(3, 1, "order", epoch))
        order = torch.randperm(34, generator=generator)
        losses = []
        for batch in order.split(8)[:4]:
            optimizer.zero_grad()
            loss = task.loss(model(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        model.eval()
        held, wanted = (torch.stack(part) for part in zip(*validation, strict=True))
        with torch.no_grad():
            error = ((model(held) - wanted) ** 2).mean().item()
        curve.append((sum(losses) / 4, error))
    return curve


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiny.py:Tiny", {"optimizer": "sgd"}),
        ("tiny.py:Tiny", {"optimizer": "adam"}),
        ("tiny.py:Grouped", {}),
        ("tiny.py:Halves", {}),
    ],
)
def test_it_trains_as_a_plain_loop_with_torchs_scheduler(name, options, task_dir) -> None:
    schedule = Cyclic(**CYCLIC, **MOMENTUM)
    run = start(name, task_dir, schedule, options=options, seed=3, seed_index=1)
    epochs = [run.next_epoch() for _ in range(4)]
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    for epoch, (loss, error) in zip(epochs, by_hand(name, task_dir, options), strict=True):
        assert epoch.loss == pytest.approx(loss, rel=1e-5)
        assert epoch.metrics["error"] == pytest.approx(error, rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(task_dir) -> None:
    def last(**seeds):
        run = start("digits", task_dir, Constant(lr=0.05), **seeds)
        return [run.next_epoch().metrics for _ in range(2)]

    torch.set_num_threads(1)
    assert last() == last()
    assert last() != last(seed=1)
    assert last() != last(seed_index=1)


def test_divergence_is_noticed_within_the_epoch(task_dir) -> None:
    run = start("tiny.py:Explodes", task_dir, Constant(lr=0.01))
    run.next_epoch()
    with pytest.raises(Diverged, match="training loss was not finite in epoch 2"):
        run.next_epoch()
    # the third step of the second epoch exploded, the fourth was spared
    assert run._learner._task.steps == 7


def test_a_rate_that_is_far_too_high_diverges(task_dir) -> None:
    run = start("tiny.py:Tiny", task_dir, Constant(lr=1e6))
    with pytest.raises(Diverged):
        for _ in range(4):
            run.next_epoch()


def test_metrics_are_means_and_whole_split_values(task_dir) -> None:
    run = start("tiny.py:Ranked", task_dir, Constant(lr=0.01))
    metrics = run.next_epoch().metrics
    assert set(metrics) == {"error", "close", "largest"}
    assert metrics["largest"] ** 2 >= metrics["error"] > 0
    assert 0 <= metrics["close"] <= 1


def test_an_exception_in_the_task_carries_its_traceback(task_dir) -> None:
    run = start("tiny.py:FailsLater", task_dir, Constant(lr=0.01))
    run.next_epoch()
    with pytest.raises(TaskRaised, match="KeyError while training epoch 2") as caught:
        run.next_epoch()
    assert 'raise KeyError("no such column")' in caught.value.traceback


def test_a_batch_size_of_the_study_is_used(task_dir) -> None:
    run = start("tiny.py:Tiny", task_dir, Constant(lr=0.01), batch_size=17)
    assert math.isfinite(run.next_epoch().loss)
    assert run._ends == (0, 2, 4, 6, 8)
