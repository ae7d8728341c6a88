"""A PostgreSQL server of the tests' own, which asks for passwords and can be stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "canary{}@/:%40"


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl, wherever Debian or another system puts it."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@contextmanager
def private_postgres() -> Iterator[int]:
    """The port of a server whose user ``me`` has :data:`PASSWORD` and owns the database ``db``."""
    place = binaries()
    if place is None:
        pytest.skip("no initdb: PostgreSQL's server is not installed")
    # The server refuses to run as root, and its folder must be its user's own.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, "postgres")
        data, secret = Path(folder) / "data", Path(folder) / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        def call(program: str, *arguments: str) -> None:
            subprocess.run(
                [*user, str(place / program), *arguments], check=True, capture_output=True
            )

        call("initdb", "-D", str(data), "-U", "me", f"--pwfile={secret}", "-A", "scram-sha-256")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        call("pg_ctl", "-D", str(data), "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield port
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
