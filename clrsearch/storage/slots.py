"""Slots: the units of a study's budget, claimed by compare-and-swap so that the budget is exact.

One table beside Optuna's in the same database. A worker may write for a slot only while its claim,
the pair of worker and attempt, still stands; every update names both and looks at how many rows it
changed. Times are those of the database's clock, whatever the clocks of the workers' machines say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles

T = TypeVar("T")

LEASE_SECONDS = 15.0
BATCH = 1000  # rows in one statement
SLOT_TABLE = "clrsearch_slots"

_ANEW = {"trial": None, "losses": 0, "checkpoint": None}


class SlotState(StrEnum):
    """What has become of a slot; all but the first two are ends."""

    OPEN = "open"
    CLAIMED = "claimed"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (SlotState.OPEN, SlotState.CLAIMED)
"""The states of slots that are not used up."""

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
    sa.Column("worker", sa.String(255)),  # its holder; where it is open, who failed it last
    sa.Column("attempt", sa.Integer, nullable=False),  # how often it was claimed
    sa.Column("losses", sa.Integer, nullable=False, server_default="0"),  # since the checkpoint
    sa.Column("expires", sa.Double),  # epoch seconds of the database's clock
    sa.Column("checkpoint", sa.Integer),  # the last epoch that can be resumed from
)

_BEGUN = _slots.c.trial.is_not(None)


class _Now(sa.sql.functions.FunctionElement[float]):
    """Epoch seconds of the database's clock, with fractions."""

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
    # unix_timestamp() without an argument knows no time zone and no hour that comes twice.
    return "(unix_timestamp() + microsecond(now(6)) / 1e6)"


database_clock = _Now()
"""The one clock that all workers go by, in epoch seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot as its claimer holds it: ``attempt`` fences its writes against later claimers.

    ``trial`` is the one that an earlier claimer bound to it, ``checkpoint`` the epoch of its last
    checkpoint, ``losses`` counts the workers that were lost with it since. In a confirmation,
    ``seed_index`` tells runs from different seeds apart; ``finalist`` is, in a confirmation, the
    number of the search's trial that is run again. ``family`` is, of a search, "any" where the
    sampler has the choice.
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
    """A claimed slot as others see it.

    ``expires`` is in epoch seconds of the database's clock, ``age`` the seconds since the renewal,
    which are negative where the clock was set back since.
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
        """Whether the lease has run out, or ends later than any can: the clock was set back."""
        return abs(self.age) > LEASE_SECONDS


def host_of(worker: str) -> str:
    """The machine in a worker's name, which begins with it."""
    return worker.partition(":")[0]


def create_slot_table(engine: sa.Engine) -> None:
    """Make the table where it is missing."""
    _metadata.create_all(engine)


def has_slot_table(engine: sa.Engine) -> bool:
    """Whether the table is there."""
    return sa.inspect(engine).has_table(_slots.name)


def missing_columns(engine: sa.Engine) -> list[str]:
    """The columns that a table of an earlier version does not have."""
    there = {column["name"] for column in sa.inspect(engine).get_columns(_slots.name)}
    return [column.name for column in _slots.columns if column.name not in there]


def add_missing_columns(engine: sa.Engine) -> list[str]:
    """Add the columns that a table of an earlier version does not have; their names."""
    missing = missing_columns(engine)
    with engine.begin() as connection:
        for name in missing:
            column = sa.schema.CreateColumn(_slots.c[name]).compile(dialect=engine.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {_slots.name} ADD COLUMN {column}")
    return missing


def slot_owners(engine: sa.Engine) -> set[str]:
    """The UUIDs of the studies that have slots."""
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(_slots.c.study).distinct()))


def unfinished(counts: Mapping[SlotState, int]) -> int:
    """How many of the counted slots are not used up."""
    return sum(counts.get(state, 0) for state in UNFINISHED)


def budget(counts: Mapping[SlotState, int]) -> int:
    """How many of the counted slots there are to use up; what was cancelled is no part of it."""
    return sum(counts.values()) - counts.get(SlotState.CANCELLED, 0)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


