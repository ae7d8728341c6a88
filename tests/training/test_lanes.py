"""Runs in lanes against the sequential trainer with torch's own optimizers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from laned import CLASSES, CPU, EPOCHS, SEED, Images, Job, Words, Workshop
from torch import nn
from torch.nn.functional import cross_entropy, dropout
from torch.utils.data import Dataset, TensorDataset

from clrsearch.errors import TaskRaised
from clrsearch.schedules import Trace
from clrsearch.tasks import Task
from clrsearch.training import (
    Diverged,
    Epoch,
    Interrupted,
    LaneRun,
    Lanes,
    SequentialRun,
)
from clrsearch.training.lane_learner import LaneLearner
from clrsearch.training.seeding import random_state

EXACT = 1e-9  # in float64; sums are added up in another order


@pytest.fixture
def double():
    """float64, in which lanes and sequential trainer agree to the last digits but one or two."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def adamw(self, model):
    return torch.optim.AdamW(self.groups(model), weight_decay=0.1)


def epochs_of(run: SequentialRun) -> list[Epoch]:
    """The remaining epochs of a run alone."""
    found: list[Epoch] = []
    run.train(lambda epoch: bool(found.append(epoch)) or True)
    return found


def advanced(lanes: Lanes, runs: Sequence[LaneRun], times: int = EPOCHS) -> list[list[Epoch]]:
    """The next epochs of runs in lanes."""
    found: list[list[Epoch]] = [[] for _ in runs]
    for _ in range(times):
        lanes.advance()
        for epochs, run in zip(found, runs, strict=True):
            epochs.append(run.outcome())
    return found


def require_equal(found: Any, wanted: Any, most: float = EXACT) -> None:
    """Metrics, states and whatever is in them are equal to ``most``."""
    if isinstance(wanted, Epoch):
        require_equal((found.number, found.metrics), (wanted.number, wanted.metrics), most)
        assert found.loss == pytest.approx(wanted.loss, abs=1e-5)  # summed in float32
    elif isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted, rtol=0, atol=most, check_device=False)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            require_equal(found[key], wanted[key], most)
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for pair in zip(found, wanted, strict=True):
            require_equal(*pair, most)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=most)
    else:
        assert found == wanted


def content(run: LaneRun | SequentialRun) -> dict[str, Any]:
    """A run's weights, buffers, optimizer state and average."""
    state = copy.deepcopy(run.state())
    for group in state["optimizer"]["param_groups"]:  # the rates at hand play no part
        del group["lr"], group["params"], group[next(iter({"momentum", "betas"} & {*group}))]
    of_weights = state["optimizer"]["state"]
    for number, kept in [*of_weights.items()]:
        buffer = kept.get("momentum_buffer")
        if buffer is None or not buffer.any():
            kept.pop("momentum_buffer", None)  # of a momentum that is always 0
        if not kept:
            del of_weights[number]
    return {key: state[key] for key in ("model", "optimizer", "averaged") if key in state}


def require_as_alone(workshop: Workshop, seeds: Sequence[int], most: float = EXACT) -> None:
    """Runs in lanes, with these seed indices, come to what each comes to alone."""
    lanes = workshop.lanes(len(seeds))
    traces = [workshop.trace(number) for number in range(len(seeds))]
    pairs = list(zip(traces, seeds, strict=True))
    runs = [lanes.run(trace, seed=SEED, seed_index=seed) for trace, seed in pairs]
    found = advanced(lanes, runs)
    for run, epochs, (trace, seed) in zip(runs, found, pairs, strict=True):
        alone = workshop.alone(trace, seed)
        require_equal(epochs, epochs_of(alone), most)
        require_equal(content(run), content(alone), most)
        require_equal(run.test(), alone.test(), most)


@pytest.mark.parametrize("optimizer", [Job.optimizer, adamw])
@pytest.mark.parametrize("kind", [Job, Images, Words])
def test_five_lanes_are_five_runs(double, kind, optimizer) -> None:
    """Two groups, clipped gradients; some lanes share their seed, and one its data with none."""
    workshop = Workshop(kind, optimizer=optimizer, clip_norm=0.5)
    require_as_alone(workshop, [0, 0, 1, 1, 2])


