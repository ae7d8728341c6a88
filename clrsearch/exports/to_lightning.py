"""For Lightning: a ``configure_optimizers`` around torch's scheduler."""

from __future__ import annotations

from clrsearch.exports import to_torch
from clrsearch.exports.found import Found

BY_EPOCHS = '''

def configure_optimizers(self):
    """A method for your LightningModule, stepped after every optimizer step.

    Your own, which returns the optimizer, becomes make_optimizer.
    """
    if self.trainer.max_epochs != EPOCHS:
        raise ValueError(f"the schedule is for {EPOCHS} epochs, not {self.trainer.max_epochs}")
    optimizer = self.make_optimizer()
    steps_per_epoch = self.trainer.estimated_stepping_batches // EPOCHS
    scheduler = make_scheduler(optimizer, steps_per_epoch)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
'''
BY_STEPS = '''

def configure_optimizers(self):
    """A method for your LightningModule, stepped after every optimizer step.

    Your own, which returns the optimizer, becomes make_optimizer.
    """
    total_steps = self.trainer.estimated_stepping_batches
    if total_steps == float("inf"):
        raise ValueError(f"the Trainer has no end: give it max_steps={TOTAL_STEPS}")
    optimizer = self.make_optimizer()
    scheduler = make_scheduler(optimizer, total_steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
'''


def write(found: Found) -> str:
    """The file for torch, plus a method. Parameter groups keep the ratios of their rates.

    Raises:
        ScheduleError: the code does not reproduce the schedule.
    """
    return to_torch.write(found) + (BY_EPOCHS if found.file.total_steps is None else BY_STEPS)
