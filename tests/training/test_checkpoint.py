"""Checkpoint files: whole and of one trial, or refused; one line for what is wrong with them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import resource
import tracemalloc

import numpy as np
import pytest
import torch
from identities import reader, writer

from clrsearch.errors import StorageError, TaskError
from clrsearch.training import Checkpoints, Unrestorable
from clrsearch.training.seeding import random_state, restore_random_state

CPU = torch.device("cpu")


def always() -> bool:
    return True


@pytest.fixture
def written(tmp_path):
    """A checkpoint of trial 3, and its bytes."""
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.save(writer(3), {"epoch": 1, "w": torch.ones(50)}, confirm=always)
    return checkpoints, (tmp_path / "trial-3.pt").read_bytes()


def test_the_newest_is_loaded_and_nothing_else_is_left(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path / "a" / "b")
    assert checkpoints.load(reader(3)) is None
    for epoch in (1, 2):
        assert checkpoints.save(writer(3), {"epoch": epoch, "w": torch.ones(2)}, confirm=always)
    assert checkpoints.load(reader(3))["epoch"] == 2
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["trial-3.pt"]
    for name in ("trial-3.99.tmp", "trial-33.pt"):
        (tmp_path / "a" / "b" / name).write_text("")
    checkpoints.remove(3)
    checkpoints.remove(3)
    checkpoints.remove(33)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_is_a_magic_line_a_checksum_the_identity_and_what_torch_saves(tmp_path) -> None:
    state = {"epoch": 1, "w": torch.ones(50_000)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    whose = b'{"study": "s", "trial": 3, "family": "cyclic", "params": {}, "attempt": 1}\n'
    sealed = whose + buffer.getvalue()
    checksum = hashlib.sha256(sealed).hexdigest().encode() + b"\n"
    whole = b"clrsearch checkpoint 1\n" + checksum + sealed
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(writer(3), state, confirm=always)
    assert (tmp_path / "trial-3.pt").read_bytes() == whole
    (tmp_path / "trial-3.pt").write_bytes(whole)
    loaded = checkpoints.load(reader(3))
    assert torch.equal(loaded.pop("w"), state.pop("w"))
    assert loaded == state


def test_neither_saving_nor_loading_holds_the_file_in_memory(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    state = {"w": torch.ones(16_000_000), "v": torch.ones(9_000_000)}  # 100 MB, outside the traced
    tracemalloc.start()
    try:
        checkpoints.save(writer(3), state, confirm=always)
        assert checkpoints.load(reader(3)).keys() == state.keys()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_what_is_not_confirmed_replaces_nothing(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(writer(3), {"epoch": 1}, confirm=always)
    assert not checkpoints.save(writer(3), {"epoch": 2}, confirm=lambda: False)
    assert checkpoints.load(reader(3)) == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_one_flipped_bit_anywhere_is_noticed(written, tmp_path) -> None:
    checkpoints, whole = written
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "trial-3.pt").write_bytes(damaged)
        with pytest.raises(Unrestorable, match="it is damaged"):
            checkpoints.load(reader(3))
    (tmp_path / "trial-3.pt").write_bytes(whole)
    assert checkpoints.load(reader(3))["epoch"] == 1


def test_a_file_that_is_cut_short_or_has_grown_is_noticed(written, tmp_path) -> None:
    checkpoints, whole = written
    for content in (*(whole[:length] for length in range(0, len(whole), 7)), whole + b"\0"):
        (tmp_path / "trial-3.pt").write_bytes(content)
        with pytest.raises(Unrestorable, match="it is damaged"):
            checkpoints.load(reader(3))


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n\n", b"no checkpoint", b"PK\x03\x04 torn"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content) -> None:
    (tmp_path / "trial-3.pt").write_bytes(content)
    with pytest.raises(Unrestorable, match="it is damaged or was written by an earlier version"):
        Checkpoints(tmp_path).load(reader(3))


def test_what_an_earlier_version_wrote_is_refused(tmp_path) -> None:
    torch.save({"epoch": 1}, tmp_path / "trial-3.pt")
    with pytest.raises(Unrestorable, match="or was written by an earlier version of clrsearch"):
        Checkpoints(tmp_path).load(reader(3))


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ({"study": "another"}, "it belongs to another trial (study: another)"),
        ({"family": "cosine"}, "it belongs to another trial (family: cosine)"),
        ({"params": {"max_lr": 0.5}}, "it belongs to another trial (params: {'max_lr': 0.5})"),
        ({"attempt": 2}, "it is from attempt 2, but this is attempt 2"),
        ({"attempt": 3}, "it is from attempt 3, but this is attempt 2"),
        ({"attempt": "1"}, "it does not fit: TypeError"),
    ],
)
def test_another_trials_checkpoint_is_refused(tmp_path, theirs, says) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(writer(3, **theirs), {"epoch": 1}, confirm=always)
    with pytest.raises(Unrestorable) as caught:
        checkpoints.load(reader(3))
    assert str(caught.value).startswith(says)


def test_a_checkpoint_under_another_trials_name_is_refused(written, tmp_path) -> None:
    checkpoints, whole = written
    (tmp_path / "trial-4.pt").write_bytes(whole)
    with pytest.raises(Unrestorable, match=r"it belongs to another trial \(trial: 3\)"):
        checkpoints.load(reader(4))


def test_parameters_are_equal_to_themselves_after_a_file(tmp_path) -> None:
    params = {"lr": 0.1 + 0.2, "small": 5e-324, "cycles": 3, "mode": "exp_range", "on": True}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(writer(3, params=params), {"epoch": 1}, confirm=always)
    assert checkpoints.load(reader(3, params=params)) == {"epoch": 1}


def test_whatever_torch_raises_at_a_whole_file_is_one_refusal(tmp_path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    for state in (b"", b"no zip", pickle.dumps([1, 2]), b"\x80\x02\x8e" + b"\xff" * 50):
        monkeypatch.setattr(torch, "save", lambda _, file, state=state: file.write(state))
        checkpoints.save(writer(3), {}, confirm=always)
        with pytest.raises(Unrestorable, match="it does not fit: "):
            checkpoints.load(reader(3))


def test_nothing_but_data_is_loaded(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(writer(3), {"epoch": Evil()}, confirm=always)
    with pytest.raises(Unrestorable, match="it does not fit: UnpicklingError: Weights only load"):
        checkpoints.load(reader(3))
    assert not (tmp_path / "owned").exists()


def test_a_folder_in_its_place_is_refused_and_then_replaced(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for _ in range(2):
        (tmp_path / "trial-3.pt" / "within").mkdir(parents=True)
        with pytest.raises(Unrestorable, match="it cannot be read: Is a directory"):
            checkpoints.load(reader(3))
        checkpoints.save(writer(3), {"epoch": 1}, confirm=always)
        assert checkpoints.load(reader(3)) == {"epoch": 1}
        checkpoints.remove(3)
    (tmp_path / "trial-3.pt" / "within").mkdir(parents=True)
    checkpoints.remove(3)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_refused_and_then_replaced(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for target, says in (("trial-3.pt", "Too many levels of symbolic links"), (".", "Is a dir")):
        (tmp_path / "trial-3.pt").symlink_to(target)
        with pytest.raises(Unrestorable, match=f"it cannot be read: {says}"):
            checkpoints.load(reader(3))
        checkpoints.save(writer(3), {"epoch": 1}, confirm=always)
        assert checkpoints.load(reader(3)) == {"epoch": 1}
        checkpoints.remove(3)


def test_a_folder_that_somebody_has_removed_is_made_anew(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path / "a" / "b")
    for gone in (tmp_path / "a" / "b", tmp_path / "a"):
        (tmp_path / "a" / "b").rmdir()
        if gone.exists():
            gone.rmdir()
        checkpoints.save(writer(3), {"epoch": 1}, confirm=always)
        assert checkpoints.load(reader(3)) == {"epoch": 1}
        checkpoints.remove(3)
    (tmp_path / "a" / "b").rmdir()
    checkpoints.sign("w")
    assert checkpoints.unsigned(["w", "v"]) == {"v"}
    checkpoints.remove(3)


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"checkpoint folder .*file/x cannot be .*--checkpoint"):
        Checkpoints(tmp_path / "file" / "x")


@pytest.mark.parametrize("size", [10, 10_000, 1_000_000])  # less than a buffer, and more
def test_a_disk_that_is_full_is_told(tmp_path, monkeypatch, size) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "draft")
    (tmp_path / "trial-3.draft.tmp").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"trial-3.pt cannot be written: No space left on dev"):
        Checkpoints(tmp_path).save(writer(3), {"w": torch.ones(size)}, confirm=always)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_at_any_byte_is_told(tmp_path) -> None:
    """The limit on the size of a file stands in for the disk's."""
    state = {"epoch": 1, "w": torch.ones(5000)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(writer(3), state, confirm=always)
    size = (tmp_path / "trial-3.pt").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (*range(0, size, 101), size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(StorageError, match=r"trial-3.pt cannot be written: File too large"):
                checkpoints.save(writer(3), state, confirm=always)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["trial-3.pt"]
    assert checkpoints.load(reader(3))["epoch"] == 1


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_cannot_be_pickled_is_the_tasks_mistake(tmp_path, size) -> None:
    state = {"w": torch.ones(size), "f": lambda: None}
    with pytest.raises(TaskError, match=r"the training state cannot be saved: Can't pickle .*lamb"):
        Checkpoints(tmp_path).save(writer(3), state, confirm=always)
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_is_not_the_disks_is_left_as_it_is(tmp_path) -> None:
    class Lost:
        def __reduce__(self):
            raise RuntimeError("the device is lost")

    with pytest.raises(RuntimeError, match=r"^the device is lost$"):
        Checkpoints(tmp_path).save(writer(3), {"w": Lost()}, confirm=always)
    assert list(tmp_path.iterdir()) == []


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_the_random_state_survives_a_file(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    draw()
    np.random.randn()  # leaves a second Gaussian behind
    checkpoints.save(writer(0), random_state(CPU), confirm=always)
    expected = draw(), np.random.randn()
    draw()
    restore_random_state(checkpoints.load(reader(0)), CPU)
    assert (draw(), np.random.randn()) == expected
