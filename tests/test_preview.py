"""Previews: schedules by name and value, and a study's best, by literal arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from clrsearch import service
from clrsearch.errors import ClrsearchError, PlanError, ScheduleError
from clrsearch.search import ConfirmPlan, StudyPlan
from clrsearch.tasks import Spacing
from clrsearch.worker import WorkerSettings

CYCLIC = {"mode": "triangular2", "max_lr": 0.1, "cycles": 2}


def test_a_family_with_values_over_its_first_setting() -> None:
    (shown,) = service.preview(["cyclic"], CYCLIC, epochs=8, steps_per_epoch=10).schedules
    rates = shown.trace.rates[0]
    assert len(rates) == 80
    # Smith's base is a quarter of the top; peaks after a stepsize of 20, the second half as high
    assert rates[[0, 20, 40, 60]] == pytest.approx([0.025, 0.1, 0.025, 0.0625])
    assert shown.trace.momenta[0][[0, 20, 40, 60]] == pytest.approx([0.95, 0.85, 0.95, 0.9])
    assert shown.labels == ("cyclic",)


def test_fields_that_are_not_searched_are_taken_too() -> None:
    values = CYCLIC | {"base_lr": 0.0, "step_size_up": 10, "step_size_down": 30}
    (shown,) = service.preview(["cyclic"], values, epochs=8, steps_per_epoch=10).schedules
    assert shown.trace.rates[0][[0, 5, 10, 25, 40]] == pytest.approx([0, 0.05, 0.1, 0.05, 0])


def test_none_unsets_a_field() -> None:
    values = {"mode": "none", "scale_fn": "sine", "scale_mode": "cycle", "max_lr": 0.1, "cycles": 2}
    (shown,) = service.preview(["cyclic"], values, epochs=8, steps_per_epoch=10).schedules
    # the amplitude of the second cycle is (1 + sin(pi)) / 2 of the first's
    assert shown.trace.rates[0][[0, 20, 40, 60]] == pytest.approx([0.025, 0.1, 0.025, 0.0625])


def test_lists_are_values_of_fields(url) -> None:
    (shown,) = service.preview(["multistep"], {"milestones": [3, 5], "lr": 1.0}).schedules
    assert shown.trace.rates[0][[2, 3, 4, 5]] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_several_are_overlaid_and_a_list_gives_one_each() -> None:
    shown = service.preview(
        ["cyclic", "cosine"], {"mode": ["triangular", "triangular2"], "lr": 0.5, "max_lr": 0.2}
    )
    labels = [label for each in shown.schedules for label in each.labels]
    assert labels == ["cyclic, mode triangular", "cyclic, mode triangular2", "cosine"]
    tops = [each.trace.rates.max() for each in shown.schedules]
    assert tops == pytest.approx([0.2, 0.2, 0.5], rel=1e-3)
    assert shown.spacing == Spacing(epochs=20, steps_per_epoch=100)
    assert [curve.label for curve in shown.figure.panels[0].curves] == labels
    assert len(shown.figure.panels[1].curves) == 2


def test_a_value_may_be_for_one_of_them() -> None:
    shown = service.preview(["cosine", "linear"], {"lr": 0.5, "linear.lr": 0.25})
    tops = [each.trace.rates.max() for each in shown.schedules]
    assert tops == pytest.approx([0.5, 0.25], rel=1e-3)


def test_rates_by_hand(task_dir) -> None:
    pieces, function = [[1, 0.5], [1, 0.25]], "tiny.py:hand_written"
    (shown,) = service.preview(
        ["manual"], {"manual": pieces}, epochs=2, steps_per_epoch=2
    ).schedules
    assert shown.trace.rates.tolist() == [[0.5, 0.5, 0.25, 0.25]]
    (shown,) = service.preview(
        ["manual"], {"manual": function}, epochs=2, steps_per_epoch=2, task_dir=task_dir
    ).schedules
    assert shown.trace.rates.tolist() == [[0.05, 0.05, 0.01, 0.01]]


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (
            ["cyclik"],
            {},
            "cyclik is neither a schedule family nor a study; did you mean cyclic",
        ),
        (["cyclic"], {"max_rl": 1}, "max_rl: no such value; did you mean max_lr"),
        (["cyclic"], {"cosine.lr": 1}, "cosine.lr: no such value"),
        (["cosine"], {"horizon": 7}, "horizon: no such value"),
        (["cyclic"], {"mode": "sine"}, "bounds.cyclic.mode: 'sine' is not one of"),
        (["cyclic"], {"max_lr": "fast"}, "bounds.cyclic.max_lr: expected one or two numbers"),
        (["cyclic"], {"max_lr": -1}, "bounds.cyclic.max_lr: must be positive"),
        (["cyclic"], {"base_lr": "slow"}, "cyclic does not accept base_lr 'slow'"),
        (["cyclic"], {"base_lr": 5, "max_lr": 1}, "base_lr 5 is above max_lr 1"),
        (["cyclic"], {"mode": "triangular", "amplitude_left": 0.5}, "amplitude_left has no effect"),
        (["cyclic"], {"max_lr": []}, "--set max_lr: the list is empty"),
        (["manual"], {}, "manual does not fit: no rates are given"),
        (["manual"], {"manual": [[7, 0.1]]}, "the pieces cover 7 of 20"),
    ],
)
def test_what_is_wrong_is_told_by_name(names, values, message, url) -> None:
    with pytest.raises((PlanError, ScheduleError)) as caught:
        service.preview(names, values)
    assert message in str(caught.value)


def test_too_few_epochs_are_told(url) -> None:
    with pytest.raises(ClrsearchError, match="cyclic does not fit: a cycle takes at least 4"):
        service.preview(["cyclic"], {"stepsize": "integers"}, epochs=3)


def test_a_studys_best_beside_a_family(clrsearch, url, task_dir, tmp_path) -> None:
    plan = StudyPlan(
        task="tiny.py:Headed",
        trials=4,
        confirm=ConfirmPlan(enabled=False),
        families=("linear",),
        baseline="linear",
        bounds={"linear": {"lr": 0.01, "warmup_share": 0.0}},
        groups={"head": 2},
    )
    service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    shown = service.preview(["mine", "constant"], {"lr": 0.01})
    assert (shown.spacing.epochs, shown.spacing.steps_per_epoch) == (4, 4)
    best, constant = shown.schedules
    falling = 0.01 * (1 - np.arange(16) / 16)
    assert best.trace.rates == pytest.approx(np.outer([1, 20], falling))
    number = service.best("mine").trial.number
    label = f"mine: linear (trial {number})"
    assert best.labels == (f"{label}, body", f"{label}, head")
    assert constant.trace.rates.tolist() == [[0.01] * 16]
    with pytest.raises(PlanError, match="a study is shown over its own epochs"):
        service.preview(["mine"], epochs=4)

    with pytest.raises(PlanError, match="no such value: a study's best schedule is shown"):
        service.preview(["mine"], {"lr": 0.1})

    code, out, _ = clrsearch("preview", "mine", "--json")
    assert code == 0
    curves = json.loads(out)["schedules"]
    assert [curve["label"] for curve in curves] == list(best.labels)
    assert curves[0]["rates"] == pytest.approx(falling.tolist())


def test_on_the_command_line(clrsearch, tmp_path, url) -> None:
    values = ["--set", "mode=triangular2", "--set", "max_lr=0.1", "--set", "cycles=2"]
    sizes = ["--epochs", "20", "--steps-per-epoch", "31"]
    code, out, errors = clrsearch("preview", "cyclic", *values, *sizes)
    assert (code, errors) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[3:]}
    assert list(rows) == [*(str(epoch) for epoch in range(20)), "19.97"]
    assert rows["5"] == ["0.1", 48 * "█", "0.85"]
    assert rows["15"] == ["0.0625", 30 * "█", "0.9"]

    for ending in ("png", "svg", "html"):
        file = tmp_path / f"cycles.{ending}"
        code, out, errors = clrsearch("preview", "cyclic", "onecycle", "-o", str(file))
        assert (code, out, errors) == (0, "", f"wrote {file}\n")
        assert file.stat().st_size > 10_000
    code, _, errors = clrsearch("preview", "cyclic", "-o", "cycles.gif")
    assert code == 2
    assert errors.startswith("clrsearch: cycles.gif: the name of a figure must end in")
    assert not url.file.exists()


def test_a_long_preview_has_up_to_forty_rows(clrsearch, url) -> None:
    _, out, _ = clrsearch("preview", "linear", "--epochs", "300")
    assert len(out.splitlines()[3:]) == 39


def test_bars_share_one_scale_and_are_left_out_where_there_is_no_room(
    clrsearch, url, monkeypatch
) -> None:
    told = ("--set", "constant.lr=0.1", "--epochs", "8")
    _, out, _ = clrsearch("preview", "cyclic", "constant", "--set", "cyclic.max_lr=0.2", *told)
    assert out.splitlines()[-1].count("█") == 6 + 12  # of 24: a base of a quarter, and a half
    _, out, _ = clrsearch("preview", "cyclic", "constant", "linear", "cosine", *told)
    assert "█" not in out
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    command = [sys.executable, "-m", "clrsearch", "preview", "constant", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["7.99", "0.1"]


@pytest.mark.parametrize(
    ("epochs", "steps", "rates"),
    [
        (100_000_000_000, None, "10,000,000,000,000"),
        (None, 10**15, "20,000,000,000,000,000"),
        (1000, 60_000, "60,000,000"),
    ],
)
def test_a_length_that_no_memory_holds_is_refused(epochs, steps, rates) -> None:
    with pytest.raises(PlanError, match=f"^epochs: .* {rates} learning rates; the limit is 50"):
        service.preview(["cyclic"], epochs=epochs, steps_per_epoch=steps)
