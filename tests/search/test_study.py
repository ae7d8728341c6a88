"""A study in the database: what is stored, what is read back, what Optuna makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import optuna
import pytest
import torch

from clrsearch.errors import PlanError, StudyError
from clrsearch.search import Studies, Study, StudyPlan, remembered, suggest
from clrsearch.search.warm_start import EarlierRun
from clrsearch.storage import SlotState, open_database
from clrsearch.training import probe

PARAMS = {"mode": "triangular", "max_lr": 0.1, "base_ratio": 0.25, "cycles": 1}
PARAMS |= {"cycle_momentum": False}
ATTRIBUTES = {"worker": "w", "device": "cpu", "rates": [[0.1] * 4]}


@pytest.fixture
def facts(tiny):
    return probe(tiny, device=torch.device("cpu"))


@pytest.fixture
def study(url, plan, facts):
    with open_database(url, create=True) as database:
        yield Study.create(database, "mine", plan, facts, {"clrsearch": "0"})


def test_what_was_stored_is_read_back(study, plan, facts) -> None:
    again = Study.open(study.database, "mine")
    assert (again.plan, again.facts, again.record.versions) == (plan, facts, {"clrsearch": "0"})
    assert again.slots.counts() == {SlotState.OPEN: 6}
    assert Studies(study.database).searches() == ["mine"]
    assert "mine" in Studies(study.database).searches()
    assert "yours" not in Studies(study.database).searches()


def test_a_trial_lives_and_ends(study) -> None:
    slot = study.slots.claim("w")
    number = study.begin(slot, PARAMS, ATTRIBUTES)
    study.log.report(number, {1: 0.5})
    running = study.trial(number)
    assert (running.state, running.values, running.params) == ("running", {1: 0.5}, PARAMS)
    assert running.ended is None
    study.log.report(number, {2: 0.25})
    study.log.complete(number, 0.25, {"metrics": {"error": 0.25}, "seconds": 1.5})
    ended = study.trial(number)
    assert (ended.state, ended.end, ended.value) == ("complete", "complete", 0.25)
    assert (ended.slot, ended.family, ended.metrics) == (0, "cyclic", {"error": 0.25})
    assert (ended.worker, ended.device, ended.seconds) == ("w", "cpu", 1.5)
    assert ended.ended is not None


def test_a_diverged_trial_is_pruned_and_infeasible_for_optuna(study, url) -> None:
    number = study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    study.log.prune(number, {}, diverged=True)
    assert study.trial(number).end == "diverged"
    seen = optuna.load_study(study_name="mine", storage=url.reveal()).trials[number]
    assert seen.state == optuna.trial.TrialState.PRUNED
    assert seen.constraints == {"diverged": 1.0}
    assert seen.params["cyclic.max_lr"] == 0.1


def test_a_failed_trial_keeps_its_traceback(study) -> None:
    number = study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    study.log.fail(number, {"error": "KeyError: 'x'"})
    assert (study.trial(number).state, study.trial(number).error) == ("failed", "KeyError: 'x'")


def test_an_unknown_trial_is_answered_with_those_there_are(study) -> None:
    with pytest.raises(StudyError, match="mine has no trial 4; it has none yet"):
        study.trial(4)
    study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    with pytest.raises(StudyError, match="it has trials 0 to 0"):
        study.trial(4)


def test_an_unknown_study_is_answered_with_near_ones(study) -> None:
    with pytest.raises(StudyError, match="no study mien; did you mean mine"):
        Study.open(study.database, "mien")
    with pytest.raises(StudyError, match="no study zzzzzz; available: mine"):
        Study.open(study.database, "zzzzzz")


def test_another_programs_study_is_not_ours(study, url) -> None:
    optuna.create_study(study_name="theirs", storage=url.reveal())
    with pytest.raises(StudyError, match="that clrsearch did not create"):
        Study.open(study.database, "theirs")
    assert Studies(study.database).searches() == ["mine"]


def test_another_programs_study_is_not_taken_over(study, url, plan, facts) -> None:
    theirs = optuna.create_study(study_name="theirs", storage=url.reveal())
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="that clrsearch did not create"):
        Study.create(study.database, "theirs", plan, facts, {})
    assert theirs.user_attrs == {}
    assert len(theirs.trials) == 1


def test_a_study_whose_maker_was_killed_half_way_is_made_whole(study, url, plan, facts) -> None:
    optuna.create_study(study_name="half", storage=url.reveal(), direction=facts.direction)
    made = Study.create(study.database, "half", plan, facts, {})
    assert made.slots.counts() == {SlotState.OPEN: 6}


@pytest.mark.parametrize("database", ["url", "mysql"])
def test_what_is_taken_from_earlier_studies_is_stored_in_pieces(
    study, plan, facts, database, request
) -> None:
    runs = [EarlierRun("constant", {"lr": 1 / 3 + number}, number, None) for number in range(900)]
    earlier = remembered(study.record, [], [], []).model_copy(update={"runs": tuple(runs)})
    url = request.getfixturevalue(database)
    with open_database(url, create=True) as opened:
        made = Study.create(opened, "warm", plan, facts, {}, earlier=[earlier])
        assert Studies(opened).earlier(made.record) == (earlier,)
    stored = optuna.load_study(study_name="warm", storage=url.reveal()).user_attrs
    pieces = [each for key, each in stored.items() if key.startswith("clrsearch:earlier:")]
    assert len(pieces) == made.record.earlier > 1
    assert max(len(json.dumps(each)) for each in pieces) < 60_000
    assert study.warm_start is None


def test_a_study_whose_maker_was_killed_among_the_pieces_is_made_whole(
    study, url, plan, facts
) -> None:
    half = optuna.create_study(study_name="half", storage=url.reveal(), direction=facts.direction)
    half.set_user_attr("clrsearch:earlier:0", "[")
    half.set_user_attr("clrsearch:earlier:1", "[")
    earlier = remembered(study.record, [], [], [])
    made = Study.create(study.database, "half", plan, facts, {}, earlier=[earlier])
    assert Studies(study.database).earlier(made.record) == (earlier,)


def test_a_damaged_piece_is_told(study, url, plan, facts) -> None:
    earlier = remembered(study.record, [], [], [])
    Study.create(study.database, "warm", plan, facts, {}, earlier=[earlier])
    stored = optuna.load_study(study_name="warm", storage=url.reveal())
    stored.set_user_attr("clrsearch:earlier:0", "[{}]")
    with pytest.raises(StudyError, match="the study warm cannot be read"):
        _ = Study.open(study.database, "warm").warm_start


def test_times_are_in_utc(study) -> None:
    before = datetime.now(UTC)
    number = study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    study.log.complete(number, 0.5, {})
    record = study.trial(number)
    assert before <= record.started <= record.ended <= datetime.now(UTC)


def test_growing_adds_slots_and_never_takes_any(study) -> None:
    study.grow(9)
    study.grow(4)
    assert Study.open(study.database, "mine").plan.trials == 9
    assert study.slots.counts() == {SlotState.OPEN: 9}


def test_deleting_takes_trials_and_slots(study) -> None:
    study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    study.delete()
    assert Studies(study.database).searches() == []
    assert sum(study.slots.counts().values()) == 0


def test_a_plan_that_cannot_be_searched_writes_nothing(url, facts) -> None:
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Tiny", bounds={"cyclic": {"max_lr": (2.0, 1.0)}}
    )
    with open_database(url, create=True) as database:
        with pytest.raises(PlanError):
            Study.create(database, "bad", plan, facts, {})
        assert optuna.get_all_study_names(url.reveal()) == []


def test_two_processes_make_one_study(url, plan, facts) -> None:
    program = (
        "import sys; from clrsearch.storage import *; from clrsearch.search import *\n"
        "from clrsearch.tasks import TaskFacts\n"
        "with open_database(StorageUrl(sys.argv[1]), create=True) as database:\n"
        "    plan = StudyPlan.model_validate_json(sys.argv[2])\n"
        "    facts = TaskFacts.model_validate_json(sys.argv[3])\n"
        "    print(Study.create(database, 'mine', plan, facts, {})._uuid)\n"
    )
    arguments = [url.reveal(), plan.model_dump_json(), facts.model_dump_json()]
    makers = [
        subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    made = {maker.communicate()[0] for maker in makers}
    assert len(made) == 1
    with open_database(url) as database:
        assert Study.open(database, "mine").slots.counts() == {SlotState.OPEN: 6}


def test_finished_trials_are_read_once_and_running_ones_anew(study) -> None:
    number = study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    other = Study.open(study.database, "mine")
    first = other.history.records()[0]
    study.log.report(number, {1: 0.5})
    assert other.history.records(max_age=60)[0] is first
    assert other.history.records()[0].values == {1: 0.5}
    study.log.complete(number, 0.5, {})
    done = other.history.records()[0]
    assert done.state == "complete"
    assert other.history.records()[0] is done


def test_optunas_log_level_is_left_alone(study) -> None:
    before = optuna.logging.get_verbosity()
    suggest([], study.space.families["cyclic"], direction="minimize", seed=0)
    assert optuna.logging.get_verbosity() == before


def test_a_study_opened_again_has_what_was_added_and_is_the_same(study) -> None:
    Study.open(study.database, "mine").grow(20)
    assert (study.plan.trials, study.reopen().plan.trials) == (6, 20)
    study.delete()
    with pytest.raises(StudyError, match="no study mine"):
        study.reopen()
    Study.create(study.database, "mine", study.plan, study.facts, {"clrsearch": "0"})
    with pytest.raises(StudyError, match="mine was deleted, and another study now has its name"):
        study.reopen()


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        ({"trials": "auto"}, 100),
        ({"epochs_total": 4000}, 100),
        ({"epochs_total": 4000, "trials": 12}, 12),
        ({"trials": 12}, 13),
    ],
)
def test_proposals_take_an_open_ended_search_to_have_one_size(url, facts, keys, size) -> None:
    with open_database(url, create=True) as database:
        made = Study.create(database, "mine", StudyPlan(**keys), facts, {"clrsearch": "0"})
        other = Study.open(database, "mine")
        other.grow(13)
        assert made.plan.trials < 13
        assert other.searched.plan.trials == size
        if other.plan.open_ended:
            assert made.searched.plan.trials == size


def begun(study) -> Study:
    """The study's confirmation, with one finalist on one seed."""
    number = study.begin(study.slots.claim("w"), PARAMS, ATTRIBUTES)
    study.log.complete(number, 0.5, {})
    return study.confirm([study.trial(number)], [(number, 1)])


