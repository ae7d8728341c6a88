"""TensorBoard: a folder of event files per run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clrsearch.trackers.tracker import Mirrored, Point, Run, safe, told

if TYPE_CHECKING:
    from torch.utils.tensorboard import FileWriter

FOLDER = "runs"
"""Where TensorBoard's own writers write, in the current folder."""
_STATE = "state"
"""The text that a run ends with; that of a study which has grown since is ``running``."""
_TEXT = "/text_summary"


def connect(study: Mirrored, into: str | None) -> TensorBoard:
    """Open the study's folder in ``into``; by default in ``runs``.

    Raises:
        TrackerError: it cannot be written.
    """
    folder = Path(into or FOLDER) / f"{safe(study.name)}-{study.short}"
    with told("tensorboard", OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return TensorBoard(folder)


class TensorBoard:
    """A folder with one folder per run.

    Each process appends event files of its own with what those there do not hold, so nothing has
    to be remembered elsewhere; a file that a killed process left incomplete is read up to there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._there: dict[str, _Written] = {}
        self._writers: dict[str, FileWriter] = {}  # of the runs that go on

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def ended(self) -> Collection[str]:
        """The keys of the runs that are there whole."""
        with told("tensorboard", OSError):
            keys = [each.name for each in self._folder.iterdir() if each.is_dir()]
            return {key for key in keys if self._written(key).ended}

    def update(self, run: Run) -> None:
        """Append what is new of a run."""
        with told("tensorboard", OSError):
            missing = self._written(run.key).missing(run)
            if missing:
                writer = self._writer(run.key)
                for summary, step in missing:
                    writer.add_summary(summary, step, walltime=run.started.timestamp())
                writer.flush()
            if run.ended is not None and run.key in self._writers:
                self._writers.pop(run.key).close()

    def close(self) -> None:
        """Close the files of the runs that go on."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _written(self, key: str) -> _Written:
        if key not in self._there:
            self._there[key] = _Written(self._folder / key)
        return self._there[key]

    def _writer(self, key: str) -> FileWriter:
        from torch.utils.tensorboard import FileWriter

        if key not in self._writers:
            self._writers[key] = FileWriter(str(self._folder / key))
        return self._writers[key]


class _Written:
    """What a run's event files hold: the last step of each curve, and the latest texts."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing import event_accumulator as events

        sizes = {events.SCALARS: 1, events.TENSORS: 1}  # the last one is always kept
        found = events.EventAccumulator(str(folder), size_guidance=sizes)
        if folder.is_dir():
            found.Reload()
        tags = found.Tags()
        self._began = any(tag.startswith("_hparams_/") for tag in found.summary_metadata)
        self._steps = {tag: found.Scalars(tag)[-1].step for tag in tags["scalars"]}
        self._texts: dict[str, str] = {
            tag.removesuffix(_TEXT): found.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
            for tag in tags["tensors"]
            if tag.endswith(_TEXT)
        }

    @property
    def ended(self) -> bool:
        """Whether the run is there whole."""
        return self._texts.get(_STATE, "running") != "running"

    def missing(self, run: Run) -> list[tuple[Any, int]]:
        """The summaries to write, each with its step; they count as written from now on."""
        from torch.utils.tensorboard import summary

        found: list[tuple[Any, int]] = []
        if not self._began and not run.is_study:
            # without the experiment's summary, of which TensorBoard takes one run's for all
            _, start, _ = summary.hparams({**run.params, **run.tags}, {})
            found.append((start, 0))
            self._began = True
        for point in (*run.points, Point(step=run.step, values=run.final)):
            for name, value in point.values.items():
                if point.step > self._steps.get(name, -1):
                    found.append((summary.scalar(name, value), point.step))
                    self._steps[name] = point.step
        texts = {name: _shown(name, text) for name, text in run.texts.items()}
        if run.ended is not None or self.ended:
            texts[_STATE] = run.state  # last, as it says that all is there
        for name, text in texts.items():
            if self._texts.get(name) != text:
                found.append((summary.text(name, text), run.step))
                self._texts[name] = text
        return found


def _shown(name: str, text: str) -> str:
    """A file's text as the Markdown that TensorBoard shows."""
    if name.endswith(".md"):
        return text
    language = "python" if name.endswith(".py") else ""
    return f"```{language}\n{text.rstrip()}\n```"
