"""The built-in task on which schedules differ clearly: removing noise from small images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from clrsearch.tasks.digits import Digits
from clrsearch.tasks.task import Splits, Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

NOISE = 0.25
"""The standard deviation of the noise, where pixels go from 0 to 1."""


class Denoise(Task):
    """The images of ``digits``, to be recovered from copies with Gaussian noise on every pixel.

    Every training batch gets fresh noise; that of the validation and test images is fixed. So a
    constant rate is a compromise between progress and the noise of its gradients, and one that
    falls at the end need not be. P. Vincent et al., "Extracting and Composing Robust Features with
    Denoising Autoencoders", ICML 2008.

    The metric is the mean squared error of a pixel, 0.0625 for the noisy images themselves.
    """

    metric = "mse"
    direction = "minimize"
    epochs = 16
    batch_size = 16

    class Options(Task.Options):
        """``optimizer``: which one, each with its usual settings."""

        optimizer: Literal["nesterov", "sgd", "adam", "adamw", "rmsprop"] = "nesterov"

    options: Options

    def data(self) -> Splits:
        """Noisy and clean images, 1000, 400 and 397; training images get noise in each batch."""
        import torch
        from torch.utils.data import TensorDataset

        train, validation, test = (split[:][0] for split in Digits().data())
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(part.shape, generator=generator) for part in (validation, test)]
        return Splits(
            TensorDataset(train, train),
            TensorDataset(validation + NOISE * noise[0], validation),
            TensorDataset(test + NOISE * noise[1], test),
        )

    def model(self) -> nn.Module:
        """One hidden layer of 128 units: 16.6 k weights."""
        from torch import nn

        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.Unflatten(1, (1, 8, 8)),
        )

    def optimizer(self, model: nn.Module) -> Optimizer:
        """SGD with Nesterov momentum, unless the option names another."""
        from torch import optim

        weights = model.parameters()
        match self.options.optimizer:
            case "nesterov":
                return optim.SGD(weights, lr=5e-3, momentum=0.9, nesterov=True)
            case "sgd":
                return optim.SGD(weights, lr=0.05)
            case "adam":
                return optim.Adam(weights, lr=1e-3)
            case "adamw":
                return optim.AdamW(weights, lr=1e-3, weight_decay=1e-2)
            case "rmsprop":
                return optim.RMSprop(weights, lr=1e-3)

    def augment(self, inputs: Tensor) -> Tensor:
        """The clean images with fresh noise."""
        import torch

        return inputs + NOISE * torch.randn_like(inputs)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The squared error of an image, summed over its pixels; the mean over the batch."""
        return (output - target).square().sum() / len(output)

    def measure(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Mean squared error, and the share of the noise's that is gone: 1 is a perfect image."""
        error = (output - target).square().flatten(1).mean(1)  # (N,)
        return {"mse": error.sum(), "noise_removed": (1 - error / NOISE**2).sum()}
