"""Keeping a claim: a thread renews a slot's lease while its trial trains."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable

from clrsearch.storage import DATABASE_ERRORS, LEASE_SECONDS, Slot, Slots, is_outage

RENEWALS = 3  # per lease
RETRY_SECONDS = 1.0  # before retrying a renewal that the database did not answer


class Lease:
    """A claimed slot's lease, renewed in the background inside the context, even during outages.

    ``lost`` becomes and stays true when another worker takes the slot. If the renewing thread dies,
    e.g. out of memory, :meth:`fresh` raises its error, so that nobody waits in vain.
    """

    def __init__(
        self,
        slots: Slots,
        slot: Slot,
        *,
        patience: float,
        on_trouble: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """``patience`` is the longest outage to tolerate, in seconds.

        ``on_trouble`` is called with the error that starts an outage, never with a permanent one.
        """
        self.lost = False
        self._slots = slots
        self._slot = slot
        self._patience = patience
        self._on_trouble = on_trouble
        self._renewed_at = time.monotonic()
        self._trouble: tuple[BaseException, float] | None = None  # with its start
        self._failure: BaseException | None = None
        self._begun, self._done, self._ended = (threading.Event() for _ in range(3))

    def fresh(self) -> bool:
        """Whether the claim was confirmed recently, so that this worker may write for the slot.

        False during a database outage, and right after the process was suspended.

        Raises:
            SQLAlchemyError, StorageInternalError: the outage lasts longer than the patience, or the
                error is permanent.
            MemoryError: or whatever else ended the thread.
        """
        if self._failure is not None:
            raise self._failure
        trouble = self._trouble
        if trouble is not None:
            error, since = trouble
            if not is_outage(error) or time.monotonic() - since > self._patience:
                raise error
            return False
        return not self.lost and time.monotonic() - self._renewed_at < LEASE_SECONDS / 2

    def settle(self, sleep: Callable[[float], None]) -> bool:
        """Wait until the claim is known to stand or to be lost; returns whether it stands."""
        while not self.lost and not self.fresh():
            sleep(RETRY_SECONDS / 4)
        return not self.lost

    def doubt(self, error: BaseException) -> None:
        """Note a database error: nothing is known until the next renewal."""
        if self._trouble is None and is_outage(error):
            self._on_trouble(error)
        since = self._trouble[1] if self._trouble else time.monotonic()
        self._trouble = error, since

    def abandon(self) -> None:
        """Stop renewing: this process is about to exit."""
        self._done.set()

    def __enter__(self) -> Lease:
        # not Thread.start(): it waits forever for a thread that cannot allocate memory to start
        _thread.start_new_thread(self._keep, ())
        if not self._begun.wait(LEASE_SECONDS):
            raise MemoryError("no thread could be started to renew the slot's lease")
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._ended.wait()

    def _keep(self) -> None:
        self._begun.set()
        try:
            while not self.lost:
                if self._done.wait(RETRY_SECONDS if self._trouble else LEASE_SECONDS / RENEWALS):
                    return
                self._renew()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._ended.set()

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            stands = self._slots.renew(self._slot)
        except DATABASE_ERRORS as error:
            self.doubt(error)
            return
        self.lost = not stands
        self._renewed_at = began
        self._trouble = None
