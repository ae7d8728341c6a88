"""Plans: what a study file may say, and what is answered to a wrong one."""

from __future__ import annotations

import tomllib
from collections import Counter

import pytest

from clrsearch.errors import PlanError
from clrsearch.schedules import FAMILIES
from clrsearch.search import StudyPlan, differences, load_plan, settings


def written(tmp_path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_every_key_has_a_default() -> None:
    plan = load_plan(None)
    assert (plan.task, plan.trials, plan.families, plan.baseline) == (
        "denoise",
        100,
        tuple(each for each in FAMILIES if each not in ("constant", "manual", "schedule_free")),
        "constant",
    )
    assert (plan.sampler, plan.allocation, plan.seeds) == ("surrogate", "led", 4)
    assert (plan.pruner, plan.stepsize, plan.seed, plan.retries) == (
        "lenient",
        "whole-cycles",
        0,
        1,
    )


def test_a_file_is_read_and_options_are_laid_over_it(tmp_path) -> None:
    path = written(
        tmp_path,
        'task = "mine.py:Mine"\ntrials = 30\n[options]\noptimizer = "adam"\n'
        '[bounds]\ncyclic.max_lr = [1e-3, 1.0]\ncyclic.mode = "triangular"\n',
    )
    plan = load_plan(path, {"trials": 7, "bounds.cyclic.cycles": 2, "options.width": 3})
    assert (plan.task, plan.trials) == ("mine.py:Mine", 7)
    assert plan.options == {"optimizer": "adam", "width": 3}
    assert plan.bounds == {"cyclic": {"max_lr": (1e-3, 1.0), "mode": "triangular", "cycles": 2}}


def test_options_in_tables_have_dotted_names(tmp_path) -> None:
    path = written(
        tmp_path, '[options]\noptimizer = "adam"\n[options.model]\nwidth = 3\ndeep.on = true\n'
    )
    changes = {"options.model.width": 4, "options.optimizer.lr": 0.1, "options.model.deep.ly": 5}
    plan = load_plan(path, changes)
    assert plan.options == {
        "optimizer": "adam",
        "optimizer.lr": 0.1,
        "model.width": 4,
        "model.deep.on": True,
        "model.deep.ly": 5,
    }
    assert StudyPlan.model_validate(plan.model_dump(mode="json")) == plan
    assert "options.model.width=4" in settings(plan)
    with pytest.raises(PlanError, match=r"^options\.model\.widths: \[1\] is not a number"):
        load_plan(None, {"options.model.widths": [1]})
    with pytest.raises(PlanError, match=r"^options\.model: \{\} is not a number"):
        load_plan(None, {"options.model": {}})
    twice = written(tmp_path, '[options]\n"model.width" = 1\nmodel.width = 2\n')
    with pytest.raises(PlanError, match=r"options: model\.width is given twice"):
        load_plan(twice)


def test_a_plan_survives_the_database() -> None:
    plan = load_plan(None, {"bounds.cyclic.max_lr": [1, 2.5], "bounds.cyclic.cycle_momentum": True})
    stored = StudyPlan.model_validate(plan.model_dump(mode="json"))
    assert stored == plan
    assert stored.bounds["cyclic"]["cycle_momentum"] is True
    assert not differences(stored, plan)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials = ", "mine.toml is not valid TOML: Invalid value"),
        ("trails = 3", "unknown key trails; did you mean trials"),
        ("zzz = 3", "unknown key zzz; available: task, epochs"),
        ("trials = 0", "trials: .*greater than or equal to 1, not 0"),
        ("trials = -3", "trials: .*not -3"),
        ('trials = "many"', "trials: must be a whole number, not 'many'"),
        ("trials = 2.5", "trials: must be a whole number, not 2.5"),
        ("epochs = 0", "epochs: .*not 0"),
        ('families = ["cyclical"]', "unknown family 'cyclical'; did you mean cyclic"),
        ("families = []", "families: must not be empty"),
        ('baseline = "konstant"', "unknown family 'konstant'; did you mean constant"),
        ('pruner = "mean"', "pruner: .*'lenient', 'none', .* or 'hyperband', not 'mean'"),
        ('direction = "down"', "direction: .*'minimize' or 'maximize', not 'down'"),
        ("[bounds]\ncyclik.max_lr = 1", "bounds.cyclik: .*did you mean cyclic"),
        ("[bounds]\ncyclic = 3", "bounds.cyclic: must be a table, not 3"),
        ("[bounds]\ncyclic.max_lr = {a = 1}", "bounds.cyclic.max_lr: .* is not a number, string"),
    ],
)
def test_a_wrong_file_is_answered_by_key(text, message, tmp_path) -> None:
    with pytest.raises(PlanError, match=message):
        load_plan(written(tmp_path, text))


