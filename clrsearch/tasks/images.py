"""Built-in tasks on images: CIFAR-10 and -100, MNIST, Fashion-MNIST, and a folder of files."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Subset, TensorDataset

from clrsearch import proposals
from clrsearch.errors import TaskError
from clrsearch.tasks.augment import crop, cutout, flip
from clrsearch.tasks.networks import (
    Normalize,
    build_network,
    head_of,
    load_weights,
    require_fit,
)
from clrsearch.tasks.task import Direction, Splits, Task

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset

HELD_OUT = 5000
"""Images of the official training set that validate, where that is not more than a tenth."""


class Images(Task):
    """Images in classes, for a network by its name.

    The metric is the validation accuracy, which is what such networks are used for: one that fits
    its training set grows over-confident, so that its cross-entropy may rise while more answers are
    right (C. Guo et al., arXiv:1706.04599), and with thousands of images accuracies rarely tie.
    The cross-entropy is measured too; a study may name it.
    """

    metric = "accuracy"
    direction: ClassVar[Direction] = "maximize"
    epochs = 30
    batch_size = 128

    mean: ClassVar[Sequence[float]]
    deviation: ClassVar[Sequence[float]]

    class Options(Task.Options):
        """What is trained, and how; lengths are in pixels.

        ``model`` is one of torchvision's, or ``cifar10_full``; ``small_stem`` has a ResNet begin
        with a convolution of stride 1 and no pooling. ``weights`` is a file in the data folder that
        the training starts from, all but its last layer unless ``fresh_head`` is false. With
        ``head_ratio`` the parameters are two groups, ``body`` and ``head``, the last layer, whose
        rate is so many times the body's. ``crop`` shifts images by up to so much, ``flip`` mirrors
        half of them, ``cutout`` blanks a square of that side; 0 does not.
        """

        model: str = "resnet18"
        small_stem: bool = True
        weights: str | None = None
        fresh_head: bool = True
        optimizer: Literal["nesterov", "momentum", "adamw"] = "nesterov"
        weight_decay: float | None = Field(default=None, ge=0)
        head_ratio: float | None = Field(default=None, gt=0)
        label_smoothing: float = Field(default=0.0, ge=0, lt=1)
        crop: int = Field(default=4, ge=0)
        flip: bool = True
        cutout: int = Field(default=0, ge=0)

    options: Options

    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @abstractmethod
    def classes(self) -> int:
        """How many there are."""

    @abstractmethod
    def read(self) -> Splits:
        """The three splits, of images as bytes."""

    def data(self) -> Splits:
        """Images (C, H, W) as bytes, and their classes.

        Raises:
            TaskError: there is no such model, or it does not fit the size of the images.
        """
        options = self.options
        require_fit(options.model, shape=self.shape(), small_stem=options.small_stem)
        size = min(self.shape()[1:])
        for name in ("crop", "cutout"):
            if getattr(options, name) >= size:
                raise TaskError(
                    f"options.{name}: {getattr(options, name)} pixels of images that have {size}"
                )
        return self.read()

    def model(self) -> nn.Module:
        """The network behind a layer that normalises its images."""
        options = self.options
        network = build_network(
            options.model,
            classes=self.classes(),
            shape=self.shape(),
            small_stem=options.small_stem,
        )
        if options.weights is not None:
            file = _below(self.data_dir, "weights", options.weights)
            load_weights(network, file, fresh_head=options.fresh_head)
        normalize = Normalize(self.mean, self.deviation)
        return nn.Sequential(OrderedDict(normalize=normalize, network=network))

    def optimizer(self, model: nn.Module) -> optim.Optimizer:
        """SGD at a rate of 0.1 or AdamW at 0.001; a tenth of that for weights from a file."""
        options = self.options
        scratch = options.weights is None
        decay = options.weight_decay
        if options.optimizer == "adamw":
            rate = 1e-3 if scratch else 1e-4
            groups = self._groups(model, rate)
            return optim.AdamW(groups, lr=rate, weight_decay=1e-2 if decay is None else decay)
        rate = 0.1 if scratch else 0.01
        return optim.SGD(
            self._groups(model, rate),
            lr=rate,
            momentum=0.9,
            nesterov=options.optimizer == "nesterov",
            weight_decay=5e-4 if decay is None else decay,
        )

    def _groups(self, model: nn.Module, rate: float) -> list[dict[str, Any]]:
        """All parameters in one group, or those of the head in another."""
        ratio = self.options.head_ratio
        if ratio is None:
            return [{"params": list(model.parameters())}]
        head = f"{head_of(model)}."
        body = [each for name, each in model.named_parameters() if not name.startswith(head)]
        last = [each for name, each in model.named_parameters() if name.startswith(head)]
        return [
            {"params": body, "lr": rate, "name": "body"},
            {"params": last, "lr": rate * ratio, "name": "head"},
        ]

    def augment(self, inputs: Tensor) -> Tensor:
        """Crop, flip and cutout, as far as the options have them; what is cut out is mean grey."""
        options = self.options
        if options.crop:
            inputs = crop(inputs, options.crop)
        if options.flip:
            inputs = flip(inputs)
        if options.cutout:
            grey = (255 * torch.tensor(self.mean)).round()
            inputs = cutout(inputs, options.cutout, grey)
        return inputs

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy, with smoothed labels where the option has it."""
        return cross_entropy(output, target, label_smoothing=self.options.label_smoothing)

    def measure(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """The number of right answers, and the summed cross-entropy without smoothing."""
        return {
            "accuracy": (output.argmax(dim=1) == target).sum(),
            "cross_entropy": cross_entropy(output, target, reduction="sum"),
        }


class Published(Images):
    """A data set that torchvision reads: the official test set tests, the rest trains, validates.

    ``dataset`` is torchvision's class. The images are few and small enough to lie on the device.
    """

    dataset: ClassVar[str]
    size: ClassVar[int]
    class_count: ClassVar[int] = 10

    def shape(self) -> tuple[int, int, int]:
        """See :class:`Images`."""
        return len(self.mean), self.size, self.size

    def classes(self) -> int:
        """See :class:`Images`."""
        return self.class_count

    @abstractmethod
    def files(self) -> Sequence[str]:
        """The files that torchvision reads, below ``data_dir``."""

    @abstractmethod
    def archives(self) -> Sequence[str]:
        """The official files that they come in, below ``data_dir``."""

    def read(self) -> Splits:
        """A fixed, random part of the training set validates: see ``HELD_OUT``.

        Raises:
            TaskError: files are missing or damaged, or their images have another size.
        """
        missing = [file for file in self.files() if not (self.data_dir / file).is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise TaskError(
                f"no {self.dataset} in {self.data_dir} (no {missing[0]}{more}): {_fetching()} "
                f"fetches it, or unpacks {', '.join(self.archives())} if you have put "
                "that there; --data-dir names another folder"
            )
        images, labels = self._tensors(train=True)
        validation, train = held_out(len(images))
        return Splits(
            train=TensorDataset(images[train], labels[train]),
            validation=TensorDataset(images[validation], labels[validation]),
            test=TensorDataset(*self._tensors(train=False)),
        )

    def download(self) -> None:
        """Fetch the data set, unless it is there.

        Raises:
            TaskError: it cannot be fetched, or not be written.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._open(train=True, download=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split())
            raise TaskError(
                f"{self.dataset} cannot be downloaded to {self.data_dir}: {reason}"
            ) from error

    def _tensors(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) as bytes, and their classes (N,)."""
        try:
            found: Any = self._open(train=train, download=False)
        except OSError as error:
            raise TaskError(f"{self.dataset} cannot be read: {error}") from error
        except (RuntimeError, ValueError, AssertionError) as error:
            raise TaskError(
                f"the files of {self.dataset} in {self.data_dir} are not the official ones, or "
                f"damaged: remove them, and {_fetching()} fetches them anew"
            ) from error
        images, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets)
        images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
        if tuple(images.shape[1:]) != self.shape():
            there, wanted = (" x ".join(map(str, s)) for s in (images.shape[1:], self.shape()))
            raise TaskError(
                f"the images of {self.dataset} in {self.data_dir} are {there}, not {wanted}"
            )
        return images, labels

    def _open(self, *, train: bool, download: bool) -> VisionDataset:
        found: VisionDataset = self._class()(self.data_dir, train=train, download=download)
        return found

    def _class(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.dataset)


class Cifar10(Published):
    """60,000 colour photographs of 32 x 32 pixels: 45,000 train, 5,000 validate, 10,000 test.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
    """

    dataset = "CIFAR10"
    size = 32
    mean = (0.4914, 0.4822, 0.4465)
    deviation = (0.2470, 0.2435, 0.2616)

    def files(self) -> Sequence[str]:
        """See :class:`Published`."""
        kind = self._class()
        names = [name for name, _ in (*kind.train_list, *kind.test_list)]
        return [f"{kind.base_folder}/{name}" for name in (*names, kind.meta["filename"])]

    def archives(self) -> Sequence[str]:
        """See :class:`Published`."""
        return [self._class().filename]


class Cifar100(Cifar10):
    """The same in a hundred classes."""

    dataset = "CIFAR100"
    class_count = 100
    mean = (0.5071, 0.4865, 0.4409)
    deviation = (0.2673, 0.2564, 0.2762)


class Mnist(Published):
    """70,000 handwritten digits of 28 x 28 pixels: 55,000 train, 5,000 validate, 10,000 test.

    Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998). Nearly all of
    the answers are right, so the metric is the cross-entropy, as for ``digits``.
    """

    metric = "cross_entropy"
    direction: ClassVar[Direction] = "minimize"
    epochs = 15
    dataset = "MNIST"
    size = 28
    mean = (0.1307,)
    deviation = (0.3081,)

    class Options(Images.Options):
        """As those of :class:`Images`, but nothing is mirrored unless it is asked for."""

        flip: bool = False

    def files(self) -> Sequence[str]:
        """See :class:`Published`."""
        return [name.removesuffix(".gz") for name in self.archives()]

    def archives(self) -> Sequence[str]:
        """See :class:`Published`."""
        return [f"{self.dataset}/raw/{name}" for name, _ in self._class().resources]


class FashionMnist(Mnist):
    """The same of clothes. H. Xiao et al., arXiv:1708.07747."""

    metric = "accuracy"
    direction = "maximize"
    epochs = 30
    dataset = "FashionMNIST"
    mean = (0.2860,)
    deviation = (0.3530,)


class ImageFolder(Images):
    """Image files, ``train/CLASS/*.png`` and so on, in a folder below the data folder.

    Beside ``train`` there must be ``test``; where there is no ``validation``, a tenth of ``train``
    validates. Files are decoded as they are needed, resized and cut to a square, and normalised as
    ImageNet is, of which weights from a file usually are.
    """

    batch_size = 32
    epochs = 10
    mean = (0.485, 0.456, 0.406)
    deviation = (0.229, 0.224, 0.225)

    class Options(Images.Options):
        """``folder`` holds the splits; an image is ``image_size`` pixels wide and high.

        The others are as those of :class:`Images`.
        """

        small_stem: bool = False
        folder: str = "images"
        image_size: int = Field(default=224, ge=8)

    options: Options

    def shape(self) -> tuple[int, int, int]:
        """See :class:`Images`."""
        return 3, self.options.image_size, self.options.image_size

    def classes(self) -> int:
        """As many as there are folders in ``train``."""
        return len(self._class_names("train"))

    def read(self) -> Splits:
        """See :class:`Images`.

        Raises:
            TaskError: a folder is missing or holds no images, or the classes are not those of
                ``train``.
        """
        train, test = self._split("train"), self._split("test")
        if (self._folder() / "validation").is_dir():
            return Splits(train, self._split("validation"), test)
        validation, rest = (part.tolist() for part in held_out(len(train)))
        return Splits(Subset(train, rest), Subset(train, validation), test)

    def _split(self, name: str) -> Any:
        from torchvision import datasets, transforms

        names, wanted = self._class_names(name), self._class_names("train")
        if names != wanted:
            other = sorted({*names} ^ {*wanted})[0]
            raise TaskError(f"{self._folder()}: train and {name} differ in the class {other!r}")
        size = self.options.image_size
        steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.PILToTensor()]
        try:
            found: Dataset[Any] = datasets.ImageFolder(
                self._folder() / name, transforms.Compose(steps)
            )
        except OSError as error:  # a class without images
            raise TaskError(f"{self._folder() / name}: {error}") from error
        return found

    def _class_names(self, split: str) -> list[str]:
        folder = self._folder() / split
        there = folder.iterdir() if folder.is_dir() else ()
        names = sorted(each.name for each in there if each.is_dir())
        if not names:
            raise TaskError(
                f"no images in {folder}: put them there as {split}/CLASS/*.png or .jpg (with train "
                "and test, and validation if you have one); options.folder names another folder, "
                "and --data-dir where it lies"
            )
        return names

    def _folder(self) -> Path:
        return _below(self.data_dir, "folder", self.options.folder)


def held_out(count: int) -> tuple[Tensor, Tensor]:
    """The indices of a fixed, random tenth of ``count`` samples, at most 5,000; and the others."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    size = min(HELD_OUT, max(1, count // 10))
    return order[:size], order[size:]


def _below(folder: Path, option: str, path: str) -> Path:
    """A path that a study names, in the data folder of this machine."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise TaskError(
            f"options.{option}: {path} must lie in the data folder (--data-dir) or below, for a "
            "worker must find it wherever its own copy is"
        )
    return folder / path


def _fetching() -> str:
    return proposals.again(download=True) or "clrsearch run with --download"
