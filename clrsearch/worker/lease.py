"""Keeping a claim: a thread that renews a slot's lease while its trial trains."""

from __future__ import annotations

import threading
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
        self._lost = False
        self._thread = threading.Thread(
            target=self._renew, name=f"lease-{slot.number}", daemon=True
        )

    @property
    def lost(self) -> bool:
        """Whether another worker holds the slot by now."""
        return self._lost

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

    def _renew(self) -> None:
        while not self._done.wait(LEASE_SECONDS / RENEWALS):
            try:
                self._lost = not self._slots.renew(self._slot)
            except SQLAlchemyError:
                continue  # the next renewal, or the next report, will tell
