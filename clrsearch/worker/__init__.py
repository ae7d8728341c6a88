"""The worker: the loop that claims slots, trains and reports, and the supervisor that watches it.

The loop is imported when it is first used: it needs torch, and a supervisor does not.
"""

from typing import TYPE_CHECKING

from clrsearch.lazy import deferred
from clrsearch.worker.names import worker_name
from clrsearch.worker.settings import WorkerSettings
from clrsearch.worker.supervise import Supervisor

if TYPE_CHECKING:
    from clrsearch.worker.loop import Worker, needed
    from clrsearch.worker.signals import Interruption
else:
    __getattr__ = deferred(
        __name__,
        {
            "clrsearch.worker.loop": ("Worker", "needed"),
            "clrsearch.worker.signals": ("Interruption",),
        },
    )

__all__ = ["Interruption", "Supervisor", "Worker", "WorkerSettings", "needed", "worker_name"]
