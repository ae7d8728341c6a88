"""What workers are called."""

from __future__ import annotations

import os
import secrets
import socket


def worker_name() -> str:
    """A name that no other worker has: host, process and random digits.

    Containers may share a host's name, and their processes the number 1. Where ``clrsearch run``
    names a worker that it starts, the process is its own.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
