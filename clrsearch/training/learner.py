"""A model in training: takes optimizer steps on batches, and measures the model on others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clrsearch.tasks import Task
from clrsearch.training.contract import (
    build,
    evaluated,
    finished,
    forward,
    measured,
    pair_of,
    summed,
    training_loss,
    validation_loss,
)
from clrsearch.training.data import batch_length, channels_last
from clrsearch.training.playback import load_optimizer
from clrsearch.training.precision import Precision, compute_in


class Learner:
    """A fresh model of a task with its optimizer, drawn from torch's global generator.

    Attributes:
        model: the model that is trained.
        optimizer: its optimizer.
    """

    def __init__(self, task: Task, device: torch.device, precision: Precision = "float32") -> None:
        self._task = task
        self.model, self.optimizer = build(task, device)
        self._averaged: AveragedModel | None = None
        if task.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if task.ema is not None:
            average: Any = get_ema_multi_avg_fn
            self._averaged = AveragedModel(
                self.model, multi_avg_fn=average(task.ema), use_buffers=True
            )
            compute_in(precision, self._averaged.module, device)
        if task.compile:
            self.model.compile()
        compute_in(precision, self.model, device)
        self._scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None

    def step(self, batches: Iterable[Any]) -> torch.Tensor:
        """Take one optimizer step on the mean loss of the batches, which it returns, a scalar.

        There are ``accumulate`` of them.
        """
        self.optimizer.zero_grad()
        losses = []
        for batch in batches:
            loss = training_loss(self._task, self.model, self._laid_out(batch))
            if self._task.accumulate > 1:
                loss = loss / self._task.accumulate
            scaled = loss if self._scaler is None else self._scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self._task.clip_norm is not None:
            self._clip(self._task.clip_norm)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        if self._averaged is not None:
            self._averaged.update_parameters(self.model)
        self._task.after_step(self.model)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def validate(self, batches: Iterable[Any]) -> dict[str, float]:
        """The task's metrics over all the batches, of the averaged weights if there are any.

        Raises:
            TaskError: a metric is not what it has to be, or its weights add up to 0.
        """
        model = self.model if self._averaged is None else self._averaged.module
        model.eval()
        with torch.no_grad():
            laid_out = (self._laid_out(batch) for batch in batches)
            if self._task.overrides("validation_step"):
                return self._by_step(model, laid_out)
            return self._by_measure(model, laid_out)

    def validation_loss(self, batch: Any) -> float:
        """The training loss of the trained model on a batch, without training on it."""
        self.model.eval()
        with torch.no_grad():
            return validation_loss(self._task, self.model, self._laid_out(batch)).item()

    def state(self) -> dict[str, Any]:
        """All that changes while training."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self._averaged is not None:
            state["averaged"] = self._averaged.state_dict()
        if self._scaler is not None:
            state["scaler"] = self._scaler.state_dict()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state from :meth:`state`; any exception may be raised for another's."""
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _clip(self, limit: float) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        groups = self.optimizer.param_groups
        clip_grad_norm_([weight for group in groups for weight in group["params"]], limit)

    def _laid_out(self, batch: Any) -> Any:
        """The batch, with its images in the memory layout of the model."""
        return channels_last(batch) if self._task.channels_last else batch

    def _by_measure(self, model: torch.nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        task = self._task
        samples, sums = 0, dict[str, Any]()
        outputs, targets = [], []
        for batch in batches:
            inputs, target = pair_of(batch)
            output = forward(model, inputs)
            for name, value in measured(task, output, target).items():
                sums[name] = sums[name] + value if name in sums else value
            samples += batch_length(target) or batch_length(inputs)
            if task.evaluates():
                outputs.append(output)
                targets.append(target)
        metrics = {name: float(value) / samples for name, value in sums.items()}
        if outputs:
            metrics |= evaluated(task, outputs, targets)
        return metrics

    def _by_step(self, model: torch.nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        sums: dict[str, Any] = {}
        try:
            for batch in batches:
                for name, found in summed(self._task.validation_step(model, batch)).items():
                    if isinstance(found, tuple) and name in sums:
                        (total, weight), (more, its_weight) = sums[name], found
                        sums[name] = total + more, weight + its_weight
                    else:
                        sums[name] = found
            return finished(sums)
        finally:  # also if it was interrupted, as the next validation begins anew
            for found in sums.values():
                if not isinstance(found, tuple):
                    found.reset()
