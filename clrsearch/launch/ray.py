"""Workers as tasks of a Ray cluster: a local one started here, or an existing one."""

from __future__ import annotations

import ctypes
import importlib.util
import ipaddress
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from clrsearch.causes import complaint
from clrsearch.errors import ClrsearchError, ExitCode, PlanError
from clrsearch.launch.launcher import Command, how_it_ended

LAST_WORDS = (
    ExitCode.DONE,
    ExitCode.ERROR,
    ExitCode.STOPPED,
)  # not retried: another worker would end the same way
CONNECT_SECONDS = 10.0  # Ray itself would try for minutes
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """The Ray cluster to use, and the resources of each worker.

    Without an ``address``, a local cluster is started and stopped with the call. ``num_gpus`` may
    be a fraction, so that workers share a GPU. A lost worker is restarted up to ``max_retries``
    times.
    """

    address: str | None = None
    num_cpus: int = 1
    num_gpus: float = 0
    max_retries: int = 3
    allow_unauthenticated: bool = False


class WorkerLost(Exception):
    """A worker was killed or crashed, so that a retry is worthwhile."""


class RaySubmitter:
    """Hands workers over to Ray and waits for them; see :class:`Submitter`.

    Raises:
        PlanError: Ray is not installed, or anyone can run code at the address.
    """

    def __init__(self, cluster: RayCluster) -> None:
        _require_authentication(cluster)
        if importlib.util.find_spec("ray") is None:
            raise PlanError("Ray is not installed: pip install 'clrsearch[ray]'")
        self._cluster = cluster

    def render(self, commands: Sequence[Command]) -> str:
        """The cluster, the resources of each task, and the tasks' commands."""
        cluster = self._cluster
        place = "a new local cluster" if cluster.address is None else cluster.address
        lines = [
            f"# Ray: {place}; each task: num_cpus={cluster.num_cpus}, "
            f"num_gpus={cluster.num_gpus:g}, max_retries={cluster.max_retries}",
            *(shlex.join(command.arguments) for command in commands),
        ]
        return "\n".join(lines)

    def submit(self, commands: Sequence[Command]) -> str:
        """Run the tasks and wait until all have ended: their cluster ends with this process.

        Raises:
            ClrsearchError: there is no cluster, or workers failed.
        """
        import ray
        from ray.exceptions import RayError

        cluster = self._cluster
        _connect(cluster, commands)
        try:
            task = ray.remote(
                num_cpus=cluster.num_cpus,
                num_gpus=cluster.num_gpus,
                max_retries=cluster.max_retries,
                retry_exceptions=[WorkerLost],
            )(attend)
            codes: list[object] = []
            for each in [task.remote(list(command.arguments)) for command in commands]:
                try:
                    codes.append(ray.get(each))
                except RayError as error:
                    codes.append(str(error).strip().splitlines()[-1])
        finally:
            ray.shutdown()
        failed = [code for code in codes if code != 0]
        if failed:
            raise ClrsearchError(f"{len(failed)} of {len(codes)} workers gave up: {failed[-1]}")
        return f"{len(codes)} workers have exited"


def attend(arguments: Sequence[str]) -> int | str:
    """Inside a task: run a worker to completion; returns 0, or its error.

    Raises:
        WorkerLost: it was killed or crashed.
    """
    # keep its error output: Ray does not show the exit code of a task's child
    child = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, preexec_fn=_end_with_parent()
    )
    said = child.communicate()[1]
    sys.stderr.write(said)
    if child.returncode not in LAST_WORDS:
        raise WorkerLost(f"a worker {how_it_ended(child.returncode)}")
    return (child.returncode and complaint(said)) or child.returncode


def _end_with_parent() -> Callable[[], object] | None:
    """A ``preexec_fn`` that has the child sent SIGTERM when its task's process is killed."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _connect(cluster: RayCluster, commands: Sequence[Command]) -> None:
    """Start a cluster whose processes inherit the commands' environment, or join one and pass it.

    Raises:
        ClrsearchError: there is no cluster at the address.
    """
    import ray

    address, environment = cluster.address, dict(commands[0].environment)
    if address is not None:
        try:
            if address != "auto":
                place = _split(address)
                reached = place.hostname, place.port or 10001  # the default port of Ray Client
                socket.create_connection(reached, timeout=CONNECT_SECONDS).close()
            ray.init(address=address, runtime_env={"env_vars": environment})
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ClrsearchError(
                f"no Ray cluster at {address}, or one that requires a token (RAY_AUTH_MODE=token, "
                f"RAY_AUTH_TOKEN): {reason}"
            ) from error
        return
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        ray.init(
            address="local", num_cpus=len(commands) * cluster.num_cpus, include_dashboard=False
        )
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _require_authentication(cluster: RayCluster) -> None:
    """Reject an address at which anyone who can reach it can run code.

    Raises:
        PlanError: the address requires no authentication, or is that of Ray's job API.
    """
    address = cluster.address
    if address is None or address == "auto":
        return
    url = _split(address)
    safe = _is_loopback(url.hostname or "") or os.environ.get("RAY_AUTH_MODE") == "token"
    if not safe and not cluster.allow_unauthenticated:
        raise PlanError(
            f"Ray at {address} runs any code sent by anyone who can reach it, unless token "
            "authentication is on: set RAY_AUTH_MODE=token there and here, with the cluster's "
            "token, or accept the risk with --allow-unauthenticated"
        )
    if url.scheme in ("http", "https"):
        raise PlanError(
            f"{address} is Ray's job API: use the cluster's own address (HOST:6379), or submit "
            f"workers with ray job submit --address {address} -- clrsearch worker NAME"
        )


def _split(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"ray://{address}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
