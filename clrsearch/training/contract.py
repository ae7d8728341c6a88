"""Calls a task's methods and validates what they return.

An error names the method, what it returned and what was expected. Exceptions raised by a method are
left to the caller, which knows the context of the call.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, default_collate

from clrsearch.errors import TaskError
from clrsearch.tasks import Splits, Task, describe
from clrsearch.training.optimizer import require_optimizer

SPLITS = ("training", "validation", "test")
NUMBER = "a number or a scalar tensor"


def splits_of(task: Task) -> Splits:
    """The three datasets returned by ``data()``, none of them empty."""
    found = task.data()
    if not isinstance(found, (tuple, list)) or len(found) != len(SPLITS):
        raise _returned("data()", found, "Splits(train, validation, test)")
    for name, split in zip(SPLITS, found, strict=True):
        _require_dataset(f"the {name} split", split)
    return Splits(*found)


def _require_dataset(what: str, split: object) -> None:
    reason = ""
    if isinstance(split, DataLoader):
        reason = ": clrsearch makes the batches"
    elif isinstance(split, IterableDataset):
        reason = ": a schedule needs a known number of steps"
    elif isinstance(split, Sized) and hasattr(split, "__getitem__") and not _is_text_or_dict(split):
        if len(split) == 0:
            raise TaskError(f"data(): {what} is empty")
        return
    raise TaskError(
        f"data(): {what} is {describe(split)}, but must be a torch dataset with a length{reason}"
    )


def _is_text_or_dict(value: object) -> bool:
    return isinstance(value, (str, Mapping))


def collate(split: str) -> Callable[[Sequence[Any]], tuple[Tensor, Tensor]]:
    """A ``collate_fn`` like torch's default one, for samples that are (input, target) pairs."""

    def collate_pairs(samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        first = samples[0]
        if not (isinstance(first, (tuple, list)) and len(first) == 2):
            raise TaskError(
                f"data(): a sample of the {split} split is {describe(first)}, but must be a pair "
                "(input, target)"
            )
        for what, part in zip(("input", "target"), first, strict=True):
            if not isinstance(part, (Tensor, np.ndarray, np.generic, numbers.Real)):
                raise TaskError(
                    f"data(): the {what} of a sample of the {split} split is {describe(part)}, but "
                    "must be a tensor, an array or a number"
                )
        try:
            inputs, targets = default_collate(list(samples))
        except (RuntimeError, TypeError) as error:
            kinds = " and ".join(dict.fromkeys(describe(sample[0]) for sample in samples[:2]))
            raise TaskError(
                f"data(): samples of the {split} split cannot be stacked into a batch, for example "
                f"inputs that are {kinds}: {_first_line(error)}"
            ) from error
        return inputs, targets

    return collate_pairs


def build(task: Task, device: torch.device) -> tuple[nn.Module, Optimizer]:
    """A new model on the device, and its optimizer."""
    model = task.model()
    if not isinstance(model, nn.Module):
        raise _returned("model()", model, "a torch.nn.Module")
    model = model.to(device)
    optimizer = task.optimizer(model)
    if not isinstance(optimizer, Optimizer):
        raise _returned("optimizer()", optimizer, "a torch optimizer: the study sets the schedule")
    require_optimizer("optimizer(): the optimizer", optimizer)
    step = inspect.signature(optimizer.step).parameters.values()
    if any(each.default is each.empty and each.kind == each.POSITIONAL_OR_KEYWORD for each in step):
        raise TaskError(
            f"optimizer() returned {describe(optimizer)}, whose step() needs a closure, which is "
            "not supported: use another optimizer, or a custom training loop"
        )
    return model, optimizer


def forward(model: nn.Module, inputs: Any) -> Any:
    """The model's output for a batch."""
    output = model(inputs)
    if output is None:
        raise TaskError("the model's forward() returned None: is a return statement missing?")
    return output


def augmented(task: Task, inputs: Tensor) -> Tensor:
    """A batch of inputs after ``augment()``."""
    found = task.augment(inputs)
    if not isinstance(found, Tensor):
        raise _returned("augment()", found, "the inputs as a tensor")
    return found


def loss_of(task: Task, output: Any, targets: Any) -> Tensor:
    """The scalar ``loss()`` of a batch, differentiable if gradients are enabled."""
    loss: Any = task.loss(output, targets)
    if not isinstance(loss, Tensor):
        hint = ", without item()" if isinstance(loss, float) else ""
        raise _returned("loss()", loss, f"a scalar tensor{hint}")
    if loss.dim() != 0:
        raise _returned("loss()", loss, "a scalar tensor, the mean over the batch")
    if not loss.requires_grad and torch.is_grad_enabled():
        raise TaskError(
            "loss() returned a tensor without a gradient: compute it from the model's output, "
            "without detach() or no_grad(), and do not freeze all parameters"
        )
    return loss


def measured(task: Task, output: Any, targets: Any) -> Mapping[str, Any]:
    """The result of ``measure()`` for a validation batch: scalars by name."""
    found = _metrics("measure()", task.measure(output, targets))
    for name, value in found.items():
        _require_number(f"measure(): {name}", value, f"{NUMBER}, summed over the batch")
    return found


def evaluated(task: Task, outputs: Sequence[Any], targets: Sequence[Tensor]) -> dict[str, float]:
    """The result of ``evaluate()`` on all batches together."""
    if not all(isinstance(output, Tensor) for output in outputs):
        raise TaskError(
            "evaluate() takes all outputs as one tensor, but the model's output is "
            f"{describe(outputs[0])}"
        )
    shapes = {tuple(output.shape[1:]) for output in outputs}
    if len(shapes) > 1:
        raise TaskError(
            "evaluate() takes all outputs as one tensor, but they have different shapes: "
            f"{', '.join(map(str, sorted(shapes)[:3]))} per sample"
        )
    whole = task.evaluate(torch.cat(list(outputs)), torch.cat(list(targets)))
    return numbers_of("evaluate()", whole)


def numbers_of(method: str, found: object) -> dict[str, float]:
    """The metrics that ``method`` returned or received, as floats."""
    metrics = _metrics(method, found)
    for name, value in metrics.items():
        _require_number(f"{method}: {name}", value, NUMBER)
    return {name: float(value) for name, value in metrics.items()}


def _require_number(what: str, value: Any, wanted: str) -> None:
    """Reject anything but a number or a scalar, without synchronising with the device."""
    if isinstance(value, (Tensor, np.ndarray)):
        fits = value.shape.numel() == 1 if isinstance(value, Tensor) else value.size == 1
    else:
        fits = isinstance(value, numbers.Real)
    if not fits:
        raise TaskError(f"{what} is {describe(value)}, but must be {wanted}")


def _metrics(method: str, found: object) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise _returned(method, found, "a dict of metrics by name")
    for name in found:
        if not isinstance(name, str) or not name:
            raise TaskError(
                f"{method}: a metric's name is {describe(name)}, but must be a non-empty string"
            )
    return found


def _returned(method: str, found: object, wanted: str) -> TaskError:
    return TaskError(f"{method} returned {describe(found)}, but must return {wanted}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
