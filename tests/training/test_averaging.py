"""Schedule-Free in the trainer against the package itself, in a plain loop."""

from __future__ import annotations

from itertools import islice

import pytest
import schedulefree
import torch
from identities import reader, writer
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from clrsearch import Loaders, Task
from clrsearch.errors import TaskError
from clrsearch.schedules import ScheduleFree, trace
from clrsearch.tasks import load_task
from clrsearch.training import Checkpoints, Interrupted, SequentialRun, TaskData, probe
from clrsearch.training.averaging import averaging_twin, estimate_statistics
from clrsearch.training.seeding import derive, seed_everything

CPU = torch.device("cpu")
SCHEDULE = ScheduleFree(lr=0.03, warmup=4, beta=0.95)


def with_loaders(loaded):
    """The same task with loaders of its own, which shuffle."""
    own = type(loaded.task)

    class Loaded(own):
        data = Task.data

        def loaders(self):
            how = {"batch_size": 8, "shuffle": True, "generator": torch.Generator()}
            train, *others = own.data(self)
            return Loaders(
                DataLoader(train, drop_last=True, **how), *(DataLoader(each) for each in others)
            )

    return loaded._replace(task=Loaded())


def maker(name, task_dir, *, options=None, loaders=False, **length):
    """Makes runs of a task."""
    loaded = load_task(name, options=options, folder=task_dir)
    if loaders:
        loaded = with_loaders(loaded)
    facts = probe(loaded, device=CPU, **length)
    data = TaskData(loaded.task, facts.batch_size, CPU)
    played = trace(SCHEDULE, facts.horizon, facts.ratios)

    def run(interrupted=lambda: False):
        return SequentialRun(
            loaded.task, facts, data, played, seed=3, device=CPU, interrupted=interrupted
        )

    return run


def everything(run):
    """All weights and buffers in training, and all that the optimizer keeps."""
    kept = run._learner.optimizer.state_dict()["state"]
    tensors = [*run._learner.model.state_dict().values()]
    tensors += [value for each in kept.values() for value in each.values()]
    return torch.cat([tensor.flatten().double() for tensor in tensors])


TWINS = {
    "sgd": lambda weights: schedulefree.SGDScheduleFree(
        weights, lr=0.03, momentum=0.95, warmup_steps=5
    ),
    "plain": lambda weights: schedulefree.SGDScheduleFree(
        weights, lr=0.03, momentum=0.95, warmup_steps=5
    ),
    "adam": lambda weights: schedulefree.AdamWScheduleFree(
        weights, lr=0.03, betas=(0.95, 0.999), warmup_steps=5
    ),
}


@pytest.mark.parametrize("optimizer", TWINS)
def test_a_run_is_the_packages_own_with_its_own_warm_up(optimizer, task_dir) -> None:
    run = maker("tiny.py:Tiny", task_dir, options={"optimizer": optimizer})()
    found = [run.next_epoch() for _ in range(4)]
    task = load_task("tiny.py:Tiny", folder=task_dir).task
    train, validation, _ = task.data()
    inputs, targets = train.tensors if hasattr(train, "tensors") else zip(*train, strict=True)
    inputs, targets = (torch.stack(list(part)) for part in (inputs, targets))
    held, wanted = (torch.stack(part) for part in zip(*validation, strict=True))
    seed_everything(derive(3, 0, "init"))
    model = task.model()
    twin = TWINS[optimizer](model.parameters())
    for epoch in found:
        twin.train()
        generator = torch.Generator().manual_seed(derive(3, 0, "order", epoch.number))
        for batch in torch.randperm(34, generator=generator).split(8)[:4]:
            twin.zero_grad()
            task.loss(model(inputs[batch]), targets[batch]).backward()
            twin.step()
        twin.eval()
        with torch.no_grad():
            error = ((model(held) - wanted) ** 2).mean().item()
        assert epoch.metrics["error"] == pytest.approx(error, rel=1e-4)


def test_batch_norm_is_measured_anew_on_training_batches(task_dir) -> None:
    run = maker("tiny.py:Noisy", task_dir)()
    for _ in range(3):
        epoch = run.next_epoch()
    task = load_task("tiny.py:Noisy", folder=task_dir).task
    learner = run._learner
    model = task.model()
    model.load_state_dict(learner.model.state_dict())
    beta = SCHEDULE.beta
    with torch.no_grad():
        for weight, trained in zip(model.parameters(), learner.model.parameters(), strict=True):
            z = learner.optimizer.state[trained]["z"]
            weight.copy_((trained - (1 - beta) * z) / beta)
    train, validation, _ = task.data()
    inputs, _ = (torch.stack(part) for part in zip(*train, strict=True))
    seed = derive(3, 0, "statistics", 3)
    order = torch.randperm(34, generator=torch.Generator().manual_seed(seed))
    seed_everything(seed)
    update_bn((task.augment(inputs[batch]) for batch in order.split(8)[:4]), model)
    model.eval()
    held, wanted = (torch.stack(part) for part in zip(*validation, strict=True))
    with torch.no_grad():
        error = ((model(held) - wanted) ** 2).mean().item()
    assert epoch.metrics["error"] == pytest.approx(error, rel=1e-4)


