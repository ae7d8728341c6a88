"""A task that trains on some machines and fails on others."""

import os

from tiny import Tiny


class Sick(Tiny):
    """Raises in every batch where the variable SICK is set."""

    def loss(self, output, target):
        if "SICK" in os.environ:
            raise RuntimeError("the device is broken")
        return super().loss(output, target)
