"""A training loop to begin with. Change what is marked, then:

clrsearch run --task {file}:train --trials 30 --epochs 12 --set metric=loss --set direction=minimize
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import clrsearch


def data() -> list[TensorDataset]:
    """Training, validation and test data."""
    # CHANGE: your own data. This is a spiral with two arms, to have something that runs.
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(1200, generator=generator) * 6.0
    arm = torch.arange(1200) % 2
    radius = angle + 3.14 * arm
    points = torch.stack([radius.cos() * angle, radius.sin() * angle], dim=1)
    points += 0.4 * torch.randn(points.shape, generator=generator)
    parts = zip(points.split([720, 240, 240]), arm.split([720, 240, 240]), strict=True)
    return [TensorDataset(inputs, targets) for inputs, targets in parts]


@torch.no_grad()
def measure(model: nn.Module, split: TensorDataset, device: torch.device) -> dict[str, float]:
    """What is reported, by name; one of the names is the study's metric."""
    model.eval()
    inputs, targets = (part.to(device) for part in split.tensors)
    output = model(inputs)
    return {
        "loss": cross_entropy(output, targets).item(),
        "accuracy": (output.argmax(1) == targets).float().mean().item(),
    }


def train(run) -> None:
    """Train once, under the schedule that ``run`` plays."""
    # CHANGE: your own model, optimizer and loader. The seed is set: every trial begins alike.
    training, validation, test = data()
    loader = DataLoader(training, batch_size=32, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)).to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    # Rates are searched around the optimizer's own. The second argument counts its steps.
    scheduler = run.scheduler(optimizer, steps_per_epoch=len(loader))

    # With this, a trial whose machine is lost goes on from its last epoch on another one.
    run.checkpoint(model=model, optimizer=optimizer)

    for _ in run.epochs():
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            cross_entropy(model(inputs.to(run.device)), targets.to(run.device)).backward()
            optimizer.step()
            scheduler.step()  # after each step of the optimizer, not once per epoch
        run.report(**measure(model, validation, run.device))

    # Only the final proof on fresh seeds calls this; leave it out if there is no test split.
    run.test(lambda: measure(model, test, run.device))


if __name__ == "__main__":
    # Runs by itself: one training at the optimizer's own rate, or under the schedule that
    # clrsearch best has printed, dry_run(train, epochs=12, scheduler=make_scheduler).
    clrsearch.dry_run(train, epochs=12)
