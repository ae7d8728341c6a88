"""For Lightning: a ``configure_optimizers`` around torch's scheduler."""

from __future__ import annotations

from clrsearch.exports import to_torch
from clrsearch.exports.found import Found
from clrsearch.schedules import ScheduleFree

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
FREE = '''

def configure_optimizers(self):
    """A method for your LightningModule, like those below.

    Your own, which returns the optimizer, becomes make_optimizer.
    """
    {length}
    return make_optimizer(self.make_optimizer(), {argument})


def on_train_epoch_start(self):
    self.optimizers(use_pl_optimizer=False).train()


def on_validation_start(self):
    """Go to the averaged weights, which checkpoints then hold too.

    With batch norm, measure its statistics anew here: torch.optim.swa_utils.update_bn.
    """
    self.optimizers(use_pl_optimizer=False).eval()


def on_validation_end(self):
    self.optimizers(use_pl_optimizer=False).train()


def on_train_end(self):
    self.optimizers(use_pl_optimizer=False).eval()
'''


def write(found: Found) -> str:
    """The file for torch, plus a method. Parameter groups keep the ratios of their rates.

    For Schedule-Free there are further methods, which switch its weights.

    Raises:
        ScheduleError: the code does not reproduce the schedule.
    """
    by_epochs = found.file.total_steps is None
    if isinstance(found.schedule, ScheduleFree):
        batches = "self.trainer.estimated_stepping_batches"
        argument = found.file.argument
        length = f"{argument} = {batches}{' // EPOCHS' if by_epochs else ''}"
        return to_torch.write(found) + FREE.format(length=length, argument=argument)
    return to_torch.write(found) + (BY_EPOCHS if by_epochs else BY_STEPS)
