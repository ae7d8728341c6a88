"""The table: every step, in full precision."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from exported import BY_STEPS, CYCLIC, HORIZON, SCHEDULES, agree, found, in_steps

from clrsearch.exports import write
from clrsearch.schedules import Constant


@pytest.mark.parametrize("ratios", [(1.0,), (1.0, 10.0, 0.3)], ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_table_is_the_trace(schedule, ratios) -> None:
    exported = found(schedule, ratios)
    head, *rows = csv.reader(write("table", exported).splitlines())
    values = np.array(rows, dtype=float).T
    assert values.shape[1] == HORIZON
    assert values[0].tolist() == list(range(HORIZON))
    assert len(head) == len(values)
    groups = len(ratios)
    agree(exported, values[1 : 1 + groups], values[1 + groups :], tolerance=0.0)


def test_its_columns_are_named() -> None:
    assert write("table", found(Constant(lr=0.25))).startswith("step,rate\n0,0.25\n1,0.25\n")
    two = write("table", found(CYCLIC, (1.0, 2.0)))
    head = "step,rate.group0,rate.group1,momentum.group0,momentum.group1\n"
    assert two.startswith(f"{head}0,0.01,0.02,0.95,0.95\n")


@pytest.mark.parametrize("schedule", BY_STEPS, ids=repr)
def test_a_study_in_steps_has_the_same_table(schedule) -> None:
    assert write("table", in_steps(schedule)) == write("table", found(schedule))
