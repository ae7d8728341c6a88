"""A task to begin with. Change what is marked, then:

clrsearch run --task {file}:Mine --trials 30
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from clrsearch import Splits, Task


class Mine(Task):
    # What the search is to make better, as measure() calls it, and which way is better.
    metric = "loss"
    direction = "minimize"

    # The schedule is found for a run of this length; another length has another best schedule.
    epochs = 12
    batch_size = 32

    def data(self) -> Splits:
        """Three torch datasets: the search sees validation, and test is for the final proof."""
        # CHANGE: your own data. This is a spiral with two arms, to have something that runs.
        generator = torch.Generator().manual_seed(0)
        angle = torch.rand(1200, generator=generator) * 6.0
        arm = torch.arange(1200) % 2
        radius = angle + 3.14 * arm
        points = torch.stack([radius.cos() * angle, radius.sin() * angle], dim=1)
        points += 0.4 * torch.randn(points.shape, generator=generator)
        parts = zip(points.split([720, 240, 240]), arm.split([720, 240, 240]), strict=True)
        return Splits(*(TensorDataset(inputs, targets) for inputs, targets in parts))

    def model(self) -> nn.Module:
        # CHANGE: your own model. The seed is set: every trial begins with the same weights.
        return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        # CHANGE: your own optimizer. Rates are searched around this one; several parameter groups
        # keep the ratios of their rates.
        return torch.optim.AdamW(model.parameters(), lr=1e-2)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # CHANGE: your own training loss, the mean over the batch.
        return cross_entropy(output, target)

    def measure(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        # CHANGE: your own metrics, each summed over the batch; what is divided by is counted.
        return {
            "loss": cross_entropy(output, target, reduction="sum"),
            "accuracy": (output.argmax(1) == target).sum(),
        }
