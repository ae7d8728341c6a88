"""What a task class may say beside its five lines, against loops written by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import f1_score
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset, default_collate

from clrsearch.errors import TaskError
from clrsearch.schedules import OneCycle, trace
from clrsearch.tasks import LoadedTask, Loaders, Splits, Task
from clrsearch.tasks.attributes import require_attributes
from clrsearch.training import Diverged, SequentialRun, TaskData, probe
from clrsearch.training.learner import Learner
from clrsearch.training.seeding import derive

CPU = torch.device("cpu")
SIZE, CLASSES = 48, 3


def split(seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(SIZE, 2, 4, 4, generator=generator)
    return TensorDataset(images, torch.randint(CLASSES, (SIZE,), generator=generator))


class Images(Task):
    metric, direction, epochs, batch_size = "loss", "minimize", 3, 8

    def data(self):
        return Splits(split(0), split(1), split(2))

    def model(self):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)
        )

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def loss(self, output, target):
        return cross_entropy(output, target)

    def measure(self, output, target):
        return {"loss": cross_entropy(output, target, reduction="sum")}


def run_of(kind: type[Task], precision: Any = "float32", **changes: Any) -> list[Any]:
    """The intervals of a run under a one-cycle schedule."""
    task = type("Changed", (kind,), changes)()
    facts = probe(LoadedTask(task, "here"), device=CPU, precision=precision)
    data = TaskData(task, facts.batch_size, CPU)
    played = trace(schedule(facts.horizon), facts.horizon)
    run = SequentialRun(task, facts, data, played, seed=3, device=CPU, precision=precision)
    found: list[Any] = []
    run.train(lambda interval: bool(found.append(interval)) or True)
    return found


def schedule(horizon: int) -> OneCycle:
    return OneCycle(
        max_lr=0.2, horizon=horizon, div_factor=25.0, final_div_factor=1e3, pct_start=0.4
    )


def by_hand(*, accumulate=1, clip=None, ema=None, precision=None, epochs=3) -> list[tuple]:
    """The same run in plain torch: (training loss, validation loss) per epoch."""
    torch.manual_seed(derive(3, 0, "init"))
    task = Images()
    model = task.model()
    optimizer = task.optimizer(model)
    average = copy.deepcopy(model)
    started = False
    steps = SIZE // 8 // accumulate
    scheduler = schedule(epochs * steps).scheduler(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)
    images, labels = split(0).tensors

    def forward(module, inputs):
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            return module(inputs).float()

    found = []
    for epoch in range(1, epochs + 1):
        generator = torch.Generator().manual_seed(derive(3, 0, "order", epoch))
        batches = torch.randperm(SIZE, generator=generator).split(8)
        model.train()
        total = 0.0
        for step in range(steps):
            optimizer.zero_grad()
            for batch in batches[step * accumulate : (step + 1) * accumulate]:
                loss = cross_entropy(forward(model, images[batch]), labels[batch]) / accumulate
                scaler.scale(loss).backward()
                total += loss.item()
            if clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            if ema:
                pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
                for old, new in pairs:
                    decay = ema if started and old.is_floating_point() else 0.0
                    old.copy_(old * decay + new * (1 - decay))
                started = True
        judged = average if ema else model
        judged.eval()
        with torch.no_grad():
            inputs, targets = split(1).tensors
            found.append((total / steps, cross_entropy(forward(judged, inputs), targets).item()))
    return found


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({}, {}),
        ({"accumulate": 3}, {"accumulate": 3}),
        ({"clip_norm": 0.5}, {"clip": 0.5}),
        ({"ema": 0.8}, {"ema": 0.8}),
        (
            {"accumulate": 2, "clip_norm": 0.5, "ema": 0.8},
            {"accumulate": 2, "clip": 0.5, "ema": 0.8},
        ),
        ({"channels_last": True}, {}),
        ({"compile": True}, {}),
        (
            {
                "num_workers": 1,
                "collate": lambda self, rows: torch.utils.data.default_collate(rows),
            },
            {},
        ),
        ({"validation_batch_size": 5}, {}),
    ],
)
def test_training_is_that_of_a_loop_by_hand(changes, given) -> None:
    found = [(each.loss, each.metrics["loss"]) for each in run_of(Images, **changes)]
    for ours, theirs in zip(found, by_hand(**given), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_half_precision_is_that_of_a_loop_by_hand(precision, dtype) -> None:
    found = [(each.loss, each.metrics["loss"]) for each in run_of(Images, precision)]
    clipped = run_of(Images, precision, clip_norm=0.5, ema=0.8)
    for ours, theirs in zip(found, by_hand(precision=dtype), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    theirs = by_hand(precision=dtype, clip=0.5, ema=0.8)
    for ours, expected in zip(clipped, theirs, strict=True):
        assert (ours.loss, ours.metrics["loss"]) == pytest.approx(expected, abs=1e-3)


def test_the_state_has_what_averages_and_scales() -> None:
    task = type("Changed", (Images,), {"ema": 0.5})()
    torch.manual_seed(0)
    first, second = Learner(task, CPU, "fp16"), Learner(task, CPU, "fp16")
    batch = tuple(tensor[:8] for tensor in split(0).tensors)
    first.step([batch])
    second.restore(copy.deepcopy(first.state()))
    assert first.step([batch]) == second.step([batch])
    assert first.validate([batch]) == second.validate([batch])
    assert first.state()["scaler"] == second.state()["scaler"]


class Steps(Images):
    """The same task in steps of its own."""

    loss = Task.loss
    measure = Task.measure

    def training_step(self, model, batch):
        inputs, targets = batch
        return cross_entropy(model(inputs), targets)

    def validation_step(self, model, batch):
        inputs, targets = batch
        return {"loss": (cross_entropy(model(inputs), targets, reduction="sum"), len(targets))}


def test_steps_of_ones_own_say_the_same_as_loss_and_measure() -> None:
    usual, own = run_of(Images), run_of(Steps)
    for ours, theirs in zip(own, usual, strict=True):
        assert ours.loss == theirs.loss
        assert ours.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=1e-6)


def test_metrics_of_torchmetrics_are_those_of_the_whole_split() -> None:
    class Measured(Steps):
        metric = "f1"

        def __init__(self, options=None):
            super().__init__(options)
            own = {"task": "multiclass", "num_classes": CLASSES, "average": "macro"}
            self.whole = torchmetrics.MetricCollection(
                {"f1": torchmetrics.F1Score(**own), "accuracy": torchmetrics.Accuracy(**own)}
            )

        def validation_step(self, model, batch):
            inputs, targets = batch
            self.whole.update(model(inputs), targets)
            return self.whole

    task = Measured()
    torch.manual_seed(0)
    learner = Learner(task, CPU)
    inputs, targets = split(1).tensors
    batches = list(zip(inputs.split(10), targets.split(10), strict=True))
    found = [learner.validate(batches) for _ in range(2)]
    guessed = learner.model(inputs).argmax(1)
    assert found[0] == found[1]  # it begins anew each time
    assert found[0]["f1"] == pytest.approx(f1_score(targets, guessed, average="macro"), abs=1e-6)
    with pytest.raises(RuntimeError):
        learner.validate([*batches[:2], (torch.zeros(1), targets)])
    assert learner.validate(batches) == found[0]  # also after one that broke off


class Streams(Steps):
    """The same task on loaders without a length."""

    data = Task.data
    total_steps = 10
    validate_every = 4

    def loaders(self):
        class Stream(torch.utils.data.IterableDataset):
            def __init__(self, seed):
                self.rows = list(zip(*split(seed).tensors, strict=True))

            def __iter__(self):
                return iter(self.rows)

        return Loaders(*(torch.utils.data.DataLoader(Stream(seed), 8) for seed in range(3)))


def test_a_stream_is_validated_every_few_steps_and_at_the_end() -> None:
    found = run_of(Streams)
    assert [each.number for each in found] == [1, 2, 3]
    facts = probe(LoadedTask(Streams(), "here"), device=CPU)
    assert (facts.steps, facts.validate_every, facts.horizon) == (10, 4, 10)
    assert facts.ends == (4, 8, 10)
    torch.manual_seed(derive(3, 0, "init"))
    task = Images()
    model = task.model()
    optimizer = task.optimizer(model)
    scheduler = schedule(10).scheduler(optimizer)
    batches = list(zip(*(tensor.split(8) for tensor in split(0).tensors), strict=True))
    losses = []
    for step in range(10):  # its 6 batches, and then from the beginning again
        inputs, targets = batches[step % 6]
        optimizer.zero_grad()
        losses.append(cross_entropy(model(inputs), targets))
        losses[-1].backward()
        optimizer.step()
        scheduler.step()
    means = [torch.stack(losses[a:b]).mean().item() for a, b in ((0, 4), (4, 8), (8, 10))]
    assert [each.loss for each in found] == pytest.approx(means, rel=1e-6)


def test_epochs_may_be_validated_more_often_than_once() -> None:
    usual, often = run_of(Images), run_of(Images, validate_every=4)
    assert len(often) == 5  # 3 epochs of 6 steps: after 4, 8, 12, 16 and 18
    assert often[-1].metrics["loss"] == pytest.approx(usual[-1].metrics["loss"], rel=1e-6)


def test_a_worker_with_other_splits_is_refused() -> None:
    facts = probe(LoadedTask(Images(), "here"), device=CPU)
    TaskData(Images(), 8, CPU).require_same(facts)
    data = {"data": lambda self: Splits(split(0), split(7), split(2))}
    other = TaskData(type("Other", (Images,), data)(), 8, CPU)
    with pytest.raises(TaskError, match="the validation split here holds other samples"):
        other.require_same(facts)
    data = {"data": lambda self: Splits(TensorDataset(*split(0)[:40]), split(1), split(2))}
    shorter = TaskData(type("Other", (Images,), data)(), 8, CPU)
    with pytest.raises(TaskError, match="the training split here has 40 samples, and had 48"):
        shorter.require_same(facts)


def test_random_splits_are_drawn_under_the_seed_of_the_study() -> None:
    def shuffled(self):
        order = torch.randperm(SIZE)
        parts = [torch.utils.data.Subset(split(0), part.tolist()) for part in order.split(16)]
        return Splits(*parts)

    task = type("Shuffled", (Images,), {"data": shuffled})()
    torch.manual_seed(1)
    first = TaskData(task, 8, CPU, seed=5).fingerprints
    torch.manual_seed(2)
    assert TaskData(task, 8, CPU, seed=5).fingerprints == first
    assert TaskData(task, 8, CPU, seed=6).fingerprints != first


def test_a_dataset_with_generators_of_its_own_is_known_by_its_length() -> None:
    class Noisy(torch.utils.data.Dataset):
        generator = np.random.default_rng()

        def __len__(self):
            return SIZE

        def __getitem__(self, index):
            inputs, target = split(0)[index]
            return inputs + float(self.generator.normal()), target

    task = type("Noised", (Images,), {"data": lambda self: Splits(Noisy(), split(1), split(2))})()
    facts = probe(LoadedTask(task, "here"), device=CPU)
    assert facts.splits[0] == (SIZE,)
    TaskData(task, 8, CPU).require_same(facts)


def test_metrics_are_means_over_samples_whatever_the_targets_are() -> None:
    """Boxes that differ in number are no measure of how many images there are."""
    boxes = [torch.zeros(1 + index % 3, 4) for index in range(10)]
    samples = [(torch.zeros(2, 4, 4), {"boxes": each}) for each in boxes]

    def collate(self, samples):
        images, targets = zip(*samples, strict=True)
        return torch.stack(images), list(targets)

    own = {
        "data": lambda self: Splits(split(0), samples, split(2)),
        "collate": lambda self, rows: (
            collate(self, rows) if isinstance(rows[0][1], dict) else default_collate(rows)
        ),
        "measure": lambda self, output, target: {"loss": torch.tensor(float(len(target)))},
    }
    assert [each.metrics["loss"] for each in run_of(Images, **own)] == [1.0, 1.0, 1.0]


def test_averaging_leaves_whole_numbers_in_buffers_alone() -> None:
    class Indexed(nn.Linear):
        def __init__(self):
            super().__init__(32, CLASSES)
            self.register_buffer("index", torch.arange(2048))

    def model(self):
        return nn.Sequential(nn.Flatten(), Indexed())

    torch.manual_seed(0)
    learner = Learner(type("Changed", (Images,), {"ema": 0.9, "model": model})(), CPU)
    for _ in range(4):
        learner.step([tuple(tensor[:8] for tensor in split(0).tensors)])
    averaged = learner.averaged.module[1]
    assert torch.equal(averaged.index, torch.arange(2048))
    assert not torch.equal(averaged.weight, learner.model[1].weight)


def test_what_a_hook_does_to_the_weights_is_averaged() -> None:
    def clamp(self, model):
        with torch.no_grad():
            model[0].weight.fill_(0.5)

    torch.manual_seed(0)
    learner = Learner(type("Changed", (Images,), {"ema": 0.5, "after_step": clamp})(), CPU)
    learner.step([tuple(tensor[:8] for tensor in split(0).tensors)])
    assert learner.averaged.module[0].weight.unique().tolist() == [0.5]


def test_an_optimizer_that_trains_nothing_is_told_in_half_precision_too() -> None:
    other = nn.Linear(1, 1)
    own = {"optimizer": lambda self, model: torch.optim.SGD(other.parameters(), lr=0.1)}
    with pytest.raises(TaskError, match="trains nothing: after a step none of its parameters"):
        run_of(Images, "fp16", **own)


def test_the_hook_after_a_step_sees_every_step() -> None:
    seen = []
    run_of(Images, after_step=lambda self, model: seen.append(model.training))
    assert seen == [True] * (1 + 18)  # one of the probe


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            Images,
            {"collate": lambda self, samples: "text"},
            "collate() returned the str 'text', but a batch must be a tensor, an object with to(), "
            "or a dict, list or tuple with one in it",
        ),
        (
            Images,
            {"collate": lambda self, samples: {"x": torch.zeros(1)}},
            "a batch is a dict with the keys x, but loss() and measure() need a pair (inputs, "
            "targets): define training_step() and validation_step() for any other",
        ),
        (
            Streams,
            {"total_steps": None, "epochs": 2},
            "loaders(): the training loader has no length, so the study's is given in steps: "
            "--set steps=10000 --set validate_every=500",
        ),
        (
            Steps,
            {"data": Task.data, "loaders": lambda self: [[torch.zeros(1)]] * 2},
            "loaders() returned a list of 2, but must return Loaders(train, validation, test)",
        ),
        (
            Steps,
            {"data": Task.data, "loaders": lambda self: [iter([torch.zeros(1)])] * 3},
            "loaders(): the training loader is a list_iterator, but must be one that can be "
            "iterated over again, which an iterator cannot",
        ),
        (
            Steps,
            {"training_step": lambda self, model, batch: model(batch[0])[:, 0]},
            "training_step() returned a float32 tensor of shape (8,), but must return a scalar "
            "tensor, the mean over the batch",
        ),
        (
            Steps,
            {"training_step": lambda self, model, batch: model(batch[0]).sum() * float("nan")},
            "the training loss of the untrained model is nan",
        ),
        (
            Steps,
            {"validation_step": lambda self, model, batch: {"loss": (torch.zeros(()), 0)}},
            "validation_step(): the weights of loss add up to 0",
        ),
        (
            Steps,
            {"validation_step": lambda self, model, batch: {"loss": torch.zeros(())}},
            "validation_step(): loss is a float32 tensor of shape (), but must be a pair (sum, "
            "weight), or a metric that was updated",
        ),
        (
            Steps,
            {"validation_step": lambda self, model, batch: {"loss": (torch.zeros(3), 1)}},
            "validation_step(): loss: its sum is a float32 tensor of shape (3,), but must be a "
            "number or a scalar tensor",
        ),
        (
            Images,
            {"validate_every": 19},
            "validate_every is 19 steps, longer than the run, which has 18",
        ),
        (
            Images,
            {"total_steps": 20},
            "a length of 20 steps needs validate_every, the steps between two validations, as in "
            "--set validate_every=500",
        ),
        (
            Images,
            {"accumulate": 7},
            "an epoch has 6 batches, fewer than the 7 that accumulate asks for",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(kind, changes, message) -> None:
    with pytest.raises(TaskError) as caught:
        run_of(kind, **changes)
    assert str(caught.value) == message


def test_a_loader_that_breaks_off_before_its_length_is_told() -> None:
    class Short(list):
        def __len__(self):
            return 9

    batches = list(zip(*(tensor.split(8) for tensor in split(0).tensors), strict=True))
    own = {"data": Task.data, "loaders": lambda self: [Short(batches)] * 3}
    with pytest.raises(TaskError, match="has a length of 9, but ended after 6 batches: correct it"):
        run_of(Steps, **own)


def test_a_loss_that_is_not_finite_later_on_is_a_divergence() -> None:
    def explodes(self, model):
        self.taken = getattr(self, "taken", 0) + 1
        if self.taken == 10:  # the first was the probe's, the tenth is in the third interval
            with torch.no_grad():
                model[0].weight.fill_(float("inf"))

    with pytest.raises(Diverged, match="the training loss was not finite in interval 3"):
        run_of(Images, after_step=explodes, validate_every=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_step": Steps.training_step}, "defines both loss() and training_step()"),
        ({"loss": Task.loss}, "does not define loss"),
        ({"data": Task.data}, "does not define data"),
        (
            {"evaluate": lambda *_: {}, "measure": Task.measure}
            | {"validation_step": Steps.validation_step},
            "evaluate() is not called if there is validation_step()",
        ),
        (
            {"data": Task.data, "loaders": lambda self: None, "num_workers": 2},
            "num_workers is for data(); in loaders() it is the loader's own",
        ),
        ({"accumulate": 0}, "accumulate must be a positive integer, not 0"),
        ({"validate_every": 2.5}, "validate_every must be a positive integer, not 2.5"),
        ({"num_workers": -1}, "num_workers must be 0 or more, not -1"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, not 0.0"),
        ({"ema": 1.0}, "ema is a decay from 0 to below 1, not 1.0"),
        ({"total_steps": 0}, "total_steps must be a positive integer, not 0"),
    ],
)
def test_a_class_that_contradicts_itself_is_refused(changes, message) -> None:
    with pytest.raises(TaskError) as caught:
        require_attributes("here:Images", type("Changed", (Images,), changes))
    assert message in str(caught.value)
