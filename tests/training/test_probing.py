"""What the probe finds out, and the mistakes that it catches before a study begins."""

from __future__ import annotations

import pytest
import torch

from clrsearch.errors import TaskError, TaskRaised
from clrsearch.tasks import load_task
from clrsearch.training import probe

CPU = torch.device("cpu")


def test_the_facts_of_the_built_in_task(tmp_path) -> None:
    facts = probe(load_task("digits", folder=tmp_path), device=CPU)
    assert (facts.metric, facts.direction) == ("cross_entropy", "minimize")
    assert (facts.epochs, facts.batch_size, facts.steps_per_epoch, facts.horizon) == (
        20,
        32,
        31,
        620,
    )
    assert (facts.base_lr, facts.ratios, facts.momentum) == (0.05, (1.0,), "momentum")
    assert facts.optimizer == "SGD(momentum=0.9, weight_decay=0.0005, nesterov=True)"


def test_parameter_groups_are_known_by_name_and_ratio(task_dir) -> None:
    facts = probe(load_task("tiny.py:Grouped", folder=task_dir), device=CPU)
    assert facts.groups == ("weight", "bias")
    assert facts.ratios == pytest.approx((1.0, 10.0))


@pytest.mark.parametrize(
    ("option", "momentum", "described"),
    [
        ("sgd", "momentum", "SGD(momentum=0.9)"),
        ("plain", "none", "SGD()"),
        ("adam", "betas", "Adam(betas=(0.9, 0.999))"),
    ],
)
def test_the_kind_of_momentum(option, momentum, described, task_dir) -> None:
    loaded = load_task("tiny.py:Tiny", options={"optimizer": option}, folder=task_dir)
    facts = probe(loaded, device=CPU)
    assert (facts.momentum, facts.optimizer) == (momentum, described)


def test_a_study_may_say_otherwise(tiny) -> None:
    facts = probe(tiny, epochs=9, batch_size=10, metric="close", direction="maximize", device=CPU)
    assert (facts.epochs, facts.batch_size, facts.steps_per_epoch) == (9, 10, 3)
    assert (facts.metric, facts.direction) == ("close", "maximize")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NanMetric", "the validation metric error of the untrained model is nan"),
        ("TextMetric", r"measure\(\): error is the str 'good', but must be a number"),
        ("OtherMetric", "does not measure 'accuracy'; it measures error, close"),
        ("TooFew", "the batch size 100 exceeds the 34 training samples"),
    ],
)
def test_a_broken_contract_is_named(name, message, task_dir) -> None:
    with pytest.raises(TaskError, match=message):
        probe(load_task(f"tiny.py:{name}", folder=task_dir), device=CPU)


def test_an_exception_carries_the_users_traceback(task_dir) -> None:
    with pytest.raises(TaskRaised, match="AttributeError while taking a training step") as caught:
        probe(load_task("tiny.py:FailsAtOnce", folder=task_dir), device=CPU)
    assert "output.no_such_method()" in caught.value.traceback
