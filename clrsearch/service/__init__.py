"""What clrsearch can do, as functions: the Python API, and all that the command line calls."""

from clrsearch.service.change import cancel, delete, retry, upgrade_database
from clrsearch.service.drift import versions
from clrsearch.service.look import (
    Best,
    Replayed,
    Shown,
    best,
    list_studies,
    replay,
    show,
    status,
)
from clrsearch.service.place import Storage, default_name, storage_url
from clrsearch.service.plans import Comparison, comparison, confirmation_plan
from clrsearch.service.working import Result, run, work

__all__ = [
    "Best",
    "Comparison",
    "Replayed",
    "Result",
    "Shown",
    "Storage",
    "best",
    "cancel",
    "comparison",
    "confirmation_plan",
    "default_name",
    "delete",
    "list_studies",
    "replay",
    "retry",
    "run",
    "show",
    "status",
    "storage_url",
    "upgrade_database",
    "versions",
    "work",
]
