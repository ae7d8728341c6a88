"""A worker of several processes, one per GPU, that train each trial together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from clrsearch import training
from clrsearch import worker as workers
from clrsearch.errors import FailsHere, RanksApart
from clrsearch.launch import end_as, run_ranks
from clrsearch.search import Study
from clrsearch.service.equipment import (
    found_device,
    require_shares,
    required_device,
    trainer_of,
    wanted_device,
    worker_command,
)
from clrsearch.service.paths import Storage, storage_url
from clrsearch.storage import Patience, cause, open_database, quiet_optuna
from clrsearch.worker import WorkerSettings

if TYPE_CHECKING:
    import torch


def work_in_group(
    name: str,
    worker: str,
    *,
    storage: Storage,
    settings: WorkerSettings,
    ends_with_parent: bool,
    on_wait: Callable[[str], None],
) -> None:
    """Start a process for each GPU of a trial, and leave as they do.

    Raises:
        PlanError: the machine has too few GPUs, or they cannot share the study's batches.
        SystemExit: the first process has told an error.
    """
    quiet_optuna()
    url = storage_url(storage)
    patience = Patience(settings.storage_patience, on_wait=lambda error: on_wait(cause(error)))
    with open_database(url, patience=patience) as database:
        study = patience(lambda: Study.open(database, name))
        named = patience(lambda: wanted_device(study, settings))
    require_shares(study.facts.batch_size, settings)
    training.require_gpus(named, settings.gpus_per_trial)
    seen = training.see_only(named, settings.gpus_per_trial)
    command = worker_command(name, url, replace(settings, device=seen), worker)
    command = replace(command, arguments=(*command.arguments, "--as-rank"))
    code = run_ranks(command, settings.gpus_per_trial, ends_with_parent=ends_with_parent)
    end_as(code)
    if code:
        raise SystemExit(code)


def follow(name: str, storage: Storage, settings: WorkerSettings) -> None:
    """Make the same runs as rank 0, which decides and writes, until it has no more.

    Raises:
        FailsHere: a trial failed in one process of the group alone.
    """
    quiet_optuna()
    patience = Patience(settings.storage_patience)
    try:
        with open_database(storage_url(storage), patience=patience) as database:
            study = patience(lambda: Study.open(database, name))
            device = rank_device(name, patience(lambda: required_device(study, settings)), settings)
        with (
            training.computing(device, deterministic=study.plan.deterministic),
            training.joined(device) as group,
            workers.ignoring_signals(),
        ):
            training.follow(trainer_of(study, device, settings, group, trials=0).make_run, group)
    except RanksApart as error:
        alone = f"a trial failed in one process of the group alone: {error}"
        raise workers.device_failure(error) or FailsHere(alone) from error


def rank_device(name: str, kind: str | None, settings: WorkerSettings) -> torch.device:
    """The device of one process of a group: of the GPUs that it sees, that of its own number."""
    named = kind if settings.device is None else settings.device
    if training.find_device(named).type == "cuda":
        named = f"cuda:{training.own_rank()}"
    return found_device(name, kind, named, own_process=False)
