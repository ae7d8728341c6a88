"""The contract of a task, and what the search needs to know about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from clrsearch.errors import TaskError
from clrsearch.tasks.length import Spacing
from clrsearch.tasks.weight_decay import WeightDecay

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.utils.data import Dataset

Direction = Literal["minimize", "maximize"]


def sign_of(direction: Direction) -> float:
    """The factor that makes lower values of a metric better: 1, or -1 if it is maximized."""
    return 1.0 if direction == "minimize" else -1.0


class Splits(NamedTuple):
    """A task's data: three torch datasets with a length.

    Their samples are ``(input, target)`` pairs, unless the task has steps of its own. The search
    sees only ``validation``; ``test`` is never used for selection.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    test: Dataset[Any]


class Loaders(NamedTuple):
    """A task's own loaders: three iterables of batches, such as torch's DataLoaders.

    They are iterated over repeatedly, ``train`` with shuffling of its own. Each pass is seeded: the
    generators of a loader, of its samplers and of its dataset, and ``set_epoch`` where there is
    one.
    """

    train: Iterable[Any]
    validation: Iterable[Any]
    test: Iterable[Any]


class Task(ABC):
    """A training problem: subclass it, and name the class on the command line or in a study.

    ``metric`` is one of the names returned by :meth:`measure`, :meth:`evaluate` or
    :meth:`validation_step`, and ``direction`` says which way is better; ``epochs`` and
    ``batch_size`` are what the schedule is searched for. A study may override all four.

    A task has either :meth:`data` or :meth:`loaders`, either :meth:`loss` or :meth:`training_step`,
    and either :meth:`measure` or :meth:`validation_step`.

    Attributes:
        data_dir: the folder where the task finds data stored on disk: ``--data-dir``, set after the
            task is constructed, and different from machine to machine.
        total_steps: the length in optimizer steps, in place of ``epochs``: for a stream, or if
            epochs are too long; needs ``validate_every``.
        validate_every: optimizer steps between two validations; by default one per epoch.
        accumulate: batches per optimizer step, whose gradients are averaged.
        clip_norm: upper limit of the gradient's norm; none by default.
        ema: decay of an exponential moving average of the weights, which is then validated.
        num_workers: processes that load samples, if the data is not in memory.
        validation_batch_size: by default the training batch's, or 8 times that for a task with
            :meth:`measure`.
        channels_last: whether the model and its images are stored with the channels last.
        compile: whether to compile the model with torch.
        asked_weight_decay: the study's, in place of the optimizer's own; set after the task is
            constructed.
    """

    metric: ClassVar[str]
    direction: ClassVar[Direction]
    epochs: ClassVar[int]
    batch_size: ClassVar[int]
    data_dir: Path = Path()
    total_steps: int | None = None
    validate_every: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    num_workers: int = 0
    validation_batch_size: int | None = None
    channels_last: bool = False
    compile: bool = False
    asked_weight_decay: WeightDecay | None = None

    class Options(BaseModel):
        """The task's options: typed fields with defaults, set under ``[options]`` in a study."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    options: Options

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Validate and store the options.

        Raises:
            TaskError: an option is unknown or has an invalid value; the message names it.
        """
        try:
            self.options = self.Options.model_validate(dict(options or {}))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            known = ", ".join(type(self).Options.model_fields) or "none"
            reason = (
                f"is unknown; this task's options: {known}"
                if first["type"] == "extra_forbidden"
                else f"{first['msg']}, not {first['input']!r}"
            )
            raise TaskError(f"options.{name}: {reason}") from error

    def download(self) -> None:
        """Download what :meth:`data` reads into ``data_dir``; called only for ``--download``.

        Raises:
            TaskError: there is nothing to download, unless this is overridden.
        """
        raise TaskError(f"{type(self).__name__} has nothing to download: leave out --download")

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model, initialised from torch's global generator, which the run has seeded."""

    @abstractmethod
    def optimizer(self, model: nn.Module) -> Optimizer:
        """A fresh optimizer for the model.

        The learning rates of its parameter groups are taken relative to the first group's: a head
        at ten times the body's rate keeps this factor under every schedule.
        """

    def data(self) -> Splits:
        """The three splits, the same on every call. Called once per process, under a seed."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Any]) -> Any:
        """A batch of samples: a tensor, or a dict, list or tuple of them, or an object with ``to``.

        Stacks them, as torch's DataLoader does, unless overridden: for samples of different length,
        for example.
        """
        raise NotImplementedError

    def loaders(self) -> Loaders:
        """Loaders of the task's own, in place of :meth:`data`. Called once per process.

        A training loader with a length makes that many batches an epoch, of ``batch_size``. One
        without, such as that of an IterableDataset, needs ``total_steps``.
        """
        raise NotImplementedError

    def loss(self, output: Any, target: Any) -> Tensor:
        """The mean training loss of a batch, a scalar tensor to call ``backward()`` on."""
        raise NotImplementedError

    def measure(self, output: Any, target: Any) -> Mapping[str, Tensor]:
        """Each metric of a validation batch, *summed* over its samples, as scalar tensors.

        The trainer adds up the sums and divides by the number of samples.
        """
        raise NotImplementedError

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        """The mean training loss of a batch of any structure, a scalar to call ``backward()`` on.

        By default :meth:`loss` of the model's output for the augmented inputs.
        """
        raise NotImplementedError

    def validation_step(self, model: nn.Module, batch: Any) -> Mapping[str, Any]:
        """Each metric of a validation batch of any structure, as a pair: its sum and its weight.

        The trainer adds up both and divides. A weight is the number of samples or tokens, for
        example. In place of a pair may stand a metric from torchmetrics that has been updated, in
        place of the dict a collection of them; they are computed and reset after the last batch.
        By default the sums of :meth:`measure`, weighted by the number of samples.
        """
        raise NotImplementedError

    def after_step(self, model: nn.Module) -> None:
        """Called after each optimizer step; does nothing unless overridden."""
        return

    def augment(self, inputs: Any) -> Any:
        """A training batch's inputs, augmented on their device; unchanged unless overridden."""
        return inputs

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Metrics of the whole validation split that are not means over samples (F1, AUC).

        If overridden, it receives all outputs and targets, concatenated; by default there are no
        such metrics.
        """
        return {}

    @classmethod
    def evaluates(cls) -> bool:
        """Whether the task overrides :meth:`evaluate`, so that outputs must be kept for it."""
        return cls.overrides("evaluate")

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Whether the task has a method of its own in place of this optional one."""
        return getattr(cls, method) is not getattr(Task, method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A custom training loop: a function ``train(run)``, and the study's options.

    ``name`` is the name it was given by, ``arguments`` its command line, ``data_dir`` where data is
    stored on this machine. The function receives a :class:`clrsearch.training.OwnRun`.
    """

    name: str
    function: Callable[[Any], object]
    options: Mapping[str, Any]
    arguments: tuple[str, ...] = ()
    data_dir: Path = Path()

    def download(self) -> None:
        """Not supported: a loop downloads its own data, if any.

        Raises:
            TaskError: always.
        """
        raise TaskError(
            f"{self.name} is a custom training loop, so --download has nothing to fetch"
        )


class TaskFacts(Spacing):
    """What the search needs to know about a task, probed once and stored with the study.

    ``ratios`` are the learning rates of the optimizer's parameter groups relative to the first
    group's, which is ``base_lr`` (``own_rate`` in studies of earlier versions); ``optimizer``
    describes the optimizer in words. ``source`` is a hash of the file that defines the task.
    ``batch_size`` is None for a custom training loop. ``splits`` are fingerprints of the training
    and validation splits, None for a task that makes its own batches.
    """

    metric: str
    direction: Direction
    batch_size: int | None
    ratios: tuple[float, ...]
    groups: tuple[str, ...]
    base_lr: float = Field(validation_alias=AliasChoices("base_lr", "own_rate"))
    momentum: Literal["none", "momentum", "betas"]
    optimizer: str
    source: str
    splits: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def spacing(self) -> Spacing:
        """The length of a run and its intervals, alone."""
        return Spacing(**{name: getattr(self, name) for name in Spacing.model_fields})