def test_validating_does_not_touch_the_training(task_dir) -> None:
    often = maker("tiny.py:Noisy", task_dir, steps=12, validate_every=12)()
    often.next_epoch()
    often._average(1)
    often.test()
    once = maker("tiny.py:Noisy", task_dir, steps=12, validate_every=12)()
    once._averages = False
    once.next_epoch()
    assert torch.equal(everything(often), everything(once))


def after(batches):
    """Says once, after so many questions, that the run is to stop."""
    asked = iter([False] * batches + [True])
    return lambda: next(asked, False)


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("tiny.py:Noisy", {}),
        ("tiny.py:NoisyListed", {}),
        ("tiny.py:NoisyListed", {"steps": 12, "validate_every": 3}),  # in the middle of a pass
        ("tiny.py:Noisy", {"steps": 12, "validate_every": 3, "loaders": True}),
    ],
)
def test_a_run_that_is_broken_off_anywhere_is_the_undisturbed_one(
    name, length, task_dir, tmp_path
) -> None:
    make = maker(name, task_dir, **length)
    undisturbed = make()
    expected = [undisturbed.next_epoch() for _ in range(4)]
    tested = undisturbed.test()
    checkpoints = Checkpoints(tmp_path)
    steps = set()
    for batches in range(20):
        first = make(after(batches))
        found = []
        with pytest.raises(Interrupted):
            while True:
                found.append(first.next_epoch())
        state = first.state()
        steps.add(state["step"])
        checkpoints.save(writer(7), state, confirm=lambda: True)
        torch.manual_seed(99)
        second = make()
        second.restore(checkpoints.load(reader(7)))
        found += [second.next_epoch() for _ in range(len(found), 4)]
        assert found == expected
        assert torch.equal(everything(second), everything(undisturbed))
        assert second.test() == tested
    assert len(steps) >= 4


def test_the_twin_keeps_groups_rates_decay_and_eps() -> None:
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    groups = [
        {"params": weights[:1], "lr": 0.1, "weight_decay": 0.3, "name": "body"},
        {"params": weights[1:], "lr": 0.2, "eps": 1e-3, "betas": (0.5, 0.7), "name": "head"},
    ]
    twin = averaging_twin(torch.optim.AdamW(groups, weight_decay=0.01), 0.9)
    assert type(twin) is schedulefree.AdamWScheduleFree
    keys = ("lr", "weight_decay", "eps", "betas", "name", "warmup_steps", "train_mode")
    assert [tuple(group[key] for key in keys) for group in twin.param_groups] == [
        (0.1, 0.3, 1e-8, (0.9, 0.999), "body", 0, True),
        (0.2, 0.01, 1e-3, (0.9, 0.7), "head", 0, True),
    ]


class Own(torch.optim.SGD):
    """Somebody's own."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda w: torch.optim.RMSprop(w), "the task's optimizer is RMSprop, and .* torch's SGD,"),
        (lambda w: torch.optim.RAdam(w), "the task's optimizer is RAdam"),
        (lambda w: Own(w), "the task's optimizer is Own"),
        (lambda w: torch.optim.SGD(w, maximize=True), "SGDScheduleFree has no maximize"),
        (lambda w: torch.optim.SGD(w, momentum=0.9, dampening=0.1), "has no dampening"),
        (lambda w: torch.optim.AdamW(w, amsgrad=True), "AdamWScheduleFree has no amsgrad"),
        (lambda w: torch.optim.Adam(w, weight_decay=0.1), "use AdamW, or no weight decay"),
    ],
)
def test_an_optimizer_without_a_twin_is_refused(make, said) -> None:
    with pytest.raises(TaskError, match=said):
        averaging_twin(make([torch.zeros(1, requires_grad=True)]), 0.9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"ema": 0.9}, "averages its weights itself"), ({"after_step": print}, "after_step")],
)
def test_a_task_whose_weights_an_average_would_not_follow_is_refused(changes, said, task_dir):
    loaded = load_task("tiny.py:Tiny", folder=task_dir)
    task = type("Changed", (type(loaded.task),), changes)()
    facts = probe(loaded, device=CPU)
    data = TaskData(task, 8, CPU)
    with pytest.raises(TaskError, match=said):
        SequentialRun(task, facts, data, trace(SCHEDULE, 16), seed=0, device=CPU)


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[0].eval()
            return self

    model = Frozen(nn.BatchNorm1d(1), nn.BatchNorm1d(1))
    model[0].running_mean.fill_(5.0)
    batches = torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]])
    assert estimate_statistics(model, model, islice(batches, 2))
    assert model[0].running_mean.item() == 5.0
    assert model[1].running_mean.item() == pytest.approx((2 - 5 + 6 - 5) / 2, rel=1e-4)
    assert model[1].momentum == 0.1
    assert not estimate_statistics(nn.Linear(1, 1), model, iter([1 / 0 for _ in ()]))


def test_statistics_are_measured_under_a_step_that_takes_gradients() -> None:
    norm = nn.BatchNorm1d(1)

    def with_penalty(batch):
        inputs = batch.clone().requires_grad_()
        (slope,) = torch.autograd.grad(norm(inputs).sum(), inputs, create_graph=True)
        return slope.square().sum()

    assert estimate_statistics(norm, with_penalty, [torch.tensor([[1.0], [3.0]])])
    assert norm.running_mean.item() == 2.0
