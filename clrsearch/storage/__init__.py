"""Study storage: the database URL, its engine, and the slot table beside Optuna's tables."""

from clrsearch.storage.admin import Upgraded, upgrade
from clrsearch.storage.diagnostics import Condition, condition, require_writable
from clrsearch.storage.engine import Database, cause, has_studies, open_database, quiet_optuna
from clrsearch.storage.outage import (
    DATABASE_ERRORS,
    PATIENCE_SECONDS,
    Patience,
    Tolerance,
    is_outage,
)
from clrsearch.storage.place import make_folder, require_place
from clrsearch.storage.roles import MadeRole, Role, make_roles
from clrsearch.storage.slots import (
    LEASE_SECONDS,
    UNFINISHED,
    Claim,
    Slot,
    Slots,
    SlotState,
    budget,
    host_of,
    read_clock,
    slot_owners,
    unfinished,
)
from clrsearch.storage.trials import Details, Reported, StudyRow, Trials, place_of, study_rows
from clrsearch.storage.url import FILE_VARIABLE, STORAGE_VARIABLE, StorageUrl

__all__ = [
    "DATABASE_ERRORS",
    "FILE_VARIABLE",
    "LEASE_SECONDS",
    "PATIENCE_SECONDS",
    "STORAGE_VARIABLE",
    "UNFINISHED",
    "Claim",
    "Condition",
    "Database",
    "Details",
    "MadeRole",
    "Patience",
    "Reported",
    "Role",
    "Slot",
    "SlotState",
    "Slots",
    "StorageUrl",
    "StudyRow",
    "Tolerance",
    "Trials",
    "Upgraded",
    "budget",
    "cause",
    "condition",
    "has_studies",
    "host_of",
    "is_outage",
    "make_folder",
    "make_roles",
    "open_database",
    "place_of",
    "quiet_optuna",
    "read_clock",
    "require_place",
    "require_writable",
    "slot_owners",
    "study_rows",
    "unfinished",
    "upgrade",
]
