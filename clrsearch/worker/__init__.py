"""The worker: the loop that claims slots, trains and reports, and the supervisor that watches it.

The loop is not re-exported here, because it needs torch and a supervisor does not.
"""

from clrsearch.worker.names import worker_name
from clrsearch.worker.settings import WorkerSettings
from clrsearch.worker.supervise import Supervisor

__all__ = ["Supervisor", "WorkerSettings", "worker_name"]
