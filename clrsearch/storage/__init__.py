"""Where studies are kept: the database's URL, its engine, and the slot table beside Optuna's."""

from clrsearch.storage.engine import Database, open_database, quiet_optuna, require_place
from clrsearch.storage.slots import LEASE_SECONDS, Slot, Slots, SlotState
from clrsearch.storage.url import StorageUrl

__all__ = [
    "LEASE_SECONDS",
    "Database",
    "Slot",
    "SlotState",
    "Slots",
    "StorageUrl",
    "open_database",
    "quiet_optuna",
    "require_place",
]
