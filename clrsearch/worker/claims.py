"""Finding work: what was begun goes first, the slots of lost workers and interrupted trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from clrsearch.storage import DATABASE_ERRORS, LEASE_SECONDS, Claim, Patience, Slot, Slots

T = TypeVar("T")

LOOK_SECONDS = 1.0  # between two looks at slots that others hold


class Claims:
    """Claims slots in one worker's name."""

    def __init__(
        self, slots: Slots, worker: str, *, patience: Patience, sleep: Callable[[float], None]
    ) -> None:
        self._slots = slots
        self._worker = worker
        self._patience = patience
        self._sleep = sleep
        self._watched: dict[int, tuple[Claim, float]] = {}  # with when it was first seen so

    def next(self, *, stay: bool = False) -> Slot | None:
        """A slot to work on; None where none is open and all others are in good hands.

        With ``stay`` only where all have ended.

        A slot whose lease has run out is taken over, before any other, but only after this worker
        itself has watched it for a whole lease without a renewal and without an error of the
        database, so that nobody looks dead because of an outage. It waits as long as there is such
        a slot.
        """
        seen: dict[int, Claim] = {}
        while True:
            slot = self._lost() or self._patiently(lambda: self._slots.claim(self._worker))
            if slot is not None:
                return slot
            claims = self._patiently(self._slots.claims)
            seen = seen or {claim.number: claim for claim in claims}
            waits = stay and bool(claims)
            if not waits and not any(_same(claim, seen.get(claim.number)) for claim in claims):
                return None
            self._sleep(LOOK_SECONDS)

    def _lost(self) -> Slot | None:
        """The slot of a worker that was lost, now taken over."""
        for claim in self._patiently(self._slots.claims):
            if claim.worker != self._worker and self._silent(claim):
                slot = self._patiently(
                    lambda claim=claim: self._slots.take_over(claim, self._worker)  # type: ignore[misc]
                )
                if slot is not None:
                    return slot
        return None

    def forget(self) -> None:
        """Begin to watch anew, after an error of the database."""
        self._watched.clear()

    def _silent(self, claim: Claim) -> bool:
        """Whether the claim has now been watched for a whole lease without a renewal."""
        now = time.monotonic()
        watched, since = self._watched.get(claim.number, (None, now))
        if not _same(claim, watched):
            self._watched[claim.number] = claim, now
            return False
        return claim.expired and now - since > LEASE_SECONDS

    def _patiently(self, call: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return call()
            except DATABASE_ERRORS:
                self.forget()
                raise

        return self._patience(attempt)


def _same(claim: Claim, earlier: Claim | None) -> bool:
    """Whether nothing has happened to a claim since."""
    return earlier is not None and (claim.attempt, claim.expires) == (
        earlier.attempt,
        earlier.expires,
    )
