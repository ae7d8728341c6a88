import argparse

import lightning
import torch
from lightning.pytorch.tuner import Tuner
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


class Digits(lightning.LightningModule):
    def __init__(self, width, lr, epochs):
        super().__init__()
        self.lr = lr
        self.epochs = epochs
        self.model = build(width)

    def training_step(self, batch, index):
        images, labels = batch
        return cross_entropy(self.model(images), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        right = (self.model(images).argmax(1) == labels).float()
        self.log("accuracy", right.mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        return [optimizer], [scheduler]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()

    train_data, valid_data = splits("cpu")
    loader = DataLoader(train_data, args.batch_size, shuffle=True)
    model = Digits(args.width, args.lr, args.epochs)
    trainer = lightning.Trainer(max_epochs=args.epochs)
    finder = Tuner(trainer).lr_find(model, loader)
    print(f"suggested: {finder.suggestion()}")
    finder.plot(suggest=True).savefig("lr_find.png")
    trainer.fit(model, loader, DataLoader(valid_data, batch_size=200))


if __name__ == "__main__":
    main()
