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

In a study that validates every so many optimizer steps, the Trainer counts batches, and across the
epochs:

        trainer = lightning.Trainer(
            max_epochs=run.total_epochs,
            max_steps=run.total_steps or -1,  # one of the two is None
            val_check_interval=run.validate_every,  # times accumulate_grad_batches
            check_val_every_n_epoch=None,
            ...

``check_val_every_n_epoch=k`` does as well, if ``validate_every`` is k epochs. The end of a run is
validated in any case. A trial that is resumed within an epoch reads the batches again that it has
been trained on, and does not train on them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.frameworks.devices import require_own_device
from clrsearch.frameworks.passes import ENDED, Place, reached, seed_pass, steps_in
from clrsearch.training import OwnRun


def scheduled(run: OwnRun, optimizer: Optimizer, trainer: Trainer) -> dict[str, Any]:
    """The return value for ``configure_optimizers``: the optimizer, with the schedule per step.

    Raises:
        TaskError: the Trainer does not train or validate the way the study does, or trains on
            another device or on several.
    """
    device = trainer.strategy.root_device
    require_own_device("the Trainer", run.device, device, trainer.world_size)
    steps = _require_length(run, trainer)
    _require_validations(run, trainer)
    if run.total_epochs is None:
        scheduler = run.scheduler(optimizer, total_steps=steps)
    else:
        scheduler = run.scheduler(optimizer, steps // run.total_epochs)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1},
    }


def _require_length(run: OwnRun, trainer: Trainer) -> int:
    """The number of optimizer steps that the Trainer plans, which is the study's."""
    limit = trainer.limit_train_batches
    if limit != 1.0 or isinstance(limit, int):
        raise TaskError(
            f"limit_train_batches is {limit}, which cuts the epochs short: leave it out, and give "
            "the study a length in steps"
        )
    if run.total_epochs is not None:
        if trainer.max_epochs != run.total_epochs:
            raise TaskError(
                f"max_epochs is {trainer.max_epochs}, and the study trains for {run.total_epochs}: "
                "give the Trainer max_epochs=run.total_epochs"
            )
        if trainer.max_steps != -1:
            raise TaskError(
                f"max_steps is {trainer.max_steps}, and the study's length is in epochs: leave "
                "max_steps out"
            )
    elif trainer.max_steps != run.total_steps:
        raise TaskError(
            f"max_steps is {trainer.max_steps}, and the study trains for {run.total_steps}: give "
            "the Trainer max_steps=run.total_steps"
        )
    trainer.fit_loop.setup_data()
    batches, steps = trainer.num_training_batches, trainer.estimated_stepping_batches
    if run.total_steps is None:
        if math.isinf(batches):
            raise TaskError(
                "the training loader has no length: give the study a length in steps, "
                "--set steps=10000 --set validate_every=500"
            )
    elif steps != run.total_steps:
        raise TaskError(
            f"max_epochs is {trainer.max_epochs}, which ends the training after {steps} of "
            f"{run.total_steps} steps: leave it out"
        )
    return int(steps)


def _require_validations(run: OwnRun, trainer: Trainer) -> None:
    """Compare when the Trainer validates with when the study does."""
    batches, per_step = trainer.num_training_batches, trainer.accumulate_grad_batches
    every: Any = getattr(trainer, "val_check_interval", "a time")  # which it keeps elsewhere
    epochs = trainer.check_val_every_n_epoch
    settings = f"val_check_interval is {every} and check_val_every_n_epoch is {epochs}"
    at_ends = every == batches or (isinstance(every, float) and every == 1.0)
    if run.validate_every is None:
        if not (at_ends and epochs == 1):
            raise TaskError(
                f"{settings}, and the study validates after each epoch: leave both out, or give "
                "the study validate_every"
            )
        return
    if not trainer.enable_validation:
        raise TaskError("the Trainer does not validate: give it validation data, all of it")
    needed = _batches_of(run.validate_every, batches, per_step)
    found: float | None = batches if at_ends else every
    if epochs is not None:
        if at_ends:
            found = epochs * batches
        elif not isinstance(every, int) or epochs > 1 or batches % every:
            found = None  # it begins to count anew in each epoch
    if found != needed:
        raise TaskError(
            f"{settings}, and the study validates every {run.validate_every} steps: give the "
            f"Trainer val_check_interval={needed}, check_val_every_n_epoch=None"
        )


def _batches_of(steps: int, batches: float, per_step: int) -> int:
    """The batches that so many optimizer steps take, wherever they begin.

    Raises:
        TaskError: it depends on where they begin.
    """
    in_pass = steps_in(batches, per_step)
    if steps % in_pass == 0:
        return int(steps // in_pass * batches)
    if not math.isinf(batches) and batches % per_step:
        raise TaskError(
            f"accumulate_grad_batches is {per_step}, which does not divide the {batches} batches "
            f"of an epoch: let it, or give the study validate_every={in_pass}, which is an epoch"
        )
    return steps * per_step


class Reports(Callback):
    """Reports each validation's metrics; saves and restores the module and the optimizer.

    In a study that validates after each epoch, what else has been logged by then is reported too.
    """

    def __init__(self, run: OwnRun) -> None:
        self._run = run
        self._within = run.validate_every is not None  # validates within the epochs
        self._intervals: Iterator[range] = iter(())
        self._under_way = False  # an interval has begun and not been reported
        self._start = Place(step=0, passes=0, batches=0)  # of the training
        self._last: float = math.inf  # step
        self._val_check_batch: Any = None  # while the Trainer is kept from validating

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what an earlier attempt saved, and count what it has trained."""
        self._run.checkpoint(model=pl_module, optimizer=trainer.optimizers[0])
        self._intervals = self._run.intervals()
        self._last = trainer.estimated_stepping_batches
        batches = trainer.num_training_batches
        self._start = start = reached(self._run, batches, trainer.accumulate_grad_batches)
        loop: Any = trainer.fit_loop
        passes = loop.epoch_progress.current
        passes.processed = passes.completed = start.passes
        for progress in (
            loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step,
            loop.epoch_loop.manual_optimization.optim_step_progress,
        ):
            progress.total.ready = progress.total.completed = start.step
        loop.epoch_loop._batches_that_stepped = start.step - (start.batches > 0)  # it adds that one
        if start.passes:
            loop.epoch_loop.batch_progress.total.increment_by(start.passes * int(batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start an epoch, with its own random seed, or go on within one."""
        if not self._within:
            self._begin()
            return
        number = trainer.current_epoch
        goes_on = number == self._start.passes and self._start.batches > 0
        if not (goes_on or self._under_way):
            self._begin()
        seed_pass(self._run, number)
        loop: Any = trainer.fit_loop
        if goes_on or number == 0:  # the Trainer has begun to read before
            iter(loop._data_fetcher)
        if goes_on:
            self._pass_over(trainer, self._start.batches)
            self._begin()

    def _pass_over(self, trainer: Trainer, batches: int) -> None:
        """Read the first batches of an epoch and count them as trained."""
        loop: Any = trainer.fit_loop
        for _ in range(batches):
            if next(loop._data_fetcher, None) is None:
                raise TaskError(ENDED)
        loop._data_fetcher.fetched -= batches  # the Trainer adds them
        loop.epoch_loop.batch_progress.increment_by(batches)
        loop.epoch_loop._restarting = True
        self._val_check_batch, trainer.val_check_batch = trainer.val_check_batch, math.inf
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the Trainer validate again, which it would have done once more where it goes on."""
        if self._val_check_batch is not None:
            trainer.val_check_batch, self._val_check_batch = self._val_check_batch, None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have the end of the run validated, wherever it is."""
        if self._within and trainer.global_step >= self._last:
            trainer.should_stop = True
            if trainer.check_val_every_n_epoch is not None:
                trainer.check_val_every_n_epoch = 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metrics, unless this is a check before the training or a look after it."""
        if self._within and self._under_way and trainer.state.fn == TrainerFn.FITTING:
            self._under_way = False
            self._run.report(**trainer.callback_metrics)
            self._begin()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metrics, in a study that validates after each epoch."""
        if not self._within:
            self._run.report(**trainer.callback_metrics)

    def _begin(self) -> None:
        """Begin the next interval, if there is one."""
        self._under_way = next(self._intervals, None) is not None
