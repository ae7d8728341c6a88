"""Lightning: a Trainer inside ``train(run)``.

    class Mine(lightning.LightningModule):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            return scheduled(self.run, optimizer, self.trainer)

    def train(run):
        model = Mine()
        model.run = run
        trainer = lightning.Trainer(
            max_epochs=run.total_epochs,
            callbacks=[Reports(run)],
            logger=False,  # or every trial leaves a folder in lightning_logs
            enable_checkpointing=False,  # Reports saves
        )
        trainer.fit(model, training, validation)

Metrics that the module logs in validation are reported under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.frameworks.devices import require_own_device
from clrsearch.training import OwnRun


def scheduled(run: OwnRun, optimizer: Optimizer, trainer: Trainer) -> dict[str, Any]:
    """The return value for ``configure_optimizers``: the optimizer, with the schedule per step.

    Raises:
        TaskError: the Trainer trains for another number of epochs, on another device or on several,
            or does not know its steps.
    """
    device = trainer.strategy.root_device
    require_own_device("the Trainer", run.device, device, trainer.world_size)
    if trainer.max_epochs != run.total_epochs:
        raise TaskError(
            f"max_epochs is {trainer.max_epochs}, and the study trains for {run.total_epochs}: "
            "give the Trainer max_epochs=run.total_epochs"
        )
    if run.total_epochs is None:
        raise TaskError("the study's length is in steps, which this adapter does not know yet")
    steps = trainer.estimated_stepping_batches / run.total_epochs
    if not steps.is_integer():  # infinite, or limited by max_steps
        raise TaskError(f"the Trainer plans {steps:g} steps per epoch: no schedule fits that")
    scheduler = run.scheduler(optimizer, int(steps))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1},
    }


class Reports(Callback):
    """Reports each epoch's logged metrics; saves and restores the module and the optimizer."""

    def __init__(self, run: OwnRun) -> None:
        self._run = run
        self._epochs: Iterator[int] = iter(())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what an earlier attempt saved, and count its epochs as trained."""
        self._run.checkpoint(model=pl_module, optimizer=trainer.optimizers[0])
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.processed = progress.completed = self._run.done_epochs
        self._epochs = self._run.epochs()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start an epoch, with its own random seed."""
        next(self._epochs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the logged metrics."""
        self._run.report(**trainer.callback_metrics)
