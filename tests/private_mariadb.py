"""A MariaDB server of the tests' own, whose settings can be changed without a neighbour."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pymysql
import pytest

DAEMONS = "/usr/sbin:/usr/local/sbin"
PATIENCE = 120.0  # seconds for what takes a few on an idle machine


@contextmanager
def private_mariadb() -> Iterator[int]:
    """The port of a server whose ``root`` has no password; ``worker`` has none either, nor rights
    beyond the database ``db``.
    """
    search = os.pathsep.join([os.environ.get("PATH", ""), DAEMONS])
    installs, serves = (
        shutil.which(name, path=search) for name in ("mariadb-install-db", "mariadbd")
    )
    if installs is None or serves is None:
        pytest.skip("no mariadbd: MariaDB's server is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        user = []
        if os.geteuid() == 0:  # the server refuses to run as root
            user = ["--user=mysql"]
            shutil.chown(folder, "mysql")
        data = Path(folder) / "data"
        subprocess.run(
            [
                *(installs, "--no-defaults", f"--datadir={data}", *user),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
            ],
            check=True,
            capture_output=True,
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = subprocess.Popen(
            [
                *(serves, "--no-defaults", f"--datadir={data}", *user, f"--port={port}"),
                *(
                    "--bind-address=127.0.0.1",
                    f"--socket={folder}/socket",
                    f"--pid-file={data}/pid",
                ),
                "--innodb-flush-log-at-trx-commit=0",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await(port, server)
            ask(port, "CREATE DATABASE db")
            ask(port, "CREATE USER worker@'127.0.0.1'")
            ask(port, "GRANT ALL ON db.* TO worker@'127.0.0.1'")
            yield port
        finally:
            server.terminate()
            server.wait(PATIENCE)


def ask(port: int, statement: str) -> None:
    """Have ``root`` do something."""
    with pymysql.connect(host="127.0.0.1", port=port, user="root") as there:
        there.cursor().execute(statement)


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        with (
            suppress(pymysql.err.OperationalError),
            pymysql.connect(host="127.0.0.1", port=port, user="root"),
        ):
            return
        time.sleep(0.1)
    raise AssertionError("the server did not start")
