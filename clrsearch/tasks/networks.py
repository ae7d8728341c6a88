"""Image classifiers: torchvision's models by name, and the network of Caffe's CIFAR-10 example.

Importing torchvision takes seconds, so it is imported only when it is needed.
"""

from __future__ import annotations

import difflib
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clrsearch.errors import TaskError

CAFFE = "cifar10_full"
_SEVERAL_OUTPUTS = ("googlenet", "inception_v3")  # in training mode
_NOT_TRAINED = "num_batches_tracked"  # a counter that old weight files lack


class Normalize(nn.Module):
    """Normalises images of 0 .. 255; mean and deviation are per channel, for values of 0 .. 1.

    It is the first layer of a task's model, so that a dataset can stay on the device as bytes.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        shape = (1, len(mean), 1, 1)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer(
            "deviation", 255 * torch.tensor(deviation).view(shape), persistent=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) of any dtype, to float32."""
        return (images.float() - self.mean) / self.deviation


class CaffeNetwork(nn.Module):
    """The network of Caffe's ``cifar10_full`` example, used in Smith's paper: 90 k parameters.

    Y. Jia et al., "Caffe: Convolutional Architecture for Fast Feature Embedding" (2014). Three 5 x
    5 convolutions, each followed by 3 x 3 pooling with stride 2, and one linear layer. Local
    response normalisation is across channels, as torch has no other; Caffe's is within each
    channel.
    """

    def __init__(self, *, classes: int, channels: int, size: int) -> None:
        super().__init__()
        for _ in range(3):
            size = math.ceil((size - 3) / 2) + 1
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, kernel_size=5, padding=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.ReLU(),
            nn.LocalResponseNorm(3, alpha=5e-5),
            nn.Conv2d(32, 32, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.LocalResponseNorm(3, alpha=5e-5),
            nn.Conv2d(32, 64, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(64 * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) to logits (N, classes)."""
        scores: Tensor = self.classifier(self.features(images))
        return scores


def network_names() -> list[str]:
    """The names that :func:`build_network` accepts."""
    from torchvision import models

    offered = models.list_models(module=models)
    return [CAFFE, *(name for name in offered if name not in _SEVERAL_OUTPUTS)]


def build_network(
    name: str, *, classes: int, shape: tuple[int, int, int], small_stem: bool
) -> nn.Module:
    """A new network for images of ``shape`` (channels, size, size), with random weights.

    With ``small_stem`` a ResNet begins as in K. He et al. (arXiv:1512.03385, section 4.2) for
    CIFAR-10: with a 3 x 3 convolution of stride 1 and no pooling, which preserves the resolution of
    small images. The first convolution of any network takes as many channels as the images have.
    """
    from torchvision import models

    channels, size, _ = shape
    if name == CAFFE:
        return CaffeNetwork(classes=classes, channels=channels, size=size)
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    if small_stem and isinstance(network, models.ResNet):
        stem = nn.Conv2d(channels, network.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        network.conv1 = stem
        network.maxpool = nn.Identity()
    elif channels != 3:
        _take_channels(network, channels)
    return network


def require_fit(name: str, *, shape: tuple[int, int, int], small_stem: bool) -> None:
    """Reject an unknown network, or an image size that it cannot take.

    Nothing is computed (the network runs on the meta device), and the random generators are
    unchanged.

    Raises:
        TaskError: naming the network, with its own error message about the size.
    """
    known = network_names()
    if name not in known:
        raise TaskError(f"options.model: {_unknown(name, known)}")
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network = build_network(name, classes=10, shape=shape, small_stem=small_stem)
            network.to("meta").eval()(torch.empty(2, *shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TaskError(
            f"options.model: {name} cannot take images of {shape[1]} x {shape[2]} pixels ({reason})"
        ) from error


def head_of(network: nn.Module) -> str:
    """The name of the last layer, which outputs the class scores."""
    names: list[str] = [name for name, each in network.named_modules() if _has_weights(each)]
    return names[-1]


def load_weights(network: nn.Module, file: Path, *, fresh_head: bool) -> None:
    """Load a network's weights from a file, all of them or all but the last layer's.

    The file holds a ``state_dict`` saved with ``torch.save``; no code in it is executed.

    Raises:
        TaskError: there is no such file, or it is for another network or other classes.
    """
    there = _read_weights(file)
    here = network.state_dict()
    head = f"{head_of(network)}."
    if fresh_head:
        there, here = (
            {name: value for name, value in state.items() if not name.startswith(head)}
            for state in (there, here)
        )
    lacking = [name for name in here if name not in there and not name.endswith(_NOT_TRAINED)]
    strange = [name for name in there if name not in here]
    if lacking or strange:
        found = [f"lacks {lacking[0]}"] if lacking else []
        found += [f"has {strange[0]}, which this model does not"] if strange else []
        raise TaskError(f"{file} contains the weights of another model: it {' and '.join(found)}")
    for name, value in there.items():
        if value.shape != here[name].shape:
            raise TaskError(_other_shape(file, name, value, here[name], head))
    network.load_state_dict(there, strict=False)


def _read_weights(file: Path) -> Mapping[str, Tensor]:
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TaskError(
            f"no weights file {file}: weights are not downloaded, so save a model's state_dict() "
            "there with torch.save, or choose another file with options.weights or --data-dir"
        ) from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TaskError(f"the weights in {file} cannot be read: {reason}") from error
    if not (isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())):
        raise TaskError(f"{file} contains no state_dict, a dict of tensors by name")
    return found


def _other_shape(file: Path, name: str, there: Tensor, here: Tensor, head: str) -> str:
    if name.startswith(head):
        return (
            f"{file} is for {len(there)} classes but the data has {len(here)}: "
            "options.fresh_head = true reinitialises the last layer"
        )
    hint = "; options.small_stem chooses between the two" if name == "conv1.weight" else ""
    return f"{file}: {name} is {tuple(there.shape)} there but {tuple(here.shape)} here{hint}"


def _take_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution with one for ``channels`` input channels."""
    name, first = next(
        (name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d)
    )
    parent, _, own_name = name.rpartition(".")
    convolution = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    setattr(network.get_submodule(parent), own_name, convolution)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
    if name in _SEVERAL_OUTPUTS:
        hint = "it has several outputs during training"
    return f"no model {name!r} here; {hint}"
