"""Sixty workers on one PostgreSQL with stock settings, which serves 97: none of them is refused.

    python benchmarks/faults/sixty_workers.py [--trials 300]

Twenty forked processes of three threads; every thread is a worker with a connection pool of its
own. Threads of one process share torch's global generators, so that no curve is compared here. It
needs PostgreSQL's programs, but no server: it starts its own.
"""

from __future__ import annotations

import argparse
import threading
import time
import traceback
from collections import Counter

import harness
import sqlalchemy as sa
from harness import FORK, Place
from optuna.trial import TrialState
from script import command_line

from clrsearch import service
from clrsearch.search import ConfirmPlan, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.worker import WorkerSettings

PROCESSES, THREADS = 20, 3
LIMIT = 400.0


def crew(place: Place, number: int) -> None:
    """Work in several threads of this process; what goes wrong is written to a file."""
    wrong: list[str] = []

    def work(thread: int) -> None:
        try:
            service.work(
                harness.STUDY,
                storage=place.url,
                settings=WorkerSettings(
                    device="cpu", task_dir=harness.TASKS, checkpoint_dir=place.checkpoints
                ),
                worker=f"crew-{number}-{thread}",
                on_wait=lambda cause: wrong.append(f"waited: {cause}"),
            )
        except BaseException:
            wrong.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    (place.folder / f"{number}.wrong").write_text("\n".join(wrong), encoding="utf-8")


def states(place: Place) -> Counter[TrialState]:
    """How many trials are in each state."""
    with open_database(StorageUrl(place.url)) as database:
        study_id = database.optuna.get_study_id_from_name(harness.STUDY)
        return Counter(trial.state for trial in database.optuna.get_all_trials(study_id))


def connections(admin: sa.Engine) -> int:
    """How many clients the server has, this one not counted."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    with admin.connect() as connection:
        return connection.execute(sa.text(query)).scalar_one() - 1


def watch(place: Place, server: harness.PrivatePostgres) -> tuple[int, float]:
    """Let all of them work to the end; the most connections at a time, and the seconds."""
    admin = sa.create_engine(StorageUrl(server.url).reveal())
    processes = [FORK.Process(target=crew, args=(place, n)) for n in range(PROCESSES)]
    began = time.monotonic()
    for each in processes:
        each.start()
    most = 0
    try:
        while any(each.is_alive() for each in processes) and time.monotonic() - began < LIMIT:
            most = max(most, connections(admin))
            time.sleep(0.05)
    finally:
        took = time.monotonic() - began
        for each in processes:
            each.kill()
        admin.dispose()
    return most, took


def check(place: Place, server: harness.PrivatePostgres, trials: int) -> list[str]:
    """What should not have been seen."""
    found = []
    for number in range(PROCESSES):
        path = place.folder / f"{number}.wrong"
        text = path.read_text(encoding="utf-8") if path.exists() else "has not left in good order"
        if text:
            found.append(f"process {number}: {text[-3000:]}")
    log = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    found += [line for line in log if "too many clients" in line or "remaining connection" in line]
    slots = place.slots()
    if [(s.number, s.state) for s in slots] != [(n, "complete") for n in range(trials)]:
        found.append(f"slots: {Counter(slot.state for slot in slots)}")
    if sorted(slot.trial for slot in slots if slot.trial is not None) != list(range(trials)):
        found.append("the slots' trials are not numbered from 0 without a gap")
    ended = harness.in_child(states, place)
    if ended != {TrialState.COMPLETE: trials}:
        found.append(f"trials: {ended}")
    twice = [slot for slot in slots if slot.attempt != 1]
    return found + [f"claimed more than once: {slot}" for slot in twice]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    asked = command_line(parser, epoch_seconds="0.005")
    plan = StudyPlan(
        task=harness.TASK,
        trials=asked.trials,
        epochs=4,
        pruner="none",
        confirm=ConfirmPlan(enabled=False),
    )
    harness.header("workers", "trials", "who trained any", "most connections", "s")
    with harness.private_postgres() as server, harness.temporary_folder() as folder:
        place = Place(url=server.empty_database(), folder=folder)
        harness.begin(place, plan)
        most, took = watch(place, server)
        who = {slot.worker for slot in place.slots()}
        harness.row(PROCESSES * THREADS, asked.trials, len(who), most, round(took))
        harness.require(check(place, server, asked.trials))


if __name__ == "__main__":
    main()
