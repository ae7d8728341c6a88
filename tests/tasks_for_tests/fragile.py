"""A task that fails once, and at some schedules until it is mended."""

import os
import time
from contextlib import suppress
from pathlib import Path

from tiny import Tiny


class Fragile(Tiny):
    """Fails in the first run that there is, and in each whose rate stays as it is.

    The folder that ``FRAGILE_DIR`` names remembers the former, and a file ``mended`` in it ends the
    latter.
    """

    def model(self):
        self.last = None
        return super().model()

    def optimizer(self, model):
        self.sgd = super().optimizer(model)
        return self.sgd

    def loss(self, output, target):
        time.sleep(0.02)
        folder = Path(os.environ["FRAGILE_DIR"])
        last, self.last = self.last, self.sgd.param_groups[0]["lr"]
        if last == self.last and not (folder / "mended").exists():
            raise ValueError("this rate does not change")
        if last is not None:  # and not when the task is tried out
            with suppress(FileExistsError):
                (folder / "failed").touch(exist_ok=False)
                raise RuntimeError("bad luck")
        return super().loss(output, target)
