"""For Lightning: a ``configure_optimizers`` around torch's scheduler."""

from __future__ import annotations

from clrsearch.exports import to_torch
from clrsearch.exports.found import Found

METHOD = '''

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


def write(found: Found) -> str:
    """The file for torch, plus a method. Parameter groups keep the ratios of their rates.

    Raises:
        ScheduleError: the code does not reproduce the schedule.
    """
    return to_torch.write(found) + METHOD
