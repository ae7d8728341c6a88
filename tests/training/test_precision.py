"""bf16: as a plain loop under torch's autocast computes; float32: as without any of it."""

from __future__ import annotations

import gc
import io
import weakref

import pytest
import torch

from clrsearch.schedules import Constant, trace
from clrsearch.search import StudyPlan, differences
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe
from clrsearch.training.precision import compute_in
from clrsearch.training.seeding import derive, seed_everything

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Results are bit-equal between equal numbers of threads."""
    torch.set_num_threads(1)


def start(**options) -> SequentialRun:
    loaded = load_task("digits", folder=None)
    facts = probe(loaded, batch_size=100, device=CPU)
    data = TaskData(loaded.task, facts.batch_size, CPU)
    played = trace(Constant(lr=0.05), facts.horizon, facts.ratios)
    return SequentialRun(loaded.task, facts, data, played, seed=0, device=CPU, **options)


def by_hand() -> tuple[float, dict[str, float]]:
    """Loss and metrics of the first epoch, as a user's own script would have them."""
    task = load_task("digits", folder=None).task
    train, validation, _ = task.data()
    seed_everything(derive(0, 0, "init"))
    model = task.model()
    optimizer = task.optimizer(model)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(derive(0, 0, "order", 1)))
    losses = []
    for batch in order.split(100):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(train.tensors[0][batch])
        loss = task.loss(output.float(), train.tensors[1][batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(validation.tensors[0])
    sums = task.measure(output.float(), validation.tensors[1])
    return (sum(losses) / 10).item(), {name: float(each) / 400 for name, each in sums.items()}


def test_bf16_trains_and_validates_as_a_plain_loop_under_autocast() -> None:
    run = start(precision="bf16")
    epoch = run.next_epoch()
    loss, metrics = by_hand()
    assert epoch.loss == pytest.approx(loss, rel=1e-6)
    assert epoch.metrics == metrics
    assert all(each.dtype == torch.float32 for each in run.state()["model"].values() if each.dim())


def test_the_two_differ_and_float32_is_the_default() -> None:
    default, float32, bf16 = start(), start(precision="float32"), start(precision="bf16")
    first = default.next_epoch()
    assert float32.next_epoch() == first
    assert bf16.next_epoch().loss == pytest.approx(first.loss, rel=0.02)
    assert bf16.next_epoch().loss != float32.next_epoch().loss
    model = torch.nn.Linear(2, 1)
    compute_in("float32", model, CPU)
    assert "forward" not in vars(model)


def test_a_checkpoint_resumes_bit_for_bit() -> None:
    run, resumed = start(precision="bf16"), start(precision="bf16")
    run.next_epoch()
    file = io.BytesIO()
    torch.save(run.state(), file)
    file.seek(0)
    resumed.restore(torch.load(file, weights_only=True))
    assert run.next_epoch() == resumed.next_epoch()


def test_outputs_that_are_no_tensors_stay_as_they_are() -> None:
    class Two(torch.nn.Module):
        def forward(self, inputs):
            return inputs, inputs + 1

    model = Two()
    compute_in("bf16", model, CPU)
    assert len(model(torch.zeros(2))) == 2


def test_another_precision_is_another_plan() -> None:
    assert differences(StudyPlan(), StudyPlan(precision="bf16")) == [
        "precision is 'float32' there and 'bf16' here"
    ]


def test_a_model_in_bf16_is_freed_with_its_last_reference() -> None:
    model = torch.nn.Linear(2, 1)
    compute_in("bf16", model, CPU)
    assert model(torch.ones(1, 2)).dtype == torch.float32
    there = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert there() is None
    finally:
        gc.enable()
