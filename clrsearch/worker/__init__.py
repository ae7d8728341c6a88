"""Where deciding meets doing: the loop that claims slots, trains and tells."""

from clrsearch.worker.loop import Worker, worker_name

__all__ = ["Worker", "worker_name"]
