"""What all formats share: how they are named, what they refuse, and what a file says."""

from __future__ import annotations

import re
import typing

import pytest
import torch
from exported import (
    BY_STEPS,
    CYCLIC,
    FORMULAS,
    HORIZON,
    SCHEDULES,
    agree,
    executed,
    found,
    in_steps,
)

from clrsearch.cli.inspecting import best
from clrsearch.errors import PlanError
from clrsearch.exports import FORMATS, write
from clrsearch.schedules import Cosine, Manual


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(PlanError, match=r"'jax'.*torch, lightning, transformers, keras, optax"):
        write("jax", found(CYCLIC))


def test_the_command_offers_every_format() -> None:
    offered, *_ = typing.get_args(typing.get_type_hints(best, include_extras=True)["format"])
    assert set(typing.get_args(offered)) == {*FORMATS, "json", "toml"}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_but_the_table_says_how_it_was_found(format) -> None:
    text = write(format, found(Cosine(lr=0.3, horizon=HORIZON)))
    said = ("A test.\n\nstudy  none\n", "\nEPOCHS = 12\nSTEPS_PER_EPOCH = 7\n", "SGD(momentum=0.9)")
    assert all((words in text) == (format != "table") for words in said)


@pytest.mark.parametrize("format", ["keras", "optax", "timm"])
def test_a_function_of_the_users_is_refused(format) -> None:
    own = next(each for each in SCHEDULES if isinstance(each, Manual) and each not in FORMULAS)
    with pytest.raises(PlanError, match=f"{format} cannot .* manual schedule.*--format torch can"):
        write(format, found(own))


@pytest.mark.parametrize("format", ["torch", "lightning", "transformers", "table"])
def test_a_function_of_the_users_is_written(format) -> None:
    own = next(each for each in SCHEDULES if isinstance(each, Manual) and each not in FORMULAS)
    assert write(format, found(own))


@pytest.mark.parametrize("schedule", BY_STEPS, ids=repr)
@pytest.mark.parametrize("format", FORMATS)
def test_nothing_speaks_of_epochs_in_a_study_in_steps(format, schedule) -> None:
    try:
        text = write(format, in_steps(schedule))
    except PlanError:
        with pytest.raises(PlanError):
            write(format, found(schedule))
        return
    assert ("\nTOTAL_STEPS = 84\n" in text) == (format != "table")
    said = re.sub(r"\w+_epochs?=", "", text) if format == "timm" else text  # but for its arguments
    assert "epoch" not in said.lower()
    assert "train.py" not in text


@pytest.mark.parametrize("ratios", [(1.0,), (1.0, 10.0, 0.3)], ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", BY_STEPS, ids=repr)
def test_torchs_schedulers_are_made_for_a_number_of_steps(schedule, ratios) -> None:
    exported = in_steps(schedule, ratios)
    make_scheduler = executed(write("torch", exported))["make_scheduler"]
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.02 * r} for r in ratios]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    scheduler = make_scheduler(optimizer, HORIZON)
    rates, momenta = [], []
    for _ in range(HORIZON):
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append([group["momentum"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    agree(exported, list(zip(*rates, strict=True)), list(zip(*momenta, strict=True)))


def test_it_stretches_with_the_number_of_steps() -> None:
    schedule = Cosine(lr=0.3, horizon=HORIZON)
    make_scheduler = executed(write("torch", in_steps(schedule)))["make_scheduler"]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make_scheduler(optimizer, 2 * HORIZON)
    for _ in range(HORIZON):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.15)
