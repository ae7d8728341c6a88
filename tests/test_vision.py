"""Searching schedules for images, from the files on the disk to the replay of a trial."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from image_files import write_cifar10, write_image_folder, write_mnist

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.service.paths import data_folder
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

ALONE = ConfirmPlan(enabled=False)
SMALL = {"model": "cifar10_full", "crop": 2}


def worked_off(data_dir, **keys) -> None:
    """A study of four epochs in this process, whose small files pass for the official ones."""
    plan = StudyPlan(families=("cyclic",), epochs=4, confirm=ALONE, **keys)
    loaded = load_task(plan.task, options=plan.options, folder=data_dir, data_dir=data_dir)
    with open_database(service.storage_url(None), create=True) as database:
        facts = probe(
            loaded,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            device=torch.device("cpu"),
            precision=plan.precision,
        )
        Study.create(database, "mine", plan, facts, service.versions(data_dir))
    service.work("mine", settings=WorkerSettings(device="cpu", data_dir=data_dir))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_study_of_cifar10_learns_and_is_replayed(precision, url, tmp_path, monkeypatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    options = {**SMALL, "optimizer": "adamw", "cutout": 4}
    bounds = {"cyclic": {"max_lr": 0.003, "mode": "triangular"}}
    worked_off(
        tmp_path,
        task="cifar10",
        batch_size=20,
        trials=2,
        options=options,
        bounds=bounds,
        precision=precision,
    )
    leader = service.show("mine").snapshot.search_best
    assert leader.value > 0.3  # guessing has 0.1
    again = service.replay("mine", leader.number, device="cpu", data_dir=tmp_path)
    assert len(again.values) == 4
    assert again.matches


def test_run_tells_its_workers_where_the_data_lies(clrsearch, url, tmp_path, monkeypatch) -> None:
    write_mnist(tmp_path / "data")
    monkeypatch.delenv("CLRSEARCH_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))  # has no MNIST, whoever runs this
    options = [f"--set=options.{key}={value}" for key, value in SMALL.items()]
    command = ("run", "--task", "mnist", "--epochs", "4", "--set", "batch_size=20", *options)
    where = ("--trials", "2", "--no-confirm", "--workers", "0", "--device", "cpu")
    code, out, errors = clrsearch(*command, *where)
    assert (code, out) == (2, "")
    assert errors.startswith(f"clrsearch: no MNIST in {data_folder(None)} (no MNIST/raw/")
    again = shlex.join(["clrsearch", *command, *where, "--download"])
    assert f": {again} fetches it" in errors
    code, out, _ = clrsearch(*command, *where, "--data-dir", str(tmp_path / "data"), "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["done"] == 2
    monkeypatch.setenv("CLRSEARCH_DATA_DIR", str(tmp_path / "data"))
    code, out, errors = clrsearch("replay", "mnist", "0", "--device", "cpu")
    assert (code, errors) == (0, "")


def test_launched_workers_are_told_of_a_folder_that_was_named(
    clrsearch, url, tmp_path, monkeypatch
) -> None:
    write_mnist(tmp_path)
    plan = StudyPlan(
        families=("cyclic",), task="mnist", epochs=4, batch_size=20, trials=2, options=SMALL
    )
    loaded = load_task(plan.task, options=plan.options, folder=tmp_path, data_dir=tmp_path)
    with open_database(url, create=True) as database:
        facts = probe(loaded, epochs=4, batch_size=20, device=torch.device("cpu"))
        Study.create(database, "mine", plan, facts, service.versions(tmp_path))
    monkeypatch.delenv("CLRSEARCH_DATA_DIR", raising=False)
    launch = ("launch", "local", "mine", "--workers", "1", "--device", "cpu", "--dry-run")
    _, out, _ = clrsearch(*launch)
    assert "--data-dir" not in shlex.split(out)
    _, out, _ = clrsearch(*launch, "--data-dir", str(tmp_path))
    words = shlex.split(out)
    assert words[words.index("--data-dir") + 1] == str(tmp_path)
    monkeypatch.setenv("CLRSEARCH_DATA_DIR", str(tmp_path / "other"))
    _, out, _ = clrsearch(*launch)
    words = shlex.split(out)
    assert words[words.index("--data-dir") + 1] == str(tmp_path / "other")


def test_fine_tuning_searches_the_rate_of_the_head(url, tmp_path) -> None:
    write_image_folder(tmp_path / "images")
    options = {"model": "squeezenet1_1", "image_size": 32}
    there = load_task("image-folder", options=options, folder=tmp_path, data_dir=tmp_path)
    torch.save(there.task.model().network.state_dict(), tmp_path / "squeezenet.pth")
    worked_off(
        tmp_path,
        task="image-folder",
        batch_size=18,
        trials=3,
        options={**options, "weights": "squeezenet.pth", "head_ratio": 10},
        groups={"head": (0.3, 3.0)},
    )
    shown = service.show("mine").snapshot
    assert shown.done == 3
    best = service.best("mine")
    (factor,) = best.multipliers.values()
    assert 0.3 <= factor <= 3
    assert service.replay("mine", best.trial.number, device="cpu", data_dir=tmp_path).matches


def test_a_range_test_reads_the_data_too(clrsearch, tmp_path) -> None:
    write_mnist(tmp_path)
    options = [f"--set=options.{key}={value}" for key, value in SMALL.items()]
    batch = ("--set", "batch_size=4", "--data-dir", str(tmp_path))
    code, out, errors = clrsearch("range-test", "--task", "mnist", *options, *batch)
    assert (code, errors) == (0, "")
    assert out.startswith("mnist: SGD(")


def test_only_what_can_be_downloaded_is(clrsearch, url, tmp_path) -> None:
    for command in ("run", "compare"):
        code, _, errors = clrsearch(command, "--download", "--data-dir", str(tmp_path))
        assert (code, errors) == (
            2,
            "clrsearch: Denoise has nothing to download: leave out --download\n",
        )
    code, _, errors = clrsearch("worker", "mine", "--download")
    assert code == 2
    assert "No such option" in errors
