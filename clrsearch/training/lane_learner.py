"""Models in training side by side: one vectorized step trains K of them, a lane each.

The weights of all lanes are stacked, and the task's own code runs under torch.func.vmap, so that it
sees one model as ever. Lanes differ in their weights, batches, rates and momenta, and in nothing
else. The idea is that of S. Wang et al., "Horizontally Fused Training Array", MLSys 2021,
arXiv:2102.02344.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from clrsearch.tasks import Task
from clrsearch.training.captured import Captured
from clrsearch.training.contract import (
    batch_loss,
    build,
    finished,
    forward,
    measured,
    pair_of,
    summed,
)
from clrsearch.training.data import batch_length
from clrsearch.training.lane_optimizers import STEP, Play, Rule, State, rules_of
from clrsearch.training.learner import Learner
from clrsearch.training.precision import Precision, compute_in

NORM_EPS = 1e-6  # torch's, in clip_grad_norm_


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The weights of one parameter group and one data type: flattened, a row of P per lane.

    ``names`` are those of its parameters in the model, with their ``shapes`` and ``sizes``.
    """

    group: int
    rule: Rule
    dtype: torch.dtype
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]

    def views(self, row: Tensor) -> dict[str, Tensor]:
        """The parameters in a row of weights (P,), or of their state, by name."""
        parts = torch.split(row, [*self.sizes])
        pairs = zip(self.names, parts, self.shapes, strict=True)
        return {name: part.view(shape) for name, part, shape in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A copy of one lane: weights and optimizer state by block, and all other tensors by name."""

    weights: list[Tensor]
    states: list[State]
    fixed: dict[str, Tensor]
    averaged: tuple[list[Tensor], dict[str, Tensor], Tensor] | None


class LaneLearner:
    """K models of a task with their optimizers, trained and validated together.

    Attributes:
        size: the number of lanes.
        validates_together: whether the metrics can be measured in all lanes at once.
    """

    def __init__(
        self,
        task: Task,
        size: int,
        device: torch.device,
        precision: Precision = "float32",
        *,
        plays_momentum: bool,
        unused: Collection[str] = (),
    ) -> None:
        """Set up the lanes, which hold nothing of use until :meth:`put`.

        ``plays_momentum`` says that traces have momenta. Parameters that never have a gradient are
        ``unused``: torch's optimizers leave them alone.
        """
        self.size = size
        self.validates_together = not task.evaluates()
        self._task = task
        self._device = device
        self._model, optimizer = build(task, device)
        compute_in(precision, self._model, device)
        self._loss, self._metrics = _Loss(task, self._model), _Metrics(task, self._model)
        rules = rules_of(optimizer, plays_momentum=plays_momentum)
        self._blocks = _blocks(self._model, optimizer, rules, unused)
        self._momentum_of_groups: list[dict[str, Any]] = [
            {key: group[key] for key in ("momentum", "betas") if key in group}
            for group in optimizer.param_groups
        ]
        own = [rule.momentum for rule in rules]
        self._momenta = torch.tensor([own] * size, device=device, dtype=torch.float64)
        self._keeps = 0.0 in own
        trained = {name for block in self._blocks for name in block.names}

        def zeros(block: Block, width: int) -> Tensor:
            return torch.zeros((size, width), dtype=block.dtype, device=device)

        self._weights = [zeros(block, sum(block.sizes)) for block in self._blocks]
        self._states: list[State] = [
            {name: zeros(block, sum(block.sizes)) for name in block.rule.names}
            | {STEP: torch.zeros((size, 1), dtype=torch.float64, device=device)}
            for block in self._blocks
        ]
        self._fixed = {
            name: torch.stack([tensor.detach()] * size)
            for name, tensor in _tensors(self._model).items()
            if name not in trained
        }
        self._averaged: tuple[list[Tensor], dict[str, Tensor], Tensor] | None = None
        if task.ema is not None:
            self._averaged = (
                [each.clone() for each in self._weights],
                {name: each.clone() for name, each in self._fixed.items()},
                torch.zeros(size, dtype=torch.int64, device=device),
            )
        self._advance: Callable[..., Tensor] | None = None  # if not the plain step

    @property
    def bytes_per_lane(self) -> int:
        """Memory for a lane's weights, their state and gradients, without activations."""
        held = sum(each[0].nbytes for each in (*self._weights, *self._fixed.values()))
        states = sum(each[0].nbytes for state in self._states for each in state.values())
        return (3 if self._averaged else 2) * held + states

    def speed_up(self, *, compiled: bool = False, captured: bool = False) -> None:
        """Take steps that are compiled by torch, captured as a CUDA graph, both, or neither.

        Either is done when the next steps are taken.
        """
        step = torch.compile(self._step, dynamic=False) if compiled else self._step
        self._advance = Captured(step) if captured else step if compiled else None

    def step(
        self,
        batches: Sequence[Any],
        rates: Tensor,
        momenta: Tensor | None,
        *,
        shared: bool,
        zeros: bool = False,
    ) -> Tensor:
        """Take one optimizer step in each lane; returns their losses, (K,).

        Args:
            batches: ``accumulate`` of them.
            rates: learning rates, (K, groups).
            momenta: likewise, NaN where the optimizer's own holds; None if that is everywhere.
            shared: whether the batches are the same for all lanes, without the lanes' dimension.
            zeros: whether there may be a 0 among the momenta.
        """
        keeps = self._keeps
        if momenta is None:
            momenta = self._momenta
        else:
            keeps = keeps or zeros
            momenta = torch.where(momenta.isnan(), self._momenta, momenta)
        self._model.train()
        with vectorizing(self._device):
            return (self._advance or self._step)(list(batches), rates, momenta, shared, keeps)

    def gradients(self, batch: Any, *, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of a shared batch, (K,), and what follows from it, (K, ...) by name.

        That is the gradient of a weight that is trained, and the new value of any other tensor.
        """
        self._model.train(training)
        with vectorizing(self._device):
            differentiate = self._differentiated(shared=True)
            rows, (losses, found) = differentiate(self._weights, self._fixed, batch)
        for block, row in zip(self._blocks, rows, strict=True):
            found |= vmap(block.views)(row)
        return losses, found

    def _differentiated(self, *, shared: bool) -> Callable[..., Any]:
        """The function for a batch's gradients, and the pair of its losses and other tensors."""
        return vmap(
            grad_and_value(self._lane_loss, has_aux=True),
            in_dims=(0, 0, None if shared else 0),
            randomness="different",
        )

    def _step(
        self, batches: list[Any], rates: Tensor, momenta: Tensor, shared: bool, keeps: bool
    ) -> Tensor:
        accumulate = self._task.accumulate
        differentiate = self._differentiated(shared=shared)
        fixed = self._fixed
        gradients: list[Tensor] = []
        losses: list[Tensor] = []
        for batch in batches:
            found, (loss, fixed) = differentiate(self._weights, fixed, batch)
            losses.append(loss)
            gradients = [one + other for one, other in zip(gradients, found, strict=False)] or found
        with torch.no_grad():
            if accumulate > 1:
                for each in gradients:
                    each.div_(accumulate)
            if self._task.clip_norm is not None:
                _clip(gradients, self._task.clip_norm)
            for block, weights, state, gradient in zip(
                self._blocks, self._weights, self._states, gradients, strict=True
            ):
                state[STEP].add_(1)
                rate, momentum = (each[:, block.group, None] for each in (rates, momenta))
                block.rule.update(weights, gradient, state, Play(rate, momentum, keeps))
            for name, tensor in fixed.items():
                self._fixed[name].copy_(tensor)
            self._average()
        return torch.stack(losses).mean(0).detach()

    def _lane_loss(
        self, weights: list[Tensor], fixed: dict[str, Tensor], batch: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one lane, and its other tensors afterwards, such as running statistics."""
        fixed = {name: tensor.clone() for name, tensor in fixed.items()}
        return self._call(self._loss, weights, fixed, batch), fixed

    def _call(
        self, module: nn.Module, weights: list[Tensor], fixed: dict[str, Tensor], batch: Any
    ) -> Any:
        content = dict(fixed)
        for block, row in zip(self._blocks, weights, strict=True):
            content |= block.views(row)
        return functional_call(
            module, {f"model.{name}": tensor for name, tensor in content.items()}, (batch,)
        )

    def _average(self) -> None:
        """Move the averages by a step; the first one copies, as torch's AveragedModel does."""
        if self._averaged is None or self._task.ema is None:
            return
        weights, fixed, count = self._averaged
        first = count == 0
        pairs = [*zip(weights, self._weights, strict=True)]
        pairs += [(fixed[name], self._fixed[name]) for name in fixed]
        for average, current in pairs:
            if average.is_floating_point():
                moved = torch.lerp(average, current, 1 - self._task.ema)
                is_first = first.view(-1, *[1] * (current.dim() - 1))
                average.copy_(torch.where(is_first, current, moved))
            else:
                average.copy_(current)
        count.add_(1)

    def validate(
        self, batches: Iterable[Any], samples: int | None = None
    ) -> list[dict[str, float]]:
        """The task's metrics in each lane over all the batches, which the lanes share.

        See :meth:`Learner.validate`.
        """
        weights, fixed = self._weights, self._fixed
        if self._averaged is not None:
            weights, fixed, _ = self._averaged
        self._model.eval()
        measure = vmap(
            lambda weights, fixed, batch: self._call(self._metrics, weights, fixed, batch),
            in_dims=(0, 0, None),
            randomness="different",
        )
        sums: dict[str, tuple[Any, Any]] = {}
        seen = 0
        with torch.no_grad(), vectorizing(self._device):
            for batch in batches:
                for name, (total, weight) in measure(weights, fixed, batch).items():
                    before, weighed = sums.get(name, (0, 0))
                    sums[name] = before + total, weighed + weight
                if not self._task.overrides("validation_step"):
                    inputs, target = pair_of(batch)
                    seen += batch_length(target) or batch_length(inputs)
        found = {
            name: (total.tolist(), [samples or seen] * self.size if seen else weight.tolist())
            for name, (total, weight) in sums.items()
        }
        return [
            finished({name: (total[lane], weight[lane]) for name, (total, weight) in found.items()})
            for lane in range(self.size)
        ]

    def put(self, lane: int, learner: Learner) -> None:
        """Fill a lane with a learner's model, optimizer state and average."""
        self.restore(lane, self._read(learner))

    def take(self, lane: int, learner: Learner) -> None:
        """Copy a lane into a learner of the same task."""
        copy = self.copy(lane)
        _load(learner.model, self._named(copy.weights, copy.fixed))
        for group, own in zip(
            learner.optimizer.param_groups, self._momentum_of_groups, strict=True
        ):
            group.update(own)  # it may have another trial's
        states = learner.optimizer.state
        states.clear()
        parameters = dict(learner.model.named_parameters())
        for block, kept in zip(self._blocks, copy.states, strict=True):
            taken = float(kept[STEP])
            views = {name: block.views(kept[name]) for name in block.rule.names}
            for name in block.names if taken else ():
                state = {key: found[name].clone() for key, found in views.items()}
                if block.rule.counts:
                    state[STEP] = torch.tensor(taken)
                states[parameters[name]] = state
        if copy.averaged is not None and learner.averaged is not None:
            weights, fixed, count = copy.averaged
            _load(learner.averaged.module, self._named(weights, fixed))
            learner.averaged.n_averaged.copy_(count)

    def copy(self, lane: int) -> Lane:
        """A copy of a lane; see :meth:`restore`."""
        averaged = None
        if self._averaged is not None:
            weights, fixed, count = self._averaged
            averaged = _rows(weights, lane), _row(fixed, lane), count[lane].clone()
        return Lane(
            weights=_rows(self._weights, lane),
            states=[_row(state, lane) for state in self._states],
            fixed=_row(self._fixed, lane),
            averaged=averaged,
        )

    def restore(self, lane: int, copy: Lane) -> None:
        """Return a lane to what it was when it was copied."""
        pairs = [*zip(self._weights, copy.weights, strict=True)]
        for state, own in zip(self._states, copy.states, strict=True):
            pairs += [(state[name], own[name]) for name in state]
        pairs += [(self._fixed[name], copy.fixed[name]) for name in self._fixed]
        if self._averaged is not None and copy.averaged is not None:
            weights, fixed, count = self._averaged
            own_weights, own_fixed, own_count = copy.averaged
            pairs += [*zip(weights, own_weights, strict=True), (count, own_count)]
            pairs += [(fixed[name], own_fixed[name]) for name in fixed]
        for stacked, row in pairs:
            stacked[lane] = row

    def _read(self, learner: Learner) -> Lane:
        """A learner's content, as that of a lane."""
        content = _tensors(learner.model)
        averaged = None
        if learner.averaged is not None:
            found = _tensors(learner.averaged.module)
            averaged = (
                [self._flat(block, found) for block in self._blocks],
                {name: found[name].detach() for name in self._fixed},
                learner.averaged.n_averaged,
            )
        return Lane(
            weights=[self._flat(block, content) for block in self._blocks],
            states=[self._state_of(block, learner) for block in self._blocks],
            fixed={name: content[name].detach() for name in self._fixed},
            averaged=averaged,
        )

    def _state_of(self, block: Block, learner: Learner) -> State:
        """The state that an optimizer keeps for a block; zeros where it has none yet."""
        parameters = dict(learner.model.named_parameters())
        kept = [learner.optimizer.state.get(parameters[name], {}) for name in block.names]
        found: State = {}
        for key in block.rule.names:
            parts = {
                name: torch.zeros_like(parameters[name]) if state.get(key) is None else state[key]
                for name, state in zip(block.names, kept, strict=True)
            }
            found[key] = self._flat(block, parts)
        taken = kept[0].get(STEP, float(bool(kept[0])))
        found[STEP] = torch.as_tensor(taken, dtype=torch.float64).view(1)
        return found

    @staticmethod
    def _flat(block: Block, content: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([content[name].detach().flatten() for name in block.names])

    def _named(self, weights: list[Tensor], fixed: dict[str, Tensor]) -> dict[str, Tensor]:
        found = dict(fixed)
        for block, row in zip(self._blocks, weights, strict=True):
            found |= block.views(row)
        return found


@contextmanager
def vectorizing(device: torch.device) -> Iterator[None]:
    """Have torch take those kernels for attention that work on all lanes at once.

    It has none of its own for models in evaluation mode, nor a fused one on a CPU.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        if device.type == "cpu":
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Loss(nn.Module):
    """The training loss of a batch as a module, so that it can be called with other weights."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> Tensor:
        return batch_loss(self.task, self.model, batch, augment=False)


class _Metrics(nn.Module):
    """The metrics of a batch, each a sum and its weight; the samples weigh those of measure()."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
        if self.task.overrides("validation_step"):
            found = summed(self.task.validation_step(self.model, batch))
        else:
            inputs, target = pair_of(batch)
            sums = measured(self.task, forward(self.model, inputs), target)
            found = {name: (total, 0) for name, total in sums.items()}
        return {
            name: (torch.as_tensor(total).squeeze(), torch.as_tensor(weight).squeeze())
            for name, (total, weight) in found.items()
        }


def _blocks(
    model: nn.Module, optimizer: Optimizer, rules: Sequence[Rule], unused: Collection[str]
) -> list[Block]:
    """The weights that are trained, in blocks."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    blocks: list[Block] = []
    for index, (group, rule) in enumerate(zip(optimizer.param_groups, rules, strict=True)):
        trained = [
            each for each in group["params"] if each.requires_grad and names[id(each)] not in unused
        ]
        for dtype in dict.fromkeys(each.dtype for each in trained):
            members = [each for each in trained if each.dtype == dtype]
            blocks.append(
                Block(
                    group=index,
                    rule=rule,
                    dtype=dtype,
                    names=tuple(names[id(each)] for each in members),
                    shapes=tuple(each.shape for each in members),
                    sizes=tuple(each.numel() for each in members),
                )
            )
    return blocks


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model, by name; tied ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _load(model: nn.Module, content: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(content[name])


def _row(content: Mapping[str, Tensor], lane: int) -> dict[str, Tensor]:
    return {name: each[lane].clone() for name, each in content.items()}


def _rows(content: Sequence[Tensor], lane: int) -> list[Tensor]:
    return [each[lane].clone() for each in content]


def _clip(gradients: Sequence[Tensor], limit: float) -> None:
    """Scale each lane's gradients down to a norm of at most ``limit``."""
    norms = [torch.linalg.vector_norm(each, dim=1) for each in gradients]
    whole = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    scale = (limit / (whole + NORM_EPS)).clamp(max=1)
    for each in gradients:
        each.mul_(scale[:, None].to(each.dtype))
