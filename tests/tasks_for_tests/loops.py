"""Training loops of people's own, good ones and bad ones: 4 epochs of 4 steps on Tiny's data."""

import argparse
import os
import time

import torch
from tiny import Tiny
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

STEPS = 4  # per epoch


def parts(run, *, momentum=0.9, batch_size=8):
    torch.set_default_dtype(torch.float32)
    train, validation, _ = Tiny().data()
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1), nn.Flatten(0))
    model.to(run.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0005, momentum=momentum)
    loader = DataLoader(train, batch_size, shuffle=True, drop_last=True)
    return model, optimizer, loader, validation


def epoch_of(model, optimizer, loader, scheduler):
    model.train()
    for inputs, targets in loader:
        optimizer.zero_grad()
        mse_loss(model(inputs), targets).backward()
        optimizer.step()
        scheduler.step()


def error(model, split):
    model.eval()
    with torch.no_grad():
        return mse_loss(model(split.tensors[0]), split.tensors[1])


def train(run):
    """As it should be."""
    model, optimizer, loader, validation = parts(run)
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
        for _ in loader:
            optimizer.step()
        scheduler.step()
        run.report(error=error(model, validation))


def accumulates(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for index, _ in enumerate(loader):
            if index % 2:
                optimizer.step()
                scheduler.step()
        run.report(error=error(model, validation))


def forgets_to_step(run):
    model, optimizer, loader, validation = parts(run)
    run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for _ in loader:
            optimizer.step()
        run.report(error=error(model, validation))


def steps_twice(run):
    model, optimizer, loader, validation = parts(run)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for _ in loader:
            optimizer.step(), scheduler.step(), scheduler.step()
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
        for index, _ in enumerate(loader):
            if epoch < 1 or index:
                optimizer.step(), scheduler.step()
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


def loses_its_momentum(run):
    """Has one when it is tried out."""
    momentum = 0.9 if type(run).__name__ == "TrialRun" else 0.0
    _, optimizer, loader, _ = parts(run, momentum=momentum)
    run.scheduler(optimizer, len(loader))


def another_batch_size(run):
    size = 8 if type(run).__name__ == "TrialRun" else 16
    _, optimizer, loader, _ = parts(run, batch_size=size)
    run.scheduler(optimizer, len(loader))


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
    arguments = parser.parse_args()
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=arguments.lr)
    run.scheduler(optimizer, 4)


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
