"""Where studies are kept: the database's URL, its engine, and the slot table beside Optuna's."""

from clrsearch.storage.admin import Upgraded, upgrade
from clrsearch.storage.engine import Database, cause, has_studies, open_database, quiet_optuna
from clrsearch.storage.outage import (
    DATABASE_ERRORS,
    PATIENCE_SECONDS,
    Patience,
    Tolerance,
    is_outage,
)
from clrsearch.storage.place import require_place
from clrsearch.storage.slots import LEASE_SECONDS, Claim, Slot, Slots, SlotState
from clrsearch.storage.url import FILE_VARIABLE, STORAGE_VARIABLE, StorageUrl

__all__ = [
    "DATABASE_ERRORS",
    "FILE_VARIABLE",
    "LEASE_SECONDS",
    "PATIENCE_SECONDS",
    "STORAGE_VARIABLE",
    "Claim",
    "Database",
    "Patience",
    "Slot",
    "SlotState",
    "Slots",
    "StorageUrl",
    "Tolerance",
    "Upgraded",
    "cause",
    "has_studies",
    "is_outage",
    "open_database",
    "quiet_optuna",
    "require_place",
    "upgrade",
]
