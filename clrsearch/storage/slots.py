"""Slots: the units of a study's budget, claimed by compare-and-swap to keep the budget exact.

The slot table lives beside Optuna's tables in the same database. A worker may write to a slot only
while its claim, the pair of worker and attempt, stands; every update names both and checks the
number of rows changed. Times come from the database's clock, not from the workers' machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles

T = TypeVar("T")

LEASE_SECONDS = 15.0
BATCH = 1000  # rows per statement
SLOT_TABLE = "clrsearch_slots"

_ANEW = {"trial": None, "losses": 0, "checkpoint": None}


class SlotState(StrEnum):
    """State of a slot; all but the first two are final."""

    OPEN = "open"
    CLAIMED = "claimed"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (SlotState.OPEN, SlotState.CLAIMED)
"""States of slots that are not used up."""

_metadata = sa.MetaData()
_slots = sa.Table(
    SLOT_TABLE,
    _metadata,
    sa.Column("study", sa.String(36), primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("family", sa.String(64), nullable=False),
    sa.Column("finalist", sa.Integer),  # confirmation: which finalist ...
    sa.Column("seed_index", sa.Integer),  # ... on which seed
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("trial", sa.Integer),
    sa.Column("worker", sa.String(255)),  # its holder; if open, the last one to fail it
    sa.Column("attempt", sa.Integer, nullable=False),  # number of claims
    sa.Column("losses", sa.Integer, nullable=False, server_default="0"),  # since the checkpoint
    sa.Column("expires", sa.Double),  # Unix time of the database's clock
    sa.Column("checkpoint", sa.Integer),  # the last epoch to resume from
)

_BEGUN = _slots.c.trial.is_not(None)


class _Now(sa.sql.functions.FunctionElement[float]):
    """Unix time of the database's clock, with fractions of a second."""

    inherit_cache = True
    type = sa.Double()


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _now_postgresql(element: _Now, compiler: Any, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(_Now, "mysql", "mariadb")
def _now_mysql(element: _Now, compiler: Any, **_: Any) -> str:
    # unix_timestamp() without an argument is independent of the time zone and daylight saving time.
    return "(unix_timestamp() + microsecond(now(6)) / 1e6)"


database_clock = _Now()
"""The clock shared by all workers, as Unix time."""


def read_clock(engine: sa.Engine) -> float:
    """The present time of the database's clock, as Unix time."""
    with engine.connect() as connection:
        return float(connection.scalar(sa.select(database_clock)) or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot as held by its claimer.

    Attributes:
        number: its number in the study.
        family: the family it is for; in a search, "any" if the sampler may choose.
        worker: the claimer.
        attempt: fencing token: rejects writes of earlier claimers.
        trial: the trial bound to it by an earlier claimer.
        losses: number of workers lost with it since the last checkpoint.
        checkpoint: epoch of its last checkpoint.
        finalist: in a confirmation, the number of the search's trial that is run again.
        seed_index: the seed its trial starts from.
    """

    number: int
    family: str
    worker: str
    attempt: int
    trial: int | None
    losses: int
    checkpoint: int | None = None
    finalist: int | None = None
    seed_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claimed slot as seen by others.

    ``expires`` is Unix time on the database's clock; ``age`` is the seconds since the last renewal,
    negative if the clock was set back since.
    """

    number: int
    family: str
    worker: str
    attempt: int
    losses: int
    trial: int | None
    finalist: int | None
    seed_index: int
    checkpoint: int | None
    expires: float
    age: float

    @property
    def expired(self) -> bool:
        """Whether the lease has expired, or ends impossibly late because the clock was set back."""
        return abs(self.age) > LEASE_SECONDS


def host_of(worker: str) -> str:
    """The host part of a worker's name."""
    return worker.partition(":")[0]


def create_slot_table(engine: sa.Engine) -> None:
    """Create the table if it is missing."""
    _metadata.create_all(engine)


def has_slot_table(engine: sa.Engine) -> bool:
    """Whether the table exists."""
    return sa.inspect(engine).has_table(_slots.name)


def missing_columns(engine: sa.Engine) -> list[str]:
    """Columns missing from a table created by an earlier version."""
    there = {column["name"] for column in sa.inspect(engine).get_columns(_slots.name)}
    return [column.name for column in _slots.columns if column.name not in there]


def add_missing_columns(engine: sa.Engine) -> list[str]:
    """Add the columns missing from a table created by an earlier version; returns their names."""
    missing = missing_columns(engine)
    with engine.begin() as connection:
        for name in missing:
            column = sa.schema.CreateColumn(_slots.c[name]).compile(dialect=engine.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {_slots.name} ADD COLUMN {column}")
    return missing


def slot_owners(engine: sa.Engine) -> set[str]:
    """UUIDs of the studies that have slots."""
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(_slots.c.study).distinct()))


def unfinished(counts: Mapping[SlotState, int]) -> int:
    """Number of counted slots that are not used up."""
    return sum(counts.get(state, 0) for state in UNFINISHED)


def budget(counts: Mapping[SlotState, int]) -> int:
    """Number of counted slots in the budget, which excludes cancelled ones."""
    return sum(counts.values()) - counts.get(SlotState.CANCELLED, 0)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


class Slots:
    """The slots of one stage of a study, keyed by UUID because SQLite reuses deleted ids."""

    def __init__(self, engine: sa.Engine, study: str, stage: str = "search") -> None:
        self._engine = engine
        self._key = {"study": study, "stage": stage}
        self._ours = sa.and_(_slots.c.study == study, _slots.c.stage == stage)

    def grow(self, families: Sequence[str], seeds: Sequence[int] = ()) -> None:
        """Add missing slots, so that slot i exists with its family for each i.

        ``seeds`` are their seed indices, 0 by default.
        """
        with self._engine.connect() as connection:
            numbers = set(connection.scalars(sa.select(_slots.c.number).where(self._ours)))
        missing = [
            {"number": number, "family": family, "seed_index": seed}
            for number, (family, seed) in enumerate(zip_longest(families, seeds, fillvalue=0))
            if number not in numbers
        ]
        if not self._add(missing):
            self.grow(families, seeds)

    def grow_runs(self, families: Mapping[int, str], runs: Sequence[tuple[int, int]]) -> None:
        """Add the missing ones of these confirmation runs, in order, and reopen cancelled ones.

        Each run is a finalist, whose family is in ``families``, and a seed index.
        """
        query = sa.select(_slots.c.number, _slots.c.state, _slots.c.finalist, _slots.c.seed_index)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(self._ours)).all()
        there = {(row.finalist, row.seed_index): row for row in rows}
        known = [there[run] for run in runs if run in there]
        self._reopen([row.number for row in known if row.state == SlotState.CANCELLED])
        missing = [
            {"family": families[finalist], "finalist": finalist, "seed_index": seed}
            for finalist, seed in runs
            if (finalist, seed) not in there
        ]
        first = max((row.number for row in rows), default=-1) + 1
        if not self._add([{**run, "number": first + i} for i, run in enumerate(missing)]):
            self.grow_runs(families, runs)

    def runs(self) -> dict[tuple[int, int], SlotState]:
        """States of a confirmation's runs, by finalist and seed index."""
        query = sa.select(_slots.c.finalist, _slots.c.seed_index, _slots.c.state)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(self._ours)).all()
        return {(row.finalist, row.seed_index): SlotState(row.state) for row in rows}

    def _add(self, slots: Sequence[Mapping[str, object]]) -> bool:
        """Add open slots; False if another process has added some of them concurrently."""
        new = {**self._key, "state": SlotState.OPEN, "attempt": 0, "losses": 0}
        new |= {"finalist": None, "seed_index": None}
        try:
            for some in _batches(slots):
                with self._engine.begin() as connection:
                    connection.execute(_slots.insert(), [{**new, **slot} for slot in some])
        except IntegrityError:
            return False
        return True

    def claim(self, worker: str, *, again: bool = True, held: Collection[int] = ()) -> Slot | None:
        """Claim the first open slot for ``worker``, beside those ``held``; None without any.

        Any other slot in the worker's name comes first: its claim succeeded, but the connection
        broke before the worker learned of it. Next are slots with an interrupted trial,
        then those that have not started, then slots that last failed on the worker's machine, and
        those that last failed in this worker. The latter are left to others unless ``again``.
        """
        reluctance = _reluctance(worker)
        claimed, opened = (_slots.c.state == state for state in (SlotState.CLAIMED, SlotState.OPEN))
        mine = sa.and_(claimed, _slots.c.worker == worker)
        others = sa.and_(opened, reluctance < 2)
        first = (
            sa.select(_slots)
            .where(
                self._ours,
                _slots.c.number.not_in(held),
                sa.or_(mine, opened if again else others),
            )
            .order_by(
                sa.case((claimed, 0), (sa.and_(_BEGUN, reluctance == 0), 1), else_=2),
                reluctance,
                _slots.c.number,
            )
            .limit(1)
        )
        while True:
            with self._engine.connect() as connection:
                row = connection.execute(first).one_or_none()
            if row is None:
                return None
            slot = self._swap(row, worker, sa.or_(mine, opened), losses=row.losses)
            if slot is not None:
                return slot

    def take_over(self, claim: Claim, worker: str) -> Slot | None:
        """Take over a lost worker's slot; None if its lease has not expired after all."""
        past = _slots.c.expires < database_clock
        impossible = _slots.c.expires > database_clock + 2 * LEASE_SECONDS  # as in Claim.expired
        lost = sa.and_(_slots.c.state == SlotState.CLAIMED, sa.or_(past, impossible))
        return self._swap(claim, worker, lost, losses=claim.losses + 1)

    def _swap(
        self, seen: Any, worker: str, free: sa.ColumnElement[bool], *, losses: int
    ) -> Slot | None:
        """Claim the slot if it is unchanged since it was read, and still free."""
        slot = Slot(
            number=seen.number,
            family=seen.family,
            worker=worker,
            attempt=seen.attempt + 1,
            trial=seen.trial,
            losses=losses,
            checkpoint=seen.checkpoint,
            finalist=seen.finalist,
            seed_index=seen.seed_index or 0,
        )
        swap = (
            _slots.update()
            .where(
                self._ours,
                _slots.c.number == seen.number,
                _slots.c.attempt == seen.attempt,
                free,
            )
            .values(
                state=SlotState.CLAIMED,
                worker=worker,
                attempt=slot.attempt,
                losses=losses,
                expires=database_clock + LEASE_SECONDS,
            )
        )
        with self._engine.begin() as connection:
            return slot if connection.execute(swap).rowcount == 1 else None

    def claims(self) -> list[Claim]:
        """All claimed slots by number, including those of dead workers."""
        query = (
            sa.select(_slots, (database_clock + LEASE_SECONDS - _slots.c.expires).label("age"))
            .where(self._ours, _slots.c.state == SlotState.CLAIMED)
            .order_by(_slots.c.number)
        )
        with self._engine.connect() as connection:
            return [
                Claim(
                    number=row.number,
                    family=row.family,
                    worker=row.worker,
                    attempt=row.attempt,
                    losses=row.losses,
                    trial=row.trial,
                    finalist=row.finalist,
                    seed_index=row.seed_index or 0,
                    checkpoint=row.checkpoint,
                    expires=row.expires,
                    age=row.age,
                )
                for row in connection.execute(query)
            ]

    def renew(self, slot: Slot) -> bool:
        """Renew the lease; False if the claim no longer stands."""
        return self._update(slot, expires=database_clock + LEASE_SECONDS)

    def bind(self, slot: Slot, trial: int) -> bool:
        """Record the slot's trial; False if the claim no longer stands."""
        return self._update(slot, trial=trial)

    def note_checkpoint(self, slot: Slot, epoch: int) -> bool:
        """Record the epoch of a checkpoint; False if the claim no longer stands."""
        return self._update(slot, checkpoint=epoch, losses=0)

    def finish(self, slot: Slot, state: SlotState) -> bool:
        """Use up the slot with a final state; False if the claim no longer stands."""
        return self._update(slot, state=state, expires=None)

    def hand_back(self, slot: Slot, *, anew: bool = False) -> bool:
        """Reopen the slot; False if the claim no longer stands.

        That its trial was left counts as a loss if it had begun and no checkpoint has been saved
        since the slot was claimed. ``anew`` is for a new trial after a failure: the old trial, its
        losses and its checkpoint are cleared, but not the worker that failed it.
        """
        fruitless = sa.and_(_BEGUN, _slots.c.checkpoint.is_not_distinct_from(slot.checkpoint))
        losses = _slots.c.losses + sa.case((fruitless, 1), else_=0)
        opened = {"state": SlotState.OPEN, "worker": None, "expires": None, "losses": losses}
        failed = {**_ANEW, "worker": slot.worker}
        return self._update(slot, **opened | (failed if anew else {}))

    def _update(self, slot: Slot, **values: object) -> bool:
        held = (
            _slots.c.number == slot.number,
            _slots.c.state == SlotState.CLAIMED,
            _slots.c.worker == slot.worker,
            _slots.c.attempt == slot.attempt,
        )
        return self._change(*held, **values) == 1

    def release(self, worker: str, *, wary: bool = False) -> int:
        """Reopen every slot still held by ``worker``, known to be dead; returns their number.

        ``wary`` leaves them to other machines first.
        """
        held = (_slots.c.state == SlotState.CLAIMED, _slots.c.worker == worker)
        opened = {"state": SlotState.OPEN, "worker": worker if wary else None, "expires": None}
        return self._change(*held, **opened, losses=_slots.c.losses + 1)

    def retry(self) -> int:
        """Reopen every failed slot; returns their number."""
        failed = _slots.c.state == SlotState.FAILED
        return self._change(failed, state=SlotState.OPEN, worker=None, **_ANEW)

    def cancel(self, keep: int = 0) -> int:
        """Cancel the slots that have not started, the lowest ``keep`` aside; returns how many."""
        waiting = sa.and_(_slots.c.state == SlotState.OPEN, ~_BEGUN)
        query = sa.select(_slots.c.number).where(self._ours, waiting).order_by(_slots.c.number)
        with self._engine.connect() as connection:
            numbers = connection.scalars(query).all()
        return sum(
            self._change(waiting, _slots.c.number.in_(some), state=SlotState.CANCELLED)
            for some in _batches(numbers[keep:])
        )

    def reopen(self, total: int) -> int:
        """Reopen cancelled slots until so many are not, the lowest first; returns how many it did.

        Several processes may call this at once.
        """
        states = self.states()
        cancelled = [each for each, state in states.items() if state == SlotState.CANCELLED]
        missing = max(total - (len(states) - len(cancelled)), 0)
        return self._reopen(cancelled[:missing])

    def _reopen(self, numbers: Sequence[int]) -> int:
        cancelled = _slots.c.state == SlotState.CANCELLED
        return sum(
            self._change(cancelled, _slots.c.number.in_(some), state=SlotState.OPEN)
            for some in _batches(numbers)
        )

    def _change(self, *which: sa.ColumnElement[bool], **values: object) -> int:
        with self._engine.begin() as connection:
            return connection.execute(
                _slots.update().where(self._ours, *which).values(**values)
            ).rowcount

    def first_of(self, family: str) -> int | None:
        """Number of a family's first slot, or None."""
        query = sa.select(sa.func.min(_slots.c.number))
        with self._engine.connect() as connection:
            first: int | None = connection.scalar(
                query.where(self._ours, _slots.c.family == family)
            )
        return first

    def rank(self, slot: Slot) -> int:
        """Number of earlier slots for the same family."""
        earlier = (_slots.c.family == slot.family, _slots.c.number < slot.number)
        query = sa.select(sa.func.count()).select_from(_slots).where(self._ours, *earlier)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def states(self) -> dict[int, SlotState]:
        """States of all slots, by number, in order."""
        query = sa.select(_slots.c.number, _slots.c.state).order_by(_slots.c.number)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(self._ours))
            return {number: SlotState(state) for number, state in rows}

    def counts(self) -> Counter[SlotState]:
        """Number of slots in each state."""
        query = (
            sa.select(_slots.c.state, sa.func.count()).where(self._ours).group_by(_slots.c.state)
        )
        with self._engine.connect() as connection:
            return Counter({SlotState(state): count for state, count in connection.execute(query)})

    def unfinished(self) -> int:
        """Number of slots that are not used up."""
        return unfinished(self.counts())

    def starting(self) -> int:
        """Number of claimed slots whose trials have not begun."""
        claimed = sa.and_(_slots.c.state == SlotState.CLAIMED, ~_BEGUN)
        query = sa.select(sa.func.count()).select_from(_slots).where(self._ours, claimed)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def live(self) -> int:
        """Number of slots claimed under an unexpired lease."""
        return sum(not claim.expired for claim in self.claims())

    def workers(self) -> set[str]:
        """The workers that hold slots under unexpired leases."""
        return {claim.worker for claim in self.claims() if not claim.expired}

    def delete(self) -> None:
        """Delete all slots."""
        with self._engine.begin() as connection:
            connection.execute(_slots.delete().where(self._ours))


def _reluctance(worker: str) -> sa.ColumnElement[int]:
    """Sort key that defers slots which failed in this worker, or on its machine."""
    failed_by = _slots.c.worker
    here = failed_by.startswith(f"{host_of(worker)}:", autoescape=True)
    return sa.case((failed_by == worker, 2), (here, 1), else_=0)
