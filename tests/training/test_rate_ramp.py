"""The range test's ramp: the losses of a run at rising rates, and nothing left behind."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from clrsearch.schedules import Constant, trace
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe, ramp
from clrsearch.training.device import computing
from clrsearch.training.rate_ramp import FIRST_SEED, POINTS, SETTLING, STEPS
from clrsearch.training.seeding import derive, seed_everything

CPU = torch.device("cpu")


def ready(task_dir, name="tiny.py:Tiny"):
    loaded = load_task(name, folder=task_dir)
    facts = probe(loaded, device=CPU)
    return loaded.task, facts, TaskData(loaded.task, facts.batch_size, CPU)


def test_it_trains_fresh_models_at_rates_that_rise_in_equal_factors(task_dir) -> None:
    task, facts, data = ready(task_dir)
    found = ramp(task, facts, data, seed=3, device=CPU)
    assert found.rates[0] == pytest.approx(0.02 * 1e-4)
    assert found.rates[-1] == pytest.approx(0.02 * 1e3)
    assert np.diff(np.log(found.rates)) == pytest.approx(math.log(1e7) / 99)

    # by hand, the first twenty rates of the second seed
    seed_everything(derive(3, FIRST_SEED + 1, "init"))
    model = task.model()
    optimizer = task.optimizer(model)
    sample = next(data.validation.in_order())  # it has fewer samples than a batch
    training, validation, step = [], [], 0
    while len(validation) < 20:
        epoch = step // 4 + 1  # of 4 batches each
        order = data.train.shuffled(derive(3, FIRST_SEED + 1, "order", epoch))
        inputs, targets = list(order)[step % 4]
        point = max(step - SETTLING, 0) // STEPS
        optimizer.param_groups[0]["lr"] = found.rates[point]
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        step += 1
        if step > SETTLING:
            training.append(loss.item())
        if step > SETTLING and (step - SETTLING) % STEPS == 0:
            validation.append(task.loss(model(sample[0]), sample[1]).item())
    assert found.validation[1][:20] == pytest.approx(validation, rel=1e-12)
    pairs = np.array(training).reshape(-1, 2).mean(axis=1).tolist()
    assert found.training[1][:20] == pytest.approx(pairs, rel=1e-12)


def test_it_stops_where_the_loss_diverges(task_dir) -> None:
    task, facts, data = ready(task_dir)
    found = ramp(task, facts, data, seed=0, device=CPU)
    for training, validation in zip(found.training, found.validation, strict=True):
        assert len(training) == len(validation) < POINTS
        assert all(math.isfinite(loss) for loss in (*training, *validation))
        assert max(training) == training[-1] > 3 * training[0]


def test_the_groups_keep_their_ratios(task_dir) -> None:
    task, facts, data = ready(task_dir, "tiny.py:Headed")
    seen = []
    make = task.optimizer

    def watched(model):
        optimizer = make(model)
        before = optimizer.step

        def step(*arguments):
            seen.append([group["lr"] for group in optimizer.param_groups])
            return before(*arguments)

        optimizer.step = step
        return optimizer

    task.optimizer = watched
    ramp(task, facts, data, seed=0, device=CPU)
    assert len(seen) > 3 * SETTLING
    assert all(head == pytest.approx(10 * body) for body, head in seen)


def test_everything_is_as_before_bit_for_bit(task_dir) -> None:
    task, facts, data = ready(task_dir, "tiny.py:Noisy")
    constant = trace(Constant(lr=0.01), facts.horizon)

    def curve() -> list[float]:
        run = SequentialRun(task, facts, data, constant, seed=0, device=CPU)
        return [run.next_epoch().metrics[facts.metric] for _ in range(2)]

    with computing(CPU):
        undisturbed = curve()
        run = SequentialRun(task, facts, data, constant, seed=0, device=CPU)
        begun = [run.next_epoch().metrics[facts.metric]]
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        ramp(task, facts, data, seed=0, device=CPU)
        after = torch.get_rng_state(), np.random.get_state(), random.getstate()
        begun.append(run.next_epoch().metrics[facts.metric])
        assert begun == undisturbed
        assert curve() == undisturbed
    assert torch.equal(before[0], after[0])
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]


def test_the_same_seed_gives_the_same_losses(task_dir) -> None:
    task, facts, data = ready(task_dir)
    with computing(CPU):
        once, again = (ramp(task, facts, data, seed=5, device=CPU) for _ in range(2))
        other = ramp(task, facts, data, seed=6, device=CPU)
    assert once == again != other
