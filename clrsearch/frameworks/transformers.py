"""Hugging Face's Trainer inside ``train(run)``.

    def train(run):
        arguments = TrainingArguments(
            num_train_epochs=run.total_epochs, eval_strategy="epoch", seed=run.seed, ...
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
        trainer = Trainer(
            model,
            arguments,
            train_dataset=training,
            eval_dataset=validation,
            optimizers=scheduled(run, optimizer, arguments, len(training)),
            callbacks=[Reports(run)],
        )
        trainer.train()

The Trainer's metrics are reported under the same names, such as ``eval_loss``. With several
evaluation sets, an epoch is reported once the study's metric is there. Evaluations after the
training, of a test set for example, are the loop's own affair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clrsearch.errors import TaskError
from clrsearch.frameworks.devices import require_own_device
from clrsearch.training import OwnRun


def scheduled(
    run: OwnRun, optimizer: Optimizer, arguments: TrainingArguments, samples: int
) -> tuple[Optimizer, LRScheduler]:
    """The value for ``Trainer(optimizers=...)``: the optimizer and the schedule for it.

    ``samples`` is the size of the training set.

    Raises:
        TaskError: the arguments do not train or evaluate the way the study does.
    """
    count = max(arguments.n_gpu, arguments.world_size)
    require_own_device("TrainingArguments", run.device, arguments.device, count)
    for name, wanted, means in (
        ("num_train_epochs", run.total_epochs, "run.total_epochs"),
        ("seed", run.seed, "run.seed"),  # otherwise all runs see the data in the same order
        ("eval_strategy", "epoch", '"epoch"'),
        ("fp16", False, "False: bf16 skips no step of the schedule"),
    ):
        found = getattr(arguments, name)
        if found != wanted:
            raise TaskError(f"TrainingArguments: {name} is {found}, and must be {means}")
    round_batches = math.floor if arguments.dataloader_drop_last else math.ceil
    batches = round_batches(samples / arguments.train_batch_size)
    steps = math.ceil(batches / arguments.gradient_accumulation_steps)
    return optimizer, run.scheduler(optimizer, steps)


class Reports(TrainerCallback):
    """Reports each evaluation; saves and restores the model and the optimizer."""

    def __init__(self, run: OwnRun) -> None:
        self._run = run
        self._epochs: Iterator[int] = iter(())
        self._reported = True  # this epoch
        self._metrics: dict[str, Any] = {}  # of the sets evaluated so far in this epoch

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Restore what an earlier attempt saved, and continue its shuffling of the data."""
        self._run.checkpoint(model=model, optimizer=optimizer)
        sampler: Any = getattr(train_dataloader.batch_sampler, "sampler", None)
        if hasattr(sampler, "initial_seed"):  # it adds the epoch, which restarts at 0
            sampler.initial_seed += self._run.done_epochs
        self._epochs = self._run.epochs()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start an epoch, with its own random seed."""
        self._report()
        next(self._epochs)
        self._reported, self._metrics = False, {}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell that the study's metric is missing, if it is."""
        self._report()

    def _report(self) -> None:
        """Report what an epoch's evaluations have given so far, unless it has been."""
        if not self._reported and self._metrics:
            self._reported = True
            self._run.report(**self._metrics)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        **_: Any,
    ) -> None:
        """Report the metrics; stop training after the last remaining epoch."""
        if self._reported:
            return
        self._metrics |= metrics
        if self._run.metric not in (None, *self._metrics):
            return  # it is of another set, or missing, which the next epoch tells
        self._report()
        control.should_training_stop = self._run.done_epochs == self._run.total_epochs
