"""A task class against the loop that one would write by hand for the same job, in turns.

Both train from the same weights in the same order under the same schedule, and have to report the
same losses to 1e-6; what is compared is the shortest time of training and validating in so many
rounds. Tensors in memory are indexed by both; pictures that are drawn one by one come through a
DataLoader with 4 processes in both.

    python benchmarks/plain_loop.py
    python benchmarks/plain_loop.py --jobs resnet18 transformer    # with a GPU
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset
from torchvision.models import resnet18

from clrsearch.schedules import OneCycle, trace
from clrsearch.tasks import LoadedTask, Splits, Task
from clrsearch.training import SequentialRun, TaskData, computing, find_device, probe
from clrsearch.training.seeding import derive

Losses = list[tuple[float, float]]
SEED = 3
TOLERANCE = 1e-6


def numbers(size: int, shape: tuple[int, ...], seed: int) -> TensorDataset:
    """Random inputs of ten classes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, *shape, generator=generator)
    return TensorDataset(inputs, torch.randint(10, (size,), generator=generator))


class Job(Task):
    metric, direction, epochs = "loss", "minimize", 3
    samples = 4096

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def loss(self, output: Any, target: Any) -> torch.Tensor:
        return cross_entropy(output, target)

    def measure(self, output: Any, target: Any) -> Mapping[str, torch.Tensor]:
        return {"loss": cross_entropy(output, target, reduction="sum")}


class Small(Job):
    """A small network, whose steps take a fraction of a millisecond."""

    batch_size = 32
    epochs = 10

    def data(self) -> Splits:
        return Splits(*(numbers(self.samples, (64,), seed) for seed in range(3)))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class Convolutional(Job):
    """A convolutional network on images of 32 x 32."""

    batch_size = 128
    samples = 2048

    def data(self) -> Splits:
        return Splits(*(numbers(self.samples, (3, 32, 32), seed) for seed in range(3)))

    def model(self) -> nn.Module:
        layers = (nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 15 * 15, 10))


class Pictures(Dataset[Any]):
    """Pictures that are made smaller one by one, as decoded files are."""

    def __init__(self, size: int, seed: int) -> None:
        self.tensors = numbers(size, (3, 48, 48), seed).tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture, label = (tensor[index] for tensor in self.tensors)
        return interpolate(picture[None], size=32, mode="bilinear")[0], label


class Loaded(Convolutional):
    """The same network on pictures that come through a DataLoader."""

    num_workers = 4

    def data(self) -> Splits:
        return Splits(*(Pictures(self.samples, seed) for seed in range(3)))


class ResNet(Job):
    """ResNet-18 on synthetic CIFAR-10."""

    batch_size = 128
    samples = 25_600

    def data(self) -> Splits:
        return Splits(*(numbers(size, (3, 32, 32), size) for size in (self.samples, 5_000, 128)))

    def model(self) -> nn.Module:
        network = resnet18(num_classes=10)
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        return network


class Transformer(Job):
    """A small transformer on sequences of 128 vectors."""

    batch_size = 64
    samples = 12_800

    def data(self) -> Splits:
        return Splits(*(numbers(size, (128, 64), size) for size in (self.samples, 1_280, 64)))

    def model(self) -> nn.Module:
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 64, 10))
        return nn.Sequential(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), head)


JOBS: Mapping[str, type[Job]] = {
    "small": Small,
    "convolutional": Convolutional,
    "loaded": Loaded,
    "resnet18": ResNet,
    "transformer": Transformer,
}


def schedule(horizon: int) -> OneCycle:
    """The schedule of both."""
    return OneCycle(
        max_lr=0.05, horizon=horizon, div_factor=25.0, final_div_factor=1e3, pct_start=0.3
    )


def by_class(task: Job, device: torch.device) -> Callable[[], Losses]:
    """Trains by the class; what a process does once is done."""
    facts = probe(LoadedTask(task, "here"), device=device)
    data = TaskData(task, task.batch_size, device)
    played = trace(schedule(facts.horizon), facts.horizon)

    def train() -> Losses:
        found: Losses = []
        run = SequentialRun(task, facts, data, played, seed=SEED, device=device)
        run.train(lambda each: bool(found.append((each.loss or 0.0, each.metrics["loss"]))) or True)
        return found

    return train


