"""Loops that are validated within their epochs, or whose epochs differ in length."""

import torch
from loops import error, learn, parts
from torch.utils.data import DataLoader


class Windows:
    """Batches of eight without an end, which can be gone on with from where they were left."""

    def __init__(self, split):
        self.split, self.place = split, 0

    def __next__(self):
        rows = torch.arange(self.place, self.place + 8) % len(self.split)
        self.place += 5
        return tuple(tensor[rows] for tensor in self.split.tensors)

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def train(run, *, steps_of=lambda steps: steps):
    """As it should be: so many steps, measured every few."""
    model, optimizer, loader, validation = parts(run)
    length = {"total_steps": run.total_steps} if run.total_steps else {"steps_per_epoch": 4}
    scheduler = run.scheduler(optimizer, **length)
    batches = Windows(loader.dataset)
    run.checkpoint(model=model, optimizer=optimizer, batches=batches)
    for steps in run.intervals():
        model.train()
        for _ in steps_of(steps):
            learn(model, optimizer, next(batches))
            scheduler.step()
        run.report(error=error(model, validation))


def one_step_short(run):
    train(run, steps_of=lambda steps: steps[1:])


def by_epochs(run):
    _, optimizer, loader, _ = parts(run)
    run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        run.report(error=0.0)


def per_epoch(run):
    _, optimizer, loader, _ = parts(run)
    run.scheduler(optimizer, len(loader))


def another_total(run):
    _, optimizer, _, _ = parts(run)
    run.scheduler(optimizer, total_steps=7)


def both(run):
    _, optimizer, loader, _ = parts(run)
    run.scheduler(optimizer, len(loader), total_steps=7)


def uneven(run, *, total=14):
    """Epochs of 2, 3, 4 and 5 steps."""
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, total_steps=total)
    batches = Windows(loader.dataset)
    run.checkpoint(model=model, optimizer=optimizer, batches=batches)
    for epoch in run.epochs():
        model.train()
        for _ in range(2 + epoch):
            learn(model, optimizer, next(batches))
            scheduler.step()
        run.report(error=error(model, validation))


def uneven_and_short(run):
    uneven(run, total=15)


def uneven_and_long(run):
    uneven(run, total=13)


def tokens(run, *, whole=32 * 4):
    """A schedule over the samples seen, in batches whose size doubles in the middle."""
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, total_steps=100)
    run.checkpoint(model=model, optimizer=optimizer)
    for epoch in run.epochs():
        model.train()
        seen = 32 * epoch
        size = 4 if epoch < 2 else 8
        for batch in DataLoader(loader.dataset, size, shuffle=True, drop_last=True):
            learn(model, optimizer, batch)
            seen += len(batch[1])
            scheduler.step(progress=min(seen / whole, 1.0))
        run.report(error=error(model, validation), rate=optimizer.param_groups[0]["lr"])


def tokens_short(run):
    tokens(run, whole=500)


def tokens_in_percent(run):
    _, optimizer, _, _ = parts(run)
    scheduler = run.scheduler(optimizer, total_steps=100)
    for _ in run.epochs():
        scheduler.step(progress=50)


def tokens_back(run):
    model, optimizer, loader, _ = parts(run)
    scheduler = run.scheduler(optimizer, total_steps=100)
    for _ in run.epochs():
        learn(model, optimizer, next(iter(loader)))
        scheduler.step(progress=0.5)
        scheduler.step(progress=0.25)


built = []


def prepares(run):
    """What is built once per process, under a seed that all share."""

    def build():
        built.append(torch.rand(1).item())
        return built[-1]

    model, optimizer, loader, validation = parts(run)
    torch.manual_seed(1)
    before = run.prepare(build)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(1))
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for batch in loader:
            learn(model, optimizer, batch)
            scheduler.step()
        run.report(error=error(model, validation), built=before)


def prepares_two(run):
    """Each call has an object of its own, though the code is the same."""
    splits = iter(("train", "validation"))
    found = [run.prepare(lambda: {"is": next(splits)}) for _ in range(2)]
    assert [each["is"] for each in found] == ["train", "validation"]
    prepares(run)


def prepares_nothing(run):
    run.prepare(None)
