"""Finding work: started trials go first, those of lost workers and interrupted ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from clrsearch.storage import DATABASE_ERRORS, LEASE_SECONDS, Claim, Patience, Slot, Slots

T = TypeVar("T")

LOOK_SECONDS = 1.0  # between two checks of slots that others hold


class Claims:
    """Claims slots for one worker."""

    def __init__(
        self, slots: Slots, worker: str, *, patience: Patience, sleep: Callable[[float], None]
    ) -> None:
        self._slots = slots
        self._worker = worker
        self._patience = patience
        self._sleep = sleep
        self._watched: dict[int, tuple[Claim, float]] = {}  # with when it was first seen unchanged

    def next(self, *, held: Collection[int] = (), stay: bool = False) -> Slot | None:
        """Claim a slot beside those ``held``.

        None if no slot is open and every other one has a live worker. With ``stay``, None only once
        all slots have ended. A worker that holds slots does not wait for either.

        A slot whose lease has expired is taken over before any other, but only after this worker
        has watched it for a whole lease without a renewal and without a database error, so that an
        outage does not make workers look dead. The call waits while there may be such a slot.
        """
        seen: dict[int, Claim] = {}
        while True:
            slot = self._lost() or self._claim(held, again=False)
            claims = self._others() if slot is None else []
            if slot is None and all(claim.expired for claim in claims):
                slot = self._claim(held, again=True)  # nobody else is there to try what failed here
            if slot is not None:
                return slot
            if held:
                return None
            seen = seen or {claim.number: claim for claim in claims}
            waits = stay and bool(claims)
            if not waits and not any(_same(claim, seen.get(claim.number)) for claim in claims):
                return None
            self._sleep(LOOK_SECONDS)

    def _claim(self, held: Collection[int], *, again: bool) -> Slot | None:
        return self._patiently(lambda: self._slots.claim(self._worker, again=again, held=held))

    def _lost(self) -> Slot | None:
        """Take over the slot of a lost worker, if there is one."""
        for claim in self._others():
            if self._silent(claim):
                slot = self._patiently(
                    lambda claim=claim: self._slots.take_over(claim, self._worker)  # type: ignore[misc]
                )
                if slot is not None:
                    return slot
        return None

    def _others(self) -> list[Claim]:
        """The slots that other workers have claimed."""
        claims = self._patiently(self._slots.claims)
        return [claim for claim in claims if claim.worker != self._worker]

    def forget(self) -> None:
        """Restart watching, after a database error."""
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
    """Whether a claim is unchanged since ``earlier``."""
    return earlier is not None and (claim.attempt, claim.expires) == (
        earlier.attempt,
        earlier.expires,
    )
