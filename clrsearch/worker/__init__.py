"""Where deciding meets doing: the loop that claims, trains and tells, and who watches over it.

The loop is imported from its module, for it needs torch and a supervisor does not.
"""

from clrsearch.worker.names import worker_name
from clrsearch.worker.supervise import Supervisor

__all__ = ["Supervisor", "worker_name"]
