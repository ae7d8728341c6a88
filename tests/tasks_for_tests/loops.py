"""Training loops of people's own, good ones and bad ones: 4 epochs of 4 steps on Tiny's data."""

import argparse
import os
import time
from contextlib import suppress

import numpy as np
import torch
from tiny import Tiny
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader


def parts(run, *, momentum=0.9, batch_size=8, lr=0.0005):
    torch.set_default_dtype(torch.float32)
    train, validation, _ = Tiny().data()
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1), nn.Flatten(0))
    model.to(run.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    loader = DataLoader(train, batch_size, shuffle=True, drop_last=True)
    return model, optimizer, loader, validation


def learn(model, optimizer, batch):
    inputs, targets = batch
    optimizer.zero_grad()
    mse_loss(model(inputs), targets).backward()
    optimizer.step()


def epoch_of(model, optimizer, loader, scheduler):
    model.train()
    for batch in loader:
        learn(model, optimizer, batch)
        scheduler.step()


def error(model, split):
    model.eval()
    with torch.no_grad():
        return mse_loss(model(split.tensors[0]), split.tensors[1])


def train(run, **other):
    """As it should be."""
    model, optimizer, loader, validation = parts(run, **other)
    scheduler = run.scheduler(optimizer, len(loader))
    run.checkpoint(model=model, optimizer=optimizer)
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        time.sleep(float(run.options.get("pause", 0)))
        run.report(error=error(model, validation), size=8)
    run.test(lambda: {"error": error(model, Tiny().data().test)})


def unsaved(run):
    """Names nothing to save, waits at a gate in its third epoch, and knows no test split."""
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for epoch in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))
        while epoch == 2 and not os.path.exists(os.environ["CLRSEARCH_TEST_GATE"]):
            time.sleep(0.01)


def adam(run):
    """Two groups, and the beta of Adam for a momentum."""
    model, _, loader, validation = parts(run)
    groups = [
        {"params": model[0].parameters(), "lr": 1e-3, "name": "body"},
        {"params": model[2].parameters(), "lr": 1e-2, "name": "head"},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))


def per_epoch(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for batch in loader:
            learn(model, optimizer, batch)
        scheduler.step()
        run.report(error=error(model, validation))


def accumulates(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for index, batch in enumerate(loader):
            if index % 2:
                learn(model, optimizer, batch)
                scheduler.step()
        run.report(error=error(model, validation))


def forgets_to_step(run):
    model, optimizer, loader, validation = parts(run)
    run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for batch in loader:
            learn(model, optimizer, batch)
        run.report(error=error(model, validation))


def steps_twice(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for batch in loader:
            learn(model, optimizer, batch)
            scheduler.step(), scheduler.step()
        run.report(error=error(model, validation))


def counts_wrong(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, 3)
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))


def changes_steps(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for epoch in run.epochs():
        for index, batch in enumerate(loader):
            if epoch < 1 or index:
                learn(model, optimizer, batch), scheduler.step()
        run.report(error=error(model, validation))


def forgets_the_scheduler(run):
    for _ in range(3):
        pass


def scheduler_too_late(run):
    for _ in run.epochs():
        run.report(error=1.0)


def never_reports(run):
    model, optimizer, loader, _ = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)


def reports_twice(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))
        run.report(error=error(model, validation))


def reports_before(run):
    model, optimizer, loader, validation = parts(run)
    run.scheduler(optimizer, len(loader))
    run.report(error=error(model, validation))


def reports_nan(run):
    """From the third epoch on, and takes whatever is raised for its own."""
    model, optimizer, loader, _ = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for epoch in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        try:
            run.report(error=float("nan") if epoch == 2 else 1.0)
        except Exception:
            continue


def reports_another(run):
    model, optimizer, loader, _ = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(accuracy=1.0, loss=2.0)


def reports_text(run):
    model, optimizer, loader, _ = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error="small")


def breaks_off(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for epoch in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))
        if epoch == 1:
            break


def two_schedulers(run):
    _, optimizer, loader, _ = parts(run)
    run.scheduler(optimizer, len(loader))
    run.scheduler(optimizer, len(loader))


def no_optimizer(run):
    run.scheduler(None, 4)


def cannot_be_saved(run):
    run.checkpoint(model=nn.Linear(1, 1), epoch=3)


