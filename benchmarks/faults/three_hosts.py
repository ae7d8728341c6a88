"""Three hosts share a database; one is cut off for longer than a lease and joined again.

    python benchmarks/faults/three_hosts.py [--cases own-folders shared-folder ...] [--away 35]

A host is a network namespace with an address, a cable to a bridge and a name of its own, in which
``clrsearch worker`` runs; the database is a PostgreSQL that asks for a password, at the bridge's
address. Triggers note which address changed which row, so that nothing a host writes stays unseen.
The clocks of ``clocks`` and ``clocks-cut`` are set by libfaketime. As root, with iproute2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import sqlalchemy as sa
from harness import Place, PrivatePostgres, SlotRow
from sleeper import until

from clrsearch.search import Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database, quiet_optuna

HOSTS = 3
FIRST = 3  # trials, one for each host; the others are added once a slot has been taken over
TRIALS = 10
EPOCHS = 8
SUBNETS = ("198.51.100", "203.0.113")  # for documentation (RFC 5737): nobody is there
PASSWORD = "three{}@/:"
LONGEST_RETURN = 60.0  # seconds from the joining to a new slot
SETTLED = 1.0  # seconds after the cut, in which what was under way may still arrive
PROMPT = 2.5  # seconds from the end of an epoch until its checkpoint is stored
GREEDY = 10.0  # seconds in which a host tries to take over whatever is held

AUDIT = """
CREATE TABLE audit (
    at double precision DEFAULT extract(epoch FROM clock_timestamp()),
    host text DEFAULT host(inet_client_addr()), place text, entry jsonb
);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (place, entry)
    VALUES (TG_TABLE_NAME, CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END);
    RETURN NULL;
END $$;
"""
# Under libfaketime 0.9.10 with a true steady clock, the system call of time.sleep is refused.
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
NOTED = (
    *("clrsearch_slots", "trials", "trial_values", "trial_params", "trial_intermediate_values"),
    *("trial_user_attributes", "trial_system_attributes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Whether the hosts see each other's checkpoints, whether one is cut off, and their clocks."""

    shared: bool = False
    cut: bool = True
    hours: Mapping[int, int] = field(default_factory=dict)  # by which a host's clock is off


