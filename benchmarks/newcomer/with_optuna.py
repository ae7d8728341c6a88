import argparse

import optuna
import torch
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


def make_scheduler(trial, optimizer, steps):
    kind = trial.suggest_categorical("schedule", ["constant", "cosine", "onecycle"])
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if kind == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if kind == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rise = trial.suggest_float("pct_start", 0.1, 0.5)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)


def main(trial):
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    train_data, valid_data = splits(device)
    loader = DataLoader(train_data, args.batch_size, shuffle=True)
    model = build(args.width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    scheduler = make_scheduler(trial, optimizer, args.epochs * len(loader))

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
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return accuracy


if __name__ == "__main__":
    study = optuna.create_study(
        storage="sqlite:///optuna.db", study_name="digits", direction="maximize"
    )
    study.optimize(main, n_trials=30)
    print(f"best: {study.best_value} with {study.best_params}")
