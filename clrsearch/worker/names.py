"""Worker names."""

from __future__ import annotations

import os
import secrets
import socket


def worker_name() -> str:
    """A unique worker name: host, process id and random digits.

    Host and process id are not enough: containers may share a host name, and their processes all be
    number 1. For workers named by ``clrsearch run``, the process id is that of ``clrsearch run``.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
