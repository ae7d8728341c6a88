"""Hosts as network namespaces, and a database server that they reach. As root, with iproute2."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import harness
import sqlalchemy as sa
from harness import PrivatePostgres

from clrsearch.storage import StorageUrl

HOSTS = 3
SUBNETS = ("198.51.100", "203.0.113")  # for documentation (RFC 5737): nobody is there
PASSWORD = "three{}@/:"


@contextmanager
def hosts_and_server() -> Iterator[tuple[Network, Server]]:
    """A network of hosts, and the server that they reach; neither is left behind."""
    require_namespaces()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was laid is taken up again
    with ExitStack() as stack:
        network = Network(stack)
        server = Server(stack.enter_context(harness.temporary_folder()), network)
        server.start()
        stack.callback(server.stop, "immediate")
        server.admit()
        yield network, server


def require_namespaces() -> None:
    """End where network namespaces cannot be made, saying why."""
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"no network namespaces: {' and '.join(missing)} not installed")


def command(*arguments: object) -> None:
    """Run a command of the system, whose complaint ends the script."""
    done = subprocess.run([str(each) for each in arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")


def free_subnet() -> str:
    """The first three numbers of addresses that this machine does not use."""
    for subnet in SUBNETS:
        if not subprocess.check_output(["ip", "route", "show", "root", f"{subnet}.0/24"]):
            return subnet
    raise SystemExit(f"the networks {' and '.join(SUBNETS)} are in use on this machine")


class Network:
    """A bridge, and hosts that are plugged into it; they are counted from 1."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._bridge = f"cs{os.getpid()}"
        self.subnet = free_subnet()
        self.address = f"{self.subnet}.254"
        self._lay("ip", "link", "add", self._bridge, "type", "bridge")
        command("ip", "address", "add", f"{self.address}/24", "dev", self._bridge)
        command("ip", "link", "set", self._bridge, "up")
        for host in range(1, HOSTS + 1):
            self._plug_in(host)

    def address_of(self, host: int) -> str:
        return f"{self.subnet}.{host}"

    def cut(self, host: int) -> None:
        """Pull the cable out of the switch: no packet passes, and nobody is told."""
        command("ip", "link", "set", self._cable(host), "down")

    def join(self, host: int) -> None:
        command("ip", "link", "set", self._cable(host), "up")

    def on(self, host: int, hours: int = 0) -> tuple[str, ...]:
        """What a command line begins with that is to run on a host, in its own first process."""
        named = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'
        entered = ("ip", "netns", "exec", self._cable(host), "unshare", "--uts")
        return *entered, "sh", "-c", named, f"host{host}", *clock(hours)

    def _cable(self, host: int) -> str:
        """The name of a host's namespace, and of its cable's end at the bridge."""
        return f"{self._bridge}.{host}"

    def _plug_in(self, host: int) -> None:
        name = self._cable(host)
        inside = ("ip", "-n", name)
        self._lay("ip", "netns", "add", name)
        self._lay("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", name)
        command(*inside, "address", "add", f"{self.address_of(host)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            command(*inside, "link", "set", device, "up")
        command("ip", "link", "set", name, "master", self._bridge, "up")

    def _lay(self, *words: str) -> None:
        """Add something by ``ip KIND add NAME ...``, which is removed when the script ends."""
        try:
            command(*words)
        except SystemExit as error:
            raise SystemExit(
                f"no network namespaces can be made on this machine: {error}"
            ) from None
        program, kind, _, name, *_ = words
        undo = [program, kind, "del", name]
        self._stack.callback(subprocess.run, undo, capture_output=True, check=False)


def clock(hours: int) -> tuple[str, ...]:
    """What a command line begins with whose wall clock is to be off; the steady one is not."""
    if not hours:
        return ()
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise SystemExit(
            "no libfaketime (Debian's package faketime): choose --cases without clocks"
        )
    off = (f"LD_PRELOAD={found[0]}", f"FAKETIME={hours:+}h", "FAKETIME_DONT_FAKE_MONOTONIC=1")
    return "env", *off


class Server(PrivatePostgres):
    """A server that the hosts reach, and that wants the password of their role."""

    def __init__(self, folder: Path, network: Network) -> None:
        super().__init__(folder)
        self._options += f" -c listen_addresses=127.0.0.1,{network.address}"
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network.subnet}.0/24 scram-sha-256\n")
        far = sa.make_url(self.url).set(host=network.address, username="hosts", password=PASSWORD)
        self._far = far.set(database="studies")

    def admit(self) -> None:
        """Make the role of the hosts."""
        harness.execute(self.url, f"CREATE ROLE hosts LOGIN PASSWORD '{PASSWORD}'")

    def studies(self) -> str:
        """The URL, for the hosts, of the database for studies, which is made anew."""
        harness.execute(self.empty_database(), "ALTER DATABASE studies OWNER TO hosts")
        return self._far.render_as_string(hide_password=False)

    def sessions(self, address: str) -> int:
        """How many connections the server holds that came from an address."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE client_addr = '{address}'"
        return int(ask(self.url, query)[0]["count"])


def ask(url: str, query: str) -> list[Mapping[str, Any]]:
    """The rows of a query, on a connection of its own."""
    engine = sa.create_engine(StorageUrl(url).reveal(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(query)).mappings()]