def no_steps(run):
    _, optimizer, _, _ = parts(run)
    run.scheduler(optimizer, 0)


def needs_arguments(run):
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.parse_args()


def has_arguments(run):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.02)
    train(run, lr=parser.parse_args().lr)


def saves_a_number(run):
    model, optimizer, loader, _ = parts(run)
    run.scheduler(optimizer, len(loader))
    run.checkpoint(model=model, best=0.0)


class Unpicklable:
    """Its state is a function."""

    def state_dict(self):
        return {"function": lambda: 0}

    def load_state_dict(self, state):
        pass


def saves_a_function(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    run.checkpoint(own=Unpicklable())
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))


def checkpoint_first(run):
    """Two groups, and what is saved is named before the scheduler is asked for."""
    model, _, loader, validation = parts(run)
    groups = [{"params": model[0].parameters(), "lr": 0.0005}]
    groups += [{"params": model[2].parameters(), "lr": 0.0015}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    run.checkpoint(model=model, optimizer=optimizer)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        epoch_of(model, optimizer, loader, scheduler)
        run.report(error=error(model, validation))


def cleans_up_badly(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    try:
        for _ in run.epochs():
            epoch_of(model, optimizer, loader, scheduler)
            run.report(error=error(model, validation))
    finally:
        raise RuntimeError("the log is closed")


def trains(run, optimizer_of=None, loader_of=len, report=None, before=None, at_end=None):
    """As it should be, but for what is given."""
    model, optimizer, loader, validation = parts(run)
    if optimizer_of is not None:
        optimizer = optimizer_of(model)
    scheduler = run.scheduler(optimizer, loader_of(loader))
    for _ in run.epochs():
        for batch in loader:
            learn(model, optimizer, batch)
            scheduler.step()
            if before is not None:
                before(optimizer)
        if report is None:
            run.report(error=error(model, validation))
        else:
            report(run)
        if at_end is not None:
            at_end(run, model)


def reports_a_dict(run):
    trains(run, report=lambda run: run.report({"error": 0.5}))


def reports_none(run):
    trains(run, report=lambda run: run.report(error=None))


def reports_a_list(run):
    trains(run, report=lambda run: run.report(error=[0.5, 0.4]))


def reports_samples(run):
    trains(run, report=lambda run: run.report(error=torch.zeros(12)))


def reports_nothing(run):
    trains(run, report=lambda run: run.report())


def reports_nan_at_once(run):
    trains(run, report=lambda run: run.report(error=float("nan")))


def saves_at_each_end(run):
    trains(run, at_end=lambda run, model: run.checkpoint(model=model))


def saves_unnamed(run):
    run.checkpoint(nn.Linear(1, 1))


def breaks_off_at_once(run):
    class Enough(Exception):
        pass

    def leave(run, model):
        raise Enough

    with suppress(Enough):
        trains(run, at_end=leave)


def another_models_optimizer(run):
    other = nn.Linear(4, 1)
    trains(run, optimizer_of=lambda model: torch.optim.SGD(other.parameters(), lr=0.01))


def forgets_gradients(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for inputs, targets in loader:
            mse_loss(model(inputs), targets).backward()
            optimizer.zero_grad()
            optimizer.step()
            scheduler.step()
        run.report(error=error(model, validation))


def never_steps_the_optimizer(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    other = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in run.epochs():
        for batch in loader:
            learn(model, other, batch)
            scheduler.step()
        run.report(error=error(model, validation))


def had_a_scheduler(run):
    def scheduled(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=16)
        return optimizer

    trains(run, optimizer_of=scheduled)


def warms_up_by_hand(run):
    def warm(optimizer):
        optimizer.param_groups[0]["lr"] = 0.0001

    trains(run, before=warm)


def swaps_the_arguments(run):
    _, optimizer, loader, _ = parts(run)
    run.scheduler(len(loader), optimizer)


def float_steps(run):
    trains(run, loader_of=lambda loader: len(loader) / 1)


class Scalars(nn.Linear):
    """Keeps a scalar of NumPy's, which no checkpoint gives back."""

    def get_extra_state(self):
        return np.float64(0.5)

    def set_extra_state(self, state):
        pass


def saves_a_scalar(run):
    run.checkpoint(model=Scalars(1, 1))
    trains(run)


def tests_a_number(run):
    trains(run)
    run.test({"error": 0.5})
