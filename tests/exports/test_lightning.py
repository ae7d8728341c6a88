"""Lightning: the method, called by hand for every schedule, and by the real Trainer for some."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from contracts.test_families import EPOCHS, HORIZON, SCHEDULES, STEPS_PER_EPOCH
from exported import BY_STEPS, CYCLIC, ONE_CYCLE, agree, executed, found, in_steps
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clrsearch.exports import write
from clrsearch.schedules import Cosine

GROUPS = (1.0, 10.0, 0.3)
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning"),
]


def play(exported, trainer, ratios) -> None:
    """Compare what the method gives with the trial, step by step."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.02 * r} for r in ratios]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    module = SimpleNamespace(trainer=trainer, make_optimizer=lambda: optimizer)
    made = executed(write("lightning", exported))["configure_optimizers"](module)
    assert made["optimizer"] is optimizer
    assert made["lr_scheduler"]["interval"] == "step"
    rates, momenta = [], []
    for _ in range(HORIZON):
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append([group["momentum"] for group in optimizer.param_groups])
        optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
    agree(exported, list(zip(*rates, strict=True)), list(zip(*momenta, strict=True)))


@pytest.mark.parametrize("ratios", [(1.0,), GROUPS], ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_method_gives_the_schedule_step_by_step(schedule, ratios) -> None:
    trainer = SimpleNamespace(max_epochs=EPOCHS, estimated_stepping_batches=HORIZON)
    play(found(schedule, ratios), trainer, ratios)


@pytest.mark.parametrize("ratios", [(1.0,), GROUPS], ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", BY_STEPS, ids=repr)
def test_the_method_of_a_study_in_steps_takes_the_trainers_steps(schedule, ratios) -> None:
    trainer = SimpleNamespace(estimated_stepping_batches=HORIZON)
    play(in_steps(schedule, ratios), trainer, ratios)


@pytest.fixture(scope="module")
def lightning():
    """Lightning, which takes seconds to import, with a module that notes what it trains with."""
    import lightning

    class Noting(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)
            self.rates: list[float] = []
            self.momenta: list[float] = []

        def training_step(self, batch, index):
            group = self.optimizers().optimizer.param_groups[0]
            self.rates.append(group["lr"])
            self.momenta.append(group.get("momentum", group.get("betas", [0])[0]))
            return self.layer(batch[0]).pow(2).mean()

    return SimpleNamespace(Trainer=lightning.Trainer, Noting=Noting)


def train(lightning, text: str, optimizer, **length):
    class Mine(lightning.Noting):
        configure_optimizers = executed(text)["configure_optimizers"]

        def make_optimizer(self):
            return optimizer(self.parameters())

    batches = DataLoader(TensorDataset(torch.ones(STEPS_PER_EPOCH * 2, 2)), batch_size=2)
    module = Mine()
    lightning.Trainer(
        **(length or {"max_epochs": EPOCHS}),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, batches)
    return module


@pytest.mark.parametrize(
    ("schedule", "momentum"),
    [
        (CYCLIC, "momentum"),
        (CYCLIC, "betas"),
        (ONE_CYCLE, "momentum"),
        (Cosine(lr=0.3, horizon=HORIZON, warmup=12, eta_min=0.02), "momentum"),
    ],
    ids=["cyclic", "cyclic, Adam", "onecycle", "cosine"],
)
def test_the_real_trainer_plays_the_schedule(schedule, momentum, lightning) -> None:
    exported = found(schedule, momentum=momentum)

    def optimizer(parameters):
        if momentum == "betas":
            return torch.optim.AdamW(parameters, lr=1.0)
        return torch.optim.SGD(parameters, lr=1.0, momentum=0.9)

    module = train(lightning, write("lightning", exported), optimizer)
    assert len(module.rates) == HORIZON
    agree(exported, module.rates, module.momenta)


def test_another_number_of_epochs_is_refused(lightning) -> None:
    text = write("lightning", found(CYCLIC))
    with pytest.raises(ValueError, match="for 12 epochs, not 3"):
        train(lightning, text, lambda parameters: torch.optim.SGD(parameters, lr=1.0), max_epochs=3)


def test_the_real_trainer_plays_it_for_a_number_of_steps(lightning) -> None:
    exported = in_steps(CYCLIC)
    made = lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.9)  # noqa: E731
    module = train(lightning, write("lightning", exported), made, max_steps=HORIZON, max_epochs=-1)
    assert len(module.rates) == HORIZON
    agree(exported, module.rates, module.momenta)


def test_a_trainer_without_an_end_is_refused() -> None:
    trainer = SimpleNamespace(estimated_stepping_batches=float("inf"))
    with pytest.raises(ValueError, match="the Trainer has no end: give it max_steps=84"):
        play(in_steps(CYCLIC), trainer, (1.0,))
