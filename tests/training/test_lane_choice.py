"""Which tasks are trained in lanes, in how many, and what the others are told."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from laned import CPU, SEED, Images, Job, Workshop
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from clrsearch.errors import PlanError
from clrsearch.tasks import Loaders, Loop, Splits, Task
from clrsearch.training import Choice, choose_lanes
from clrsearch.training import lane_choice as choosing
from clrsearch.training.lane_choice import Training
from clrsearch.training.lane_learner import LaneLearner
from clrsearch.training.lane_probe import LaneProbe

HOW = Training(device=CPU, precision="float32", seed=SEED)


def choice(kind: type[Task] = Job, wanted: Any = 2, trials: int = 100, **changes: Any) -> Choice:
    workshop = Workshop(kind, **changes)
    return choose_lanes(workshop.task, workshop.facts, workshop.data, wanted, trials=trials, **HOW)


class Careful(nn.Linear):
    """Looks at its own output, as a check for NaN may."""

    def forward(self, inputs):
        output = super().forward(inputs)
        return output if output.sum() > 1e9 else output * 2


class Counting(nn.Linear):
    """Does something else at each call."""

    calls = 0

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs) * self.calls


class Replacing(nn.Linear):
    """Sets a buffer to another tensor, rather than writing into it."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, inputs):
        output = super().forward(inputs)
        self.mean = 0.9 * self.mean + output.detach().mean(0)
        return output


class Flipping(nn.Linear):
    """Flips a coin of Python's."""

    def forward(self, inputs):
        output = super().forward(inputs)
        return output if random.random() < 2 else -output


FOREIGN = nn.Parameter(torch.zeros(3))


class Mean(nn.Linear):
    """Takes the mean over samples of different lengths."""

    def __init__(self) -> None:
        super().__init__(2, 5)

    def forward(self, inputs):
        return super().forward(inputs).mean(1)


