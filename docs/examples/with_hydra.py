"""A training script with a Hydra config, as clrsearch runs it: see docs/how-to/hydra.md.

clrsearch run --task with_hydra.py:main --epochs 8 --set metric=loss --set direction=minimize
"""

import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import clrsearch

CONF = Path(__file__).parent / "conf"


def splits():
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    return [TensorDataset(images[part], labels[part]) for part in (slice(1000), slice(1000, None))]


@torch.no_grad()
def evaluate(model, split, device):
    images, labels = (part.to(device) for part in split.tensors)
    output = model.eval()(images)
    return {
        "loss": cross_entropy(output, labels),
        "accuracy": (output.argmax(1) == labels).float().mean(),
    }


def main(run):
    overrides = sys.argv[1:] + [f"{name}={value}" for name, value in run.options.items()]
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("config", overrides)

    train_data, valid_data = splits()
    loader = DataLoader(train_data, cfg.batch_size, shuffle=True)
    model = nn.Sequential(
        nn.Linear(64, cfg.model.width),
        nn.ReLU(),
        nn.Dropout(cfg.model.dropout),
        nn.Linear(cfg.model.width, 10),
    ).to(run.device)
    optimizer = instantiate(cfg.optimizer, params=model.parameters())
    scheduler = run.scheduler(optimizer, steps_per_epoch=len(loader))
    run.checkpoint(model=model, optimizer=optimizer)

    for _ in run.epochs():
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            cross_entropy(model(images.to(run.device)), labels.to(run.device)).backward()
            optimizer.step()
            scheduler.step()
        run.report(**evaluate(model, valid_data, run.device))


if __name__ == "__main__":
    clrsearch.dry_run(main, epochs=8)
