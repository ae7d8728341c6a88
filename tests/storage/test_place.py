"""Where a SQLite file may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from clrsearch.errors import StorageError
from clrsearch.storage import StorageUrl, place, require_place
from clrsearch.storage.place import file_system

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:26 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:27 / /home/me/local\\040disk rw,relatime - xfs /dev/sdb1 rw
32 21 0:28 / /scratch rw,relatime master:1 propagate_from:2 - lustre 10.0.0.1@tcp:/scratch rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/tmp", "ext4"),
        ("/home/me", "nfs4"),
        ("/homes", "ext4"),
        ("/home/me/local disk/studies", "xfs"),
        ("/scratch/me", "lustre"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(folder, kind) -> None:
    assert file_system(Path(folder), MOUNTS) == kind
    assert file_system(Path(folder), "") is None


def test_a_network_file_system_is_refused(tmp_path, monkeypatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 21 0:26 / {tmp_path} rw shared:2 - nfs4 server:/home rw\n")
    monkeypatch.setattr(place, "_MOUNTS", mounts)
    url = StorageUrl(f"sqlite:///{tmp_path}/studies.db")
    with pytest.raises(StorageError, match=r"network file system \(nfs4\).*postgresql://"):
        require_place(url, create=True)


def test_this_machines_mounts_can_be_read(tmp_path) -> None:
    if not place._MOUNTS.exists():
        pytest.skip("only Linux tells its mounts so")
    assert file_system(tmp_path, place._MOUNTS.read_text(encoding="utf-8"))
