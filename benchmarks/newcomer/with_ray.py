import argparse

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def splits(device):
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32, device=device) / 16
    labels = torch.tensor(labels, device=device)
    return (
        TensorDataset(images[:1000], labels[:1000]),
        TensorDataset(images[1000:1400], labels[1000:1400]),
    )


def build(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))


@torch.no_grad()
def evaluate(model, data):
    model.eval()
    right = 0
    for images, labels in DataLoader(data, batch_size=200):
        right += (model(images).argmax(1) == labels).sum().item()
    return right / len(data)


def make_scheduler(config, optimizer, steps):
    for group in optimizer.param_groups:
        group["lr"] = config["lr"]
    if config["schedule"] == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if config["schedule"] == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=steps, pct_start=config["pct_start"]
    )


def main(config):
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args([])
    device = "cuda" if torch.cuda.is_available() else "cpu"

    train_data, valid_data = splits(device)
    loader = DataLoader(train_data, args.batch_size, shuffle=True)
    model = build(args.width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    scheduler = make_scheduler(config, optimizer, args.epochs * len(loader))

    for epoch in range(args.epochs):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracy = evaluate(model, valid_data)
        print(f"epoch {epoch + 1}: {accuracy:.3f}")
        tune.report({"accuracy": accuracy})


if __name__ == "__main__":
    tuner = tune.Tuner(
        main,
        param_space={
            "schedule": tune.choice(["constant", "cosine", "onecycle"]),
            "lr": tune.loguniform(1e-4, 1e-1),
            "pct_start": tune.uniform(0.1, 0.5),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=30, scheduler=ASHAScheduler(max_t=12)
        ),
    )
    best = tuner.fit().get_best_result()
    print(f"best: {best.metrics['accuracy']} with {best.config}")
