"""A name of this machine that resolves until it is made to fail."""

from __future__ import annotations

import socket
from typing import Any

import pytest

FAR_HOST = "database.example"


class Resolver:
    """Answers for :data:`FAR_HOST` in this process: 127.0.0.1, or with the error ``fault``.

    ``failed`` counts the latter.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: socket.gaierror | None = None
        self.failed = 0
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, *arguments: Any, **options: Any) -> Any:
        if host == FAR_HOST:
            if self.fault is not None:
                self.failed += 1
                raise self.fault
            host = "127.0.0.1"
        return self._look_up(host, *arguments, **options)


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
FAILING = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
