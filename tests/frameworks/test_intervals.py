"""The libraries in studies that validate every so many steps, or are so many steps long.

Their values are compared with those of a loop that uses neither the library nor clrsearch, and of
the libraries' own Trainers without clrsearch.
"""

from __future__ import annotations

import io
import sys
import tempfile

import pytest
import torch
from frameworks.test_frameworks import CYCLE, METRIC, WARNINGS, curve, rates_of
from tasks_for_tests.tiny import Tiny
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from clrsearch import service
from clrsearch.errors import TaskError
from clrsearch.schedules import Trace, trace
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe, run_maker

CPU = torch.device("cpu")
LIBRARIES = pytest.mark.parametrize("library", METRIC)
pytestmark = WARNINGS
EPOCHS = {"epochs": 4, "validate_every": 3}  # of 16 steps: at 3, 6, 9, 12, 15 and 16
STEPS = {"steps": 10, "validate_every": 4}  # at 4, 8 and 10
LENGTHS = pytest.mark.parametrize(
    ("length", "ends"),
    [(EPOCHS, [3, 6, 9, 12, 15, 16]), (STEPS, [4, 8, 10])],
    ids=["epochs", "steps"],
)


@pytest.fixture
def load(task_dir):
    def find(library, **options):
        return load_task(f"framed.py:with_{library}", options=options, folder=task_dir)

    return find


def given(library, length):
    return {"metric": METRIC[library], "direction": "minimize", **length}


@pytest.fixture
def make(load):
    """A maker of runs of a library's loop under a cycle, and the rates of the cycle."""

    def find(library, length, **options):
        loaded = load(library, **options)
        facts = probe(loaded, device=CPU, **given(library, length))
        played = Trace(rates=trace(CYCLE, facts.horizon).rates, momenta=None)
        rates_of(loaded).clear()
        maker = run_maker(loaded.task, facts, CPU)
        return lambda: maker(played, seed=0, seed_index=0), played.rates[0].tolist()

    return find


def whole(run, library):
    return curve(run, library, until=99)


