"""Checkpoint files: whole or not there, and one line for what is wrong with the folder."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from clrsearch.errors import StorageError
from clrsearch.training import Checkpoints
from clrsearch.training.seeding import random_state, restore_random_state

CPU = torch.device("cpu")


def test_the_newest_is_loaded_and_nothing_else_is_left(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path / "a" / "b")
    assert checkpoints.load(3, CPU) is None
    for epoch in (1, 2):
        assert checkpoints.save(3, {"epoch": epoch, "w": torch.ones(2)}, confirm=lambda: True)
    assert checkpoints.load(3, CPU)["epoch"] == 2
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["trial-3.pt"]
    for name in ("trial-3.99.tmp", "trial-33.pt"):
        (tmp_path / "a" / "b" / name).write_text("")
    checkpoints.remove(3)
    checkpoints.remove(3)
    checkpoints.remove(33)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_what_is_not_confirmed_replaces_nothing(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"epoch": 1}, confirm=lambda: True)
    assert not checkpoints.save(3, {"epoch": 2}, confirm=lambda: False)
    assert checkpoints.load(3, CPU) == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_cannot_be_read_is_none(tmp_path, content) -> None:
    (tmp_path / "trial-3.pt").write_bytes(content)
    assert Checkpoints(tmp_path).load(3, CPU) is None


def test_a_torn_checkpoint_is_none(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"w": torch.ones(1000)}, confirm=lambda: True)
    whole = (tmp_path / "trial-3.pt").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "trial-3.pt").write_bytes(whole[: int(len(whole) * share)])
        assert checkpoints.load(3, CPU) is None


def test_nothing_but_data_is_loaded(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"epoch": Evil()}, tmp_path / "trial-3.pt")
    assert Checkpoints(tmp_path).load(3, CPU) is None
    assert not (tmp_path / "owned").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"checkpoint folder .*file/x cannot be .*--checkpoint"):
        Checkpoints(tmp_path / "file" / "x")


def test_a_disk_that_is_full_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "draft")
    (tmp_path / "trial-3.draft.tmp").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"trial-3.pt cannot be written: No space left on dev"):
        Checkpoints(tmp_path).save(3, {"w": torch.ones(10)}, confirm=lambda: True)
    assert list(tmp_path.iterdir()) == []


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_the_random_state_survives_a_file(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    draw()
    np.random.randn()  # leaves a second Gaussian behind
    checkpoints.save(0, random_state(CPU), confirm=lambda: True)
    expected = draw(), np.random.randn()
    draw()
    restore_random_state(checkpoints.load(0, CPU), CPU)
    assert (draw(), np.random.randn()) == expected