def test_lanes_that_share_the_seed_share_the_batches(double) -> None:
    require_as_alone(Workshop(Images), [4, 4, 4])


OPTIMIZERS = {
    "plain": lambda groups: torch.optim.SGD(groups),
    "dampened": lambda groups: torch.optim.SGD(groups, momentum=0.5, dampening=0.3),
    "uphill": lambda groups: torch.optim.SGD(groups, momentum=0.5, maximize=True),
    "adam": lambda groups: torch.optim.Adam(groups, weight_decay=0.1),
    "amsgrad": lambda groups: torch.optim.Adam(groups, amsgrad=True, betas=(0.8, 0.9)),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups),
    "centered": lambda groups: torch.optim.RMSprop(groups, centered=True, weight_decay=0.1),
    "rolling": lambda groups: torch.optim.RMSprop(groups, momentum=0.7, alpha=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_those_of_torch(double, name) -> None:
    workshop = Workshop(optimizer=lambda self, model: OPTIMIZERS[name](self.groups(model)))
    require_as_alone(workshop, [0, 1])


def test_a_momentum_of_zero_leaves_the_buffer_alone(double) -> None:
    workshop = Workshop(optimizer=lambda self, model: torch.optim.SGD(self.groups(model), 0.1, 0.9))
    rates, momenta = (np.full((2, workshop.facts.horizon), 0.05) for _ in range(2))
    momenta[:, ::2] = 0.0
    lanes, trace = workshop.lanes(1), Trace(rates=rates, momenta=momenta)
    run = lanes.run(trace, seed=SEED, seed_index=0)
    require_equal(advanced(lanes, [run]), [epochs_of(workshop.alone(trace))])


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"ema": 0.9}, {"validate_every": 3}])
def test_what_a_task_class_may_say_besides(double, changes) -> None:
    workshop = Workshop(Images, **changes)
    lanes, traces = workshop.lanes(2), [workshop.trace(number) for number in range(2)]
    runs = [lanes.run(trace, seed=SEED, seed_index=0) for trace in traces]
    found = advanced(lanes, runs, workshop.facts.intervals)
    for run, epochs, trace in zip(runs, found, traces, strict=True):
        alone = workshop.alone(trace)
        require_equal(epochs, epochs_of(alone))
        require_equal(content(run), content(alone))


def shaken(self, inputs):
    return inputs + 0.1 * torch.randn_like(inputs)


def test_augmentation_is_drawn_as_alone(double) -> None:
    require_as_alone(Workshop(augment=shaken), [0, 0, 1])


class Noisy(Dataset):
    """Samples that torch's generator changes when they are fetched."""

    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        inputs, target = self.dataset[index]
        return inputs + 0.1 * torch.randn_like(inputs), target


class Fetched(Job):
    def split(self, seed: int):
        return Noisy(super().split(seed)) if seed == 0 else super().split(seed)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_fetched_as_alone(double, workers) -> None:
    require_as_alone(Workshop(Fetched, num_workers=workers), [0, 1, 1])


class Steps(Job):
    """Batches that are dicts, and steps of the task's own."""

    def collate(self, samples):
        inputs, targets = zip(*samples, strict=True)
        return {"inputs": torch.stack(inputs), "targets": torch.tensor(targets)}

    loss, measure = Task.loss, Task.measure

    def training_step(self, model, batch):
        return cross_entropy(model(batch["inputs"]), batch["targets"], label_smoothing=0.1)

    def validation_step(self, model, batch):
        output, targets = model(batch["inputs"]), batch["targets"]
        loss = cross_entropy(output, targets, reduction="sum")
        return {"loss": (loss, len(targets)), "first": ((targets == 0).sum(), 1)}


def test_steps_of_its_own(double) -> None:
    require_as_alone(Workshop(Steps), [0, 1])


def test_a_metric_of_the_whole_split_is_measured_lane_by_lane(double) -> None:
    def evaluate(self, outputs, targets):
        assert not torch._C._functorch.is_batchedtensor(outputs)
        return {"spread": outputs.std().item()}

    require_as_alone(Workshop(evaluate=evaluate), [0, 1])


