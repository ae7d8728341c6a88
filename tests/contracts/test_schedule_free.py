"""Schedule-Free's code in every format: executed, and compared with the trial."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import schedulefree
import torch
from contracts.test_families import EPOCHS, HORIZON, STEPS_PER_EPOCH
from exported import Model, Samples, executed, found, in_steps
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clrsearch.errors import PlanError
from clrsearch.exports import FORMATS, Found, write
from clrsearch.schedules import ScheduleFree, SourceFile, trace
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe
from clrsearch.training.seeding import derive, seed_everything

CPU = torch.device("cpu")
SCHEDULE = ScheduleFree(lr=0.3, warmup=12, beta=0.95)
EXPECTED = trace(SCHEDULE, HORIZON).rates[0]


@pytest.mark.parametrize("length", ["epochs", "steps"])
@pytest.mark.parametrize(
    ("name", "options", "multipliers"),
    [
        ("Tiny", {"optimizer": "sgd"}, (1.0,)),
        ("Tiny", {"optimizer": "plain"}, (1.0,)),
        ("Tiny", {"optimizer": "adam"}, (1.0,)),
        ("Grouped", {}, (1.0, 0.5)),
    ],
)
def test_the_code_trains_as_the_trial_did(name, options, multipliers, length, task_dir) -> None:
    schedule = ScheduleFree(lr=0.02, warmup=4, beta=0.95)
    loaded = load_task(f"tiny.py:{name}", options=options, folder=task_dir)
    task, facts = loaded.task, probe(loaded, device=CPU)
    ratios = [own * times for own, times in zip(facts.ratios, multipliers, strict=True)]
    data = TaskData(task, facts.batch_size, CPU)
    run = SequentialRun(task, facts, data, trace(schedule, 16, ratios), seed=3, device=CPU)
    errors = [run.next_epoch().metrics["error"] for _ in range(4)]

    file = SourceFile(
        title="A test.",
        found={},
        optimizer=facts.optimizer,
        epochs=4,
        steps_per_epoch=4,
        total_steps=16 if length == "steps" else None,
        multipliers=multipliers,
    )
    exported = Found(
        schedule=schedule,
        file=file,
        momentum=facts.momentum,
        groups=facts.groups,
        own_ratios=facts.ratios,
    )
    make_optimizer = executed(write("torch", exported))["make_optimizer"]
    train, validation, _ = task.data()
    inputs, targets = (torch.stack(part) for part in zip(*train, strict=True))
    held, wanted = (torch.stack(part) for part in zip(*validation, strict=True))
    seed_everything(derive(3, 0, "init"))
    model = task.model()
    optimizer = make_optimizer(task.optimizer(model), 16 if length == "steps" else 4)
    for epoch in range(1, 5):
        model.train()
        optimizer.train()
        order = torch.Generator().manual_seed(derive(3, 0, "order", epoch))
        for batch in torch.randperm(34, generator=order).split(8)[:4]:
            optimizer.zero_grad()
            task.loss(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        optimizer.eval()
        model.eval()
        with torch.no_grad():
            error = ((model(held) - wanted) ** 2).mean().item()
        assert error == pytest.approx(errors[epoch - 1], rel=1e-4)


@pytest.mark.parametrize("format", sorted({*FORMATS} - {"torch", "lightning", "transformers"}))
def test_a_library_without_such_optimizers_is_refused(format) -> None:
    if format == "optax":
        return
    with pytest.raises(PlanError, match=f"{format} cannot .* an optimizer, not a rate.*torch can"):
        write(format, found(SCHEDULE))


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is:FutureWarning")
@pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning")
@pytest.mark.parametrize("length", ["epochs", "steps"])
def test_lightning_trains_and_validates_with_the_right_weights(length) -> None:
    import lightning

    exported = found(SCHEDULE) if length == "epochs" else in_steps(SCHEDULE)
    names = executed(write("lightning", exported))
    hooks = [name for name in names if name.startswith("on_")]
    modes: dict[str, list[bool]] = {"training": [], "validation": []}
    rates: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def make_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)

        def group(self):
            return self.optimizers(use_pl_optimizer=False).param_groups[0]

        def training_step(self, batch, index):
            modes["training"].append(self.group()["train_mode"])
            return self.layer(batch[0]).pow(2).mean()

        def on_train_batch_end(self, *_):
            rates.append(self.group()["scheduled_lr"])

        def validation_step(self, batch, index):
            modes["validation"].append(self.group()["train_mode"])

    for name in ("configure_optimizers", *hooks):
        setattr(Module, name, names[name])
    batches = DataLoader(TensorDataset(torch.ones(STEPS_PER_EPOCH * 2, 2)), batch_size=2)
    module = Module()
    long = {"max_epochs": EPOCHS} if length == "epochs" else {"max_steps": HORIZON}
    trainer = lightning.Trainer(
        **long,
        val_check_interval=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches, batches)
    assert modes["training"] == [True] * HORIZON
    assert modes["validation"]
    assert not any(modes["validation"])
    assert type(trainer.optimizers[0]) is schedulefree.SGDScheduleFree
    assert not trainer.optimizers[0].param_groups[0]["train_mode"]
    np.testing.assert_allclose(rates, EXPECTED, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", ["epochs", "steps"])
def test_transformers_trains_with_it(length, tmp_path) -> None:
    import transformers

    exported = found(SCHEDULE) if length == "epochs" else in_steps(SCHEDULE)
    names = executed(write("transformers", exported))
    model, rates, modes = Model(), [], []
    given = STEPS_PER_EPOCH if length == "epochs" else HORIZON
    optimizers = names["make_optimizers"](torch.optim.SGD(model.parameters(), lr=1.0), given)

    def group():  # a new one once the Trainer has prepared the optimizer
        return optimizers[0].param_groups[0]

    class Noting(transformers.TrainerCallback):
        def on_optimizer_step(self, *_, **__):
            rates.append(group()["scheduled_lr"])
            modes.append(group()["train_mode"])

        def on_evaluate(self, *_, **__):
            assert not group()["train_mode"]

    long = {"num_train_epochs": EPOCHS} if length == "epochs" else {"max_steps": HORIZON}
    transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            **long,
            output_dir=tmp_path,
            use_cpu=True,
            per_device_train_batch_size=1,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=False,
        ),
        train_dataset=Samples(),
        eval_dataset=Samples(),
        optimizers=optimizers,
        callbacks=[Noting()],
    ).train()
    assert type(optimizers[0]) is schedulefree.SGDScheduleFree
    assert modes == [True] * HORIZON
    np.testing.assert_allclose(rates, EXPECTED, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ratios", [(1.0,), (1.0, 10.0)], ids=["1 group", "2 groups"])
@pytest.mark.parametrize("kind", ["momentum", "betas"])
def test_optax_ends_where_the_package_ends(kind, ratios) -> None:
    schedule = ScheduleFree(lr=0.05, warmup=12, beta=0.95)
    exported = found(schedule, ratios, kind)
    names = executed(write("optax", exported))
    ratio = {} if len(ratios) == 1 else {"ratio": ratios[-1]}
    solver = names["make_optimizer"](weight_decay=0.01, **ratio)
    params = jnp.array([1.0, -2.0])
    state = solver.init(params)
    for _ in range(HORIZON):
        updates, state = solver.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    found_there = optax.contrib.schedule_free_eval_params(state, params)

    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    rate = 0.05 * ratios[-1]
    how = {"lr": rate, "weight_decay": 0.01, "warmup_steps": 13}
    twin = (
        schedulefree.AdamWScheduleFree([weight], betas=(0.95, 0.999), **how)
        if kind == "betas"
        else schedulefree.SGDScheduleFree([weight], momentum=0.95, **how)
    )
    twin.train()
    for _ in range(HORIZON):
        twin.zero_grad()
        loss(weight).backward()
        twin.step()
    twin.eval()
    assert np.asarray(found_there) == pytest.approx(weight.detach().numpy(), rel=1e-4)


def loss(weights):
    return ((weights - 0.5) ** 4).sum()


def test_a_file_for_an_optimizer_of_another_name_names_its_twin() -> None:
    exported = found(SCHEDULE, momentum="betas")
    adam = replace(exported, file=replace(exported.file, optimizer="Adam(betas=(0.9, 0.999))"))
    fresh = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    twin = executed(write("torch", adam))["make_optimizer"](fresh, STEPS_PER_EPOCH)
    assert type(twin) is schedulefree.AdamWScheduleFree
    assert SimpleNamespace(**twin.param_groups[0]).betas == (0.95, 0.999)
