"""A host loses its power in the middle of a transaction: how long its locks hold up the others.

    python benchmarks/faults/mid_birth.py [--idle 20]

The host has inserted its first trial, which locks the study's row, and is gone before it commits:
its cable is cut for good and its worker killed. The server learns nothing of it. Another host's
worker is to do all the trials. Without ``--idle`` the connections are as the package opens them;
with it the server ends a transaction that has been idle for so many seconds. As root, with
iproute2; see three_hosts.py.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

import harness
from harness import Place
from hosts import Case, Hosts
from network import Network, Server, ask, hosts_and_server
from script import command_line
from sleeper import until

TRIALS = 4
LIMIT = 1200.0  # seconds until the server's own time-outs must have freed the others

STALL = """
CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF host(inet_client_addr()) = '{address}' THEN PERFORM pg_sleep(4); END IF;
    RETURN NEW;
END $$;
"""
TRIGGER = "CREATE TRIGGER stall BEFORE INSERT ON trials FOR EACH ROW EXECUTE FUNCTION stall()"
ASLEEP = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def run(network: Network, server: Server, idle: int | None) -> tuple[list[object], list[str]]:
    """One study: the cells of its row, and what should not have been seen."""
    with harness.temporary_folder() as folder, ExitStack() as stack:
        place = Place(url=server.studies(), folder=folder)
        harness.begin(place, harness.plan(TRIALS))
        stall = STALL.format(address=network.address_of(1)).strip()
        harness.execute(place.url, stall, TRIGGER)
        option = f"?options=-c%20idle_in_transaction_session_timeout%3D{idle}s" if idle else ""
        hosts = Hosts(network, Place(url=place.url + option, folder=folder), Case(shared=True))
        stack.callback(hosts.close)
        hosts.hire(1)
        until("a birth", lambda: ask(server.url, ASLEEP))
        network.cut(1)
        hosts.workers.pop(1).kill()
        began = time.monotonic()
        hosts.hire(2)
        until("a claim", lambda: any(s.state == "claimed" for s in place.slots()[1:]), LIMIT)
        claimed = time.monotonic() - began
        until("a trial", lambda: any(s.trial is not None for s in place.slots()), LIMIT)
        born = time.monotonic() - began
        found = hosts.wait(120) + harness.complaints(place, TRIALS)
        took = time.monotonic() - began
        said = hosts.words(2).count("waiting for the database")
        return [idle or "-", *map(round, (claimed, born, took)), said], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, help="seconds")
    asked = command_line(parser, epoch_seconds="0.5", root_to="makes network namespaces")
    with hosts_and_server() as (network, server):
        harness.header(
            *("idle transactions ended after s", "s until the other host had claimed a slot"),
            *("s until its first trial was born", "s until all was done", "outages it told of"),
        )
        cells, found = run(network, server, asked.idle)
        harness.row(*cells)
        harness.require(found)


if __name__ == "__main__":
    main()