class Tied(nn.Module):
    """A weight used twice, one that is frozen, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.again = nn.Linear(12, 12)
        self.again.weight = self.first.weight
        self.frozen = nn.Linear(12, CLASSES).requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.frozen(self.again(self.first(inputs).relu()))


def test_tied_frozen_and_unused_weights(double) -> None:
    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    workshop = Workshop(model=lambda self: Tied(), optimizer=optimizer)
    lanes = workshop.lanes(2, unused=("unused.weight", "unused.bias"))
    traces = [workshop.trace(number) for number in range(2)]
    runs = [lanes.run(trace, seed=SEED, seed_index=n) for n, trace in enumerate(traces)]
    advanced(lanes, runs)
    for number, (run, trace) in enumerate(zip(runs, traces, strict=True)):
        alone = workshop.alone(trace, number)
        epochs_of(alone)
        require_equal(content(run), content(alone))


def test_dropout_differs_from_lane_to_lane() -> None:
    class Dropped(nn.Sequential):
        def forward(self, inputs):
            return dropout(super().forward(inputs), 0.5, self.training)

    workshop = Workshop(model=lambda self: Dropped(nn.Linear(12, CLASSES)), groups=_one_group)
    lanes, trace = workshop.lanes(2), workshop.trace(0)
    runs = [lanes.run(trace, seed=SEED, seed_index=0) for _ in range(2)]
    one, other = advanced(lanes, runs)
    assert [epoch.metrics for epoch in one] != [epoch.metrics for epoch in other]
    assert all(math.isfinite(epoch.loss) for epoch in (*one, *other))


def test_dropout_differs_from_step_to_step() -> None:
    """Also where samples and augmentation draw from generators of their own."""
    masks: list[torch.Tensor] = []

    class Dropped(nn.Linear):
        def forward(self, inputs):
            mask = dropout(torch.ones(12), 0.5, self.training)
            inner = mask
            while torch._C._functorch.is_functorch_wrapped_tensor(inner):
                inner = torch._C._functorch.get_unwrapped(inner)
            masks.append(inner)
            return super().forward(inputs * mask)

    workshop = Workshop(
        Fetched, model=lambda self: Dropped(12, CLASSES), augment=shaken, groups=_one_group
    )
    lanes = workshop.lanes(2)
    runs = [lanes.run(workshop.trace(n), seed=SEED, seed_index=0) for n in range(2)]
    masks.clear()
    advanced(lanes, runs, 1)
    drawn = {tuple(mask.flatten().tolist()) for mask in masks[:4]}
    assert len(drawn) == 4


def _one_group(self, model):
    return [{"params": [*model.parameters()], "lr": 0.1}]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_single_precision_agrees_up_to_rounding(precision) -> None:
    workshop = Workshop(Images if precision == "float32" else Job)  # norms not on a CPU
    trace = workshop.trace(1)
    learner = LaneLearner(workshop.task, 3, CPU, precision, plays_momentum=True)
    lanes = Lanes(
        *(workshop.task, workshop.facts, workshop.data, learner), device=CPU, precision=precision
    )
    runs = [lanes.run(trace, seed=SEED, seed_index=number) for number in range(3)]
    for number, epochs in enumerate(advanced(lanes, runs)):
        alone = epochs_of(workshop.alone(trace, number, precision=precision))
        for found, wanted in zip(epochs, alone, strict=True):
            close = 1e-4 if precision == "float32" else 2e-2
            assert found.metrics["loss"] == pytest.approx(wanted.metrics["loss"], rel=close)


def test_compiled_lanes_compute_the_same(double) -> None:
    workshop = Workshop()
    traces = [workshop.trace(number) for number in range(2)]
    results = []
    for compiled in (False, True):
        lanes = workshop.lanes(2)
        lanes.learner.speed_up(compiled=compiled)
        runs = [lanes.run(trace, seed=SEED, seed_index=n) for n, trace in enumerate(traces)]
        results.append((advanced(lanes, runs), [content(run) for run in runs]))
    require_equal(*results)


def test_permuted_lanes_have_permuted_results(double) -> None:
    workshop = Workshop(Images)
    order, found = [2, 0, 3, 1], []
    for numbers in (range(4), order):
        lanes = workshop.lanes(4)
        runs = [lanes.run(workshop.trace(n), seed=SEED, seed_index=n) for n in numbers]
        found.append((advanced(lanes, runs), [content(run) for run in runs]))
    (epochs, contents), permuted = found
    require_equal(permuted, ([epochs[n] for n in order], [contents[n] for n in order]), 1e-14)


def test_a_poisoned_lane_touches_no_other() -> None:
    workshop = Workshop(Images, clip_norm=1.0)
    results = []
    for poisoned in (False, True):
        lanes = workshop.lanes(3)
        poison = np.full_like(workshop.trace(0).rates, math.nan if poisoned else 0.1)
        traces = [workshop.trace(2), Trace(rates=poison, momenta=None), workshop.trace(3)]
        runs = [lanes.run(trace, seed=SEED, seed_index=0) for trace in traces]
        epochs = []
        for _ in range(EPOCHS):
            lanes.advance()
            if not poisoned:
                runs[1].outcome()
            elif runs[1].ended:
                with pytest.raises(Diverged, match="the training loss was not finite in epoch 1"):
                    runs[1].outcome()
                runs[1].leave()
            epochs.append([run.outcome().metrics for run in (runs[0], runs[2])])
        results.append((epochs, [content(run) for run in (runs[0], runs[2])]))
    require_equal(*results, 0.0)


def test_a_lane_that_is_refilled_is_a_fresh_run(double) -> None:
    """It begins when the other is in its second epoch, and so in other batches."""
    workshop = Workshop(Images, ema=0.9, augment=shaken)
    lanes = workshop.lanes(2)
    stays = lanes.run(workshop.trace(0), seed=SEED, seed_index=0)
    leaves = lanes.run(workshop.trace(1), seed=SEED, seed_index=0)
    assert lanes.free == 0
    first = advanced(lanes, [stays, leaves], 1)[0]
    leaves.leave()
    assert lanes.free == 1
    fresh = lanes.run(workshop.trace(3), seed=SEED, seed_index=0)
    rest, begun = advanced(lanes, [stays, fresh], 2)
    stays.leave()
    begun += advanced(lanes, [fresh], 1)[0]
    alone = [workshop.alone(workshop.trace(number)) for number in (0, 3)]
    require_equal([first + rest, begun], [epochs_of(run) for run in alone])
    require_equal(content(fresh), content(alone[1]))


class Asked:
    """Asks to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("looks", [0, 2, 4, 5, 9])