def by_hand(task: Job, device: torch.device) -> Callable[[], Losses]:  # noqa: C901  # as one would
    """Trains by a loop in plain torch."""
    train_split, validation_split, _ = task.data()
    steps = len(train_split) // task.batch_size
    order = torch.Generator()
    if task.num_workers:
        options = {"num_workers": task.num_workers, "persistent_workers": True}
        options["pin_memory"] = device.type == "cuda"
        sampler = RandomSampler(train_split, generator=order)
        training = DataLoader(
            train_split, task.batch_size, sampler=sampler, drop_last=True, **options
        )
        validation = DataLoader(validation_split, 8 * task.batch_size, **options)
    else:
        tensors = [tensor.to(device) for tensor in train_split.tensors]
        others = [tensor.to(device) for tensor in validation_split.tensors]

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order.manual_seed(derive(SEED, 0, "order", epoch))
        if task.num_workers:
            yield from training
            return
        shuffled = torch.randperm(len(train_split), generator=order).to(device)
        for indices in shuffled[: steps * task.batch_size].split(task.batch_size):
            yield tensors[0][indices], tensors[1][indices]

    def held_out() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if task.num_workers:
            yield from validation
        else:
            yield from zip(*(each.split(8 * task.batch_size) for each in others), strict=True)

    def train() -> Losses:
        torch.manual_seed(derive(SEED, 0, "init"))
        model = task.model().to(device)
        optimizer = task.optimizer(model)
        scheduler = schedule(task.epochs * steps).scheduler(optimizer)
        found = []
        for epoch in range(1, task.epochs + 1):
            model.train()
            total = torch.zeros((), device=device)
            for inputs, targets in batches(epoch):
                inputs = inputs.to(device, non_blocking=True)
                targets = targets.to(device, non_blocking=True)
                optimizer.zero_grad()
                loss = cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
                scheduler.step()
                total += loss.detach()
            model.eval()
            summed = torch.zeros((), device=device)
            with torch.no_grad():
                for inputs, targets in held_out():
                    output = model(inputs.to(device, non_blocking=True))
                    targets = targets.to(device, non_blocking=True)
                    summed += cross_entropy(output, targets, reduction="sum")
            found.append((total.item() / steps, summed.item() / len(validation_split)))
        return found

    return train


def timed(train: Callable[[], Losses], device: torch.device) -> tuple[float, Losses]:
    """How many seconds the training takes, and its losses."""
    began = time.perf_counter()
    found = train()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, found


def main() -> None:
    """Print a row for each job: samples per second by hand and by the class, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=[*JOBS][:3])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device")
    given = parser.parse_args()
    device = find_device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {given.rounds} rounds in turns")
    print("| job | samples/s by hand | by the class | time, class / hand | losses differ by |")
    print("|---|---|---|---|---|")
    with computing(device, deterministic=False):
        for job in given.jobs:
            task = JOBS[job]()
            ways = by_hand(task, device), by_class(task, device)
            for way in ways:
                timed(way, device)
            rounds = [[timed(way, device) for way in ways] for _ in range(given.rounds)]
            worst = max(
                abs(ours - theirs)
                for (_, by_them), (_, by_us) in rounds
                for one, other in zip(by_us, by_them, strict=True)
                for ours, theirs in zip(one, other, strict=True)
            )
            if device.type == "cpu" and worst > TOLERANCE:
                raise SystemExit(f"{job}: losses differ by {worst:g}")
            seen = task.epochs * task.samples
            hand, own = (min(each[way][0] for each in rounds) for way in (0, 1))
            rates = f"{seen / hand:,.0f} | {seen / own:,.0f}"
            print(f"| {job} | {rates} | {own / hand:.3f} | {worst:.1e} |")


if __name__ == "__main__":
    main()
