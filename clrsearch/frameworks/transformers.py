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

In a study that validates every so many optimizer steps, or whose length is in steps:

        arguments = TrainingArguments(
            max_steps=run.total_steps,  # or num_train_epochs=run.total_epochs
            eval_strategy="steps",
            eval_steps=run.validate_every,
            seed=run.seed,
            ...

The end of a run is evaluated in any case. A trial that is resumed within an epoch reads the batches
again that it has been trained on, and does not train on them. The first training loss that the
Trainer logs is then too small: it divides by the steps of the earlier attempt as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clrsearch.errors import TaskError
from clrsearch.frameworks.devices import require_own_device
from clrsearch.frameworks.passes import ENDED, Place, reached, seed_pass, steps_in
from clrsearch.training import OwnRun


def scheduled(
    run: OwnRun, optimizer: Optimizer, arguments: TrainingArguments, samples: int | None = None
) -> tuple[Optimizer, LRScheduler]:
    """The value for ``Trainer(optimizers=...)``: the optimizer and the schedule for it.

    ``samples`` is the size of the training set; it is not needed if the length is in steps.

    Raises:
        TaskError: the arguments do not train or evaluate the way the study does.
    """
    count = max(arguments.n_gpu, arguments.world_size)
    require_own_device("TrainingArguments", run.device, arguments.device, count)
    for name, wanted, means in _demands(run):
        found = getattr(arguments, name)
        if found != wanted:
            raise TaskError(f"TrainingArguments: {name} is {found}, and must be {means}")
    if run.total_steps is not None:
        return optimizer, run.scheduler(optimizer, total_steps=run.total_steps)
    if samples is None:
        raise TaskError(
            "scheduled(): samples, the size of the training set, has to be given, or the study a "
            "length in steps"
        )
    round_batches = math.floor if arguments.dataloader_drop_last else math.ceil
    size = arguments.train_batch_size * max(arguments.world_size, 1)
    batches = round_batches(samples / size)
    steps = steps_in(batches, arguments.gradient_accumulation_steps)
    return optimizer, run.scheduler(optimizer, int(steps))


def _demands(run: OwnRun) -> Iterator[tuple[str, Any, str]]:
    """What the arguments have to be, each by its name, its value and that in words."""
    if run.total_steps is None:
        yield "num_train_epochs", run.total_epochs, "run.total_epochs"
        yield "max_steps", -1, "-1, the study's length is in epochs: leave it out"
    else:
        yield "max_steps", run.total_steps, "run.total_steps"
    yield "seed", run.seed, "run.seed"  # otherwise all runs see the data in the same order
    if run.validate_every is None:
        yield "eval_strategy", "epoch", '"epoch", or give the study validate_every'
    else:
        means = f'"steps": the study validates every {run.validate_every} steps'
        yield "eval_strategy", "steps", means
        yield "eval_steps", run.validate_every, f"run.validate_every, {run.validate_every}"
    yield "eval_delay", 0, "0: the study validates from the beginning"
    yield "fp16", False, "False: bf16 skips no step of the schedule"


class Order(Sampler[Any]):
    """An order of the samples, in which each batch seeds what is drawn from its beginning on.

    The Trainer reads a batch ahead, so that what an interval's seed is followed by depends on where
    training has begun.
    """

    def __init__(self, order: Any, batch_size: int, run: OwnRun, passes: int) -> None:
        """``passes`` were finished before the Trainer's first one."""
        self._order = order
        self._batch_size = batch_size
        self._run = run
        self._pass = self._passes = passes

    def set_epoch(self, epoch: int) -> None:
        """Go to a pass, by its number for the Trainer."""
        self._pass = self._passes + epoch
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(self._pass)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        number, batch = self._pass, 0
        for place, index in enumerate(self._order):
            if place % self._batch_size == 0:
                batch += 1
                seed_pass(self._run, number, batch)
            yield index


class Reports(TrainerCallback):
    """Reports each evaluation; saves and restores the model and the optimizer."""

    def __init__(self, run: OwnRun) -> None:
        self._run = run
        self._within = run.validate_every is not None  # validates within the epochs
        self._intervals: Iterator[range] = iter(())
        self._steps: range | None = None  # of the interval that has begun and not been reported
        self._metrics: dict[str, Any] = {}  # of the sets evaluated so far at its end
        self._start = Place(step=0, passes=0, batches=0)  # of the training
        self._batches = math.inf  # of a pass
        self._per_step = 1  # batches
        self._pass = 0
        self._pass_start = 0  # step
        self._passed_over = 0  # batches of this pass, on which an earlier attempt was trained

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
        """Restore what an earlier attempt saved, and tell the Trainer how far it was trained."""
        self._run.checkpoint(model=model, optimizer=optimizer)
        self._intervals = self._run.intervals()
        self._per_step = args.gradient_accumulation_steps
        self._batches = _length(train_dataloader)
        self._start = start = reached(self._run, self._batches, self._per_step)
        self._pass = start.passes - 1
        state.global_step = start.step
        batches = train_dataloader.batch_sampler
        sampler: Any = getattr(batches, "sampler", None)
        if self._within and sampler is not None:
            batches.sampler = Order(sampler, batches.batch_size, self._run, start.passes)
        elif hasattr(sampler, "initial_seed"):  # it adds the epoch, which restarts at 0
            sampler.initial_seed += start.passes

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Start a pass, with its own random seed, or go on within one."""
        self._pass += 1
        self._passed_over = self._start.batches if self._pass == self._start.passes else 0
        self._pass_start = state.global_step - self._passed_over // self._per_step
        if not self._within:
            self._begin()
            return
        train_dataloader.skip_batches = self._passed_over
        seed_pass(self._run, self._pass)
        self._have_last_step(args, state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start an interval, with its own random seed, once its first batches are read."""
        if self._within and (self._steps is None or self._metrics):
            self._begin()
        self._have_last_step(args, state, begun=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have the end of an interval evaluated, that of the run included."""
        args.gradient_accumulation_steps = self._per_step
        batches = state.max_steps * self._per_step if math.isinf(self._batches) else self._batches
        done = min((state.global_step - self._pass_start) * self._per_step, batches)
        state.epoch = self._pass + done / batches
        if self._within and self._steps is not None and state.global_step == self._steps.stop:
            control.should_evaluate = True
        self._have_last_step(args, state)

    def _have_last_step(
        self, args: TrainingArguments, state: TrainerState, *, begun: bool = False
    ) -> None:
        """Have the Trainer step after the last batches of a pass that it has not seen whole.

        It counts the batches of the pass that it has seen: it steps if they are a multiple of those
        of a step, or all of the pass. ``begun`` says whether the step has begun, which it does
        where their number before is such a multiple.
        """
        left = self._batches - (state.global_step - self._pass_start) * self._per_step
        if not self._passed_over or not 0 < left < self._per_step:
            return
        if left == 1:
            args.gradient_accumulation_steps = 1
        elif begun:
            args.gradient_accumulation_steps = int(self._batches) - self._passed_over

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Refuse an empty pass, which would end the training early."""
        if self._passed_over and state.global_step == self._start.step:
            raise TaskError(ENDED)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        **_: Any,
    ) -> None:
        """Report the metrics at the end of an interval; stop training after the last epoch."""
        if self._steps is None or (self._within and state.global_step != self._steps.stop):
            return
        self._metrics |= metrics
        if self._run.metric not in (None, *self._metrics):
            return  # it is of another set, or missing, which the next interval tells
        self._report()
        if not self._within:
            control.should_training_stop = self._run.done_epochs == self._run.total_epochs

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell that the study's metric is missing, if it is."""
        self._report()

    def _begin(self) -> None:
        """Begin the next interval, once the one before has been reported."""
        self._report()
        self._steps = next(self._intervals, None)
        if self._steps is None:
            raise TaskError(
                "the Trainer trains on after the end of the run: give scheduled() the size of the "
                "training set"
            )

    def _report(self) -> None:
        """Report what the evaluations at an interval's end have given so far, if anything."""
        if self._metrics:
            metrics, self._metrics, self._steps = self._metrics, {}, None
            self._run.report(**metrics)


def _length(loader: Any) -> float:
    """The number of its batches, infinite if it tells none."""
    try:
        return len(loader)
    except TypeError:
        return math.inf
