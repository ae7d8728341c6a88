"""A model in training: takes optimizer steps on batches, and measures the model on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clrsearch.errors import TaskError
from clrsearch.tasks import Task
from clrsearch.training.averaging import (
    AveragedWeights,
    Switched,
    averaging_twin,
    estimate_statistics,
    require_averaging,
)
from clrsearch.training.contract import (
    batch_loss,
    build,
    evaluated,
    finished,
    forward,
    measured,
    pair_of,
    summed,
)
from clrsearch.training.data import batch_length, channels_last, moved
from clrsearch.training.group import Group
from clrsearch.training.optimizer import has_gradients
from clrsearch.training.playback import load_optimizer
from clrsearch.training.precision import Precision, compute_in


class Learner:
    """A fresh model of a task with its optimizer, drawn from torch's global generator.

    In a ``group``, gradients are averaged over the ranks, which have equal shares of each batch.
    With ``averaging``, Schedule-Free takes the place of the optimizer, with this beta.

    Attributes:
        model: the model that is trained.
        optimizer: its optimizer.
        given: the task's own optimizer.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        precision: Precision = "float32",
        group: Group | None = None,
        averaging: float | None = None,
    ) -> None:
        self._task = task
        self._group = group
        self.model, self.given = build(task, device)
        self.optimizer = self.given
        self.averaged: AveragedModel | None = None
        self._free: AveragedWeights | None = None
        if task.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if averaging is not None:
            require_averaging(task)
            self.optimizer = averaging_twin(self.given, averaging)
            self._free = AveragedWeights(self.model)
            compute_in(precision, self._free.module, device)
        if task.ema is not None:
            self.averaged = AveragedModel(
                self.model, multi_avg_fn=_averaging(task.ema), use_buffers=True
            )
            compute_in(precision, self.averaged.module, device)
        if task.compile:
            self.model.compile()
        compute_in(precision, self.model, device)
        self._scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self._trained: torch.nn.Module = self.model if group is None else _Shared(self.model)
        self._checked = group is None  # that the ranks have the same gradients

    def step(self, batches: Iterable[Any]) -> torch.Tensor:
        """Take one optimizer step on the mean loss of the batches, which it returns, a scalar.

        There are ``accumulate`` of them.
        """
        self.optimizer.zero_grad()
        losses: list[torch.Tensor] = []
        for batch in batches:
            with self._reducing(last=len(losses) == self._task.accumulate - 1):
                loss = batch_loss(self._task, self._trained, self._laid_out(batch), augment=True)
                if self._task.accumulate > 1:
                    loss = loss / self._task.accumulate
                scaled = loss if self._scaler is None else self._scaler.scale(loss)
                scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if not self._checked:
            self._require_same_gradients()
        if self._task.clip_norm is not None:
            self._clip(self._task.clip_norm)
        if self._scaler is None or not has_gradients(self.optimizer):
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self._task.after_step(self.model)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def average(self, batches: Iterable[Any]) -> bool:
        """Take the averaged weights of Schedule-Free, to be validated next.

        Returns whether any of the training ``batches`` were drawn: for the statistics of batch
        norm, which are those of the weights in training.
        """
        assert self._free is not None
        model = self._free.module
        self._free.update(self.model, cast(Switched, self.optimizer))

        def forward(batch: Any) -> object:
            return batch_loss(self._task, model, self._laid_out(batch), augment=True)

        return estimate_statistics(model, forward, batches)

    def validate(self, batches: Iterable[Any], samples: int | None = None) -> dict[str, float]:
        """The task's metrics over all the batches, of the averaged weights if there are any.

        The batches hold so many ``samples``; they are counted if that is not known.

        Raises:
            TaskError: a metric is not what it has to be, or its weights add up to 0.
        """
        averages = self._free or self.averaged
        model = self.model if averages is None else averages.module
        model.eval()
        if self._group is not None:  # each rank has seen other batches
            self._group.copy_from_first(list(model.buffers()))
        with torch.no_grad():
            laid_out = (self._laid_out(batch) for batch in batches if batch is not None)
            if self._task.overrides("validation_step"):
                return self._by_step(model, laid_out)
            return self._by_measure(model, laid_out, samples)

    def validation_loss(self, batch: Any) -> float:
        """The training loss of the trained model on a batch, without training on it."""
        self.model.eval()
        with torch.no_grad():
            return batch_loss(self._task, self.model, self._laid_out(batch), augment=False).item()

    def state(self) -> dict[str, Any]:
        """All that changes while training."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.averaged is not None:
            state["averaged"] = self.averaged.state_dict()
        if self._scaler is not None:
            state["scaler"] = self._scaler.state_dict()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state from :meth:`state`; any exception may be raised for another's."""
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _reducing(self, *, last: bool) -> AbstractContextManager[None]:
        """Average gradients over the ranks in the last backward pass of a step alone."""
        if last or not isinstance(self._trained, DistributedDataParallel):
            return nullcontext()
        return self._trained.no_sync()

    def _require_same_gradients(self) -> None:
        """Reject a training step that goes past the model's forward(), and so past averaging.

        Raises:
            TaskError: the gradients differ between the ranks.
        """
        assert self._group is not None
        parameters = self.model.named_parameters()
        unused = [name for name, each in parameters if each.requires_grad and each.grad is None]
        if unused:
            raise TaskError(
                "with --gpus-per-trial, each parameter needs a gradient in every step, and "
                f"{', '.join(unused[:3])} had none: use it, or set its requires_grad to False"
            )
        sums = [
            weight.grad.double().sum()
            for weight in self.model.parameters()
            if weight.grad is not None
        ]
        known = torch.stack(sums).nan_to_num().tolist() if sums else []
        if any(other != known for other in self._group.gathered(known)):
            raise TaskError(
                "with --gpus-per-trial, training_step() must compute the loss from what "
                "model(...) returns: gradients of anything else are not averaged over the GPUs"
            )
        self._checked = True

    def _clip(self, limit: float) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        groups = self.optimizer.param_groups
        clip_grad_norm_([weight for group in groups for weight in group["params"]], limit)

    def _of_all(self, parts: list[Any]) -> list[Any]:
        """The outputs or targets of all ranks, in the order of the samples."""
        assert self._group is not None
        found = self._group.in_turn(moved(parts, torch.device("cpu")))
        return [moved(each, self._group.device) for each in found]

    def _laid_out(self, batch: Any) -> Any:
        """The batch, with its images in the memory layout of the model."""
        return channels_last(batch) if self._task.channels_last else batch

    def _by_measure(
        self, model: torch.nn.Module, batches: Iterable[Any], samples: int | None
    ) -> dict[str, float]:
        task = self._task
        seen, sums = 0, dict[str, Any]()
        outputs, targets = [], []
        for batch in batches:
            inputs, target = pair_of(batch)
            output = forward(model, inputs)
            for name, value in measured(task, output, target).items():
                sums[name] = sums[name] + value if name in sums else value
            seen += batch_length(target) or batch_length(inputs)
            if task.evaluates():
                outputs.append(output)
                targets.append(target)
        if self._group is not None:
            seen, sums = _added(self._group, seen, sums)
        metrics = {name: float(value) / (samples or seen) for name, value in sums.items()}
        if self._group is not None and task.evaluates():
            outputs, targets = self._of_all(outputs), self._of_all(targets)
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
            return finished(sums if self._group is None else _united(self._group, sums))
        finally:  # also if it was interrupted, as the next validation begins anew
            for found in sums.values():
                if not isinstance(found, tuple):
                    found.reset()


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """torch's exponential moving average, which copies what is not a floating-point number."""
    make: Any = get_ema_multi_avg_fn
    average = make(decay)

    def update(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            average(averaged, current, count)
        else:  # such as an index in a buffer; all have one type
            torch._foreach_copy_(averaged, current)

    return update


class _Shared(DistributedDataParallel):
    """A model whose gradients are averaged over the ranks, with the attributes of that model."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _added(group: Group, samples: int, sums: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The samples and sums of all ranks together."""
    parts = group.gathered((samples, {name: float(value) for name, value in sums.items()}))
    names = dict.fromkeys(name for _, found in parts for name in found)
    totals = {name: sum(found.get(name, 0.0) for _, found in parts) for name in names}
    return sum(count for count, _ in parts), totals


def _united(group: Group, sums: Mapping[str, Any]) -> dict[str, Any]:
    """The sums and weights of all ranks together; metrics unite themselves when computed.

    Raises:
        TaskError: a rank has had no sample for such a metric.
    """
    own = {
        name: tuple(map(float, found)) if isinstance(found, tuple) else None
        for name, found in sums.items()
    }
    parts = group.gathered(own)
    united: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        if all(part.get(name) is not None for part in parts if name in part):
            pairs = [part[name] for part in parts if name in part]
            united[name] = sum(total for total, _ in pairs), sum(weight for _, weight in pairs)
        elif all(name in part for part in parts):
            united[name] = sums[name]
        else:
            raise TaskError(
                f"validation_step(): {name} is a metric object, for which each of {group.size} "
                "GPUs needs a sample: validate on more samples, or return a pair (sum, weight)"
            )
    return united
