"""``clrsearch range-test`` and ``plot``: what they print and write, and what they refuse."""

from __future__ import annotations

import json

import pytest

from clrsearch import service
from clrsearch.search import ConfirmPlan, StudyPlan
from clrsearch.worker import WorkerSettings


@pytest.fixture
def clrsearch(clrsearch, monkeypatch, url, task_dir):
    """Run a command line in the folder of the tests' tasks."""
    monkeypatch.chdir(task_dir)
    return clrsearch


def test_for_a_task_it_prints_and_draws_and_stores_nothing(clrsearch, url, tmp_path) -> None:
    file = tmp_path / "test.svg"
    code, out, errors = clrsearch("range-test", "--task", "tiny.py:Tiny", "-o", str(file))
    assert (code, errors) == (0, f"wrote {file}\n")
    head, sentence, use = out.splitlines()
    assert head.startswith("tiny.py:Tiny: SGD(momentum=0.9), rates of 2e-06 to 20 on 3 seeds, ")
    assert sentence.startswith("The validation loss starts to fall at a rate of 0.0001; above 0.")
    assert use.startswith("With --range-test a search uses 0.0001 to 0.")
    assert "Learning-rate range test" in file.read_text()
    assert not url.file.exists()


def test_a_flat_one_says_so(clrsearch) -> None:
    code, out, _ = clrsearch("range-test", "--task", "tiny.py:Deaf")
    assert code == 0
    assert "The validation loss is flat" in out
    assert "With --range-test a search would use the task's own rate x [1/30, 30]." in out


def test_for_a_study_it_is_kept_and_plotted(clrsearch, task_dir, tmp_path) -> None:
    alone = ConfirmPlan(enabled=False)
    plan = StudyPlan(families=("cyclic",), task="tiny.py:Tiny", trials=2, confirm=alone)
    service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    code, out, _ = clrsearch("range-test", "mine", "--json")
    assert code == 0
    first = json.loads(out)
    assert first["study"] == "mine"
    assert len(first["training"]) == 3
    assert first["bounds"] == [first["base"], first["maximum"]]
    code, out, _ = clrsearch("range-test", "mine")
    assert code == 0
    assert "Saved in mine: clrsearch range-test mine --output range-test.png plots it" in out
    file = tmp_path / "kept.png"
    code, out, errors = clrsearch("range-test", "mine", "-o", str(file))
    assert (code, errors) == (0, f"wrote {file}\n")
    assert file.read_bytes().startswith(b"\x89PNG")
    for picture in ("scores", "curves"):
        code, _, errors = clrsearch("plot", "mine", picture, "-o", str(tmp_path / "x.html"))
        assert (code, errors) == (
            2,
            "clrsearch: mine has no confirmation yet: clrsearch confirm mine starts one\n",
        )

    for wrong in (["--task", "digits"], ["--seed", "1"], ["--set", "seed=1"]):
        code, _, errors = clrsearch("range-test", "mine", *wrong)
        assert code == 2
        assert "mine is a study, which is tested as is" in errors


def test_a_wrong_ending_is_told_before_anything_is_computed(clrsearch) -> None:
    for command in (["range-test", "--task", "no.py:Task"], ["preview", "none"]):
        code, out, errors = clrsearch(*command, "-o", "x.gif")
        assert (code, out) == (2, "")
        assert errors == "clrsearch: x.gif: the name of a figure must end in .html, .png or .svg\n"


def test_the_pictures_of_a_confirmation(clrsearch, task_dir, tmp_path) -> None:
    plan = StudyPlan(
        task="tiny.py:Noisy",
        trials=4,
        families=("cyclic", "constant"),
        confirm=ConfirmPlan(top=1, seeds=2),
    )
    service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    best = service.best("mine")
    for picture, labels in (
        ("scores", [f"{best.trial.family} (trial {best.trial.number}), recommended"]),
        ("curves", ["constant (trial ", "cyclic (trial ", "learning rate", "validation error"]),
    ):
        file = tmp_path / f"{picture}.svg"
        code, _, errors = clrsearch("plot", "mine", picture, "-o", str(file))
        assert (code, errors) == (0, f"wrote {file}\n")
        text = file.read_text()
        assert all(label in text for label in labels)
