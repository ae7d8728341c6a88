"""Keeping a claim: a thread that renews a slot's lease while its trial trains."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from clrsearch.storage import LEASE_SECONDS, Slot, Slots

RENEWALS = 3  # per lease


class Lease:
    """A claimed slot, renewed in the background while the block lasts."""

    def __init__(self, slots: Slots, slot: Slot) -> None:
        self._slots = slots
        self._slot = slot
        self._done = threading.Event()
        self._held = True
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{slot.number}", daemon=True)

    def holds(self) -> bool:
        """Whether the claim still stands, so that this worker may write for the slot.

        Where the last renewal is long ago, because this process was suspended, it is renewed first.
        """
        if self._held and time.monotonic() - self._renewed_at > LEASE_SECONDS / 2:
            self._renew()
        return self._held

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        while self._held and not self._done.wait(LEASE_SECONDS / RENEWALS):
            with suppress(SQLAlchemyError):  # the next renewal, or the next report, will tell
                self._renew()

    def _renew(self) -> None:
        began = time.monotonic()
        self._held = self._slots.renew(self._slot)
        self._renewed_at = began
