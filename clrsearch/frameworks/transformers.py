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

What the Trainer measures is reported by the name that it has there, such as ``eval_loss``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clrsearch.errors import TaskError
from clrsearch.training import OwnRun


def scheduled(
    run: OwnRun, optimizer: Optimizer, arguments: TrainingArguments, samples: int
) -> tuple[Optimizer, LRScheduler]:
    """What ``Trainer(optimizers=...)`` takes: the optimizer, and the schedule that is played to it.

    ``samples`` is the length of the training data.

    Raises:
        TaskError: the arguments do not train or measure as the study does.
    """
    for name, wanted, means in (
        ("num_train_epochs", run.total_epochs, "run.total_epochs"),
        ("seed", run.seed, "run.seed"),  # else all runs see the data in one order
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
    """Reports each evaluation; saves model and optimizer, and brings them back."""

    def __init__(self, run: OwnRun) -> None:
        self._run = run
        self._epochs: Iterator[int] = iter(())

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
        """Bring back what an earlier attempt has saved, and draw the data as it would go on."""
        self._run.checkpoint(model=model, optimizer=optimizer)
        sampler: Any = getattr(train_dataloader.batch_sampler, "sampler", None)
        if hasattr(sampler, "initial_seed"):  # to which it adds the epoch, that counts from 0 again
            sampler.initial_seed += self._run.done_epochs
        self._epochs = self._run.epochs()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin an epoch, with its own random seed."""
        next(self._epochs)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        **_: Any,
    ) -> None:
        """Report what was measured; after the last epoch that was left, training ends."""
        self._run.report(**metrics)
        control.should_training_stop = self._run.done_epochs == self._run.total_epochs
