"""The examples of the documentation, searched, killed and resumed; their pages show them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import records, wait_for
from torch import nn

import clrsearch as package
from clrsearch import service
from clrsearch.errors import TaskError
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = DOCS / "examples"
TOLD = ("--set", "metric=loss", "--set", "direction=minimize", "--no-confirm", "--workers", "0")
WITH_HYDRA = ("run", "--task", "with_hydra.py:main", "--epochs", "4", "--trials", "2", *TOLD)
CPU = torch.device("cpu")


def begin(url, name, **keys) -> None:
    plan = StudyPlan(
        task=f"with_{name}.py:main",
        trials=1,
        epochs=6,
        metric="loss",
        direction="minimize",
        families=("cosine",),
        confirm=ConfirmPlan(enabled=False),
        **keys,
    )
    loaded = load_task(plan.task, options=plan.options, folder=EXAMPLES)
    facts = probe(loaded, device=CPU, epochs=6, metric="loss", direction="minimize")
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(EXAMPLES))


@pytest.mark.parametrize("name", ["hydra", "timm"])
def test_a_killed_trial_of_an_example_goes_on_from_its_checkpoint(url, name) -> None:
    begin(url, name)
    command = [sys.executable, "-m", "clrsearch", "worker", "mine", "--checkpoint-seconds", "0"]
    with subprocess.Popen([*command, "--device", "cpu"], cwd=EXAMPLES) as worker:
        wait_for(lambda: any(record.epoch >= 1 for record in records(url)))
        os.kill(worker.pid, signal.SIGKILL)
    with open_database(url) as database:
        slots = Study.open(database, "mine").slots
        for claim in slots.claims():
            slots.release(claim.worker)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=EXAMPLES))
    (record,) = service.show("mine").snapshot.records
    assert (record.state, record.epoch, record.drift) == ("complete", 6, 0.0)
    assert service.replay("mine", 0, device="cpu", task_dir=EXAMPLES).matches


def test_options_of_a_study_are_overrides_of_the_config(clrsearch, url, monkeypatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    given = ("--set", "options.optimizer=adamw", "--set", "options.optimizer.lr=2e-5")
    args = ("--set", "args=model.dropout=0 batch_size=100")
    code, _, errors = clrsearch(*WITH_HYDRA, *given, *args)
    assert (code, errors) == (0, "")
    with open_database(url) as database:
        study = Study.open(database, "with_hydra")
    assert study.plan.options == {"optimizer": "adamw", "optimizer.lr": 2e-5}
    assert study.facts.optimizer.startswith("AdamW")
    assert (study.facts.base_lr, study.facts.steps_per_epoch) == (2e-5, 10)
    code, _, errors = clrsearch(*WITH_HYDRA, *given, *args, "--set", "options.optimizer.lr=3e-5")
    assert code == 2
    assert "'optimizer.lr': 3e-05} here" in errors


def test_what_the_config_does_not_have_is_told_by_hydra(clrsearch, url, monkeypatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    code, _, errors = clrsearch(*WITH_HYDRA, "--set", "options.model.widht=8")
    assert code == 2
    assert errors.endswith(
        "clrsearch: ConfigCompositionException while running "
        "with_hydra.py:main: Could not override 'model.widht'.\n"
    )
    assert not url.file.exists()


def test_a_function_under_hydra_main_is_refused(clrsearch, url, tmp_path) -> None:
    (tmp_path / "script.py").write_text(
        "import hydra\n\n@hydra.main(version_base=None)\ndef main(cfg):\n    print(cfg.width)\n"
    )
    run = ("run", "--task", "script.py:main", "--task-dir", str(tmp_path), "--epochs", "4", *TOLD)
    code, out, errors = clrsearch(*run)
    assert (code, out) == (2, "")
    assert errors.startswith("clrsearch: script.py:main is decorated with @hydra.main, which calls")


def test_a_study_of_timms_loop_goes_back_as_options_of_its_script(
    clrsearch, url, monkeypatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    told = ("--set", 'families=["cosine"]', "--set", "bounds.cosine.warmup_share=0.25")
    size = ("--epochs", "4", "--trials", "2")
    code, _, errors = clrsearch("run", "--task", "with_timm.py:main", *told, *size, *TOLD)
    assert (code, errors) == (0, "")
    code, out, errors = clrsearch("best", "with_timm", "--format", "timm")
    assert (code, errors) == (0, "")
    (options,) = re.findall(r"    For train.py: (.*)", out)
    assert "--warmup-epochs 1 --sched cosine --epochs 3 " in options


def test_timms_layer_decay_is_refused_until_it_is_in_the_rates(tmp_path) -> None:
    text = (EXAMPLES / "with_timm.py").read_text()
    decayed = text.replace("weight_decay=0.05)", "weight_decay=0.05, layer_decay=0.5)")
    assert decayed != text
    (tmp_path / "decayed.py").write_text(decayed)
    told = {"device": CPU, "epochs": 4, "metric": "loss", "direction": "minimize"}
    with pytest.raises(TaskError, match="has groups with timm's lr_scale") as refused:
        probe(load_task("decayed.py:main", folder=tmp_path), **told)
    cure = re.search(r'group\["lr"\] \*= .*', str(refused.value))[0]
    (tmp_path / "cured.py").write_text(
        decayed.replace(
            "    scheduler = run",
            f"    for group in optimizer.param_groups:\n        {cure}\n    scheduler = run",
        )
    )
    facts = probe(load_task("cured.py:main", folder=tmp_path), **told)
    assert facts.base_lr == pytest.approx(3e-3 / 32)  # the stem is five halvings below the head
    assert facts.ratios[-1] == pytest.approx(32)


def test_options_from_python_reach_the_loop(url, tmp_path) -> None:
    seen = []

    def train(run):
        seen.append(dict(run.options))
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = run.scheduler(optimizer, steps_per_epoch=1)
        for _ in run.epochs():
            model(torch.ones(1, 1)).square().sum().backward()
            optimizer.step()
            scheduler.step()
            run.report(loss=model.bias.item() ** 2)

    package.run(
        train,
        options={"width": 8, "model": {"name": "small", "deep": True}},
        trials=2,
        epochs=4,
        metric="loss",
        direction="minimize",
        confirm={"enabled": False},
        progress=False,
    )
    assert len(seen) >= 3  # the probe and two trials
    assert all(each == {"width": 8, "model.name": "small", "model.deep": True} for each in seen)


@pytest.mark.parametrize("name", ["hydra", "timm"])
def test_a_page_shows_its_example(name) -> None:
    page = (DOCS / "how-to" / f"{name}.md").read_text()
    text = (EXAMPLES / f"with_{name}.py").read_text()
    (shown,) = re.findall(r"```python\n(def main\(run\):\n.*?)```", page, re.DOTALL)
    assert shown in text
