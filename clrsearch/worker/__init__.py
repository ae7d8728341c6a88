"""The worker: the loop that claims slots, trains and reports, and the supervisor that watches it.

The loop is imported when it is first used: it needs torch, and a supervisor does not.
"""

from typing import TYPE_CHECKING

from clrsearch.lazy import deferred
from clrsearch.worker.names import worker_name
from clrsearch.worker.settings import WorkerSettings
from clrsearch.worker.supervise import Post, Supervisor

if TYPE_CHECKING:
    from clrsearch.worker.failures import device_failure
    from clrsearch.worker.loop import Worker, needed
    from clrsearch.worker.sharing import Sharing
    from clrsearch.worker.signals import Interruption, ignoring_signals
else:
    __getattr__ = deferred(
        __name__,
        {
            "clrsearch.worker.failures": ("device_failure",),
            "clrsearch.worker.loop": ("Worker", "needed"),
            "clrsearch.worker.sharing": ("Sharing",),
            "clrsearch.worker.signals": ("Interruption", "ignoring_signals"),
        },
    )

__all__ = [
    "Interruption",
    "Post",
    "Sharing",
    "Supervisor",
    "Worker",
    "WorkerSettings",
    "device_failure",
    "ignoring_signals",
    "needed",
    "worker_name",
]
