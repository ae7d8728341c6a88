"""Calls a task's methods and validates what they return.

An error names the method, what it returned and what was expected. Exceptions raised by a method are
left to the caller, which knows the context of the call.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, default_collate

from clrsearch.errors import TaskError
from clrsearch.tasks import Loaders, Splits, Task, describe
from clrsearch.training.data import require_batch
from clrsearch.training.optimizer import change_weight_decay, require_optimizer

SPLITS = ("training", "validation", "test")
NUMBER = "a number or a scalar tensor"


def splits_of(task: Task) -> Splits:
    """The three datasets returned by ``data()``, none of them empty."""
    return Splits(*_three("data()", task.data(), "Splits", _require_dataset))


def loaders_of(task: Task) -> Loaders:
    """The three loaders returned by ``loaders()``."""
    return Loaders(*_three("loaders()", task.loaders(), "Loaders", _require_loader))


def _three(
    method: str, found: object, kind: str, require: Callable[[str, object], None]
) -> Sequence[Any]:
    if not isinstance(found, (tuple, list)) or len(found) != len(SPLITS):
        raise _returned(method, found, f"{kind}(train, validation, test)")
    for name, part in zip(SPLITS, found, strict=True):
        require(name, part)
    return found


def _require_loader(name: str, loader: object) -> None:
    what = f"loaders(): the {name} loader is {describe(loader)}, but must be"
    if not isinstance(loader, Iterable) or _is_text_or_dict(loader):
        raise TaskError(f"{what} an iterable of batches, such as a DataLoader")
    if isinstance(loader, Iterator):
        raise TaskError(f"{what} one that can be iterated over again, which an iterator cannot")


def _require_dataset(name: str, split: object) -> None:
    what, reason = f"the {name} split", ""
    if isinstance(split, DataLoader):
        reason = ": return DataLoaders from loaders()"
    elif isinstance(split, IterableDataset):
        reason = ": put a stream into a DataLoader, and return it from loaders()"
    elif isinstance(split, Sized) and hasattr(split, "__getitem__") and not _is_text_or_dict(split):
        if len(split) == 0:
            raise TaskError(f"data(): {what} is empty")
        return
    raise TaskError(
        f"data(): {what} is {describe(split)}, but must be a torch dataset with a length{reason}"
    )


def _is_text_or_dict(value: object) -> bool:
    return isinstance(value, (str, Mapping))


def collate_for(task: Task, split: str) -> Callable[[Sequence[Any]], Any]:
    """The ``collate_fn`` for a split: the task's own, or torch's default one.

    Without a training step of its own, the task takes samples that are (input, target) pairs.
    """
    if task.overrides("collate"):
        return partial(_collate_own, task)
    pairs = not task.overrides("training_step" if split == SPLITS[0] else "validation_step")
    return partial(_collate_pairs if pairs else _stack, split)


def _collate_own(task: Task, samples: Sequence[Any]) -> Any:
    batch = task.collate(samples)
    require_batch("collate() returned", batch)
    return batch


def _collate_pairs(split: str, samples: Sequence[Any]) -> Any:
    first = samples[0]
    if not (isinstance(first, (tuple, list)) and len(first) == 2):
        raise TaskError(
            f"data(): a sample of the {split} split is {describe(first)}, but must be a pair "
            "(input, target), or the task must define training_step() and validation_step()"
        )
    for what, part in zip(("input", "target"), first, strict=True):
        _require_stackable(f"the {what} of a sample of the {split} split", part)
    return _stack(split, samples)


def _require_stackable(what: str, part: object) -> None:
    """Reject what torch's default collate leaves as it is or refuses, such as strings."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            _require_stackable(f"{name!r} in {what}", value)
    elif isinstance(part, (tuple, list)):
        for value in part:
            _require_stackable(f"a part of {what}", value)
    elif not isinstance(part, (Tensor, np.ndarray, np.generic, numbers.Real)):
        raise TaskError(
            f"data(): {what} is {describe(part)}, but must be a tensor, an array or a number"
        )


