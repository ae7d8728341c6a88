"""Transformers: its own schedulers where they say the same, and torch's handed to the Trainer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contracts.test_families import EPOCHS, HORIZON, SCHEDULES, STEPS_PER_EPOCH
from exported import CYCLIC, ONE_CYCLE, Model, Samples, agree, executed, found, in_steps

from clrsearch.exports import write
from clrsearch.exports.to_transformers import own_scheduler
from clrsearch.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Linear,
    Polynomial,
    WarmupStableDecay,
)

NATIVE = [each for each in SCHEDULES if own_scheduler(each) is not None]
HANDED_OVER = [each for each in SCHEDULES if own_scheduler(each) is None]
GROUPS = (1.0, 10.0, 0.3)


@pytest.fixture(scope="module")
def transformers():
    """Transformers, which takes seconds to import."""
    import transformers

    return transformers


def fresh(ratios) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.02 * r} for r in ratios]
    return torch.optim.SGD(groups, momentum=0.9)


def played(optimizer, scheduler) -> tuple[list, list]:
    """The rates and the momenta of each parameter group."""
    rates, momenta = [], []
    for _ in range(HORIZON):
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append([group["momentum"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return list(zip(*rates, strict=True)), list(zip(*momenta, strict=True))


@pytest.mark.parametrize("exported", [found, in_steps])
@pytest.mark.parametrize("schedule", NATIVE, ids=repr)
def test_its_own_schedulers_say_the_same(schedule, exported, transformers, tmp_path) -> None:
    by_epochs, exported = exported is found, exported(schedule)
    names = executed(write("transformers", exported))
    arguments = names["make_arguments"](output_dir=tmp_path, use_cpu=True)
    if by_epochs:
        assert arguments.num_train_epochs == EPOCHS
    else:
        assert arguments.max_steps == HORIZON
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=arguments.learning_rate, momentum=0.9)
    scheduler = transformers.get_scheduler(  # as Trainer.create_scheduler does
        arguments.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=arguments.get_warmup_steps(HORIZON),
        num_training_steps=HORIZON,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    agree(exported, *played(optimizer, scheduler))


@pytest.mark.parametrize("ratios", [(1.0,), GROUPS], ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_others_are_handed_over(schedule, ratios) -> None:
    if len(ratios) == 1 and schedule in NATIVE:
        return
    exported = found(schedule, ratios)
    names = executed(write("transformers", exported))
    given = fresh(ratios)
    optimizer, scheduler = names["make_optimizers"](given, STEPS_PER_EPOCH)
    assert optimizer is given
    agree(exported, *played(optimizer, scheduler))
    if schedule.family != "manual":
        names = executed(write("transformers", in_steps(schedule, ratios)))
        agree(exported, *played(*names["make_optimizers"](fresh(ratios))))


def test_a_scheduler_of_its_own_is_used_where_there_is_no_warm_up() -> None:
    filling = {"lr": 0.3, "horizon": HORIZON}
    types = {
        "constant": Constant(lr=0.3),
        "linear": Linear(**filling),
        "polynomial": Polynomial(**filling, power=2.0),
        "cosine": Cosine(**filling),
        "cosine_with_min_lr": Cosine(**filling, eta_min=0.02),
        "cosine_with_restarts": CosineRestarts(**filling, cycles=2),
        "warmup_stable_decay": WarmupStableDecay(**filling, decay=20),
    }
    for name, schedule in types.items():
        native = own_scheduler(schedule)
        assert native is not None
        assert native[0] == name
        if hasattr(schedule, "warmup"):
            assert own_scheduler(replace(schedule, warmup=5)) is None


def test_restarts_that_rounding_puts_off_are_handed_over() -> None:
    assert 22 * (60 / 88) % 1.0 > 0.99  # at the restart of step 60, as it is computed there
    restarts = CosineRestarts(lr=0.3, horizon=88, cycles=22)
    assert own_scheduler(restarts) is None


@pytest.mark.parametrize(
    ("schedule", "length"),
    [
        (CYCLIC, "epochs"),
        (CYCLIC, "steps"),
        (ONE_CYCLE, "epochs"),
        (Linear(lr=0.3, horizon=HORIZON, warmup=12), "epochs"),
        (Linear(lr=0.3, horizon=HORIZON), "epochs"),
        (
            WarmupStableDecay(lr=0.3, horizon=HORIZON, decay=20, shape="1-sqrt", min_lr=0.02),
            "epochs",
        ),
        (Cosine(lr=0.3, horizon=HORIZON, eta_min=0.02), "epochs"),
        (Cosine(lr=0.3, horizon=HORIZON, eta_min=0.02), "steps"),
    ],
    ids=repr,
)
def test_the_real_trainer_plays_the_schedule(schedule, length, transformers, tmp_path) -> None:
    exported = found(schedule) if length == "epochs" else in_steps(schedule)
    names = executed(write("transformers", exported))
    rates, momenta = [], []

    class Noting(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **others):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0].get("momentum"))

    own = {
        "output_dir": tmp_path,
        "use_cpu": True,
        "per_device_train_batch_size": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    model = Model()
    if "make_arguments" in names:
        arguments, optimizers = names["make_arguments"](**own), (None, None)
    else:
        by_epochs, steps = {"num_train_epochs": EPOCHS}, {"max_steps": HORIZON}
        long = by_epochs if length == "epochs" else steps
        arguments = transformers.TrainingArguments(**long, **own)
        own_optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        given = STEPS_PER_EPOCH if length == "epochs" else HORIZON
        optimizers = names["make_optimizers"](own_optimizer, given)
    transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=Samples(),
        optimizers=optimizers,
        callbacks=[Noting()],
    ).train()
    assert len(rates) == HORIZON
    agree(exported, rates, momenta)
