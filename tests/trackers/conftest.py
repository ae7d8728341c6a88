"""Trackers that write into folders of the tests' own, and a stored study for them."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import wandb
from tracked import READERS, Seen

from clrsearch.storage import StorageUrl
from clrsearch.trackers import TRACKERS, Mirrored, connect

HISTORIES = Path(__file__).parents[1] / "histories"
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")  # it looks once, at its import


@dataclass
class Place:
    """A tracker, a place in it that is empty at first, and what is read back from there."""

    tracker: str
    into: str
    folder: Path

    def read(self) -> dict[str, Seen]:
        return READERS[self.tracker](self.folder, self.into)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory) -> Path:
    """An empty database of MLflow, whose tables take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    monkeypatch.chdir(file.parent)
    connect("mlflow", Mirrored(name="any", uuid="0" * 32))
    monkeypatch.undo()
    return file


@pytest.fixture(params=TRACKERS)
def place(request, tmp_path, monkeypatch) -> Iterator[Place]:
    """Each tracker in turn, at work in the test's folder without any network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    if request.param == "mlflow":
        empty = request.getfixturevalue("empty_mlflow")
        shutil.copy(empty, tmp_path / "mlflow.db")
    yield Place(request.param, f"into-{uuid.uuid4().hex[:8]}", tmp_path)
    if request.param == "wandb":
        wandb.teardown()  # it remembers the folder


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Unpacks a stored study, which every command finds: its file."""

    def unpack(name: str) -> Path:
        file = tmp_path / f"{name}.db"
        file.write_bytes(gzip.decompress((HISTORIES / f"{name}.db.gz").read_bytes()))
        monkeypatch.setenv("CLRSEARCH_STORAGE", StorageUrl(f"sqlite:///{file}").reveal())
        return file

    return unpack
