"""The contract of a task, and what the search needs to know about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from clrsearch.errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.utils.data import Dataset

Direction = Literal["minimize", "maximize"]


def sign_of(direction: Direction) -> float:
    """The factor that makes lower values of a metric better: 1, or -1 if it is maximized."""
    return 1.0 if direction == "minimize" else -1.0


class Splits(NamedTuple):
    """A task's data: three torch datasets of ``(input, target)`` pairs.

    The search sees only ``validation``; ``test`` is never used for selection.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    test: Dataset[Any]


class Task(ABC):
    """A training problem: subclass it, and name the class on the command line or in a study.

    ``metric`` is one of the names returned by :meth:`measure` or :meth:`evaluate`, and
    ``direction`` says which way is better; ``epochs`` and ``batch_size`` are what the schedule is
    searched for. A study may override all four.

    ``data_dir`` is the folder where the task finds data stored on disk: ``--data-dir``, set after
    the task is constructed, and different from machine to machine.
    """

    metric: ClassVar[str]
    direction: ClassVar[Direction]
    epochs: ClassVar[int]
    batch_size: ClassVar[int]
    data_dir: Path = Path()

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
    def data(self) -> Splits:
        """The three splits, the same on every call. Called once per process."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model, initialised from torch's global generator, which the run has seeded."""

    @abstractmethod
    def optimizer(self, model: nn.Module) -> Optimizer:
        """A fresh optimizer for the model.

        The learning rates of its parameter groups are taken relative to the first group's: a head
        at ten times the body's rate keeps this factor under every schedule.
        """

    @abstractmethod
    def loss(self, output: Any, target: Any) -> Tensor:
        """The mean training loss of a batch, a scalar tensor to call ``backward()`` on."""

    @abstractmethod
    def measure(self, output: Any, target: Any) -> Mapping[str, Tensor]:
        """Each metric of a validation batch, *summed* over its samples, as scalar tensors.

        The trainer adds up the sums and divides by the number of samples.
        """

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
        return cls.evaluate is not Task.evaluate


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


class TaskFacts(BaseModel):
    """What the search needs to know about a task, probed once and stored with the study.

    ``ratios`` are the learning rates of the optimizer's parameter groups relative to the first
    group's, which is ``base_lr`` (``own_rate`` in studies of earlier versions); ``optimizer``
    describes the optimizer in words. ``source`` is a hash of the file that defines the task.
    ``batch_size`` is None for a custom training loop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    direction: Direction
    epochs: int
    batch_size: int | None
    steps_per_epoch: int
    ratios: tuple[float, ...]
    groups: tuple[str, ...]
    base_lr: float = Field(validation_alias=AliasChoices("base_lr", "own_rate"))
    momentum: Literal["none", "momentum", "betas"]
    optimizer: str
    source: str

    @property
    def horizon(self) -> int:
        """The number of optimizer steps in a full run."""
        return self.epochs * self.steps_per_epoch