def _stack(split: str, samples: Sequence[Any]) -> Any:
    try:
        return default_collate(list(samples))
    except (RuntimeError, TypeError) as error:
        kinds = " and ".join(dict.fromkeys(describe(_first(sample)) for sample in samples[:2]))
        raise TaskError(
            f"data(): samples of the {split} split cannot be stacked into a batch, for example "
            f"inputs that are {kinds}: {_first_line(error)}; collate() may stack them otherwise"
        ) from error


def _first(sample: Any) -> Any:
    return sample[0] if isinstance(sample, (tuple, list)) and sample else sample


def build(task: Task, device: torch.device) -> tuple[nn.Module, Optimizer]:
    """A new model on the device, and its optimizer, with the weight decay of the study if any."""
    model = task.model()
    if not isinstance(model, nn.Module):
        raise _returned("model()", model, "a torch.nn.Module")
    model = model.to(device)
    optimizer = task.optimizer(model)
    if not isinstance(optimizer, Optimizer):
        raise _returned("optimizer()", optimizer, "a torch optimizer: the study sets the schedule")
    require_optimizer("optimizer(): the optimizer", optimizer)
    if task.asked_weight_decay is not None:
        change_weight_decay(optimizer, task.asked_weight_decay)
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


def pair_of(batch: Any) -> tuple[Any, Any]:
    """The inputs and targets of a batch for ``loss()`` or ``measure()``."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise TaskError(
            f"a batch is {describe(batch)}, but loss() and measure() need a pair (inputs, targets):"
            " define training_step() and validation_step() for any other"
        )
    inputs, targets = batch
    return inputs, targets


def augmented(task: Task, inputs: Any) -> Any:
    """A batch of inputs after ``augment()``."""
    if not task.overrides("augment"):
        return inputs
    found = task.augment(inputs)
    if isinstance(inputs, Tensor) and not isinstance(found, Tensor):
        raise _returned("augment()", found, "the inputs as a tensor")
    return found


def batch_loss(task: Task, model: nn.Module, batch: Any, *, augment: bool) -> Tensor:
    """The scalar training loss of a batch, of augmented inputs if the task augments them itself."""
    if task.overrides("training_step"):
        return _loss("training_step()", task.training_step(model, batch))
    inputs, targets = pair_of(batch)
    if augment:
        inputs = augmented(task, inputs)
    return _loss("loss()", task.loss(forward(model, inputs), targets))


def _loss(method: str, loss: Any) -> Tensor:
    """A scalar loss of a batch, differentiable if gradients are enabled."""
    if not isinstance(loss, Tensor):
        hint = ", without item()" if isinstance(loss, float) else ""
        raise _returned(method, loss, f"a scalar tensor{hint}")
    if loss.dim() != 0:
        raise _returned(method, loss, "a scalar tensor, the mean over the batch")
    if not loss.requires_grad and torch.is_grad_enabled():
        raise TaskError(
            f"{method} returned a tensor without a gradient: compute it from the model's output, "
            "without detach() or no_grad(), and do not freeze all parameters"
        )
    return loss


def summed(found: Any) -> dict[str, Any]:
    """What ``validation_step()`` returned for a batch: (sum, weight) pairs or metrics by name."""
    if hasattr(found, "compute") and not hasattr(found, "items"):
        raise _returned("validation_step()", found, "a dict with the metric under its name")
    metrics: dict[str, Any] = {}
    given = dict(found.items()) if hasattr(found, "items") else found
    for name, value in _metrics("validation_step()", given).items():
        if hasattr(value, "compute") and hasattr(value, "reset"):
            metrics[name] = value
            continue
        what = f"validation_step(): {name}"
        if not (isinstance(value, (tuple, list)) and len(value) == 2):
            raise TaskError(
                f"{what} is {describe(value)}, but must be a pair (sum, weight), or a metric that "
                "was updated"
            )
        for part, each in zip(("sum", "weight"), value, strict=True):
            _require_number(f"{what}: its {part}", each, NUMBER)
        metrics[name] = tuple(value)
    return metrics


def finished(sums: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of all batches: sums divided by their weights, and computed metrics."""
    results: dict[str, Any] = {}
    for name, found in sums.items():
        if not isinstance(found, tuple):
            results[name] = found.compute()
            continue
        total, weight = map(float, found)
        if weight == 0:
            raise TaskError(f"validation_step(): the weights of {name} add up to 0")
        results[name] = total / weight
    return numbers_of("validation_step()", results)


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