def by_hand(rates, ends, *, accumulate=1, batch_size=8):
    """The validation errors at ``ends`` of a plain loop: no dropout, no shuffling."""
    train, validation, _ = Tiny().data()
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Identity(), nn.Linear(8, 1), nn.Flatten(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    scheduler = LambdaLR(optimizer, [*rates, 0.0].__getitem__)
    inputs, targets = train.tensors
    full = len(inputs) // batch_size * batch_size
    starts = list(range(0, full, batch_size))
    groups = [starts[n : n + accumulate] for n in range(0, len(starts), accumulate)]
    values = []
    for step in range(len(rates)):
        group = groups[step % len(groups)]
        optimizer.zero_grad()
        for start in group:
            batch = slice(start, start + batch_size)
            (mse_loss(model(inputs[batch]), targets[batch]) / len(group)).backward()
        optimizer.step()
        scheduler.step()
        if step + 1 in ends:
            with torch.no_grad():
                found, wanted = model(validation.tensors[0]), validation.tensors[1]
                values.append(mse_loss(found, wanted).item())
    return values


@LIBRARIES
@LENGTHS
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_values_are_those_of_a_loop_by_hand(library, make, length, ends, accumulate) -> None:
    if accumulate == 2 and "epochs" in length:
        length = {**length, "epochs": 8}  # of 2 steps each
    new, rates = make(library, length, plain=True, accumulate=accumulate)
    found = whole(new(), library)
    assert list(found) == list(range(1, len(ends) + 1))
    wanted = by_hand(rates, ends, accumulate=accumulate)
    assert list(found.values()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_a_last_step_of_fewer_batches_is_one_too(make, accumulate) -> None:
    """5 batches of 6 in an epoch: 2, 2 and 1, or 3 and 2."""
    new, rates = make("transformers", STEPS, plain=True, accumulate=accumulate, batch_size=6)
    found = whole(new(), "transformers")
    wanted = by_hand(rates, [4, 8, 10], accumulate=accumulate, batch_size=6)
    assert list(found.values()) == pytest.approx(wanted, rel=1e-5)


@LENGTHS
def test_the_values_are_those_of_hugging_faces_trainer_alone(make, length, ends) -> None:
    new, rates = make("transformers", length, still=True)
    inside = new()
    found = whole(inside, "transformers")
    framed = sys.modules[inside._loop.function.__module__]
    new()  # seeds the weights
    model = framed.Network({"still": True})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    train, validation, _ = (framed.Named(split) for split in Tiny().data())
    with tempfile.TemporaryDirectory() as folder:
        from transformers import Trainer

        arguments = framed.arguments_of(
            folder,
            {},
            seed=inside._own.seed,
            use_cpu=True,
            eval_strategy="steps",
            eval_steps=length["validate_every"],
            max_steps=ends[-1],
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=train,
            eval_dataset=validation,
            optimizers=(optimizer, LambdaLR(optimizer, [*rates, 0.0].__getitem__)),
        )
        trainer.train()
    alone = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert list(found.values()) == alone


def test_the_values_are_those_of_lightnings_trainer_alone(make) -> None:
    """With a validation every second epoch, which the last one, the fifth, gets as well."""
    import lightning

    every = {"check_val_every_n_epoch": 2, "val_check_interval": 1.0}
    length = {"epochs": 5, "validate_every": 8}
    new, rates = make("lightning", length, plain=True, trainer=every)
    inside = new()
    found = whole(inside, "lightning")
    framed = sys.modules[inside._loop.function.__module__]
    values = []

    class Alone(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = framed.small({"plain": True})

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)
            scheduler = LambdaLR(optimizer, [*rates, 0.0].__getitem__)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

        def training_step(self, batch, index):
            inputs, targets = batch
            return mse_loss(self.network(inputs), targets)

        def on_train_epoch_end(self):
            inputs, targets = Tiny().data().validation.tensors
            self.eval()
            with torch.no_grad():
                values.append(mse_loss(self.network(inputs), targets).item())
            self.train()

    trainer = lightning.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Alone(), DataLoader(Tiny().data().train, batch_size=8, drop_last=True))
    assert list(found.values()) == pytest.approx([values[1], values[3], values[4]], rel=1e-6)


@LIBRARIES
@LENGTHS
def test_the_trial_is_played_step_by_step(library, make, load, length, ends) -> None:
    new, rates = make(library, length)
    whole(new(), library)
    assert rates_of(load(library)) == rates[: ends[-1]]


@LIBRARIES
@LENGTHS
def test_it_stops_where_the_trial_does(library, make, length, ends) -> None:
    new, _ = make(library, length)
    assert list(curve(new(), library, until=2)) == [1, 2]


ALL = [
    *((library, EPOCHS, {}) for library in METRIC),
    *((library, STEPS, {}) for library in METRIC),
    *((library, STEPS, {"accumulate": 2}) for library in METRIC),
    # 5 batches in an epoch, in 3 or in 2 steps, the last of which has fewer
    ("transformers", {"epochs": 4, "validate_every": 2}, {"accumulate": 2, "batch_size": 6}),
    ("transformers", {"epochs": 3, "validate_every": 1}, {"accumulate": 3, "batch_size": 6}),
    ("accelerate", {"epochs": 4, "validate_every": 2}, {"accumulate": 2, "batch_size": 6}),
    (
        "lightning",
        {"epochs": 4, "validate_every": 6},
        {"accumulate": 2, "batch_size": 6, "trainer": {"val_check_interval": 10}},
    ),
    (
        "lightning",
        {"epochs": 5, "validate_every": 8},
        {"trainer": {"check_val_every_n_epoch": 2, "val_check_interval": 1.0}},
    ),
    (
        "lightning",
        {"epochs": 3, "validate_every": 2},
        {"trainer": {"check_val_every_n_epoch": 1, "val_check_interval": 2}},
    ),
    # the loader draws as well, here or in processes of its own
    ("lightning", {"epochs": 2, "validate_every": 1}, {"noise": True}),
    ("transformers", {"epochs": 2, "validate_every": 1}, {"noise": True}),
    ("lightning", {"steps": 8, "validate_every": 7}, {"noise": True, "workers": 2}),
    ("transformers", {"steps": 8, "validate_every": 7}, {"noise": True, "workers": 2}),
    # of unknown length
    ("lightning", STEPS, {"stream": 9}),
    ("transformers", STEPS, {"stream": 9}),
    ("transformers", STEPS, {"stream": 9, "accumulate": 2}),
]


def name_of(case):
    return case if isinstance(case, str) else "-".join(map(str, case)) or "as-it-is"


@pytest.mark.parametrize(("library", "length", "options"), ALL, ids=name_of)
def test_a_run_that_goes_on_gives_the_same_values(library, make, length, options) -> None:
    new, _ = make(library, length, **options)
    one = new()
    seen = sys.modules[one._loop.function.__module__].SEEN
    seen.clear()
    kept = []

    def save(epoch):
        values[epoch.number] = epoch.metrics[METRIC[library]]
        file = io.BytesIO()
        torch.save(one.state(), file)
        kept.append((file, len(seen)))
        return True

    values = {}
    one.train(save)
    told = list(seen)
    assert len(values) > 1
    for done, (file, place) in enumerate(kept[:-1], start=1):
        seen.clear()
        file.seek(0)
        second = new()
        second.restore(torch.load(file, weights_only=True))
        rest = {number: value for number, value in values.items() if number > done}
        assert whole(second, library) == rest, done
        assert seen == told[place:], done


@pytest.mark.parametrize(
    ("library", "length", "options", "says"),
    [
        ("transformers", EPOCHS, {"eval_strategy": "epoch"}, 'eval_strategy is .*must be "steps"'),
        ("transformers", EPOCHS, {"eval_steps": 4}, "eval_steps is 4, and must be run.validate_ev"),
        ("transformers", EPOCHS, {"max_steps": 7}, "max_steps is 7, and must be .*leave it out"),
        ("transformers", STEPS, {"max_steps": 7}, "max_steps is 7, and must be run.total_steps"),
        ("transformers", STEPS, {"eval_delay": 2}, "eval_delay is 2, and must be 0"),
        ("lightning", STEPS, {"max_steps": 7}, "max_steps is 7, .*max_steps=run.total_steps"),
        ("lightning", STEPS, {"max_epochs": 1}, "max_epochs is 1, which ends .*leave it out"),
        ("lightning", EPOCHS, {"max_epochs": 3}, "max_epochs is 3, and the study trains for 4"),
        ("lightning", EPOCHS, {"max_steps": 7}, "max_steps is 7, .* leave max_steps out"),
        (
            "lightning",
            EPOCHS,
            {"val_check_interval": 2},
            "val_check_interval is 2 and check_val_every_n_epoch is None, and the study validates "
            "every 3 steps: give the Trainer val_check_interval=3, check_val_every_n_epoch=None",
        ),
        (
            "lightning",
            EPOCHS,
            {"val_check_interval": 0.5, "check_val_every_n_epoch": 1},
            "val_check_interval is 0.5 .* val_check_interval=3, check_val_every_n_epoch=None",
        ),
        (
            "lightning",
            EPOCHS,
            {"val_check_interval": "00:00:00:10"},
            "val_check_interval is a time .* val_check_interval=3, check_val_every_n_epoch=None",
        ),
        (
            "lightning",
            EPOCHS,
            {"val_check_interval": 3, "check_val_every_n_epoch": 1},
            "val_check_interval=3, check_val_every_n_epoch=None",
        ),
        (
            "lightning",
            {"epochs": 4, "validate_every": 4},
            {"val_check_interval": 1.0, "check_val_every_n_epoch": 2},
            "check_val_every_n_epoch is 2, .* every 4 steps: .* val_check_interval=4, check_val_ev",
        ),
        ("lightning", EPOCHS, {"limit_train_batches": 2}, "limit_train_batches is 2, .*leave it"),
        (
            "lightning",
            STEPS,
            {"limit_train_batches": 0.5},
            "limit_train_batches is 0.5, .*leave it",
        ),
        ("lightning", STEPS, {"limit_val_batches": 0}, "the Trainer does not validate"),
    ],
    ids=name_of,
)
def test_what_does_not_fit_the_study_is_refused(load, library, length, options, says) -> None:
    with pytest.raises(TaskError, match=says) as refused:
        probe(load(library, trainer=options), device=CPU, **given(library, length))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("library", "options", "says"),
    [
        (
            "lightning",
            {"trainer": {"check_val_every_n_epoch": 2}},
            "check_val_every_n_epoch is 2, .*leave both out",
        ),
        (
            "lightning",
            {"trainer": {"val_check_interval": 0.5}},
            "val_check_interval is .*leave both out",
        ),
        (
            "lightning",
            {"trainer": {"val_check_interval": 2}},
            "val_check_interval is .*leave both out",
        ),
        ("lightning", {"trainer": {"limit_train_batches": 2}}, "limit_train_batches is 2, .*leave"),
        ("transformers", {"trainer": {"eval_strategy": "steps"}}, "or give the study validate_ev"),
        (
            "transformers",
            {"trainer": {"max_steps": 7}},
            "max_steps is 7, and must be .*leave it out",
        ),
    ],
    ids=name_of,
)
def test_what_does_not_fit_epochs_is_refused(load, library, options, says) -> None:
    with pytest.raises(TaskError, match=says):
        probe(load(library, **options), device=CPU, **given(library, {"epochs": 4}))


