"""The recorder's fused lanes against ordinary training: torch's SGD under a played trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from replay.fused import started, train
from replay.record import space_of
from replay.tables import read
from replay.tasks import MOMENTUM, TASKS

from clrsearch.schedules import trace
from clrsearch.training.playback import Player

FAMILIES = ("cyclic", "onecycle", "step")


def in_double(batch):
    return tuple(part.double() if part.is_floating_point() else part for part in batch)


def shortened(task):
    return replace(task, training=replace(task.training, epochs=4))


def ordinary(task, played, seed):
    """The validation loss after each epoch of one run by itself, in double precision."""
    network = started(task, seed, torch.float64)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=task.training.lr,
        momentum=MOMENTUM,
        nesterov=task.training.nesterov,
        weight_decay=task.training.weight_decay,
    )
    player = Player(played, optimizer)
    losses = []
    for step, batch in enumerate(task.batches(seed)):
        inputs, targets = in_double(batch)
        player.play(step)
        optimizer.zero_grad()
        task.loss(network(inputs), targets).backward()
        optimizer.step()
        if (step + 1) % task.facts.steps_per_epoch == 0:
            with torch.no_grad():
                held_out, wanted = in_double(task.validation)
                losses.append(float(task.loss(network(held_out), wanted)))
    return losses


@pytest.mark.parametrize("name", ["student", "tumours", "denoiser"])
def test_a_lane_is_an_ordinary_run(name):
    """Momentum with and without Nesterov, weight decay, cycled momentum, data drawn anew."""
    task = shortened(TASKS[name]())
    space = space_of(task)
    schedules = [space.seed_points(family)[0] for family in FAMILIES]
    traces = [
        trace(space.build(family, params), task.facts.horizon)
        for family, params in zip(FAMILIES, schedules, strict=True)
    ]
    assert traces[0].momenta is not None and traces[2].momenta is None
    fused = train(task, traces, seed=3, dtype=torch.float64)
    for lane, played in zip(fused, traces, strict=True):
        np.testing.assert_allclose(lane, ordinary(task, played, 3), rtol=1e-9)


def test_a_lane_that_diverges_leaves_the_others_alone():
    task = shortened(TASKS["student"]())
    space = space_of(task)
    fine = trace(space.build("constant", {"lr": task.training.lr}), task.facts.horizon)
    wild = replace(fine, rates=fine.rates * 1e4)
    both = train(task, [fine, wild], seed=0, dtype=torch.float64)
    assert np.isnan(both[1]).all()
    np.testing.assert_allclose(both[0], ordinary(task, fine, 0), rtol=1e-9)


def test_a_table_holds_what_is_recorded_today():
    """One row of the smallest task, in single precision, which machines round differently."""
    task, table = TASKS["tumours"](), read("tumours")
    assert table.facts == task.facts
    space = space_of(task)
    row = next(i for i, (family, _) in enumerate(table.schedules) if family == "linear")
    played = trace(space.build(*table.schedules[row]), task.facts.horizon)
    (found,) = train(task, [played], seed=5)
    np.testing.assert_allclose(table.values[row, 5], found, rtol=1e-2)