def test_a_missing_file_names_a_near_one(tmp_path) -> None:
    written(tmp_path, "")
    with pytest.raises(
        PlanError, match=r"no such study file: .*mine\.tml; did you mean .*mine\.toml"
    ):
        load_plan(tmp_path / "mine.tml")
    with pytest.raises(PlanError, match="no such study file"):
        load_plan(tmp_path / "nowhere" / "mine.toml")
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(tmp_path)


def test_a_key_below_a_value_is_refused(tmp_path) -> None:
    with pytest.raises(PlanError, match=r"trials.more: trials is not a table"):
        load_plan(written(tmp_path, "trials = 3"), {"trials.more": 1})


def test_the_baseline_takes_every_tenth_slot() -> None:
    families = StudyPlan(trials=40).labels(9)
    assert [slot for slot in range(40) if families[slot] == "constant"] == [9, 19, 29, 39]


def test_the_baselines_first_slot_may_come_earlier_and_budgets_stay_equal() -> None:
    plan = StudyPlan(families=("cyclic", "linear", "cosine"), trials=22)
    found = plan.labels(4)
    assert [slot for slot in range(22) if found[slot] == "constant"] == [4, 19]
    assert found[:8] == [*plan.families, "cyclic", "constant", "linear", "cosine", "cyclic"]
    assert Counter(found) == {"cyclic": 7, "linear": 7, "cosine": 6, "constant": 2}


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("trials", 100_000),
        ("epochs", 1_000_000),
        ("batch_size", 10_000_000),
        ("retries", 100),
        ("confirm.top", 100),
        ("confirm.seeds", 1000),
    ],
)
def test_numbers_that_are_slips_of_the_pen_are_refused(key, most) -> None:
    load_plan(None, {key: most})
    for wrong in (most + 1, 10**12):
        with pytest.raises(PlanError) as refused:
            load_plan(None, {key: wrong})
        assert str(refused.value) == f"{key}: must be at most {most:,}, not {wrong!r}"


def test_families_take_turns() -> None:
    among = StudyPlan(families=("cyclic", "constant"), trials=4)
    assert among.labels(9) == ["cyclic", "constant"] * 2
    counts = Counter(StudyPlan(trials=100, families=("cyclic",)).labels(9))
    assert counts == {"cyclic": 90, "constant": 10}


@pytest.mark.parametrize("trials", [10, 33, 100])
def test_a_third_of_the_slots_is_cyclic_and_the_surrogate_leads_the_others(trials) -> None:
    labels = StudyPlan(trials=trials).labels(9)
    assert set(labels) == {"cyclic", "any", "constant"}
    assert labels.count("cyclic") >= trials / 3
    assert labels.count("any") >= trials / 2
    turns = ["cyclic", "any", "cyclic", "any", "any"]
    assert labels[:10] == [*turns, *turns[:4], "constant"]


@pytest.mark.parametrize(
    "plan",
    [
        StudyPlan(families=("cyclic", "linear"), trials=20),
        StudyPlan(sampler="tpe", trials=20),
        StudyPlan(families=("linear",), allocation="led", trials=20),
    ],
)
def test_named_families_and_optunas_samplers_have_equal_shares(plan) -> None:
    labels = plan.labels(9)
    assert [each for each in labels if each != "constant"] == [
        plan.families[place % len(plan.families)] for place in range(18)
    ]


