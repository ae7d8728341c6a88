"""What is read of studies whose length is in steps, or whose epochs differ in length."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
import torch
from running import ALONE

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.exports import FORMATS
from clrsearch.search import StudyPlan
from clrsearch.worker import WorkerSettings

FRACTIONS = re.compile(r"\d\.\d{5,} (batches|steps)|16\.666")
LOOP = {"metric": "error", "direction": "minimize"}


@pytest.fixture
def study(url, task_dir, monkeypatch):
    """Runs a study of two trials under the falling rates of polynomials, and names it mine."""
    monkeypatch.chdir(task_dir)

    def run(task: str, **keys) -> None:
        given = {"families": ("polynomial",), "baseline": "polynomial", "confirm": ALONE}
        plan = StudyPlan(task=task, trials=2, **(given | keys))
        service.run(plan, name="mine", workers=0, settings=WorkerSettings(device="cpu"))

    return run


def rates_of(make_scheduler, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make_scheduler(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_study_in_steps_never_speaks_of_epochs(study, clrsearch, tmp_path) -> None:
    study("jobs.py:Language")
    page = tmp_path / "page.html"
    for command in (
        *(["best", "mine", "--format", each] for each in FORMATS if each != "timm"),
        *(["best", "mine", "--format", each] for each in ("json", "toml")),
        *(["show", "mine"], ["show", "mine", "1"], ["status", "mine"], ["list"]),
        *(["preview", "mine"], ["replay", "mine", "1"], ["db", "check"]),
        ["report", "mine", "-o", str(page)],
    ):
        code, out, errors = clrsearch(*command)
        assert code == 0, errors
        said = page.read_text() if command[0] == "report" else out
        assert "epoch" not in said.lower(), command
        assert not FRACTIONS.search(said), command
    assert "Language, loss (minimize), 50 steps, validated every 20</p>" in page.read_text()


def test_what_a_study_in_steps_says(study, clrsearch) -> None:
    study("jobs.py:Language")
    _, code, _ = clrsearch("best", "mine")
    assert "\ntrained     50 steps in batches of 16, validated every 20\n" in code
    assert "\nTOTAL_STEPS = 50\n" in code
    assert "def make_scheduler(optimizer, total_steps):" in code
    found = service.best("mine")
    expected = found.trace().rates[0]
    assert rates_of(found.make_scheduler, 50) == pytest.approx(expected)
    assert rates_of(found.make_scheduler, 100)[::2] == pytest.approx(expected)
    _, shown, _ = clrsearch("show", "mine", "0")
    header, *rows = (line.split() for line in shown.splitlines()[4:])
    assert header == ["validation", "step", "learning", "rate", "there", "loss"]
    assert [row[:2] for row in rows] == [["1", "20"], ["2", "40"], ["3", "50"]]
    _, shown, _ = clrsearch("preview", "mine")
    assert [line.split()[0] for line in shown.splitlines()[2:5]] == ["step", "0", "2"]
    _, matched, _ = clrsearch("replay", "mine", "0")
    assert matched == "trial 0 matches: all 3 validations are identical to the last bit\n"
    for format, read in (("json", json.loads), ("toml", tomllib.loads)):
        _, values, _ = clrsearch("best", "mine", "--format", format)
        told = read(values)
        assert (told["steps"], told["validate_every"]) == (50, 20)
        assert "steps_per_epoch" not in told
    with pytest.raises(PlanError, match="mine: a study is shown over its own length"):
        service.preview(["mine"], epochs=3)
    family = service.preview(["mine", "linear"]).schedules[1]
    assert family.trace.rates.shape == (1, 50)


def test_epochs_that_differ_in_length_are_told_with_all_steps(study, clrsearch) -> None:
    study("long_loops.py:uneven", epochs=4, **LOOP)
    _, code, _ = clrsearch("best", "mine")
    assert "\ntrained     4 epochs, 14 steps in all\n" in code
    assert "\nTOTAL_STEPS = 14\n" in code
    found = service.best("mine")
    assert rates_of(found.make_scheduler, 14) == pytest.approx(found.trace().rates[0])
    _, values, _ = clrsearch("best", "mine", "--format", "json")
    assert (json.loads(values)["epochs"], json.loads(values)["steps"]) == (4, 14)
    _, shown, _ = clrsearch("show", "mine", "0")
    assert re.fullmatch("epoch +learning rate near its end +error", shown.splitlines()[4])
    _, matched, _ = clrsearch("replay", "mine", "0")
    assert "all 4 epochs are identical" in matched


def test_epochs_with_validations_in_between_keep_their_code(study, clrsearch) -> None:
    study("jobs.py:Digits", validate_every=5)
    _, code, _ = clrsearch("best", "mine")
    assert "\ntrained     3 epochs of 11 batches of 8, validated every 5 steps\n" in code
    assert "\nEPOCHS = 3\nSTEPS_PER_EPOCH = 11\n" in code
    _, shown, _ = clrsearch("show", "mine")
    assert shown.splitlines()[2].split()[:4] == ["trial", "end", "validation", "loss"]
    _, values, _ = clrsearch("best", "mine", "--format", "json")
    read = json.loads(values)
    assert (read["epochs"], read["steps_per_epoch"], read["validate_every"]) == (3, 11, 5)


@pytest.mark.parametrize("manual", [((3, 0.1),), "tiny.py:raises_later"])
@pytest.mark.parametrize(
    ("task", "keys", "message"),
    [
        ("jobs.py:Language", {}, "the length is 50 steps; leave manual out of the families"),
        ("jobs.py:Language", {"validate_every": 25}, "the length is 50 steps; leave manual out"),
        (
            "long_loops.py:uneven",
            {"epochs": 4, **LOOP},
            "these differ: 14 steps in 4 epochs; leave",
        ),
    ],
)
def test_hand_written_rates_are_refused_before_they_are_read(
    study, url, task, keys, message, manual
) -> None:
    with pytest.raises(PlanError, match=rf"^manual does not fit: [^\n]*{message}[^\n]*$"):
        study(task, families=("manual",), manual=manual, **keys)
    assert not url.file.exists()


def test_a_comparison_leaves_out_what_too_few_validations_do_not_allow(url, task_dir) -> None:
    plan = StudyPlan(task="jobs.py:Language", trials=60, validate_every=50)
    notes = service.comparison(plan, task_dir=task_dir, device="cpu").notes
    assert notes == tuple(
        f"left out: {family} ({why})"
        for family, why in (
            (
                "cosine_restarts",
                "two cycles, the second twice as long as the first, need at least 3 validations; "
                "there are 1",
            ),
            *(
                (
                    each,
                    "a drop needs a validation before and after it, so at least 2 validations; "
                    "there is 1",
                )
                for each in ("step", "multistep")
            ),
        )
    )
