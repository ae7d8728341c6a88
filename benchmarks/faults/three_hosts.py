"""Three hosts share a database; one is cut off for longer than a lease and joined again.

    python benchmarks/faults/three_hosts.py [--cases own-folders shared-folder ...] [--away 35]

A host is a network namespace with an address, a cable to a bridge and a name of its own, in which
``clrsearch worker`` runs; the database is a PostgreSQL that asks for a password, at the bridge's
address. Triggers note which address changed which row, so that nothing a host writes stays unseen.
The clocks of ``clocks`` and ``clocks-cut`` are set by libfaketime. As root, with iproute2.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import harness
import sqlalchemy as sa
from audit import audit
from cut_off import about_to_be_cut, cells_of_cut, check_cut, cut_off
from harness import Place
from hosts import Case, Hosts, of_host
from network import HOSTS, Network, Server, ask, hosts_and_server
from script import command_line
from sleeper import until

from clrsearch.search import StudyPlan
from clrsearch.storage import StorageUrl

FIRST = 3  # trials, one for each host; the others are added once a slot has been taken over
TRIALS = 10
EPOCHS = 8

CASES = {
    "own-folders": Case(),
    "shared-folder": Case(shared=True),
    "clocks": Case(cut=False, hours={1: 5, 2: -5}),
    "clocks-cut": Case(hours={1: 5, 2: -5}),
}


@contextmanager
def held_up(server: Server, hosts: Hosts) -> Iterator[None]:
    """Whoever reads the slots waits until the block ends and all hosts have come so far."""
    engine = sa.create_engine(StorageUrl(hosts.place.url).reveal(), poolclass=sa.NullPool)
    waiting = (
        "SELECT DISTINCT client_addr FROM pg_stat_activity "
        f"WHERE wait_event_type = 'Lock' AND client_addr << '{hosts.network.subnet}.0/24'"
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE clrsearch_slots IN ACCESS EXCLUSIVE MODE")
        yield
        until("three workers", lambda: len(ask(server.url, waiting)) == HOSTS, 240)


def begin(hosts: Hosts, server: Server, plan: StudyPlan) -> None:
    """Make the study, and let a worker on each host begin at the same moment."""
    place = hosts.place
    harness.begin(place, plan)
    audit(place)
    with held_up(server, hosts):
        for host in range(1, HOSTS + 1):
            hosts.hire(host)


def run(case: Case, network: Network, server: Server, away: float) -> list[object]:
    """One study; the cells of its row."""
    with harness.temporary_folder() as folder:
        place = Place(url=server.studies(), folder=folder)
        hosts = Hosts(network, place, case)
        began = time.monotonic()
        try:
            begin(hosts, server, harness.plan(FIRST if case.cut else TRIALS))
            if case.cut:
                seen = cut_off(hosts, away, TRIALS)
                found = hosts.wait(300) + check_cut(hosts, seen)
                cells = [clocks(case.hours), *cells_of_cut(hosts, seen, server)]
            else:
                about_to_be_cut(hosts)
                off, found = hosts.be_greedy()
                found += hosts.wait(300)
                found += [f"taken over: {slot}" for slot in place.slots() if slot.attempt != 1]
                cells = [clocks(off), *["-"] * 7]
            took = time.monotonic() - began
            found += [f"left: {path}" for path in place.checkpoints.rglob("*.pt")]
            harness.require(found + harness.complaints(place, TRIALS))
        finally:
            hosts.close()
            network.join(1)
        each = [sum(of_host(slot, host) for slot in place.slots()) for host in range(1, HOSTS + 1)]
        epochs = len(hosts.epochs())
        shared = " / ".join(map(str, each))
        return [*cells, shared, epochs, epochs - TRIALS * EPOCHS, round(took)]


def clocks(hours: Mapping[int, float]) -> str:
    """By how many hours the hosts' clocks are off."""
    return " / ".join(f"{hours.get(host, 0):+.1f}" for host in range(1, HOSTS + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--away", type=float, default=35.0, help="seconds, at least")
    asked = command_line(parser, epoch_seconds="1.5", root_to="makes network namespaces")
    with hosts_and_server() as (network, server):
        harness.header(
            *("case", "clocks off by h", "s cut off", "s until taken over"),
            *("epochs saved then", "epochs trained while cut off", "rows written while cut off"),
            *("s from joined to a new slot", "sessions of the cut-off host left on the server"),
            *("slots finished by host 1 / 2 / 3", "epochs trained", "of them twice", "s"),
        )
        for name in asked.cases:
            harness.row(name, *run(CASES[name], network, server, asked.away))


if __name__ == "__main__":
    main()