def test_either_goes_on_from_a_checkpoint_of_the_other(double, looks) -> None:
    """Interrupted at the beginning of an epoch, within it, before validation, and in it."""
    workshop = Workshop(Images, ema=0.9, augment=shaken)
    trace = workshop.trace(1)
    whole = epochs_of(workshop.alone(trace))

    lanes = workshop.lanes(2)
    runs = [lanes.run(each, seed=SEED, seed_index=0) for each in (workshop.trace(0), trace)]
    before: list[Epoch] = []
    asked = Asked(looks)
    with pytest.raises(Interrupted):
        while True:
            lanes.advance(asked)
            before = [*before, [run.outcome() for run in runs][1]]
    alone = workshop.alone(trace)
    alone.restore(copy.deepcopy(runs[1].state()))
    require_equal(before + epochs_of(alone), whole)

    alone = workshop.alone(trace, interrupted=Asked(looks))
    before = []
    with pytest.raises(Interrupted):
        alone.train(lambda epoch: bool(before.append(epoch)) or True)
    state = copy.deepcopy(alone.state())  # of the generators at this moment
    lanes = workshop.lanes(2)
    beside = lanes.run(workshop.trace(0), seed=SEED, seed_index=0)
    resumed = lanes.run(trace, seed=SEED, seed_index=0)
    resumed.restore(state)
    left = EPOCHS - len(before)
    others, found = advanced(lanes, [beside, resumed], left)
    require_equal(before + found, whole)
    require_equal(others, epochs_of(workshop.alone(workshop.trace(0)))[:left])


