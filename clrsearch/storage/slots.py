"""Slots: the units of a study's budget, claimed by compare-and-swap so that the budget is exact.

One table beside Optuna's in the same database. A worker may write for a slot only while its claim,
the pair of worker and attempt, still stands; every update names both and looks at how many rows it
changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

LEASE_SECONDS = 15.0


class SlotState(StrEnum):
    """What has become of a slot; all but the first two are ends."""

    OPEN = "open"
    CLAIMED = "claimed"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"


_metadata = sa.MetaData()
_slots = sa.Table(
    "clrsearch_slots",
    _metadata,
    sa.Column("study", sa.String(36), primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("family", sa.String(64), nullable=False),
    sa.Column("finalist", sa.Integer),  # confirmation: which finalist ...
    sa.Column("seed_index", sa.Integer),  # ... on which seed
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("trial", sa.Integer),
    sa.Column("worker", sa.String(255)),
    sa.Column("attempt", sa.Integer, nullable=False),  # how often it was claimed
    sa.Column("expires", sa.Float(53)),  # epoch seconds of the database's clock
    sa.Column("checkpoint", sa.Integer),  # the last epoch that can be resumed from
)

_now = (sa.func.julianday("now") - 2440587.5) * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot as its claimer holds it: ``attempt`` fences its writes against later claimers."""

    number: int
    family: str
    worker: str
    attempt: int


def create_slot_table(engine: sa.Engine) -> None:
    """Make the table where it is missing."""
    _metadata.create_all(engine)


class Slots:
    """The slots of one stage of one study, which is known by a UUID: SQLite reuses deleted ids."""

    def __init__(self, engine: sa.Engine, study: str, stage: str = "search") -> None:
        self._engine = engine
        self._key = {"study": study, "stage": stage}
        self._ours = sa.and_(_slots.c.study == study, _slots.c.stage == stage)

    def grow(self, families: Sequence[str]) -> None:
        """Add the slots that are missing, so that slot i exists for each i with its family."""
        with self._engine.connect() as connection:
            numbers = set(connection.scalars(sa.select(_slots.c.number).where(self._ours)))
        missing = [
            {**self._key, "number": number, "family": family, "state": "open", "attempt": 0}
            for number, family in enumerate(families)
            if number not in numbers
        ]
        if not missing:
            return
        try:
            with self._engine.begin() as connection:
                connection.execute(_slots.insert(), missing)
        except IntegrityError:
            self.grow(families)  # another process has added some meanwhile

    def claim(self, worker: str) -> Slot | None:
        """The first slot that is open or whose lease has run out, now held by ``worker``."""
        free = sa.or_(
            _slots.c.state == SlotState.OPEN,
            sa.and_(_slots.c.state == SlotState.CLAIMED, _slots.c.expires < _now),
        )
        first = (
            sa.select(_slots.c.number, _slots.c.family, _slots.c.attempt)
            .where(self._ours, free)
            .order_by(_slots.c.number)
            .limit(1)
        )
        while True:
            with self._engine.connect() as connection:
                row = connection.execute(first).one_or_none()
            if row is None:
                return None
            attempt = row.attempt + 1
            claim = (
                _slots.update()
                .where(
                    self._ours, _slots.c.number == row.number, _slots.c.attempt == row.attempt, free
                )
                .values(
                    state="claimed", worker=worker, attempt=attempt, expires=_now + LEASE_SECONDS
                )
            )
            with self._engine.begin() as connection:
                if connection.execute(claim).rowcount == 1:
                    return Slot(
                        number=row.number, family=row.family, worker=worker, attempt=attempt
                    )

    def renew(self, slot: Slot) -> bool:
        """Prolong the lease; False where the claim no longer stands."""
        return self._update(slot, expires=_now + LEASE_SECONDS)

    def bind(self, slot: Slot, trial: int) -> bool:
        """Note the trial that runs in the slot; False where the claim no longer stands."""
        return self._update(slot, trial=trial)

    def finish(self, slot: Slot, state: SlotState) -> bool:
        """Use the slot up; False where the claim no longer stands."""
        return self._update(slot, state=state, expires=None)

    def hand_back(self, slot: Slot) -> bool:
        """Open the slot again; False where the claim no longer stands."""
        return self._update(slot, state="open", worker=None, expires=None)

    def _update(self, slot: Slot, **values: object) -> bool:
        held = (
            _slots.c.number == slot.number,
            _slots.c.state == SlotState.CLAIMED,
            _slots.c.worker == slot.worker,
            _slots.c.attempt == slot.attempt,
        )
        with self._engine.begin() as connection:
            changed = connection.execute(_slots.update().where(self._ours, *held).values(**values))
            return changed.rowcount == 1

    def release(self, worker: str) -> int:
        """Open every slot that ``worker``, seen to have died, still held; how many there were."""
        held = (_slots.c.state == SlotState.CLAIMED, _slots.c.worker == worker)
        opened = {"state": "open", "worker": None, "expires": None}
        with self._engine.begin() as connection:
            return connection.execute(
                _slots.update().where(self._ours, *held).values(**opened)
            ).rowcount

    def counts(self) -> Counter[SlotState]:
        """How many slots there are in each state."""
        query = (
            sa.select(_slots.c.state, sa.func.count()).where(self._ours).group_by(_slots.c.state)
        )
        with self._engine.connect() as connection:
            return Counter({SlotState(state): count for state, count in connection.execute(query)})

    def unfinished(self) -> int:
        """How many slots are not used up."""
        counts = self.counts()
        return counts[SlotState.OPEN] + counts[SlotState.CLAIMED]

    def live(self) -> int:
        """How many slots are claimed under a lease that has not run out."""
        query = sa.select(sa.func.count()).where(
            self._ours, _slots.c.state == SlotState.CLAIMED, _slots.c.expires >= _now
        )
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def delete(self) -> None:
        """Remove all of them."""
        with self._engine.begin() as connection:
            connection.execute(_slots.delete().where(self._ours))
