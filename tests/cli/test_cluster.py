"""``clrsearch launch``: what it would run, what it runs, and what it refuses."""

from __future__ import annotations

import shlex
import sys

import pytest
import sqlalchemy as sa
import torch

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import SlotState, StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.training.device import per_gpu_devices

ALONE = ConfirmPlan(enabled=False)


@pytest.fixture
def clrsearch(clrsearch, monkeypatch, task_dir):
    """Run a command line in the folder of the tests' tasks."""
    monkeypatch.chdir(task_dir)
    return clrsearch


@pytest.fixture
def server(postgresql, monkeypatch) -> StorageUrl:
    """A PostgreSQL whose URL has a password, which nobody checks."""
    url = sa.make_url(postgresql.reveal()).set(password="canary")
    monkeypatch.setenv("CLRSEARCH_STORAGE", url.render_as_string(hide_password=False))
    return service.storage_url(None)


def begin(url, task_dir, **keys) -> None:
    plan = StudyPlan(**({"task": "tiny.py:Tiny", "trials": 3, "confirm": ALONE} | keys))
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))


def worker(task_dir, tmp_path, *others: str) -> str:
    """The command line of a worker, as a shell takes it."""
    return shlex.join(
        [
            *(sys.executable, "-P", "-u", "-m", "clrsearch", "worker", "mine", *others),
            *("--task-dir", str(task_dir), "--checkpoint-dir", str(tmp_path)),
            *("--checkpoint-seconds", "10", "--storage-patience", "600"),
        ]
    )


def test_slurms_dry_run_is_the_script_and_each_jobs_commands(
    clrsearch, server, task_dir, tmp_path
) -> None:
    begin(server, task_dir)
    code, out, errors = clrsearch(
        *("launch", "slurm", "mine", "--workers", "3", "--per-gpu", "2", "--dry-run"),
        *("--partition", "short", "--time-limit", "90", "--sbatch", "account=lab"),
        *("--log-dir", str(tmp_path / "jobs"), "--checkpoint-dir", str(tmp_path)),
        *("--max-minutes", "85", "--idle-wait", "60"),
    )
    assert (code, errors) == (0, "")
    head, _, jobs = out.partition("\n#!/bin/bash\n")
    assert head == f"CLRSEARCH_STORAGE={server}"
    assert "canary" not in out
    for option in (
        *("partition=short", "time=90", "account=lab", "gres=gpu:1", "cpus-per-task=2"),
        *("array=0-1%2", "signal=USR2@90", "requeue", "job-name=mine"),
    ):
        assert f"\n#SBATCH --{option}\n" in jobs
    line = f"{worker(task_dir, tmp_path)} --max-minutes 85.0 --idle-wait 60.0 --lanes off"
    assert jobs.endswith(f"\n# job 0\n{line}\n{line}\n# job 1\n{line}\n")
    assert not (tmp_path / "jobs").exists()


def test_rays_dry_run_is_the_tasks(clrsearch, server, task_dir, tmp_path) -> None:
    begin(server, task_dir)
    code, out, errors = clrsearch(
        *("launch", "ray", "mine", "--workers", "2", "--per-gpu", "2", "--dry-run"),
        *("--checkpoint-dir", str(tmp_path), "--device", "cuda"),
    )
    line = f"{worker(task_dir, tmp_path, '--device', 'cuda')} --lanes off"
    head = "# Ray: a new local cluster; each task: num_cpus=1, num_gpus=0.5, max_retries=3"
    assert (code, errors) == (0, "")
    assert out == f"CLRSEARCH_STORAGE={server}\n{head}\n{line}\n{line}\n"
    assert "canary" not in out


def test_workers_that_choose_their_lanes_know_how_many_they_are(
    clrsearch, server, task_dir, tmp_path
) -> None:
    begin(server, task_dir)
    launch = ("launch", "ray", "mine", "--dry-run", "--checkpoint-dir", str(tmp_path))
    line = worker(task_dir, tmp_path)
    for options, more in (
        (("--workers", "2"), " --crew 2"),
        (("--workers", "2", "--lanes", "auto"), " --lanes auto --crew 2"),
        (("--workers", "2", "--lanes", "8"), " --lanes 8"),
        (("--workers", "1"), ""),
    ):
        code, out, _ = clrsearch(*launch, *options)
        assert code == 0
        assert out.endswith(f"\n{line}{more}\n")


