"""On a host: try to take over what is held, without watching it first; print what came of it.

That is how many seconds its clock is ahead of the database's, how many tries there were, how many
leases looked as if they had run out, how many slots it got.
"""

from __future__ import annotations

import json
import os
import time

import harness

from clrsearch.search import Study
from clrsearch.storage import StorageUrl, open_database, quiet_optuna

GREEDY = 10.0  # seconds in which a host tries to take over whatever is held


def main() -> None:
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


if __name__ == "__main__":
    main()