def ragged(self):
    """Samples of 3 to 40 times 2 numbers."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 41, (64,), generator=generator).tolist()
    samples = [(torch.randn(length, 2, generator=generator), length % 5) for length in lengths]
    return Splits(samples, samples[:16], samples[:16])


def padded(self, samples):
    inputs, targets = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(inputs, batch_first=True), torch.tensor(targets)


def _all(self, model):
    return [{"params": [*model.parameters()], "lr": 0.1}]


def one_group(optimizer):
    return lambda self, model: optimizer(model.parameters(), lr=0.1)


def hooked(self, model):
    model.weight.register_hook(lambda gradient: gradient * 2)
    return torch.optim.SGD(model.parameters(), lr=0.1)


class Own(Job):
    data, batch_size = Task.data, 16

    def loaders(self):
        return Loaders(*(DataLoader(self.split(n), batch_size=16) for n in range(3)))


def linear(self):
    return nn.Linear(12, 5)


UNFIT = {
    "looks at the values": (
        {"model": lambda self: Careful(12, 5), "optimizer": one_group(torch.optim.SGD)},
        r"its code has data-dependent control flow, such as item\(\) or if loss > 3",
    ),
    "another optimizer": (
        {"optimizer": one_group(torch.optim.Adagrad)},
        "its optimizer is Adagrad, and lanes have SGD, Adam, AdamW, RMSprop",
    ),
    "a buffer that is replaced": (
        {"model": lambda self: Replacing(12, 5), "optimizer": one_group(torch.optim.SGD)},
        "it replaces its buffer mean, rather than writing into it",
    ),
    "a buffer that is replaced, beside dropout": (
        {
            "model": lambda self: nn.Sequential(Replacing(12, 5), nn.Dropout()),
            "optimizer": one_group(torch.optim.SGD),
        },
        "it replaces its buffer 0.mean, rather than writing into it",
    ),
    "another generator": (
        {"model": lambda self: Flipping(12, 5), "optimizer": one_group(torch.optim.SGD)},
        "it draws from Python's or NumPy's generators, which lanes would share",
    ),
    "a foreign weight": (
        {"optimizer": lambda self, model: torch.optim.SGD([*model.parameters(), FOREIGN], lr=0.1)},
        "its optimizer has weights that are not the model's",
    ),
    "batches of different shapes": (
        {"collate": padded, "data": ragged, "model": lambda self: Mean(), "groups": _all},
        "torch cannot vectorize it",
    ),
    "a hook after the step": (
        {"after_step": lambda self, model: None},
        "after_step.. works on one model at a time",
    ),
    "a hook of a weight": (
        {"model": linear, "optimizer": hooked},
        "its optimizer or parameters have hooks, which see one model at a time",
    ),
    "something else": (
        {"model": lambda self: Counting(12, 5), "optimizer": one_group(torch.optim.SGD)},
        "its gradients in lanes are not those of a model alone",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_vectorized_is_told(name) -> None:
    changes, reason = UNFIT[name]
    found = choice(wanted="auto", **changes)
    assert found.lanes is None
    with pytest.raises(PlanError, match=f"--lanes 2: .*{reason}"):
        choice(**changes)
    assert found.reason.startswith("one trial at a time, as ")


def test_loaders_and_loops_of_their_own_are_told() -> None:
    with pytest.raises(PlanError, match=r"loaders\(\) gives its batches in one order at a time"):
        choice(Own)
    loop = Loop(name="mine.py:train", function=lambda run: None, options={})
    facts = Workshop().facts
    with pytest.raises(PlanError, match="it has a training loop of its own; leave --lanes out"):
        choose_lanes(loop, facts, None, 2, trials=10, **HOW)
    found = choose_lanes(loop, facts, None, "auto", trials=10, **HOW)
    assert found.reason == "one trial at a time, as it has a training loop of its own"


def test_exact_repetition_and_float16_are_refused() -> None:
    workshop = Workshop()
    parts = (workshop.task, workshop.facts, workshop.data)
    with pytest.raises(PlanError, match="the study is deterministic"):
        choose_lanes(*parts, 2, trials=10, deterministic=True, **HOW)
    with pytest.raises(PlanError, match="fp16 scales the loss of each; bf16 does not"):
        choose_lanes(*parts, 2, trials=10, **(HOW | {"precision": "fp16"}))


def test_few_trials_learn_more_one_by_one() -> None:
    found = choice(wanted="auto", trials=11)
    assert found.lanes is None
    assert "too few trials are left for two at a time to learn from earlier ones" in found.reason


def test_a_number_is_taken_as_it_is(monkeypatch) -> None:
    times(monkeypatch, {1: 1.0, 3: 6.0})
    found = choice(wanted=3, trials=2)
    assert found.lanes is not None and found.lanes.size == 3
    assert found.reason == "3 trials train together, at 0.5 times the speed of one at a time"


def times(monkeypatch, seconds: dict[int, float]) -> list[int]:
    """Let steps of so many lanes take so long; returns the numbers that are tried, in turn."""
    tried: list[int] = []

    def alone(self) -> float:
        return seconds[1]

    def together(self, learner) -> float:
        tried.append(learner.size)
        return seconds[learner.size]

    monkeypatch.setattr(LaneProbe, "time_alone", alone)
    monkeypatch.setattr(LaneProbe, "time", together)
    monkeypatch.setattr(choosing, "LONG", float("inf"))  # nothing is compiled
    return tried


def test_the_fewest_lanes_that_are_about_as_fast(monkeypatch) -> None:
    """In 2, 4, 8 and 16 lanes, 1.1, 2.0, 3.8 and 4.0 times as many trials: 8 are enough."""
    tried = times(monkeypatch, {1: 1.0, 2: 1.9, 4: 2.0, 8: 8 / 3.8, 16: 4.0})
    found = choice(wanted="auto", trials=100)
    assert tried == [2, 4, 8, 16]
    assert found.lanes is not None and found.lanes.size == 8
    assert found.reason == "8 trials train together, at 3.8 times the speed of one at a time"


def test_no_lanes_where_they_are_slower(monkeypatch) -> None:
    tried = times(monkeypatch, {1: 1.0, 2: 2.5, 4: 6.0})
    found = choice(Images, wanted="auto", trials=60)
    assert found.lanes is None and tried == [2, 4]  # with more, it gets no better
    assert found.reason == "one trial at a time, as 2 together would train at 0.8 times its speed"


@pytest.mark.parametrize(("seconds", "gain"), [(1.0, ", compiled, at 4.0"), (3.9, ", at 1.0")])
def test_it_is_compiled_if_that_is_faster(monkeypatch, seconds, gain) -> None:
    ways: list[bool] = []

    def speed_up(self, *, compiled: bool = False, captured: bool = False) -> None:
        assert not captured  # there is no GPU
        ways.append(compiled)

    times(monkeypatch, {1: 1.0})
    together = lambda self, learner: seconds if ways and ways[-1] else 4.0  # noqa: E731
    monkeypatch.setattr(LaneProbe, "time", together)
    monkeypatch.setattr(choosing, "LONG", 0.0)
    monkeypatch.setattr(LaneLearner, "speed_up", speed_up)
    found = choice(wanted=4, trials=100)
    assert ways[-1] == (seconds == 1.0)
    assert found.reason == f"4 trials train together{gain} times the speed of one at a time"


def test_dropout_is_no_hindrance() -> None:
    found = choice(model=lambda self: nn.Sequential(nn.Linear(12, 5), nn.Dropout()), groups=_all)
    assert found.lanes is not None and found.lanes.learner.validates_together


def test_unused_weights_are_found() -> None:
    class Partly(nn.Linear):
        def __init__(self) -> None:
            super().__init__(12, 5)
            self.spare = nn.Linear(2, 2)

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)

    workshop = Workshop(model=lambda self: Partly(), optimizer=optimizer)
    parts = (workshop.task, workshop.facts, workshop.data)
    lanes = choose_lanes(*parts, 2, trials=9, **HOW).lanes
    assert lanes is not None
    run = lanes.run(workshop.trace(0), seed=SEED, seed_index=0)
    before = run.state()["model"]["spare.weight"].clone()
    lanes.advance()
    assert torch.equal(run.state()["model"]["spare.weight"], before)  # no weight decay either


def test_a_metric_that_leaves_torch_is_measured_lane_by_lane() -> None:
    def measure(self, output, target):
        return {"loss": cross_entropy(output, target, reduction="sum").item()}

    lanes = choice(measure=measure).lanes
    assert lanes is not None and not lanes.learner.validates_together