def test_a_trial_on_several_gpus_asks_for_as_many(clrsearch, server, task_dir, tmp_path) -> None:
    begin(server, task_dir)
    asked = ("mine", "--workers", "2", "--dry-run", "--gpus-per-trial", "4")
    line = f"{worker(task_dir, tmp_path)} --gpus-per-trial 4"
    folders = ("--checkpoint-dir", str(tmp_path))
    code, out, errors = clrsearch("launch", "slurm", *asked, *folders, "--log-dir", str(tmp_path))
    assert (code, errors) == (0, "")
    assert "\n#SBATCH --gpus-per-task=4\n" in out
    assert "\n#SBATCH --cpus-per-task=4\n" in out
    assert out.endswith(f"\n# job 0\n{line}\n# job 1\n{line}\n")
    code, out, errors = clrsearch("launch", "slurm", *asked, *folders, "--gres", "gpu:h200:4")
    assert "\n#SBATCH --gres=gpu:h200:4\n" in out
    assert "gpus-per-task" not in out
    code, out, errors = clrsearch("launch", "ray", *asked, *folders)
    head = "# Ray: a new local cluster; each task: num_cpus=4, num_gpus=4, max_retries=3"
    assert (code, errors) == (0, "")
    assert out == f"CLRSEARCH_STORAGE={server}\n{head}\n{line}\n{line}\n"
    code, _, errors = clrsearch("launch", "ray", *asked, "--per-gpu", "2")
    assert (code, errors) == (2, "clrsearch: give either --per-gpu or --gpus-per-trial, not both\n")


def test_a_storage_file_is_shown_by_its_name(clrsearch, server, task_dir, tmp_path, monkeypatch):
    begin(server, task_dir)
    file = tmp_path / "storage"
    file.write_text(server.reveal())
    monkeypatch.delenv("CLRSEARCH_STORAGE")
    launch = ("launch", "ray", "mine", "--workers", "1", "--dry-run", "--address", "auto")
    assert clrsearch(*launch, "--storage-file", str(file))[1].splitlines()[:2] == [
        f"CLRSEARCH_STORAGE_FILE={file}",
        "# Ray: auto; each task: num_cpus=1, num_gpus=0, max_retries=3",
    ]
    monkeypatch.setenv("CLRSEARCH_STORAGE", server.reveal())
    code, _, errors = clrsearch(*launch)
    assert code == 2
    assert "Ray shows the environment variables of tasks on its dashboard" in errors
    assert "canary" not in errors


def test_local_workers_work_a_study_off(clrsearch, url, task_dir, tmp_path) -> None:
    begin(url, task_dir)
    launch = ("launch", "local", "mine", "--workers", "2", "--device", "cpu")
    folder = tmp_path / "studies-checkpoints"
    code, out, errors = clrsearch(*launch, "--dry-run")
    line = worker(task_dir, folder, "--device", "cpu")
    assert (code, out, errors) == (0, f"CLRSEARCH_STORAGE={url}\n{line}\n{line}\n", "")
    code, out, errors = clrsearch(*launch)
    assert (code, errors) == (0, "")
    assert "mine: 3 of 3 trials done" in out
    assert service.show("mine").snapshot.done == 3
    code, _, errors = clrsearch(*launch)
    assert code == 2
    more = "clrsearch run --name mine --task tiny.py:Tiny --trials 53"
    assert f"no trials of mine are left: {more}" in errors
    assert " --device cpu adds some" in errors
    assert clrsearch(*launch, "--idle-wait", "1")[0] == 0


def test_more_workers_than_trials_are_clipped(clrsearch, server, task_dir) -> None:
    begin(server, task_dir)
    launch = ("launch", "slurm", "mine", "--dry-run", "--workers", "8")
    code, out, errors = clrsearch(*launch)
    assert (code, errors) == (0, "3 trials are left: starting 3 workers instead of 8\n")
    assert "#SBATCH --array=0-2%3\n" in out
    assert out.count("clrsearch worker mine") == 3
    code, out, errors = clrsearch(*launch, "--idle-wait", "60")  # for those to come
    assert (errors, out.count("clrsearch worker mine")) == ("", 8)


def test_a_search_that_opens_slots_as_it_goes_gets_all_its_workers(
    clrsearch, server, task_dir
) -> None:
    begin(server, task_dir, trials="auto")
    code, out, errors = clrsearch("launch", "slurm", "mine", "--dry-run", "--workers", "30")
    assert (code, errors, out.count("clrsearch worker mine")) == (0, "", 30)