def test_a_confirmation_is_found_by_the_uuid_of_its_search(study) -> None:
    assert study.confirmation() is None
    made = begun(study)
    assert (made.name, made.stage, made.confirms) == ("mine.confirm", "confirm", "mine")
    opened = Study.open(study.database, "mine")
    assert opened.confirmation().uuid == made.uuid
    assert [each.name for each in opened.stages()] == ["mine", "mine.confirm"]
    assert Studies(study.database).searches() == ["mine"]


def test_a_users_study_of_that_name_is_his_own(study, plan, facts) -> None:
    theirs = Study.create(study.database, "mine.confirm", plan, facts, {"clrsearch": "0"})
    assert study.confirmation() is None
    made = begun(study)
    assert made.name == f"mine.confirm.{study.uuid[:8]}"
    assert Study.open(study.database, "mine").confirmation().uuid == made.uuid
    assert theirs.slots.counts() == {SlotState.OPEN: 6}
    assert Studies(study.database).searches() == ["mine", "mine.confirm"]
    study.delete()
    assert Studies(study.database).searches() == ["mine.confirm"]
    assert optuna.get_all_study_names(study.database.optuna) == ["mine.confirm"]


def test_a_study_of_optunas_of_that_name_is_left_alone(study, url) -> None:
    theirs = optuna.create_study(study_name="mine.confirm", storage=url.reveal())
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert begun(study).name == f"mine.confirm.{study.uuid[:8]}"
    assert theirs.user_attrs == {}