def test_an_earlier_plan_goes_on_as_it_was() -> None:
    earlier = StudyPlan(families=("cyclic",), sampler="tpe", seeds=1)
    assert earlier.allocation == "equal"
    assert differences(earlier, StudyPlan()) == []
    assert differences(earlier, StudyPlan(seeds=2)) == ["seeds is 1 there and 2 here"]


def test_differences_name_the_key_and_both_values() -> None:
    found = differences(StudyPlan(epochs=20, trials=3), StudyPlan(seed=4, trials=9))
    assert found == ["epochs is 20 there and the task's own here", "seed is 0 there and 4 here"]


def test_a_part_of_a_key_may_be_quoted_as_in_toml() -> None:
    plan = load_plan(None, {'groups."layer.0"': [1, 3], "bounds.cyclic.mode": "triangular"})
    assert plan.groups == {"layer.0": (1, 3)}
    assert plan.bounds == {"cyclic": {"mode": "triangular"}}
    with pytest.raises(PlanError, match="is not a valid key"):
        load_plan(None, {"groups.layer 0": 1})


def test_a_command_line_is_split_as_a_shell_does() -> None:
    plan = load_plan(None, {"args": "--data 'my file' --width=64"})
    assert plan.arguments == ("--data", "my file", "--width=64")
    assert load_plan(None).arguments == ()
    with pytest.raises(PlanError, match=r"args: must have matching quotes, not \"--data 'x\""):
        load_plan(None, {"args": "--data 'x"})


def test_a_plan_that_was_stored_without_a_command_line_has_none() -> None:
    stored = load_plan(None).model_dump(mode="json")
    del stored["args"]
    assert differences(StudyPlan.model_validate(stored), load_plan(None)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"families": ["cyclic"]},
        {"families": ["cyclic", "linear"], "allocation": "led"},
        {"allocation": "equal"},
        {"sampler": "tpe", "seeds": 1, "bounds.cyclic.max_lr": [0.01, 1.0]},
    ],
)
def test_the_settings_of_a_plan_make_it_again(changes) -> None:
    plan = load_plan(None, changes)
    read = [tomllib.loads(each) for each in settings(plan)]
    again = load_plan(None, {key: value for each in read for key, value in flat(each)})
    assert again == plan
    assert len(settings(plan)) == len(changes)


def flat(content, above="") -> list:
    """Values by dotted key."""
    found = []
    for key, value in content.items():
        inner = isinstance(value, dict)
        found += flat(value, f"{above}{key}.") if inner else [(above + key, value)]
    return found


def test_only_the_surrogate_leads() -> None:
    assert load_plan(None, {"sampler": "gp"}).allocation == "equal"
    with pytest.raises(
        PlanError, match=r"allocation: led needs sampler=surrogate; with sampler=tpe"
    ):
        load_plan(None, {"sampler": "tpe", "allocation": "led"})


def test_one_earlier_study_or_several() -> None:
    assert load_plan(None).like == ()
    assert load_plan(None, {"like": "old"}).like == ("old",)
    plan = load_plan(None, {"like": ["old", "older"]})
    assert plan.like == ("old", "older")
    stored = StudyPlan.model_validate(plan.model_dump(mode="json"))
    assert not differences(stored, load_plan(None))  # the study has its own copy
    assert differences(stored, load_plan(None, {"like": []})) == [
        "like is ('old', 'older') there and () here"
    ]
    with pytest.raises(PlanError, match="like: old is listed 2 times"):
        load_plan(None, {"like": ["old", "old"]})


def test_the_first_five_slots_after_an_earlier_study_are_for_any_family() -> None:
    labels = load_plan(None, {"like": "old", "trials": 20}).labels(9)
    assert labels[:12] == [
        *(["any"] * 5),
        *("cyclic", "any", "cyclic", "any", "constant", "any", "cyclic"),
    ]