class Slots:
    """The slots of one stage of one study, which is known by a UUID: SQLite reuses deleted ids."""

    def __init__(self, engine: sa.Engine, study: str, stage: str = "search") -> None:
        self._engine = engine
        self._key = {"study": study, "stage": stage}
        self._ours = sa.and_(_slots.c.study == study, _slots.c.stage == stage)

    def grow(self, families: Sequence[str], seeds: Sequence[int] = ()) -> None:
        """Add the slots that are missing, so that slot i exists for each i with its family.

        ``seeds`` are their seed indices, 0 where there are none.
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
        """Add the missing ones of these runs of a confirmation, in their order.

        Each is a finalist, whose family is one of ``families``, and a seed index. Those that were
        cancelled are open again.
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
        """The states of a confirmation's runs, by finalist and seed index."""
        query = sa.select(_slots.c.finalist, _slots.c.seed_index, _slots.c.state)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(self._ours)).all()
        return {(row.finalist, row.seed_index): SlotState(row.state) for row in rows}

    def _add(self, slots: Sequence[Mapping[str, object]]) -> bool:
        """Add open slots; False where another process has added some of them meanwhile."""
        new = {**self._key, "state": SlotState.OPEN, "attempt": 0, "losses": 0}
        new |= {"finalist": None, "seed_index": None}
        try:
            for some in _batches(slots):
                with self._engine.begin() as connection:
                    connection.execute(_slots.insert(), [{**new, **slot} for slot in some])
        except IntegrityError:
            return False
        return True

    def claim(self, worker: str) -> Slot | None:
        """The first open slot, now held by ``worker``, which holds no other.

        A slot that is held in the worker's name already is one that it claimed just before the
        connection broke, so that it never heard of it: that one comes first. Then come slots whose
        trial has begun and was interrupted, before those that have not begun. Of these, slots whose
        last trial failed on the worker's machine come after the others, and those whose last trial
        failed in its own hands are the last.
        """
        claimed, opened = (_slots.c.state == state for state in (SlotState.CLAIMED, SlotState.OPEN))
        mine = sa.and_(claimed, _slots.c.worker == worker)
        first = (
            sa.select(_slots)
            .where(self._ours, sa.or_(mine, opened))
            .order_by(
                sa.case((claimed, 0), (_BEGUN, 1), else_=2), _reluctance(worker), _slots.c.number
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
        """The slot of a worker that was lost; None where its lease has not run out after all."""
        past = _slots.c.expires < database_clock
        impossible = _slots.c.expires > database_clock + 2 * LEASE_SECONDS  # as Claim.expired
        lost = sa.and_(_slots.c.state == SlotState.CLAIMED, sa.or_(past, impossible))
        return self._swap(claim, worker, lost, losses=claim.losses + 1)

    def _swap(
        self, seen: Any, worker: str, free: sa.ColumnElement[bool], *, losses: int
    ) -> Slot | None:
        """Claim the slot if it is as it was seen and still free."""
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
        """The slots that are held, by workers that live or not, in order."""
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
        """Prolong the lease; False where the claim no longer stands."""
        return self._update(slot, expires=database_clock + LEASE_SECONDS)

    def bind(self, slot: Slot, trial: int) -> bool:
        """Note the trial that runs in the slot; False where the claim no longer stands."""
        return self._update(slot, trial=trial)

    def note_checkpoint(self, slot: Slot, epoch: int) -> bool:
        """Note what can be resumed from; False where the claim no longer stands."""
        return self._update(slot, checkpoint=epoch, losses=0)

    def finish(self, slot: Slot, state: SlotState) -> bool:
        """Use the slot up; False where the claim no longer stands."""
        return self._update(slot, state=state, expires=None)

    def hand_back(self, slot: Slot, *, anew: bool = False) -> bool:
        """Open the slot again; False where the claim no longer stands.

        ``anew`` is for another trial, for the last one has failed: what was noted of that is
        forgotten, but not who failed it.
        """
        opened = {"state": SlotState.OPEN, "worker": None, "expires": None}
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

    def release(self, worker: str) -> int:
        """Open every slot that ``worker``, seen to have died, still held; how many there were."""
        held = (_slots.c.state == SlotState.CLAIMED, _slots.c.worker == worker)
        return self._change(
            *held, state=SlotState.OPEN, worker=None, expires=None, losses=_slots.c.losses + 1
        )

    def retry(self) -> int:
        """Open every slot that failed; how many there were."""
        failed = _slots.c.state == SlotState.FAILED
        return self._change(failed, state=SlotState.OPEN, worker=None, **_ANEW)

    def cancel(self) -> int:
        """Take the slots that have not begun out of the budget; how many there were."""
        return self._change(_slots.c.state == SlotState.OPEN, ~_BEGUN, state=SlotState.CANCELLED)

    def _reopen(self, cancelled: Sequence[int]) -> None:
        for some in _batches(cancelled):
            self._change(
                _slots.c.state == SlotState.CANCELLED,
                _slots.c.number.in_(some),
                state=SlotState.OPEN,
            )

    def _change(self, *which: sa.ColumnElement[bool], **values: object) -> int:
        with self._engine.begin() as connection:
            return connection.execute(
                _slots.update().where(self._ours, *which).values(**values)
            ).rowcount

    def first_of(self, family: str) -> int | None:
        """The number of a family's first slot; None where it has none yet."""
        query = sa.select(sa.func.min(_slots.c.number))
        with self._engine.connect() as connection:
            first: int | None = connection.scalar(
                query.where(self._ours, _slots.c.family == family)
            )
        return first

    def rank(self, slot: Slot) -> int:
        """How many earlier slots are for the same family."""
        earlier = (_slots.c.family == slot.family, _slots.c.number < slot.number)
        query = sa.select(sa.func.count()).select_from(_slots).where(self._ours, *earlier)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def states(self) -> dict[int, SlotState]:
        """The states of all slots, by number and in order."""
        query = sa.select(_slots.c.number, _slots.c.state).order_by(_slots.c.number)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(self._ours))
            return {number: SlotState(state) for number, state in rows}

    def counts(self) -> Counter[SlotState]:
        """How many slots there are in each state."""
        query = (
            sa.select(_slots.c.state, sa.func.count()).where(self._ours).group_by(_slots.c.state)
        )
        with self._engine.connect() as connection:
            return Counter({SlotState(state): count for state, count in connection.execute(query)})

    def unfinished(self) -> int:
        """How many slots are not used up."""
        return unfinished(self.counts())

    def live(self) -> int:
        """How many slots are claimed under a lease that has not run out."""
        return sum(not claim.expired for claim in self.claims())

    def delete(self) -> None:
        """Remove all of them."""
        with self._engine.begin() as connection:
            connection.execute(_slots.delete().where(self._ours))


def _reluctance(worker: str) -> sa.ColumnElement[int]:
    """How little an open slot is for a worker: another process or machine is to try it first."""
    failed_by = _slots.c.worker
    here = failed_by.startswith(f"{host_of(worker)}:", autoescape=True)
    return sa.case((failed_by == worker, 2), (here, 1), else_=0)
