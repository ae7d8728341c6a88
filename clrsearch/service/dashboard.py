"""optuna-dashboard over the studies, for this machine alone."""

from __future__ import annotations

import errno
import ipaddress
import json
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from clrsearch.errors import PlanError
from clrsearch.reports import Artifacts, Extras, Overlay
from clrsearch.schedules import Manual
from clrsearch.search import Study
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import bind_rate
from clrsearch.storage import DATABASE_ERRORS, condition, open_database, quiet_optuna

HOST, PORT = "127.0.0.1", 8080
LOOKED_FOR = 100  # ports behind one that is taken
PORTS = 65536
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_STUDY = re.compile(r"/api/studies/(\d+)")
_NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' data: 'unsafe-inline'; "
    "script-src 'self' 'unsafe-eval'; frame-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""What the dashboard's pages need and no more; its parallel coordinates compile WebGL code."""
_POLICY_OF_ARTIFACTS = "default-src 'none'; frame-ancestors 'none'; sandbox"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A server that listens. ``url`` is the page to open; nothing is written if ``read_only``."""

    url: str
    read_only: bool
    server: WSGIServer

    def serve(self) -> None:
        """Answer until the server is shut down, or this is interrupted."""
        self.server.serve_forever()


@contextmanager
def dashboard(
    name: str | None = None,
    *,
    storage: Storage = None,
    host: str = HOST,
    port: int = PORT,
    read_only: bool = False,
    task_dir: Path | None = None,
) -> Iterator[Dashboard]:
    """optuna-dashboard with our notes, figures and artifacts, while the block lasts.

    Nothing is stored but notes that are written in it, and those neither if it is ``read_only`` or
    if the database's role may not write. Whoever reaches ``host`` can look at everything: nobody is
    asked who they are.

    Raises:
        PlanError: the port is taken, or the host is none of this machine.
        StudyError: there is no study ``name``.
    """
    from optuna_dashboard import wsgi

    quiet_optuna()
    url = storage_url(storage)
    with warnings.catch_warnings(), open_database(url) as database:
        warnings.simplefilter("ignore")  # of other packages, to which nobody here can do anything
        page = "/dashboard"
        read_only = read_only or bool(condition(database).refused)
        extras = Extras(database, lambda study: bind_rate(study, Manual.family, task_dir))
        overlay = Overlay(database, extras)
        if name is not None:
            study_id = Study(database, name).id
            extras.renew(study_id, name)
            page = f"/dashboard/studies/{study_id}"
        guarded = Guard(
            wsgi(overlay, Artifacts(extras)),
            read_only=read_only,
            hosts=LOOPBACK | {host} if _is_loopback(host) else None,
            renew=lambda study_id: _renew(overlay, extras, study_id),
        )
        with _listen(host, port, guarded) as server:
            # what checks the code of a note: while the list is looked at, it is read in
            threading.Thread(target=import_module, args=("torch",), daemon=True).start()
            yield Dashboard(
                url=f"http://{host}:{server.server_port}{page}",
                read_only=read_only,
                server=server,
            )


class Guard:
    """An application before which what would change a study is refused, and other hosts' pages.

    Whoever may write to the database chooses notes, figures and names: no answer can run a script
    that is not the dashboard's own, and no page of another site can read one.

    The dashboard can delete and rename studies and end trials of its own accord, which our slots
    would know nothing of. ``hosts`` are the names by which it may be asked for, None for any: a
    page of another site that has its own name point to this machine is not answered.
    """

    def __init__(
        self,
        application: Application,
        *,
        read_only: bool,
        hosts: frozenset[str] | None,
        renew: Callable[[int], None],
    ) -> None:
        self._application = application
        self._read_only = read_only
        self._hosts = hosts
        self._renew = renew

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # which optuna-dashboard counts on
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        start_response = _guarded(start_response, path)
        host = re.sub(r":\d+$", "", environ.get("HTTP_HOST", ""))
        if self._hosts is not None and host not in self._hosts:
            return _refuse(start_response, f"this page is not at {host}")
        if method not in ("GET", "HEAD"):
            if self._read_only:
                return _refuse(start_response, "this dashboard is read-only")
            if method != "PUT" or not _NOTE.fullmatch(path):
                reason = "only notes are changed here; studies by clrsearch cancel, retry, delete"
                return _refuse(start_response, reason)
        elif found := _STUDY.match(path):
            self._renew(int(found[1]))
        return self._application(environ, start_response)


def _guarded(start_response: Callable[..., Any], path: str) -> Callable[..., Any]:
    """The same with headers that tell a browser what it may do with the answer."""
    is_artifact = path.startswith("/artifacts/")
    ours = {
        "Content-Security-Policy": _POLICY_OF_ARTIFACTS if is_artifact else _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    def start(status: str, headers: list[tuple[str, str]], *exception: Any) -> Any:
        kept = [
            (name, each)
            for name, each in headers
            if name not in ours and not name.startswith("Access-Control-")
        ]
        added = list(ours.items())
        if is_artifact and ("Content-Type", "image/png") not in headers:
            added.append(("Content-Disposition", "attachment"))
        return start_response(status, kept + added, *exception)

    return start


def _refuse(start_response: Callable[..., Any], reason: str) -> list[bytes]:
    start_response("403 Forbidden", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]


def _renew(overlay: Overlay, extras: Extras, study_id: int) -> None:
    """Look at a study again; in an outage, what was seen last is shown."""
    with suppress(*DATABASE_ERRORS, KeyError):  # there is no such study
        extras.renew(study_id, overlay.name_of(study_id))


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per request, none of which keeps the process alive."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A traceback, unless a browser has only hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Silent(WSGIRequestHandler):
    """Says nothing of requests, for whoever made one has been answered."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _listen(host: str, port: int, application: Application) -> WSGIServer:
    try:
        return make_server(host, port, application, server_class=_Server, handler_class=_Silent)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            reason = error.strerror or str(error)
            raise PlanError(f"--host {host} --port {port}: {reason}") from error
        free = next(
            filter(partial(_is_free, host), range(port + 1, min(port + LOOKED_FOR, PORTS))), None
        )
        instead = "" if free is None else f": --port {free} is free"
        raise PlanError(f"port {port} of {host} is in use{instead}") from error


def _is_loopback(host: str) -> bool:
    """Whether it is a name or an address of this machine for itself."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False
