"""What a task gives that does not keep the contract: which method, what came, what is wanted."""

from __future__ import annotations

import pytest
import torch

from clrsearch.errors import TaskError, TaskRaised
from clrsearch.schedules import Constant, trace
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "DictBatches",
            "data(): a sample of the validation split is a dict with the keys pixels, label, but "
            "must be a pair (input, target)",
        ),
        (
            "NoTensors",
            "data(): the input of a sample of the validation split is None, but must be a tensor, "
            "an array or a number",
        ),
        (
            "ThreeTensors",
            "data(): a sample of the validation split is a tuple of 3, but must be a pair "
            "(input, target)",
        ),
        ("NoValidation", "data(): the validation split is empty"),
        ("NoTraining", "data(): the training split is empty"),
        (
            "NoTestSplit",
            "data(): the test split is None, but must be a torch dataset with a length",
        ),
        (
            "TwoSplits",
            "data() returned a tuple of 2, but must return Splits(train, validation, test)",
        ),
        ("NoData", "data() returned None, but must return Splits(train, validation, test)"),
        (
            "DictOfSplits",
            "data() returned a dict with the keys train, validation, test, but must return "
            "Splits(train, validation, test)",
        ),
        (
            "Loaders",
            "data(): the training split is a DataLoader, but must be a torch dataset with a "
            "length: return DataLoaders from loaders()",
        ),
        (
            "Streams",
            "data(): the training split is an Endless, but must be a torch dataset with a length: "
            "put a stream into a DataLoader, and return it from loaders()",
        ),
        ("NoModel", "model() returned None, but must return a torch.nn.Module"),
        ("ModelClass", "model() returned the class Linear, but must return a torch.nn.Module"),
        ("NoOptimizer", "optimizer() returned None, but must return a torch optimizer"),
        ("OptimizerClass", "optimizer() returned the class SGD, but must return a torch optimizer"),
        (
            "Scheduler",
            "optimizer() returned a CosineAnnealingLR, but must return a torch optimizer: the "
            "study sets the schedule",
        ),
        (
            "OptimizerAndScheduler",
            "optimizer() returned a tuple of 2, but must return a torch optimizer",
        ),
        ("Scheduled", "optimizer(): the optimizer has already been used with a scheduler: remove"),
        ("NegativeRate", "optimizer(): the optimizer has a group with the learning rate nan"),
        ("Closure", "optimizer() returned an LBFGS, whose step() needs a closure"),
        (
            "OtherModel",
            "optimizer() trains nothing: after a step none of its parameters has a gradient; "
            "create it from the parameters of the model that it is given",
        ),
        ("FloatLoss", "loss() returned the float "),
        ("FloatLoss", "but must return a scalar tensor, without item()"),
        (
            "LossPerSample",
            "loss() returned a float32 tensor of shape (8,), but must return a scalar tensor, the "
            "mean over the batch",
        ),
        (
            "DetachedLoss",
            "loss() returned a tensor without a gradient: compute it from the model's output, "
            "without detach() or no_grad(), and do not freeze all parameters",
        ),
        ("Frozen", "loss() returned a tensor without a gradient"),
        ("NoLoss", "loss() returned None, but must return a scalar tensor"),
        ("NoMeasure", "measure() returned None, but must return a dict of metrics by name"),
        ("MeasureList", "measure() returned a list of 1, but must return a dict of metrics"),
        ("MeasureNone", "measure(): error is None, but must be a number or a scalar tensor"),
        ("MeasureByNumber", "measure(): a metric's name is the int 0, but must be a non-empty"),
        (
            "LongMetric",
            "measure(): error is a float32 tensor of shape (12,), but must be a number or a scalar "
            "tensor, summed over the batch",
        ),
        ("NumberAsText", "measure(): error is the str '0.5', but must be a number"),
        ("NoEvaluation", "evaluate() returned None, but must return a dict of metrics by name"),
        ("EvaluateText", "evaluate(): largest is the str '2.5', but must be a number"),
        ("EvaluatePerSample", "evaluate(): largest is a float32 tensor of shape (12,), but must"),
        ("NoAugmentation", "augment() returned None, but must return the inputs as a tensor"),
        ("AugmentPair", "augment() returned a tuple of 2, but must return the inputs as a tensor"),
        ("NoOutput", "the model's forward() returned None: is a return statement missing?"),
        ("EvaluatesTwo", "evaluate() takes all outputs as one tensor, but the model's output"),
    ],
)
def test_what_came_and_what_is_wanted_are_named(name, message, task_dir) -> None:
    file = "tiny.py" if name in ("LongMetric", "NoOptimizer") else "careless.py"
    with pytest.raises(TaskError) as caught:
        probe(load_task(f"{file}:{name}", folder=task_dir), device=CPU)
    assert message in str(caught.value)
    assert not isinstance(caught.value, TaskRaised)
    assert "\n" not in str(caught.value)


def test_a_few_parameters_may_be_unused(task_dir) -> None:
    assert probe(load_task("careless.py:SomeUnused", folder=task_dir), device=CPU).base_lr == 0.02


def test_a_model_that_does_not_take_the_inputs_shows_where(task_dir) -> None:
    with pytest.raises(TaskRaised, match="RuntimeError while validating the untrained model: mat1"):
        probe(load_task("careless.py:Misfit", folder=task_dir), device=CPU)


def start(name, task_dir):
    loaded = load_task(f"careless.py:{name}", folder=task_dir)
    facts = probe(loaded, device=CPU)
    data = TaskData(loaded.task, facts.batch_size, CPU)
    played = trace(Constant(lr=0.01), facts.horizon, facts.ratios)
    return SequentialRun(loaded.task, facts, data, played, seed=0, device=CPU)


def test_a_metric_that_vanishes_is_missed_by_name(task_dir) -> None:
    run = start("Vanishing", task_dir)
    run.next_epoch()
    with pytest.raises(TaskError, match="does not measure 'error' in epoch 2; it measures loss"):
        run.next_epoch()


def test_an_optimizer_that_changes_between_runs_is_refused(task_dir) -> None:
    with pytest.raises(TaskError, match="parameter groups is 3 here, but was 2 when the study was"):
        start("Growing", task_dir)
