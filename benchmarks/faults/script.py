"""What every script does first: read its command line, and import what its workers will need."""

from __future__ import annotations

import argparse
import importlib
import os

import torch


def command_line(
    parser: argparse.ArgumentParser, *, epoch_seconds: str, root_to: str = ""
) -> argparse.Namespace:
    """What the script is asked for, once its workers can be forked.

    Adds ``--epoch-seconds``, how long an epoch of the task lasts, with a default. ``root_to`` says
    what the script does that only root may do, if anything.
    """
    parser.add_argument("--epoch-seconds", default=epoch_seconds)
    asked = parser.parse_args()
    if root_to and os.getuid() != 0:
        raise SystemExit(f"{parser.prog} {root_to}: run it as root")
    os.environ["FAULTS_EPOCH_SECONDS"] = asked.epoch_seconds
    warm_up()
    return asked


def warm_up() -> None:
    """Import in the zygote whatever a worker would: the drivers, and torch's compiler."""
    for module in ("alembic", "psycopg", "pymysql", "clrsearch.worker.loop"):
        importlib.import_module(module)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
