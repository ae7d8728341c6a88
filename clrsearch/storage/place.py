"""Checks of where a SQLite file or a checkpoint folder is stored."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from clrsearch import proposals
from clrsearch.errors import StorageError
from clrsearch.storage.url import StorageUrl

NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "panfs"),
    *("orangefs", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.ceph"),
)
"""Names of file systems shared between machines, as in /proc/self/mountinfo."""

READ_ONLY = "the file or its folder is read-only"

_MOUNTS = Path("/proc/self/mountinfo")


def require_place(url: StorageUrl, *, create: bool = False) -> None:
    """Reject a database file that is missing, or with ``create``, a folder that cannot hold it.

    Raises:
        StorageError: naming the file or the folder.
    """
    if url.file is None:
        return
    folder = url.file.parent
    if not folder.is_dir():
        raise StorageError(f"the database folder {folder} does not exist")
    if url.file.is_dir():
        raise StorageError(f"{url.file} is a folder, not a database file")
    if not url.file.exists():
        if not create:
            begin = proposals.command("run")
            raise StorageError(f"no studies at {url}: {begin} creates the file")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StorageError(
                f"the folder {folder} is read-only: the database needs to write there"
            )
    elif create and not all(os.access(each, os.W_OK) for each in (url.file, folder)):
        raise StorageError(f"{url}: {READ_ONLY}")
    mounts = _MOUNTS.read_text(encoding="utf-8") if _MOUNTS.exists() else ""
    kind = file_system(folder.resolve(), mounts)
    if kind in NETWORK:
        raise StorageError(
            f"{url.file} is on a network file system ({kind}), where SQLite's locks "
            "are unreliable: keep studies on a local disk, or in PostgreSQL "
            "(postgresql://USER@HOST/DATABASE)"
        )


def make_folder(folder: Path) -> None:
    """Create a checkpoint folder, or one inside it, if it is missing.

    Raises:
        StorageError: it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"the checkpoint folder {folder} cannot be written to: {error.strerror}; "
            "set another with --checkpoint-dir"
        ) from error


def file_system(folder: Path, mounts: str) -> str | None:
    """Type of the file system that holds ``folder``, given the text of a mountinfo file."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")  # spaces are written \040
        if folder.is_relative_to(point) and (found is None or len(point) >= found[0]):
            found = len(point), after.split()[0]
    return found[1] if found else None
