"""Workers in a SLURM job array are preempted or run out of time and are queued again: they go on.

    python benchmarks/faults/slurm_cluster.py [--cases launch-grace no-grace ...]

A cluster of this machine alone: slurmctld and slurmd with a configuration of their own, a partition
``normal`` and one, ``urgent``, before which the jobs of the former must give way. Four workers run
in an array of four jobs, submitted by ``clrsearch launch slurm`` or by a script for sbatch; once
each has trained two epochs, a job that needs the whole machine is submitted to ``urgent``, or their
time runs out. As root, with Debian's slurmctld, slurmd, slurm-client and slurm-wlm-basic-plugins;
PostgreSQL is a server of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Place, SlotRow
from script import command_line
from sleeper import until

TASKS = 4
EPOCHS = 8
URGENT = 5  # seconds that the urgent job takes
LIMIT = 400.0  # seconds until the array must be done

PLAIN = "exec {worker}"
# A worker that was asked to leave ends in good order, which SLURM takes for the end of its job.
REQUEUES = """\
{worker} & worker=$!
trap 'asked=yes; kill -USR2 $worker' USR2
wait $worker
while kill -0 $worker 2>/dev/null; do wait $worker; done
test -z "$asked" || scontrol requeue $SLURM_JOB_ID"""

CONFIGURATION = """\
ClusterName=faults
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=10
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={tasks} State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES PriorityTier=1 GraceTime={grace} MaxTime=60
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=60
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a worker's job is cut short, and the lines of the job."""

    trials: int = 10
    preempted: bool = True
    grace: int = 20  # seconds from USR2 until a preempted job is killed; 0: killed by SIGTERM first
    script: str | None = None  # submitted with sbatch; none: launch slurm writes it
    minutes: int = 60  # the time limit


