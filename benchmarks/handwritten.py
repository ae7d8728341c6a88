"""What one would write without clrsearch: Optuna's PyTorch example, on the same model and space.

One process, DataLoaders, TPE, no pruning; torch's own CyclicLR, stepped after every batch. The
model, the data split, the optimizer and the ranges are those of the built-in task ``digits``.
"""

import argparse
import time

import optuna
import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR
from torch.utils.data import DataLoader

from clrsearch.tasks.digits import Digits

EPOCHS = 20
BATCH = 32
TASK = Digits()
SPLITS = TASK.data()


def define_scheduler(trial, optimizer, steps_per_epoch):
    mode = trial.suggest_categorical("mode", ["triangular", "triangular2", "exp_range"])
    max_lr = trial.suggest_float("max_lr", 0.05 / 30, 0.05 * 30, log=True)
    base_ratio = trial.suggest_float("base_ratio", 1e-3, 0.5, log=True)
    cycles = trial.suggest_int("cycles", 1, 5)
    gamma = 1.0
    if mode == "exp_range":
        left = trial.suggest_float("amplitude_left", 0.01, 0.9, log=True)
        gamma = left ** (1 / (EPOCHS * steps_per_epoch))
    momentum = {"cycle_momentum": trial.suggest_categorical("cycle_momentum", [False, True])}
    if momentum["cycle_momentum"]:
        momentum["base_momentum"] = trial.suggest_float("base_momentum", 0.75, 0.9)
        momentum["max_momentum"] = trial.suggest_float("max_momentum", 0.9, 0.98)
    return CyclicLR(
        optimizer,
        base_lr=max_lr * base_ratio,
        max_lr=max_lr,
        step_size_up=EPOCHS * steps_per_epoch / (2 * cycles),
        mode=mode,
        gamma=gamma,
        **momentum,
    )


def objective(trial):
    torch.manual_seed(0)
    model = TASK.model()
    optimizer = TASK.optimizer(model)
    train_loader = DataLoader(SPLITS.train, batch_size=BATCH, shuffle=True, drop_last=True)
    valid_loader = DataLoader(SPLITS.validation, batch_size=BATCH)
    scheduler = define_scheduler(trial, optimizer, len(train_loader))
    loss_fn = nn.CrossEntropyLoss()

    for epoch in range(EPOCHS):
        model.train()
        for data, target in train_loader:
            optimizer.zero_grad()
            loss = loss_fn(model(data), target)
            loss.backward()
            optimizer.step()
            scheduler.step()

        model.eval()
        total = 0.0
        with torch.no_grad():
            for data, target in valid_loader:
                total += loss_fn(model(data), target).item() * len(data)
        value = total / len(SPLITS.validation)
        trial.report(value, epoch)
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--storage", default=None)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.perf_counter()
    study = optuna.create_study(direction="minimize", storage=arguments.storage)
    study.optimize(objective, n_trials=arguments.trials)
    print(f"best {study.best_value:.4f} {study.best_params}")
    print(f"{time.perf_counter() - started:.1f} s after the imports")
