"""A task whose steps may never end."""

import ctypes
import os
from pathlib import Path

from tiny import Tiny


class Hangs(Tiny):
    """Its sixth batch waits in C code for a lock that nobody gives back, as a broken driver does.

    The file that HANGS names is written before. Without the variable it trains.
    """

    def model(self):
        self.batches = 0
        return super().model()

    def loss(self, output, target):
        self.batches += 1
        if self.batches == 6 and "HANGS" in os.environ:
            library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(128)
            Path(os.environ["HANGS"]).touch()
            for _ in range(2):
                library.pthread_mutex_lock(lock)
        return super().loss(output, target)
