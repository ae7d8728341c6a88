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


def trains(run, optimizer_of=None, loader_of=len, one_epoch=epoch_of, report=None, at_end=None):
    """As it should be, but for what is given."""
    model, optimizer, loader, validation = parts(run)
    if optimizer_of is not None:
        optimizer = optimizer_of(model)
    scheduler = run.scheduler(optimizer, loader_of(loader))
    for epoch in run.epochs():
        one_epoch(model, optimizer, loader, scheduler)
        value = error(model, validation)
        if report is None:
            run.report(error=value)
        else:
            report(run, epoch, value)
        if at_end is not None:
            at_end(run, model)


def unsaved(run):
    """Names nothing to save, waits at a gate in its third epoch, and knows no test split."""

    def report(run, epoch, value):
        run.report(error=value)
        while epoch == 2 and not os.path.exists(os.environ["CLRSEARCH_TEST_GATE"]):
            time.sleep(0.01)

    trains(run, report=report)


def adam(run):
    """Two groups, and the beta of Adam for a momentum."""

    def grouped(model):
        body = {"params": model[0].parameters(), "lr": 1e-3, "name": "body"}
        head = {"params": model[2].parameters(), "lr": 1e-2, "name": "head"}
        return torch.optim.AdamW([body, head], betas=(0.9, 0.99))

    trains(run, optimizer_of=grouped)


def per_epoch(run):
    def one_epoch(model, optimizer, loader, scheduler):
        for batch in loader:
            learn(model, optimizer, batch)
        scheduler.step()

    trains(run, one_epoch=one_epoch)


def accumulates(run):
    def one_epoch(model, optimizer, loader, scheduler):
        for index, batch in enumerate(loader):
            if index % 2:
                learn(model, optimizer, batch)
                scheduler.step()

    trains(run, one_epoch=one_epoch)


def forgets_to_step(run):
    def one_epoch(model, optimizer, loader, scheduler):
        for batch in loader:
            learn(model, optimizer, batch)

    trains(run, one_epoch=one_epoch)


def steps_twice(run):
    def one_epoch(model, optimizer, loader, scheduler):
        for batch in loader:
            learn(model, optimizer, batch)
            scheduler.step(), scheduler.step()

    trains(run, one_epoch=one_epoch)


def counts_wrong(run):
    trains(run, loader_of=lambda loader: 3)


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
    trains(run, report=lambda run, epoch, value: None)


def reports_twice(run):
    trains(run, at_end=lambda run, model: run.report(error=0.5))


def reports_before(run):
    model, optimizer, loader, validation = parts(run)
    run.scheduler(optimizer, len(loader))
    run.report(error=error(model, validation))


def reports_nan(run):
    """From the third epoch on, and takes whatever is raised for its own."""

    def report(run, epoch, value):
        with suppress(Exception):
            run.report(error=float("nan") if epoch == 2 else 1.0)

    trains(run, report=report)


def reports_another(run):
    trains(run, report=lambda run, epoch, value: run.report(accuracy=1.0, loss=2.0))


def reports_text(run):
    trains(run, report=lambda run, epoch, value: run.report(error="small"))


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
    run.checkpoint(own=Unpicklable())
    trains(run)


def checkpoint_first(run):
    """Two groups, and what is saved is named before the scheduler is asked for."""

    def grouped(model):
        body = {"params": model[0].parameters(), "lr": 0.0005}
        head = {"params": model[2].parameters(), "lr": 0.0015}
        optimizer = torch.optim.SGD([body, head], momentum=0.9)
        run.checkpoint(model=model, optimizer=optimizer)
        return optimizer

    trains(run, optimizer_of=grouped)


def cleans_up_badly(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    try:
        for _ in run.epochs():
            epoch_of(model, optimizer, loader, scheduler)
            run.report(error=error(model, validation))
    finally:
        raise RuntimeError("the log is closed")


def reports_a_dict(run):
    trains(run, report=lambda run, epoch, value: run.report({"error": 0.5}))


def reports_none(run):
    trains(run, report=lambda run, epoch, value: run.report(error=None))


def reports_a_list(run):
    trains(run, report=lambda run, epoch, value: run.report(error=[0.5, 0.4]))


def reports_samples(run):
    trains(run, report=lambda run, epoch, value: run.report(error=torch.zeros(12)))


def reports_nothing(run):
    trains(run, report=lambda run, epoch, value: run.report())


def reports_nan_at_once(run):
    trains(run, report=lambda run, epoch, value: run.report(error=float("nan")))


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
    def one_epoch(model, optimizer, loader, scheduler):
        for inputs, targets in loader:
            mse_loss(model(inputs), targets).backward()
            optimizer.zero_grad()
            optimizer.step()
            scheduler.step()

    trains(run, one_epoch=one_epoch)


def never_steps_the_optimizer(run):
    def one_epoch(model, optimizer, loader, scheduler):
        epoch_of(model, torch.optim.SGD(model.parameters(), lr=0.01), loader, scheduler)

    trains(run, one_epoch=one_epoch)


def had_a_scheduler(run):
    def scheduled(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=16)
        return optimizer

    trains(run, optimizer_of=scheduled)


def warms_up_by_hand(run):
    def one_epoch(model, optimizer, loader, scheduler):
        for batch in loader:
            optimizer.param_groups[0]["lr"] = 0.0001
            learn(model, optimizer, batch)
            scheduler.step()

    trains(run, one_epoch=one_epoch)


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
