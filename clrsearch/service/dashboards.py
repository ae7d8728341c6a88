"""Serve optuna-dashboard for the studies; by default only on this machine."""

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
LOOKED_FOR = 100  # ports to try above one that is in use
PORTS = 65536
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_STUDY = re.compile(r"/api/studies/(\d+)")
_NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' data: 'unsafe-inline'; "
    "script-src 'self' 'unsafe-eval'; frame-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The least that the dashboard's pages need; its parallel-coordinate plots compile WebGL code."""
_POLICY_OF_ARTIFACTS = "default-src 'none'; frame-ancestors 'none'; sandbox"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A listening server. ``url`` is the page to open; with ``read_only`` nothing is written."""

    url: str
    read_only: bool
    server: WSGIServer

    def serve(self) -> None:
        """Serve requests until the server is shut down or the call is interrupted."""
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
    """Serve optuna-dashboard with clrsearch's notes, figures and artifacts inside a ``with`` block.

    Only notes edited in the dashboard are stored, and not even those with ``read_only`` or if the
    database role may not write. There is no authentication: anyone who can reach ``host`` can see
    everything.

    Raises:
        PlanError: the port is in use, or ``host`` is not an address of this machine.
        StudyError: there is no study ``name``.
    """
    from optuna_dashboard import wsgi

    quiet_optuna()
    url = storage_url(storage)
    with warnings.catch_warnings(), open_database(url) as database:
        warnings.simplefilter("ignore")  # from other packages; the user cannot act on them
        page = "/dashboard"
        read_only = read_only or bool(condition(database).refused)
        extras = Extras(database, lambda study: bind_rate(study, Manual.family, task_dir))
        overlay = Overlay(database, extras)
        if name is not None:
            study_id = Study.open(database, name).id
            extras.renew(study_id, name)
            page = f"/dashboard/studies/{study_id}"
        guarded = Guard(
            wsgi(overlay, Artifacts(extras)),
            read_only=read_only,
            hosts=LOOPBACK | {host} if _is_loopback(host) else None,
            renew=lambda study_id: _renew(overlay, extras, study_id),
        )
        with _listen(host, port, guarded) as server:
            # notes check their code with torch: import it while the user looks at the list
            threading.Thread(target=import_module, args=("torch",), daemon=True).start()
            yield Dashboard(
                url=f"http://{host}:{server.server_port}{page}",
                read_only=read_only,
                server=server,
            )


class Guard:
    """WSGI middleware that refuses requests to change studies, and requests for other hosts.

    The dashboard can delete and rename studies and end trials, without updating our slots; all of
    that is refused. ``hosts`` are the host names that are accepted, None for any. This stops DNS
    rebinding, where another site points its own name to this machine.

    Anyone with write access to the database can choose notes, figures and names. Therefore no
    response can run a script other than the dashboard's own, and no page of another site can read
    a response.
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
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # optuna-dashboard requires it
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        start_response = _guarded(start_response, path)
        host = re.sub(r":\d+$", "", environ.get("HTTP_HOST", ""))
        if self._hosts is not None and host not in self._hosts:
            return _refuse(start_response, f"this dashboard is not served at {host}")
        if method not in ("GET", "HEAD"):
            if self._read_only:
                return _refuse(start_response, "this dashboard is read-only")
            if method != "PUT" or not _NOTE.fullmatch(path):
                reason = "only notes can be edited here; see clrsearch cancel, retry and delete"
                return _refuse(start_response, reason)
        elif found := _STUDY.match(path):
            self._renew(int(found[1]))
        return self._application(environ, start_response)


def _guarded(start_response: Callable[..., Any], path: str) -> Callable[..., Any]:
    """``start_response`` with security headers added for the browser."""
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
    """Refresh a study's notes and figures; during an outage the last ones stay."""
    with suppress(*DATABASE_ERRORS, KeyError):  # there is no such study
        extras.renew(study_id, overlay.name_of(study_id))


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a daemon thread per request."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, unless the browser has just closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Silent(WSGIRequestHandler):
    """A request handler that does not log requests."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


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
        raise PlanError(f"port {port} on {host} is in use{instead}") from error


def _is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback name or address."""
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