def test_the_name_of_a_confirmation_is_refused_to_a_search(study, plan, facts) -> None:
    begun(study)
    with pytest.raises(StudyError, match=r"^mine\.confirm is the confirmation of mine: choose"):
        Study.create(study.database, "mine.confirm", plan, facts, {})


def unlink(confirmation) -> None:
    """Store it as earlier versions did."""
    stored = dict(confirmation.database.optuna.get_study_user_attrs(confirmation.id)["clrsearch"])
    del stored["confirms"]
    confirmation.database.optuna.set_study_user_attr(confirmation.id, "clrsearch", stored)


def test_a_confirmation_of_an_earlier_version_is_found_by_its_name(study) -> None:
    made = begun(study)
    unlink(made)
    found = Study.open(study.database, "mine").confirmation()
    assert (found.uuid, found.confirms) == (made.uuid, "mine")
    again = study.confirm([study.trial(0)], [(0, 1), (0, 2)])
    assert again.uuid == made.uuid
    assert again.slots.counts() == {SlotState.OPEN: 2}


@pytest.mark.parametrize("earlier", [False, True])
def test_what_a_deleted_search_left_is_not_another_ones(study, plan, facts, earlier) -> None:
    left = begun(study)
    if earlier:
        unlink(left)
    study.slots.delete()
    study.database.optuna.delete_study(study.id)
    anew = Study.create(study.database, "mine", plan, facts, {"clrsearch": "0"})
    assert anew.confirmation() is None
    assert begun(anew).name == f"mine.confirm.{anew.uuid[:8]}"
    anew.delete()
    assert left.is_there