def test_batches_that_steps_do_not_divide_are_refused(load) -> None:
    """5 batches in an epoch, and 2 in a step."""
    loaded = load("lightning", accumulate=2, batch_size=6)
    with pytest.raises(TaskError, match=r"accumulate_grad_batches is 2, .* the 5 batches"):
        probe(loaded, device=CPU, **given("lightning", STEPS))


def test_streams_need_a_length_in_steps(load) -> None:
    for library, says in (
        ("lightning", "has no length: give the study a length in steps"),
        ("transformers", "samples, .* has to be given, .* length in steps"),
    ):
        loaded = load(library, stream=1)
        with pytest.raises(TaskError, match=says):
            probe(loaded, device=CPU, **given(library, {"epochs": 4}))


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_a_stream_that_ended_before_cannot_go_on(library, make) -> None:
    """It has 4 batches."""
    new, _ = make(library, STEPS, stream=1)
    one = new()
    states = []
    one.train(lambda epoch: states.append(one.state()) or True)
    second = new()
    second.restore(states[1])
    with pytest.raises(TaskError, match="the training loader ended after fewer batches than"):
        whole(second, library)


def test_of_several_evaluation_sets_one_has_the_metric(make, load) -> None:
    loaded = load("transformers", sets=True)
    told = {**given("transformers", STEPS), "metric": "eval_far_loss"}
    facts = probe(loaded, device=CPU, **told)
    run = run_maker(loaded.task, facts, CPU)(trace(CYCLE, facts.horizon), seed=0, seed_index=0)
    epochs = []
    run.train(lambda epoch: epochs.append(epoch) or True)
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert {"eval_near_loss", "eval_far_loss"} <= epochs[0].metrics.keys()