def test_a_confirmation_that_follows_needs_workers_too(clrsearch, server, task_dir) -> None:
    begin(server, task_dir, families=("cyclic",), confirm=ConfirmPlan(top=1, seeds=5))
    launch = ("launch", "ray", "mine", "--dry-run", "--workers", "12")
    assert clrsearch(*launch)[2] == "10 trials are left: starting 10 workers instead of 12\n"


def test_as_many_as_it_has_families_where_these_are_more(clrsearch, server, task_dir) -> None:
    families = ("cyclic", "cosine", "linear", "step")
    begin(server, task_dir, families=families, confirm=ConfirmPlan(top=1, seeds=3))
    launch = ("launch", "ray", "mine", "--dry-run", "--workers", "20")
    assert clrsearch(*launch)[2] == "15 trials are left: starting 15 workers instead of 20\n"


@pytest.mark.parametrize("where", ["slurm", "ray"])
def test_a_file_of_this_machine_is_refused_for_workers_elsewhere(
    clrsearch, url, task_dir, where
) -> None:
    begin(url, task_dir)
    code, out, errors = clrsearch("launch", where, "mine", "--workers", "2")
    assert (code, out) == (2, "")
    assert errors.startswith(f"clrsearch: {url} is a file on this machine")
    assert "PostgreSQL (postgresql://USER@HOST/DATABASE)" in errors


@pytest.mark.parametrize("where", ["local", "slurm", "ray"])
def test_an_unknown_study_is_refused(clrsearch, server, task_dir, where) -> None:
    begin(server, task_dir)
    code, out, errors = clrsearch("launch", where, "mien", "--workers", "2")
    assert (code, out) == (2, "")
    assert "mine" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(("where", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_extra_is_named(clrsearch, server, task_dir, monkeypatch, where, package) -> None:
    begin(server, task_dir)
    monkeypatch.setitem(sys.modules, package, None)
    code, out, errors = clrsearch("launch", where, "mine", "--workers", "2", "--dry-run")
    assert (code, out) == (2, "")
    assert f"pip install 'clrsearch[{where}]'" in errors


def test_without_sbatch_nothing_is_submitted(clrsearch, server, task_dir, tmp_path, monkeypatch):
    begin(server, task_dir)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, errors = clrsearch("launch", "slurm", "mine", "--workers", "2")
    assert (code, out) == (2, "")
    assert errors.startswith("clrsearch: sbatch not found")
    with open_database(server) as database:
        assert Study.open(database, "mine").slots.counts() == {SlotState.OPEN: 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["slurm", "--sbatch", "account"], "--sbatch account: expected KEY=VALUE"),
        (["slurm", "--max-trials", "0"], "Invalid value for '--max-trials'"),
        (["ray", "--address", "10.0.0.7:6379"], "token authentication is on: set RAY_AUTH_MODE"),
        (
            ["ray", "--task-dir", "/no/such/folder"],
            "--task-dir /no/such/folder: no such folder",
        ),
    ],
)
def test_bad_options_are_refused(
    clrsearch, server, task_dir, monkeypatch, options, message
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    begin(server, task_dir)
    where, *others = options
    code, out, errors = clrsearch("launch", where, "mine", "--workers", "2", *others)
    assert (code, out) == (2, "")
    assert message in errors


def test_workers_share_gpus_one_after_the_other() -> None:
    assert per_gpu_devices(2, 3, gpus=2) == ["cuda:0", "cuda:0", "cuda:1"]
    assert per_gpu_devices(1, 2, gpus=4) == ["cuda:0", "cuda:1"]
    with pytest.raises(PlanError, match=r"5 workers with 2 per GPU need 3 of them, but there a"):
        per_gpu_devices(2, 5, gpus=2)
    with pytest.raises(PlanError, match=r"1 workers with 2 per GPU need 1 .* there is no GPU"):
        per_gpu_devices(2, 1, gpus=0)


@pytest.mark.parametrize("minutes", ["1", "2"])
def test_a_time_limit_needs_room_for_leaving(clrsearch, server, task_dir, minutes) -> None:
    begin(server, task_dir)
    launch = ("launch", "slurm", "mine", "--workers", "2", "--dry-run", "--time-limit")
    code, out, errors = clrsearch(*launch, minutes)
    assert (code, out) == ((2, "") if minutes == "1" else (0, out))
    assert ("exit 90 seconds before the limit" in errors) == (minutes == "1")
