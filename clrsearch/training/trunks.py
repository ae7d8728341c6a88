"""Trunks: states of runs from which others go on whose beginnings are the same.

Runs of one seed with the same rates and momenta up to a step are the same up to there, so its first
steps need training only once. For whole searches, see S. Shin et al., "Hippo: Taming
Hyper-parameter Optimization of Deep Learning with Stage Trees", arXiv:2006.11972.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from clrsearch.schedules import Trace
from clrsearch.training.run import Unrestorable, restoring
from clrsearch.training.state_file import open_state, save_state

LOOK_SHARE = 1 / 20  # of the bytes that a folder may take: what is written between two looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """The state of a run at the end of an interval, and the metric's value in each until then."""

    values: Mapping[int, float]
    state: Mapping[str, Any]
    path: Path


def beginnings(trace: Trace, ends: Sequence[int], *, seed_index: int, context: str) -> list[str]:
    """The names of a run's beginnings up to each of its intervals' ``ends``, in steps.

    Runs of one study have a name in common if all that shapes their states is the same: the seed,
    the rates and momenta up to there, the beta of Schedule-Free if it trains them, the version of
    torch, and the ``context``: the kind of device and the task's source.
    """
    averages = "" if trace.averaging is None else f" {trace.averaging!r}"
    digest = hashlib.sha256(f"{seed_index} {context} {torch.__version__}{averages}".encode())
    names = []
    for interval, (begin, end) in enumerate(pairwise((0, *ends)), start=1):
        digest.update(trace.rates[:, begin:end].tobytes())
        if trace.momenta is not None:
            digest.update(trace.momenta[:, begin:end].tobytes())
        kind = "rates" if trace.momenta is None else "momenta"
        names.append(f"{interval}-{kind}-{digest.hexdigest()[:32]}")
    return names


class Trunks:
    """A folder of trunks that takes about ``most_bytes``: the longest unused ones are deleted."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder = folder
        self._most_bytes = most_bytes
        self._unchecked = most_bytes  # bytes written since the folder was looked at

    def has(self, name: str) -> bool:
        """Whether there is a trunk of this name."""
        return self._path(name).exists()

    def save(self, name: str, values: Mapping[int, float], state: Mapping[str, Any]) -> None:
        """Keep the state of a run that has the beginning of this name.

        Raises:
            OSError: the disk is full, the state alone takes more than all may take, or another
                file-system error occurred.
            TaskError: the state contains something that cannot be pickled.
        """
        path = self._path(name)
        told = {"values": [[interval, value] for interval, value in values.items()]}
        save_state(path, told, state)
        size = path.stat().st_size
        if size > self._most_bytes:
            path.unlink()
            raise OSError(
                f"it takes {size / 1e9:.3g} GB, and all may take {self._most_bytes / 1e9:g}"
            )
        self._unchecked += size
        if self._unchecked >= LOOK_SHARE * self._most_bytes:
            self._delete_unused(but=path)
            self._unchecked = 0

    def longest(self, names: Iterable[str]) -> Trunk | None:
        """The trunk of the first of these names that there is one of; damaged ones are deleted."""
        for name in names:
            path = self._path(name)
            try:
                with open_state(path) as (told, content), restoring():
                    state = torch.load(content, map_location="cpu", weights_only=True)
                with suppress(OSError):  # it may be somebody else's
                    os.utime(path)  # it has been used now
                return Trunk(values=dict(told["values"]), state=state, path=path)
            except FileNotFoundError:
                continue
            except (Unrestorable, OSError):
                with suppress(OSError):
                    path.unlink()
        return None

    def delete(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _delete_unused(self, *, but: Path) -> None:
        files = []
        for path in self.folder.iterdir():  # drafts of killed workers, too
            with suppress(FileNotFoundError):  # another worker has deleted it
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        taken = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if taken <= self._most_bytes:
                return
            if path != but:
                with suppress(OSError):
                    path.unlink()
                taken -= size