CASES = {
    "own-folders": Case(),
    "shared-folder": Case(shared=True),
    "clocks": Case(cut=False, hours={1: 5, 2: -5}),
    "clocks-cut": Case(hours={1: 5, 2: -5}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A row that was changed: when by the database's clock, from which address, what it is now."""

    at: float
    host: str
    place: str
    entry: Mapping[str, Any]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What was seen of the host that was cut off: its slot as it was then, and who took it over.

    ``cut`` and ``joined`` are times; ``took`` the seconds from the cut to the takeover, ``back``
    those from the joining to a new slot. ``changes`` are the times at which the checkpoint of the
    slot's trial has changed since the takeover, in a folder that all hosts see.
    """

    slot: SlotRow
    owner: int
    cut: float
    joined: float
    took: float
    back: float
    changes: Sequence[float]


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


def grow(place: Place) -> None:
    """Add slots, as ``clrsearch run`` with more ``--trials`` does."""
    quiet_optuna()
    with open_database(StorageUrl(place.url)) as database:
        Study.open(database, harness.STUDY).grow(TRIALS)


def be_greedy() -> None:
    """On a host: try to take over what is held, without watching it first; print what came of it.

    That is how many seconds its clock is ahead of the database's, how many tries there were, how
    many leases looked as if they had run out, how many slots it got.
    """
    quiet_optuna()
    tries = expired = taken = 0
    with open_database(StorageUrl(os.environ["CLRSEARCH_STORAGE"])) as database:
        slots = Study.open(database, harness.STUDY).slots
        end = time.monotonic() + GREEDY
        while time.monotonic() < end:
            for claim in slots.claims():
                tries += 1
                expired += claim.expired
                taken += slots.take_over(claim, "greedy") is not None
            time.sleep(0.2)
        with database.engine.connect() as connection:
            now = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())")
            ahead = time.time() - float(now.scalar_one())
    print(json.dumps([ahead, tries, expired, taken]))


class Hosts:
    """The worker of each host, on the study at a place."""

    def __init__(self, network: Network, place: Place, case: Case) -> None:
        self.network = network
        self.place = place
        self._case = case
        self.workers: dict[int, subprocess.Popen[bytes]] = {}

    def hire(self, host: int) -> None:
        """Start the host's worker."""
        folder = self.place.checkpoints / ("all" if self._case.shared else f"host{host}")
        words = ("-m", "clrsearch", "worker", harness.STUDY, "--device", "cpu")
        options = ("--checkpoint-seconds", "0", "--checkpoint-dir", str(folder))
        with self._log(host).open("w") as log:
            self.workers[host] = subprocess.Popen(
                [*self._begins(host), *words, "--task-dir", str(harness.TASKS), *options],
                env=self._environment(host),
                stdout=log,
                stderr=log,
            )

    def be_greedy(self) -> tuple[dict[int, float], list[str]]:
        """Let each host try to take over what lives: hours its clock is off, what is strange."""
        tries = {
            host: subprocess.Popen(
                [*self._begins(host), __file__, "--greedy"],
                env=self._environment(host),
                stdout=subprocess.PIPE,
                text=True,
            )
            for host in self.workers
        }
        off: dict[int, float] = {}
        found: list[str] = []
        for host, script in tries.items():
            said = script.communicate()[0]
            if script.returncode:
                raise SystemExit(f"the greedy process of host{host} has failed")
            ahead, tried, expired, taken = json.loads(said)
            off[host] = ahead / 3600
            if not tried or expired or taken:
                found.append(f"host{host}: {expired} expired, {taken} taken of {tried}")
        return off, found

    def epochs(self) -> list[tuple[float, int]]:
        """When, by the script's clock, and on which host each epoch was finished."""
        host_of = {worker.pid: host for host, worker in self.workers.items()}
        trained = [(at, host_of[pid]) for at, pid in self.place.epochs_trained()]
        return [(at - 3600 * self._case.hours.get(host, 0), host) for at, host in trained]

    def wait(self, seconds: float) -> list[str]:
        """Until all have left; those that have not, or not in good order."""
        deadline = time.monotonic() + seconds
        found = []
        for host, worker in self.workers.items():
            try:
                code = worker.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                found.append(f"the worker of host{host} has not left: {self.words(host)}")
                continue
            if code:
                found.append(f"the worker of host{host} ended with {code}: {self.words(host)}")
        return found

    def close(self) -> None:
        """End all that are left."""
        for worker in self.workers.values():
            worker.kill()
            worker.wait()

    def words(self, host: int) -> str:
        """What the host's worker has written."""
        return self._log(host).read_text(encoding="utf-8")[-2000:]

    def _begins(self, host: int) -> tuple[str, ...]:
        return *self.network.on(host, self._case.hours.get(host, 0)), sys.executable

    def _environment(self, host: int) -> dict[str, str]:
        environment = os.environ | {"CLRSEARCH_STORAGE": self.place.url}
        if host in self._case.hours:
            first = self.place.folder / "first"
            first.mkdir(exist_ok=True)
            (first / "sitecustomize.py").write_text(SLEEP)
            paths = (str(first), os.environ.get("PYTHONPATH", ""))
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return environment

    def _log(self, host: int) -> Path:
        return self.place.folder / f"host{host}.log"


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
    triggers = [
        f"CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION note()"
        for table in NOTED
    ]
    harness.execute(place.url, AUDIT.strip(), *triggers)
    with held_up(server, hosts):
        for host in range(1, HOSTS + 1):
            hosts.hire(host)


def of_host(slot: SlotRow, host: int) -> bool:
    return (slot.worker or "").startswith(f"host{host}:")


def held(place: Place, host: int) -> SlotRow | None:
    """The slot that a host holds, if any."""
    mine = [s for s in place.slots() if s.state == "claimed" and of_host(s, host)]
    return mine[0] if mine else None


def about_to_be_cut(hosts: Hosts) -> SlotRow:
    """Wait until all hosts hold a slot and the first has trained two epochs: its slot."""

    def ready() -> SlotRow | None:
        mine = held(hosts.place, 1)
        if mine is None or (mine.checkpoint or 0) < 2:
            return None
        late = [host for host in (2, 3) if held(hosts.place, host) is None]
        return None if late else mine

    return until("a slot on each host, two epochs on the first", ready)


def cut_off(hosts: Hosts, away: float) -> Cut:
    """Cut the first host off until its slot is taken over and ``away`` seconds have passed."""
    place, network = hosts.place, hosts.network
    slot = about_to_be_cut(hosts)
    network.cut(1)
    cut, began = time.time(), time.monotonic()
    until("taken over", lambda: place.slots()[slot.number].attempt == 2)
    took = time.monotonic() - began
    owner = 2 if of_host(place.slots()[slot.number], 2) else 3
    harness.in_child(grow, place)
    changes = watch(place, slot, end=began + away)
    network.join(1)
    joined = time.time()

    def has_new() -> bool:
        return any(of_host(each, 1) and each.number != slot.number for each in place.slots())

    changes += watch(place, slot, end=time.monotonic() + LONGEST_RETURN, met=has_new)
    back = time.time() - joined
    if not has_new():
        raise SystemExit(f"no new slot on the host that was cut off: {hosts.words(1)}")

    def ended() -> bool:
        return place.slots()[slot.number].state != "claimed"

    changes += watch(place, slot, end=time.monotonic() + 120, met=ended)
    return Cut(
        slot=slot, owner=owner, cut=cut, joined=joined, took=took, back=back, changes=changes
    )


def watch(
    place: Place, slot: SlotRow, *, end: float, met: Callable[[], bool] = lambda: False
) -> list[float]:
    """When the checkpoint of a slot's trial is changed, in a folder that all hosts see."""
    changes: list[float] = []
    before = stat(place, slot)
    while time.monotonic() < end and not met():
        now = stat(place, slot)
        if now not in (before, None):
            changes.append(time.time())
        before = now
        time.sleep(0.1)
    return changes


def stat(place: Place, slot: SlotRow) -> tuple[int, int] | None:
    """Which file the checkpoint of a slot's trial is, in a folder that all hosts see."""
    for path in place.checkpoints.glob(f"all/*/trial-{slot.trial}.pt"):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        return found.st_ino, found.st_mtime_ns
    return None


def writes(place: Place) -> list[Write]:
    """What was changed, in order."""
    return [Write(**row) for row in ask(place.url, "SELECT * FROM audit ORDER BY at")]


def strays(place: Place, address: str, seen: Cut) -> list[str]:
    """What the host that was cut off has written meanwhile, or for the slot that it had lost."""
    slot = seen.slot
    number = {row["trial_id"]: row["number"] for row in ask(place.url, "SELECT * FROM trials")}
    noted = writes(place)

    def concerns(write: Write) -> bool:
        if write.place == "clrsearch_slots":
            return write.entry["number"] == slot.number
        return number.get(write.entry["trial_id"]) == slot.trial

    taken = min(
        w.at
        for w in noted
        if w.place == "clrsearch_slots" and concerns(w) and w.entry["attempt"] > slot.attempt
    )
    found = [
        f"written while cut off: {w}"
        for w in noted
        if w.host == address and seen.cut + SETTLED < w.at < seen.joined
    ]
    return found + [
        f"written for a lost slot: {w}"
        for w in noted
        if w.host == address and w.at > taken and concerns(w)
    ]


def check_cut(hosts: Hosts, seen: Cut) -> list[str]:
    """What should not have been seen of a host that was cut off."""
    place, slot = hosts.place, seen.slot
    slots = place.slots()
    last = slots[slot.number]
    found = strays(place, hosts.network.address_of(1), seen)
    if last.attempt != 2 or last.trial != slot.trial or of_host(last, 1):
        found.append(f"{slot} became {last}")
    found += [f"claimed twice: {s}" for s in slots if s.attempt > 1 and s.number != slot.number]
    if not any(of_host(each, 1) for each in slots):
        found.append(f"the host that was cut off has finished nothing: {slots}")
    ends = [at for at, host in hosts.epochs() if host == seen.owner]
    strange = [at for at in seen.changes if not any(0 <= at - end < PROMPT for end in ends)]
    return found + [f"checkpoint changed at {at}, the owner's epochs: {ends}" for at in strange]


def run(case: Case, network: Network, server: Server, away: float) -> list[object]:
    """One study; the cells of its row."""
    with harness.temporary_folder() as folder:
        place = Place(url=server.studies(), folder=folder)
        hosts = Hosts(network, place, case)
        began = time.monotonic()
        try:
            begin(hosts, server, harness.plan(FIRST if case.cut else TRIALS))
            if case.cut:
                seen = cut_off(hosts, away)
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


def cells_of_cut(hosts: Hosts, seen: Cut, server: Server) -> list[object]:
    """What is told of the host that was cut off."""
    slot = seen.slot
    trained = [at for at, host in hosts.epochs() if host == 1]
    mine = [w for w in writes(hosts.place) if w.host == hosts.network.address_of(1)]
    return [
        *(f"{seen.joined - seen.cut:.1f}", f"{seen.took:.1f}"),
        slot.checkpoint,
        sum(seen.cut < at < seen.joined for at in trained),
        sum(seen.cut + SETTLED < w.at < seen.joined for w in mine),
        f"{seen.back:.1f}",
        server.sessions(hosts.network.address_of(1)),
    ]


def require_namespaces(script: str) -> None:
    """End where network namespaces cannot be made, saying why."""
    if os.getuid() != 0:
        raise SystemExit(f"{script} makes network namespaces: run it as root")
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"no network namespaces: {' and '.join(missing)} not installed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--away", type=float, default=35.0, help="seconds, at least")
    parser.add_argument("--epoch-seconds", default="1.5")
    parser.add_argument("--greedy", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.greedy:
        be_greedy()
        return
    require_namespaces("three_hosts.py")
    os.environ["FAULTS_EPOCH_SECONDS"] = asked.epoch_seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was laid is taken up again
    harness.warm_up()
    with ExitStack() as stack:
        network = Network(stack)
        server = Server(stack.enter_context(harness.temporary_folder()), network)
        server.start()
        stack.callback(server.stop, "immediate")
        server.admit()
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
