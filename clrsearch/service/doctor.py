"""Check what clrsearch needs on a machine; findings hold no secrets and can go into bug reports."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clrsearch import proposals, training
from clrsearch.errors import ClrsearchError
from clrsearch.launch import BINARIES
from clrsearch.service.paths import Storage, checkpoint_root, storage_url
from clrsearch.storage import StorageUrl, condition, has_studies, open_database, require_place

SLOW_MILLISECONDS = 20.0  # per round trip; a trial makes about a hundred
LITTLE_SPACE = 1e9  # bytes
CLOCK_SECONDS = 60.0
PACKAGES = ("clrsearch", "optuna", "torch", "sqlalchemy", "numpy")

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        what: what was checked.
        state: ``ok``, ``note`` or ``wrong``.
        says: what was found.
        remedy: what to do about it; empty if nothing.
    """

    what: str
    state: State
    says: str
    remedy: str = ""


def examine(
    *,
    storage: Storage = None,
    device: str | None = None,
    checkpoint_dir: Path | None = None,
) -> list[Finding]:
    """Check Python, torch and its device, the storage, the checkpoint folder and the launchers."""
    findings = [_python(), *_devices(device)]
    try:
        url = storage_url(storage)
    except ClrsearchError as error:
        return [*findings, Finding(what="storage", state="wrong", says=str(error))]
    findings += _storage(url)
    findings.append(_checkpoints(checkpoint_root(url, checkpoint_dir)))
    return [*findings, *_launchers()]


def _python() -> Finding:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return Finding(
        what="python",
        state="ok",
        says=f"{platform.python_version()} on {platform.system()} {platform.machine()}; {versions}",
    )


def _devices(device: str | None) -> Iterator[Finding]:
    import torch

    try:
        chosen = training.find_device(device)
        torch.ones(2, device=chosen).sum().item()
    except (ClrsearchError, RuntimeError) as error:
        yield Finding(
            what="device",
            state="wrong",
            says=" ".join(str(error).split()),
            remedy="--device cpu works everywhere; a GPU needs a driver that this torch supports",
        )
        return
    if chosen.type == "cuda":
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding(
            what="device", state="ok", says=f"{', '.join(names)}, CUDA {torch.version.cuda}"
        )
        return
    says = f"{chosen}, {training.usable_cores()} cores"
    if shutil.which("nvidia-smi") is not None and not torch.cuda.is_available():
        yield Finding(
            what="device",
            state="wrong",
            says=f"{says}; NVIDIA driver installed, but torch {torch.__version__} finds no GPU",
            remedy="install a torch build for the driver's CUDA version",
        )
    else:
        yield Finding(what="device", state="ok", says=says)


def _storage(url: StorageUrl) -> Iterator[Finding]:
    try:
        require_place(url, create=True)
        if not has_studies(url):
            yield Finding(
                what="storage",
                state="note",
                says=f"{url} has no studies yet",
                remedy=f"{proposals.command('run')} creates the tables",
            )
            return
        with open_database(url) as database:
            found = condition(database)
    except ClrsearchError as error:
        yield Finding(
            what="storage",
            state="wrong",
            says=str(error),
            remedy="set the database with --storage, --storage-file or CLRSEARCH_STORAGE",
        )
        return
    yield Finding(
        what="storage",
        state="ok",
        says=f"{url}: {found.server}, schema {found.schema}, "
        f"{found.studies} studies, including confirmations",
    )
    roles = f"workers need a role with write access: see {proposals.command('db roles', help=True)}"
    yield Finding(
        what="role",
        state="note" if found.refused else "ok",
        says=f"can only read: {found.refused}" if found.refused else "can read and write",
        remedy=roles if found.refused else "",
    )
    slow = found.milliseconds > SLOW_MILLISECONDS
    yield Finding(
        what="latency",
        state="note" if slow else "ok",
        says=f"{found.milliseconds:.2f} ms per round trip",
        remedy="a trial makes about a hundred: use a database closer by" if slow else "",
    )
    if abs(found.clock) > CLOCK_SECONDS:
        yield Finding(
            what="clock",
            state="note",
            says=f"the database's clock is {found.clock:+.0f} s off this machine's",
            remedy="harmless: leases use the database's clock, but displayed times will be off",
        )


def _checkpoints(folder: Path) -> Finding:
    """Whether the checkpoint folder, or its nearest existing parent, is writable."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(
            what="checkpoints",
            state="wrong",
            says=f"{folder}: {error.strerror}",
            remedy="set another folder with --checkpoint-dir or CLRSEARCH_CHECKPOINT_DIR",
        )
    free = shutil.disk_usage(there).free
    little = free < LITTLE_SPACE
    return Finding(
        what="checkpoints",
        state="note" if little else "ok",
        says=f"{folder}, {free / 1e9:.1f} GB free",
        remedy="a full disk stops workers: each keeps one checkpoint" if little else "",
    )


def _launchers() -> Iterator[Finding]:
    yield Finding(what="launch local", state="ok", says=sys.executable)
    missing = [name for name in BINARIES if shutil.which(name) is None]
    for what, package, needs in (("launch slurm", "submitit", missing), ("launch ray", "ray", [])):
        lacks = [f"{name} not found" for name in needs]
        if importlib.util.find_spec(package) is None:
            extra = what.partition(" ")[2]
            lacks.append(f"{package} is not installed (pip install 'clrsearch[{extra}]')")
        if lacks:
            yield Finding(
                what=what, state="note", says=", ".join(lacks), remedy="needed only if you use it"
            )
        else:
            yield Finding(
                what=what, state="ok", says=f"{package} {importlib.metadata.version(package)}"
            )
    if "SLURM_JOB_ID" in os.environ:
        yield Finding(what="slurm job", state="ok", says=os.environ["SLURM_JOB_ID"])