CASES = {
    "launch-grace": Case(),
    "launch-no-grace": Case(grace=0),
    "launch-time-out": Case(trials=48, preempted=False, minutes=3),
    "grace": Case(script=REQUEUES),
    "no-grace": Case(grace=0, script=PLAIN),
    "time-out": Case(trials=24, preempted=False, script=REQUEUES, minutes=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of the array, as SLURM sees it."""

    state: str
    restarts: int


def call(*arguments: object) -> str:
    """What a command of SLURM prints."""
    done = subprocess.run([str(each) for each in arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def cluster(folder: Path, grace: int) -> Iterator[None]:
    """A SLURM of this machine, which ``SLURM_CONF`` names; stopped afterwards."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"no {', '.join(missing)}: SLURM is not installed")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "plugstack.conf").touch()
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    ports = {"controller": free_port(), "daemon": free_port()}
    configuration.write_text(
        CONFIGURATION.format(host=host, folder=folder, tasks=TASKS, grace=grace, **ports)
    )
    os.environ["SLURM_CONF"] = str(configuration)
    with ExitStack() as stack:
        for name in ("slurmctld", "slurmd"):
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            daemon = subprocess.Popen([name, "-D"], stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
        until("an idle node", lambda: "idle" in (sinfo() or ""), 60)
        stack.callback(empty)
        yield


def sinfo() -> str | None:
    """The states of the nodes; None before the controller answers."""
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def empty() -> None:
    """End all jobs."""
    subprocess.run(["scancel", "--partition=normal"], check=False)
    subprocess.run(["scancel", "--partition=urgent"], check=False)
    end = time.monotonic() + 30
    while call("squeue", "-h") and time.monotonic() < end:
        time.sleep(0.5)


def submit(place: Place, case: Case) -> int:
    """The number of the array of workers."""
    os.environ["CLRSEARCH_STORAGE"] = place.url  # jobs are given the environment of sbatch
    options = (
        *("--device", "cpu", "--checkpoint-seconds", "0"),
        *("--task-dir", harness.TASKS, "--checkpoint-dir", place.checkpoints),
    )
    command = [sys.executable, "-m", "clrsearch"]
    if case.script is None:
        said = call(
            *(*command, "launch", "slurm", harness.STUDY, "--workers", TASKS, *options),
            *("--time-limit", case.minutes, "--log-dir", place.folder / "jobs"),
        )
        return int(re.findall(r"jobs as (\d+)", said)[0])
    worker = shlex.join(map(str, [*command, "worker", harness.STUDY, *options]))
    return int(
        call(
            *("sbatch", "--parsable", f"--array=0-{TASKS - 1}", "--requeue", "--cpus-per-task=1"),
            *("--signal=B:USR2@10", f"--output={place.folder}/worker-%a.log"),
            *("--open-mode=append", f"--time={case.minutes}"),
            *("--wrap", case.script.format(worker=worker)),
        )
    )


def tasks_of(array: int) -> list[Task]:
    """The tasks of an array."""
    shown = call("scontrol", "--oneliner", "show", "job", array).splitlines()
    fields = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown]
    return [Task(state=each["JobState"], restarts=int(each["Restarts"])) for each in fields]


def at_work(place: Place) -> list[SlotRow]:
    """The slots that are held, once each task holds one and has trained two epochs."""
    held = [s for s in place.slots() if s.state == "claimed" and (s.checkpoint or 0) >= 2]
    return held if len(held) == TASKS else []


def preempt() -> None:
    """Let an urgent job take the machine, and wait until it has ended."""
    options = ("--partition=urgent", f"--ntasks={TASKS}", "--output=/dev/null")
    urgent = call("sbatch", "--parsable", *options, "--wrap", f"sleep {URGENT}").strip()
    until("the urgent job", lambda: "COMPLETED" in call("scontrol", "show", "job", urgent), 120)


def run(case: Case) -> tuple[list[object], list[str]]:
    """One study: the cells of its row, and what should not have been seen."""
    with ExitStack() as stack:
        server = stack.enter_context(harness.private_postgres())
        folder = stack.enter_context(harness.temporary_folder())
        place = Place(url=server.empty_database(), folder=folder)
        harness.begin(place, harness.plan(case.trials))
        stack.enter_context(cluster(folder, case.grace))
        began = time.monotonic()
        array = submit(place, case)
        before = until("two epochs in each task", lambda: at_work(place), LIMIT)
        cut = time.monotonic()
        if case.preempted:
            preempt()
        until("a task again", lambda: any(each.restarts for each in tasks_of(array)), LIMIT)

        def done() -> bool:
            return {each.state for each in tasks_of(array)} <= {"COMPLETED", "FAILED"}

        until("the end of the array", done, LIMIT)
        took = time.monotonic() - began
        tasks, slots = tasks_of(array), place.slots()
        epochs = len(place.epochs_trained())
        found = harness.complaints(place, case.trials)
        found += [f"{task}" for task in tasks if task.state != "COMPLETED" or not task.restarts]
        if case.preempted:
            kept = [s for s in before if slots[s.number].trial == s.trial]
            again = [s for s in before if slots[s.number].attempt == 2]
            if not len(kept) == len(again) == len(before):
                found.append(f"{before} became {slots}")
        words = "".join(path.read_text() for path in sorted(folder.glob("**/*.log")))
        words += "".join(path.read_text() for path in sorted(folder.glob("jobs/*.err")))
        cells = [
            *(TASKS, sum(slot.attempt > 1 for slot in slots)),
            *(max(slot.attempt for slot in slots), " / ".join(str(t.restarts) for t in tasks)),
            *(epochs, epochs - case.trials * EPOCHS, round(cut - began), round(took)),
        ]
        if found:
            found.append(words[-3000:])
        return cells, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    asked = command_line(parser, epoch_seconds="1.5", root_to="starts SLURM's daemons")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the daemons are stopped
    harness.header(
        *("case", "tasks", "trials gone on with", "most attempts at a slot", "restarts of a task"),
        *("epochs trained", "of them twice", "s until all were at work", "s"),
    )
    for name in asked.cases:
        cells, found = run(CASES[name])
        harness.row(name, *cells)
        harness.require(found)


if __name__ == "__main__":
    main()
