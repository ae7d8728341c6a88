"""Names of workers: no two are the same, and host and process can be read from them."""

from __future__ import annotations

import os
import socket

from clrsearch.results.status import Holder
from clrsearch.worker import worker_name


def test_two_containers_that_look_alike_name_their_workers_apart(monkeypatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "trainer")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    names = {worker_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.startswith("trainer:1:") for name in names)


def test_status_reads_host_and_process_from_it() -> None:
    found = Holder(
        worker=worker_name(),
        slot=0,
        trial=None,
        device=None,
        epoch=0,
        value=None,
        attempt=1,
        losses=0,
        checkpoint=None,
        age=0.0,
        silent=False,
    )
    assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