def test_a_metric_that_is_not_there_is_told(load) -> None:
    told = {**given("transformers", STEPS), "metric": "eval_other"}
    with pytest.raises(TaskError, match=r"eval_loss.*, but not eval_other, the study's metric"):
        probe(load("transformers"), device=CPU, **told)


def test_accelerates_scheduler_may_be_made_from_either_optimizer(make) -> None:
    new, _ = make("accelerate", STEPS)
    raw, _ = make("accelerate", STEPS, raw=True)
    assert whole(new(), "accelerate") == whole(raw(), "accelerate")


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler:UserWarning")
def test_accelerates_scheduler_has_to_be_prepared_where_gradients_are_accumulated(load) -> None:
    loaded = load("accelerate", accumulate=2, unprepared=True)
    with pytest.raises(TaskError, match="called 8 times in interval 1, which has 4 steps"):
        probe(loaded, device=CPU, **given("accelerate", STEPS))


@LIBRARIES
def test_from_the_command_line_to_the_end_over_a_killed_worker(
    library, clrsearch, url, task_dir, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(task_dir)
    monkeypatch.setenv("CLRSEARCH_TEST_FATAL_STEP", "15")  # of 18
    monkeypatch.setenv("CLRSEARCH_TEST_FATAL_FLAG", str(tmp_path / "killed"))
    told = ("steps=18", "validate_every=4", f"metric={METRIC[library]}", "direction=minimize")
    search = ("confirm.enabled=false", 'families=["cyclic"]')
    keys = [word for key in (*told, *search) for word in ("--set", key)]
    task = f"framed.py:with_{library}"
    run = ("run", "--task", task, *keys, "--name", "mine", "--trials", "2", "--workers", "1")
    code, _, errors = clrsearch(*run, "--checkpoint-seconds", "0")
    assert code == 0, errors
    assert (tmp_path / "killed").exists() and "SIGKILL" in errors
    with open_database(url) as database, database.engine.connect() as connection:
        query = "SELECT attempt, checkpoint IS NOT NULL FROM clrsearch_slots ORDER BY attempt"
        assert [tuple(row) for row in connection.exec_driver_sql(query)] == [(1, 1), (2, 1)]
    now = service.show("mine").snapshot
    assert now.done == 2
    assert all(service.replay("mine", trial, device="cpu").matches for trial in (0, 1))
