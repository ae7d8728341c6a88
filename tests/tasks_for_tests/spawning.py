"""A loop and a task that read their data in processes that are spawned: each imports this file."""

import sys
from functools import partial

import torch
from loops import error, learn, parts
from tiny import Tiny
from torch.utils.data import DataLoader, Dataset, TensorDataset

import clrsearch

GIVEN = sys.argv[1:]


class Points(Dataset):
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]


def stacked(points):
    inputs, targets = zip(*points, strict=True)
    return torch.stack(inputs), torch.stack(targets)


def compare_arguments(worker, given):
    assert given == GIVEN == sys.argv[1:], (given, GIVEN, sys.argv)


def loader_of(split, method, **options):
    return DataLoader(
        Points(split),
        num_workers=1,
        multiprocessing_context=method,
        collate_fn=stacked,
        **options,
    )


def train(run):
    """Trains on batches from a spawned process, and validates on one from a forkserver's."""
    model, optimizer, _, _ = parts(run)
    train, validation, _ = Tiny().data()
    common = {"persistent_workers": True, "worker_init_fn": partial(compare_arguments, given=GIVEN)}
    batches = loader_of(train, "spawn", batch_size=8, shuffle=True, drop_last=True, **common)
    whole = loader_of(validation, "forkserver", batch_size=len(validation), **common)
    scheduler = run.scheduler(optimizer, len(batches))
    for _ in run.epochs():
        model.train()
        for batch in batches:
            learn(model, optimizer, batch)
            scheduler.step()
        (batch,) = whole
        run.report(error=error(model, TensorDataset(*batch)))


class Spawning(Tiny):
    """Its data has been through a spawned process."""

    def data(self):
        splits = super().data()
        inputs, targets = next(iter(loader_of(splits.train, "spawn", batch_size=34)))
        return splits._replace(train=TensorDataset(inputs, targets))


if __name__ == "__main__":
    given = {"epochs": 4, "metric": "error", "direction": "minimize", "device": "cpu"}
    alone = {"enabled": False}
    study = clrsearch.run(train, trials=1, workers=0, confirm=alone, progress=False, **given)
    print(*(trial.state for trial in study.trials))
    clrsearch.dry_run(train, epochs=1, device="cpu")
