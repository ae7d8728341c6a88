"""The built-in task: scikit-learn's handwritten digits, real images that need no download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from clrsearch.tasks.task import Splits, Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class Digits(Task):
    """1797 images of 8 x 8 pixels in ten classes: 1000 to train, 400 to validate, 397 to test.

    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998). A small
    convolutional network with batch normalisation gets nearly all of them right, so the metric is
    the validation cross-entropy, which still tells schedules apart where accuracies tie.
    """

    metric = "cross_entropy"
    direction = "minimize"
    epochs = 20
    batch_size = 32

    class Options(Task.Options):
        """``optimizer``: which one, each with its usual settings."""

        optimizer: Literal["nesterov", "sgd", "adam", "adamw", "rmsprop"] = "nesterov"

    options: Options

    def data(self) -> Splits:
        """A fixed, stratified split; pixels scaled to 0 .. 1, shape (1, 8, 8)."""
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from torch.utils.data import TensorDataset

        images, labels = load_digits(return_X_y=True)
        train, rest = train_test_split(
            range(len(labels)), train_size=1000, stratify=labels, random_state=0
        )
        validation, test = train_test_split(
            rest, train_size=400, stratify=labels[rest], random_state=0
        )
        inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        targets = torch.tensor(labels)
        return Splits(
            *(TensorDataset(inputs[part], targets[part]) for part in (train, validation, test))
        )

    def model(self) -> nn.Module:
        """Two convolutions, the second with stride 2, and a linear layer: 3.9 k weights."""
        from torch import nn

        return nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 4 * 4, 10),
        )

    def optimizer(self, model: nn.Module) -> Optimizer:
        """SGD with Nesterov momentum and weight decay, unless the option names another."""
        from torch import optim

        weights = model.parameters()
        match self.options.optimizer:
            case "nesterov":
                return optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
            case "sgd":
                return optim.SGD(weights, lr=0.1, weight_decay=5e-4)
            case "adam":
                return optim.Adam(weights, lr=1e-3)
            case "adamw":
                return optim.AdamW(weights, lr=1e-3, weight_decay=1e-2)
            case "rmsprop":
                return optim.RMSprop(weights, lr=1e-3)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Summed cross-entropy and the number of right answers."""
        from torch.nn.functional import cross_entropy

        return {
            "cross_entropy": cross_entropy(output, target, reduction="sum"),
            "accuracy": (output.argmax(dim=1) == target).sum(),
        }