def test_a_step_that_fails_leaves_a_state_to_go_on_from(double) -> None:
    workshop = Workshop(augment=shaken)
    calls: list[int] = []

    def loss(self, output, target):
        calls.append(0)
        if len(calls) == 7:
            raise RuntimeError("not today")
        return cross_entropy(output, target)

    wanted = epochs_of(workshop.alone(workshop.trace(1)))
    type(workshop.task).loss = loss
    lanes = workshop.lanes(2)
    runs = [lanes.run(workshop.trace(1), seed=SEED, seed_index=n) for n in range(2)]
    first = advanced(lanes, runs, 1)[0]  # four steps; the eighth call is in the next
    with pytest.raises(Exception, match="not today"):
        lanes.advance()
    alone = workshop.alone(workshop.trace(1))
    alone.restore(copy.deepcopy(runs[0].state()))
    require_equal(first + epochs_of(alone), wanted)


def test_a_checkpoint_has_no_momentum_of_another_trial(double) -> None:
    """One is resumed that plays momenta; the other one, which does not, goes on alone."""
    workshop = Workshop()
    saved = workshop.alone(workshop.trace(1))
    saved.next_epoch()
    lanes = workshop.lanes(2)
    plain = lanes.run(workshop.trace(0), seed=SEED, seed_index=0)
    lanes.run(workshop.trace(1), seed=SEED, seed_index=0).restore(copy.deepcopy(saved.state()))
    lanes.advance()
    first = plain.outcome()
    alone = workshop.alone(workshop.trace(0))
    alone.restore(copy.deepcopy(plain.state()))
    require_equal([first, *epochs_of(alone)], epochs_of(workshop.alone(workshop.trace(0))))


def test_an_interval_whose_end_nobody_saw_is_validated_again(double) -> None:
    workshop = Workshop(Images)
    lanes = workshop.lanes(2)
    runs = [lanes.run(workshop.trace(n), seed=SEED, seed_index=n) for n in range(2)]
    lanes.advance()
    runs[0].outcome()
    assert [run.epoch for run in runs] == [1, 0]
    alone = workshop.alone(workshop.trace(1), 1)
    alone.restore(copy.deepcopy(runs[1].state()))
    require_equal(epochs_of(alone), epochs_of(workshop.alone(workshop.trace(1), 1)))


def test_a_metric_that_fails_for_one_run_ends_no_other() -> None:
    def evaluate(self, outputs, targets):
        if outputs.abs().max() > 100:
            raise ValueError("too large")
        return {"largest": outputs.max()}

    workshop = Workshop(evaluate=evaluate)
    lanes = workshop.lanes(2)
    large = Trace(rates=np.full_like(workshop.trace(0).rates, 5.0), momenta=None)
    bad = lanes.run(large, seed=SEED, seed_index=0)
    good = lanes.run(workshop.trace(0), seed=SEED, seed_index=0)
    lanes.advance()
    with pytest.raises(TaskRaised, match="ValueError while validating epoch 1: too large"):
        bad.outcome()
    assert good.outcome().number == 1


@pytest.mark.parametrize("square", [0.999, 0.99999])
def test_adam_counts_as_precisely_as_torch(square) -> None:
    """In float32, 1 - 0.99999 ** step has but two digits."""

    def optimizer(self, model):
        return torch.optim.Adam(self.groups(model), betas=(0.9, square))

    require_as_alone(Workshop(optimizer=optimizer), [0, 0], 2e-5)


def test_the_time_is_shared() -> None:
    workshop = Workshop()
    lanes = workshop.lanes(4)
    runs = [lanes.run(workshop.trace(n), seed=SEED, seed_index=n) for n in range(4)]
    advanced(lanes, runs)
    assert len({run.seconds for run in runs}) == 1 and runs[0].seconds > 0


def test_the_generators_of_others_are_not_needed(double) -> None:
    """What a run draws does not depend on what was drawn before it."""
    workshop = Workshop(augment=shaken)
    found = []
    for draws in (0, 3):
        lanes = workshop.lanes(2)
        runs = [lanes.run(workshop.trace(n), seed=SEED, seed_index=0) for n in range(2)]
        torch.rand(draws)
        found.append(advanced(lanes, runs))
    require_equal(*found, 0.0)
    assert set(random_state(CPU)) == {"torch", "numpy", "python"}
