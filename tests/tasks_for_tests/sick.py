"""Tasks that train on some machines, or in some processes, and fail in others."""

import os
from pathlib import Path

from tiny import Tiny


class Sick(Tiny):
    """Raises in every batch where the variable SICK is set."""

    def loss(self, output, target):
        if "SICK" in os.environ:
            raise RuntimeError("the device is broken")
        return super().loss(output, target)


class Poisoned(Tiny):
    """From its third model on, one process cannot compute any more: the first to get there."""

    class Options(Tiny.Options):
        error: str = "no such file"
        mark: str = ""
        """A file that the process makes."""

    options: Options
    models = 0
    poisoned = False

    def model(self):
        Poisoned.models += 1
        if Poisoned.models == 3:
            try:
                Path(self.options.mark).touch(exist_ok=False)
                Poisoned.poisoned = True
            except FileExistsError:
                pass
        return super().model()

    def loss(self, output, target):
        if Poisoned.poisoned:
            raise RuntimeError(self.options.error)
        return super().loss(output, target)