def test_after_cancel_what_has_begun_is_left_and_nothing_else(study) -> None:
    confirmation = begun(study)
    interrupted = study.slots.claim("v")
    study.slots.bind(interrupted, study.begin(interrupted, PARAMS, ATTRIBUTES))
    study.slots.hand_back(interrupted)
    earlier = Study.open(study.database, "mine")
    assert not earlier.cancelled
    assert study.cancel() == 4 + 1
    assert earlier.cancelled
    assert study.slots.states()[interrupted.number] == SlotState.OPEN
    assert confirmation.slots.counts() == {SlotState.CANCELLED: 1}
    study.allow_confirmation()
    assert not earlier.cancelled
    study.confirm([study.trial(0)], [(0, 1)])
    assert confirmation.slots.counts() == {SlotState.OPEN: 1}


def families(study) -> str:
    """The first letters of the slots' families: B for the baseline's."""
    query = "SELECT family FROM clrsearch_slots ORDER BY number"
    with study.database.engine.connect() as connection:
        found = list(connection.exec_driver_sql(query).scalars())
    return "".join("B" if each == "constant" else each[0] for each in found)


@pytest.mark.parametrize(
    ("trials", "then", "slots"),
    [
        (1, 1, "c"),
        (2, 2, "cB"),
        (6, 6, "clclcB"),
        (1, 4, "clcB"),
        (6, 12, "clclcBlclclc"),
        (9, 21, "clclclclBclclclclclBc"),
        (10, 12, "clclclclcBlc"),
    ],
)
def test_a_short_study_has_a_baseline_and_grows_evenly(url, facts, trials, then, slots) -> None:
    plan = StudyPlan(task="tiny.py:Tiny", trials=trials, families=("cyclic", "linear"))
    with open_database(url, create=True) as database:
        study = Study.create(database, "mine", plan, facts, {})
        assert families(study) == slots[:trials]
        Study.open(database, "mine").grow(then)
        assert families(study) == slots


@pytest.mark.parametrize(("then", "slots"), [(6, "clclcl"), (8, "clclclcB"), (12, "clclclclcBlc")])
def test_a_short_study_of_an_earlier_version_keeps_its_slots(url, facts, then, slots) -> None:
    plan = StudyPlan(task="tiny.py:Tiny", trials=6, families=("cyclic", "linear"))
    with open_database(url, create=True) as database:
        study = Study.create(database, "mine", plan, facts, {})
        study.slots.delete()
        study.slots.grow(["cyclic", "linear"] * 3)
        Study.open(database, "mine").grow(then)
        assert families(study) == slots


def test_a_stored_study_may_be_larger_than_a_new_one(study) -> None:
    stored = study.database.optuna.get_study_user_attrs(study.id)["clrsearch"]
    plan = stored["plan"] | {"trials": 200_000, "confirm": stored["plan"]["confirm"] | {"top": 999}}
    study.database.optuna.set_study_user_attr(study.id, "clrsearch", stored | {"plan": plan})
    opened = Study.open(study.database, "mine").plan
    assert (opened.trials, opened.confirm.top) == (200_000, 999)
