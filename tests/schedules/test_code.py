"""The code of a schedule: what its file says, and that a wrong one is noticed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from clrsearch.errors import ScheduleError
from clrsearch.schedules import Constant, Cosine, Cyclic, SourceFile, check, render, trace

FILE = SourceFile(
    title="A schedule.",
    found={"study": "mine", "task": "mine.py:Mine"},
    optimizer="SGD(momentum=0.9)",
    epochs=20,
    steps_per_epoch=31,
)
SCHEDULE = Cyclic(
    base_lr=0.01,
    max_lr=0.3,
    step_size_up=77.5,
    mode="exp_range",
    gamma=0.99,
    cycle_momentum=True,
    base_momentum=0.85,
    max_momentum=0.95,
)


def test_the_file_says_what_a_reader_needs() -> None:
    code = render(SCHEDULE, FILE)
    assert "study  mine\ntask   mine.py:Mine\n" in code
    assert "EPOCHS = 20\nSTEPS_PER_EPOCH = 31\n" in code
    assert "SGD(momentum=0.9)" in code
    assert "scheduler.step()  # after every batch, not once per epoch" in code
    assert "step_size_up=77.5 * stretch" in code
    assert "cycle_momentum=True" in code


def test_the_file_runs_alone(tmp_path) -> None:
    path = tmp_path / "schedule.py"
    path.write_text(render(SCHEDULE, FILE))
    program = (
        "import sys, torch, schedule\n"
        "weight = torch.zeros(1, requires_grad=True)\n"
        "optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)\n"
        "scheduler = schedule.make_scheduler(optimizer, 31)\n"
        "print(scheduler.get_last_lr()[0], 'clrsearch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0.01", "False"]


def test_code_of_another_schedule_is_noticed() -> None:
    code = render(Constant(lr=0.2), FILE)
    check(code, trace(Constant(lr=0.2), 620), length=31, momentum="none")
    with pytest.raises(ScheduleError, match="at step 0"):
        check(code, trace(Constant(lr=0.2 + 1e-10), 620), length=31, momentum="none")


def test_another_momentum_is_noticed() -> None:
    other = dataclasses.replace(SCHEDULE, max_momentum=0.94)
    code = render(SCHEDULE, FILE)
    check(code, trace(SCHEDULE, 620), length=31, momentum="betas")
    with pytest.raises(ScheduleError, match="deviates from the schedule"):
        check(code, trace(other, 620), length=31, momentum="betas")


def test_the_rounding_that_torch_gathers_over_a_long_run_is_no_error() -> None:
    horizon = (
        150_000  # 1.9e-12 of the peak rate at the end, for CosineAnnealingLR goes step by step
    )
    schedule = Cosine(lr=0.3, horizon=horizon, eta_min=0.03)
    file = dataclasses.replace(FILE, epochs=10, steps_per_epoch=horizon // 10)
    code = render(schedule, file)
    assert "CosineAnnealingLR" in code
    check(code, trace(schedule, horizon), length=horizon // 10, momentum="none")
    other = trace(dataclasses.replace(schedule, lr=0.3 + 1e-10), horizon)
    with pytest.raises(ScheduleError, match="at step 0"):
        check(code, other, length=horizon // 10, momentum="none")
