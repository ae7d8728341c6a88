"""A table: what every recorded schedule of a task scored on every seed, after each epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clrsearch.schedules import Value
from clrsearch.tasks import TaskFacts

FOLDER = Path(__file__).parent / "tables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``values`` is (schedules, seeds, epochs): validation losses, NaN once a run has diverged.

    ``schedules`` are families and their values; runs of one seed share first weights and batches.
    """

    name: str
    facts: TaskFacts
    schedules: tuple[tuple[str, Mapping[str, Value]], ...]
    values: NDArray[np.float32]


def write(table: Table, folder: Path) -> None:
    """Store a table as ``NAME.npz``."""
    folder.mkdir(exist_ok=True)
    about = {"facts": table.facts.model_dump(mode="json"), "schedules": table.schedules}
    np.savez_compressed(
        folder / f"{table.name}.npz",
        values=table.values,
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
    )


def read(name: str, folder: Path = FOLDER) -> Table:
    """The stored table of a task."""
    with np.load(folder / f"{name}.npz") as stored:
        about = json.loads(stored["about"].tobytes())
        return Table(
            name=name,
            facts=TaskFacts.model_validate(about["facts"]),
            schedules=tuple((family, params) for family, params in about["schedules"]),
            values=stored["values"],
        )
