"""Under which conditions a recommendation holds: from made-up scores to a sentence and a table."""

from __future__ import annotations

import io
import json

import pytest
from records import make_record
from rich.console import Console

from clrsearch.reports import variation_table
from clrsearch.results import Conditioned, Variation, variation_json
from clrsearch.search import judge

STEP = make_record(0.1, number=7, family="step", params={"lr": 0.1, "drops": 2})
COSINE = make_record(0.1, number=12, family="cosine", params={"lr": 0.1, "min_ratio": 0.0})
CONSTANT = make_record(0.1, number=3, family="constant", params={"lr": 0.1})
SCHEDULES = (STEP, COSINE, CONSTANT)
MINIMIZED = {"direction": "minimize"}


def condition(label, step, cosine, constant, left=0):
    """The schedules' scores on seeds 1, 2, ... under a condition; the lowest is the best."""
    given = {7: step, 12: cosine, 3: constant}
    scores = {trial: dict(enumerate(each, start=1)) for trial, each in given.items()}
    verdict = judge(SCHEDULES, scores, direction="minimize", tolerance=0.1)
    return Conditioned(
        label=label, study=f"mine.vary.{label}", **MINIMIZED, left=left, verdict=verdict
    )


UNCHANGED = condition("unchanged", [0.1, 0.2, 0.3], [0.11, 0.2, 0.32], [0.2, 0.3, 0.4])
BETTER = condition("weight_decay=3x", [0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.21, 0.3, 0.4])
CLEAR = condition(
    "weight_decay=9x",
    [0.1 + 0.01 * (seed % 2) for seed in range(12)],
    [0.05] * 12,
    [0.2] * 12,
)
WORSE = condition("epochs=90", [0.10, 0.21, 0.3], [0.08, 0.2, 0.27], [0.4, 0.5, 0.6])
DIVERGES = condition("batch_size=512", [0.1, None, None], [0.2, 0.3, 0.4], [0.3, 0.3, 0.4])
NONE = Conditioned(
    label="seed=1", study="mine.vary.seed=1", **MINIMIZED, left=0, verdict=None, diverged=True
)
WAITING = Conditioned(label="seed=2", study="mine.vary.seed=2", **MINIMIZED, left=9, verdict=None)
ONE_SEED = condition("seed=4", [0.2], [0.1], [0.3])


def variation(*conditions):
    found = (UNCHANGED, *conditions)
    return Variation(study="mine", metric="error", schedules=SCHEDULES, conditions=found)


def test_it_holds_where_nothing_is_better() -> None:
    found = variation(BETTER)
    assert found.recommended == STEP
    assert found.sentence == (
        "The recommendation, step (trial 7), holds under 1 of 1 changed condition. "
        "cosine (trial 12) is never better. constant (trial 3) is never better."
    )


def test_it_does_not_where_a_rival_is_better_or_it_diverges() -> None:
    said = variation(BETTER, WORSE, CLEAR, DIVERGES, NONE).sentence
    assert said.startswith(
        "The recommendation, step (trial 7), holds under 1 of 5 changed conditions. "
        "Under epochs=90 cosine (trial 12) scored 0.02 better, but 3 seeds cannot tell them apart. "
        "Under weight_decay=9x cosine (trial 12) is better by 0.055 (p = "
    )
    assert "Under batch_size=512 step (trial 7) diverged on 2 seeds." in said
    assert "Under seed=1 every schedule diverged." in said
    assert "never better" not in said  # where step diverged, every rival is better


def test_a_difference_that_the_study_tolerates_is_none() -> None:
    """0.0001 between the means, and a noise of about 0.01."""
    close = condition("seed=3", [0.1, 0.2, 0.3], [0.115, 0.19, 0.2947], [0.2, 0.3, 0.4])
    assert close.verdict.standings[0].trial == 12
    assert close.holds(7) and close.holds(12) and not close.holds(3)


def test_a_maximized_metric_is_better_where_it_is_higher() -> None:
    scores = {7: {1: 0.9, 2: 0.8}, 12: {1: 0.7, 2: 0.6}, 3: {1: 0.95, 2: 0.9}}
    verdict = judge(SCHEDULES, scores, direction="maximize", tolerance=0.1)
    found = Conditioned(label="seed=1", study="x", direction="maximize", left=0, verdict=verdict)
    assert found.holds(3) and not found.holds(7)


def test_it_is_told_by_the_expected_scores() -> None:
    """By which the recommendation was chosen, although a rival's mean is better."""
    expected = {7: 0.1, 12: 0.1, 3: 0.2}
    scores = {7: {1: 0.2, 2: 0.3}, 12: {1: 0.1, 2: 0.22}, 3: {1: 0.4, 2: 0.5}}
    verdict = judge(SCHEDULES, scores, direction="minimize", expected=expected, tolerance=0.1)
    found = Conditioned(label="seed=1", study="x", **MINIMIZED, left=0, verdict=verdict)
    assert verdict.standings[0].trial == 12
    assert found.holds(7) and not found.holds(3)


def test_one_seed_cannot_tell() -> None:
    assert ONE_SEED.holds(7) is None and ONE_SEED.holds(12) is None
    assert variation(ONE_SEED).sentence == (
        "One seed cannot tell whether step (trial 7) holds under seed=4."
    )
    assert "holds under 1 of 1 changed condition." in variation(BETTER, ONE_SEED).sentence


def test_nothing_is_said_before_a_condition_has_finished() -> None:
    assert variation().sentence == "No condition has finished yet."
    assert variation(WAITING).sentence == ("No condition has finished yet. 9 runs are left.")


def test_what_is_left_is_not_counted() -> None:
    found = variation(BETTER, WAITING)
    assert "holds under 1 of 1 changed condition." in found.sentence
    assert found.sentence.endswith("9 runs are left.")


def test_the_table_has_a_row_per_condition() -> None:
    file = io.StringIO()
    console = Console(file=file, width=200)
    console.print(variation_table(variation(WORSE, DIVERGES, NONE, WAITING)))
    head, *rows = [line.split("  ") for line in file.getvalue().splitlines()[:6]]
    cells = [[each.strip() for each in row if each.strip()] for row in (head, *rows)]
    assert cells[0] == [
        "error under",
        "seeds",
        *("step (trial 7)", "cosine (trial 12)"),
        "constant (trial 3)",
    ]
    assert cells[1][:3] == ["unchanged", "3", "0.2 +- 0.25 *"]
    assert cells[2] == ["epochs=90", "3", "0.2033 +- 0.25", "0.1833 +- 0.24 *", "0.5 +- 0.25"]
    assert cells[3][2] == "diverged on 2"
    assert cells[4] == ["seed=1", "all diverged"]
    assert cells[5] == ["seed=2", "9 runs are left"]


def test_it_is_told_as_json() -> None:
    told = json.loads(variation_json(variation(WORSE, DIVERGES)))
    assert (told["recommended"], told["holds"], told["of"]) == (7, 0, 2)
    assert told["schedules"][0] == {"trial": 7, "family": "step"}
    first, worse, diverges = told["conditions"]
    assert [first["condition"], first["holds"]] == ["unchanged", True]
    assert worse["scores"][0]["trial"] == 12
    assert worse["scores"][0]["mean"] == pytest.approx(0.55 / 3)
    assert diverges["scores"][-1] == {
        "trial": 7,
        "mean": 0.1,
        "half": None,
        "p": None,
        "seeds": 1,
        "diverged": 2,
    }
