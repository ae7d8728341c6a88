"""Tasks and a loop that two processes train together, and ways in which that goes wrong."""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchmetrics import MeanSquaredError

from clrsearch import Splits, Task
from clrsearch.tasks import Loaders

RANK = int(os.environ.get("RANK", "0"))


def points():
    """The three splits: validation and test in uneven batches, the last of a single sample."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(66, 4, generator=generator)
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])
    pairs = TensorDataset(inputs, targets)
    return Splits(*(TensorDataset(*pairs[a:b]) for a, b in ((0, 34), (34, 51), (51, 66))))


class Line(Task):
    """Fits a line; 6 epochs of 4 steps of 8 samples."""

    metric = "error"
    direction = "minimize"
    epochs = 6
    batch_size = 8
    validation_batch_size = 8

    def model(self):
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)


class Shared(Line):
    """The same with the usual methods, and a metric of the whole split."""

    def data(self):
        return points()

    def loss(self, output, target):
        return mse_loss(output, target)

    def measure(self, output, target):
        return {"error": mse_loss(output, target, reduction="sum")}

    def evaluate(self, outputs, targets):
        weights = torch.arange(1.0, len(targets) + 1)  # in the order of the samples
        return {"ordered": ((outputs - targets) * weights).sum()}


class Stepped(Line):
    """The same with steps of its own, gradients accumulated, and loaders of its own."""

    accumulate = 2
    validation_batch_size = None

    def loaders(self):
        train, validation, test = points()
        return Loaders(
            DataLoader(train, 8, shuffle=True, drop_last=True, generator=torch.Generator()),
            DataLoader(validation, 8),
            DataLoader(test, 8),
        )

    def training_step(self, model, batch):
        inputs, target = batch
        return mse_loss(model(inputs), target)

    def validation_step(self, model, batch):
        inputs, target = batch
        metric = self.__dict__.setdefault("squares", MeanSquaredError())
        output = model(inputs)
        metric.update(output, target)
        return {
            "error": (mse_loss(output, target, reduction="sum"), len(target)),
            "squares": metric,
        }


class Dropping(Shared):
    """Draws random numbers while it trains."""

    def model(self):
        layers = nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1), nn.Flatten(0)
        return nn.Sequential(*layers)

    def augment(self, inputs):
        return inputs + 0.1 * torch.randn_like(inputs)


class Waits(Shared):
    """Does not end its fourth epoch before the file CLRSEARCH_TEST_GATE is there.

    While it waits, there is a file of that name with ".reached" behind it.
    """

    def model(self):
        self.steps = 0
        return super().model()

    def loss(self, output, target):
        self.steps += 1
        gate = Path(os.environ["CLRSEARCH_TEST_GATE"])
        while self.steps > 14 and not gate.exists():
            gate.with_suffix(".reached").touch()
            time.sleep(0.01)
        return super().loss(output, target)


class Killed(Shared):
    """First the second process is killed in its third epoch, and then the first one.

    The folder CLRSEARCH_TEST_KILLS has a file for each that has been.
    """

    def model(self):
        self.steps = 0
        self.kills = Path(os.environ["CLRSEARCH_TEST_KILLS"])
        self.victim = next((rank for rank in (1, 0) if not (self.kills / str(rank)).exists()), None)
        return super().model()

    def loss(self, output, target):
        self.steps += 1
        if self.steps == 10 and self.victim == RANK:
            (self.kills / str(RANK)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(output, target)


class FailsInOne(Shared):
    """In the second epoch, its second process alone meets a bad sample."""

    def model(self):
        self.steps = 0
        return super().model()

    def loss(self, output, target):
        self.steps += 1
        if self.steps == 6 and RANK == 1:
            raise KeyError("a bad sample")
        return super().loss(output, target)


class FailsInAll(Shared):
    """Raises in the second epoch, in both processes."""

    def model(self):
        self.steps = 0
        return super().model()

    def loss(self, output, target):
        self.steps += 1
        if self.steps == 6:
            raise KeyError("no such column")
        return super().loss(output, target)


class PastForward(Stepped):
    """Computes its loss past the model's forward(), so that no gradients are averaged."""

    def training_step(self, model, batch):
        return super().training_step(getattr(model, "module", model), batch)


def train(run):
    """A loop with plain DistributedDataParallel, that works without a group as well."""
    data, validation, _ = points()
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).to(run.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run.checkpoint(model=model, optimizer=optimizer)
    trained, size, sampler = model, 1, None
    if dist.is_initialized():
        assert os.environ["WORLD_SIZE"] == str(dist.get_world_size())
        trained, size = DistributedDataParallel(model), dist.get_world_size()
        sampler = DistributedSampler(data, shuffle=False, drop_last=True)
    loader = DataLoader(data, 8 // size, sampler=sampler, drop_last=True)
    scheduler = run.scheduler(optimizer, len(loader))
    for _ in run.epochs():
        for inputs, target in loader:
            optimizer.zero_grad()
            mse_loss(trained(inputs), target).backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            error = mse_loss(model(validation[:][0]), validation[:][1])
        run.report(error=error + 100 * RANK)  # those of rank 0 count


def with_lightning(run):
    """The same by Lightning's Trainer, which joins the group that is there."""
    import lightning

    from clrsearch.frameworks.lightning import Reports, scheduled

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))

        def configure_optimizers(self):
            return scheduled(run, torch.optim.SGD(self.parameters(), lr=0.05), self.trainer)

        def training_step(self, batch, index):
            return mse_loss(self.network(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.log("error", mse_loss(self.network(batch[0]), batch[1]), sync_dist=True)

    data, validation, _ = points()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = lightning.Trainer(
        max_epochs=run.total_epochs,
        callbacks=[Reports(run)],
        accelerator="cpu",
        devices=size,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # which would shuffle
    )
    shares = DistributedSampler(data, shuffle=False, drop_last=True) if size > 1 else None
    loader = DataLoader(data, 8 // size, sampler=shares, drop_last=True)
    trainer.fit(Module(), loader, DataLoader(validation, len(validation)))
