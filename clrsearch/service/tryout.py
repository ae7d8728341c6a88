"""A plan's task, loaded and tried before a study of it begins."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from clrsearch import errors, proposals
from clrsearch.errors import ClrsearchError, PlanError, ScheduleError, TaskError
from clrsearch.launch import INTERPRETER, how_it_ended
from clrsearch.schedules import Manual, RateFunction
from clrsearch.search import RangeTest, StudyPlan, build_space, read_range_test, require_size
from clrsearch.service.paths import data_folder, task_folder
from clrsearch.service.provenance import Sources
from clrsearch.tasks import TaskFacts, is_kept_here

EXIT_SECONDS = 10.0  # for a process that has answered everything


class Tryout:
    """A plan's task, loaded and tried while the block lasts.

    That is done in a process of its own, which leaves nothing behind in this one; a task that only
    this process has is tried here. ``sources`` are the hashes of what was loaded. ``epochs`` are
    the task's own, None for a loop of the user's own.

    Whatever is asked of it raises the error that was raised there, and a :class:`TaskError` where
    the process itself has ended.
    """

    def __init__(
        self,
        plan: StudyPlan,
        *,
        device: str | None,
        task_dir: Path | None,
        data_dir: Path | None,
        download: bool = False,
    ) -> None:
        """Load what the plan names; files are looked for in ``task_dir``, or the current folder.

        The task finds its data in ``data_dir``, or in the usual folder; ``download`` has it
        fetched.
        """
        self._plan = plan
        self._device = device
        self._answers: _Here | _Child = _Here() if is_kept_here(plan.task) else _Child(plan.task)
        try:
            loaded = self._ask(
                "load",
                task=plan.task,
                options=plan.model_dump(mode="json")["options"],
                arguments=plan.arguments,
                rate=plan.manual if isinstance(plan.manual, str) else None,
                folder=str(task_folder(task_dir)),
                data_dir=str(data_folder(data_dir)),
                download=download,
            )
        except BaseException:
            self._answers.close(kill=True)
            raise
        self.sources = Sources(task=loaded["source"], rate=loaded["rate_source"])
        self.epochs: int | None = loaded["epochs"]

    def __enter__(self) -> Tryout:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._answers.close(kill=error is not None)

    @cached_property
    def facts(self) -> TaskFacts:
        """The task's facts under the plan: it is tried out for them.

        Raises:
            PlanError: its traces would not fit into memory.
        """
        keys = {"epochs", "batch_size", "metric", "direction", "precision"}
        given = self._plan.model_dump(mode="json", include=keys)
        facts = TaskFacts.model_validate(self._ask("facts", device=self._device, **given))
        require_size(facts)
        return facts

    def require_space(
        self, plan: StudyPlan, facts: TaskFacts, range_test: RangeTest | None = None
    ) -> None:
        """Refuse a plan of which nothing can be searched for a task with such facts.

        Raises:
            PlanError: naming the key.
        """
        build_space(plan, facts, self.rate_function(facts), range_test)

    def rate_function(self, facts: TaskFacts) -> RateFunction | None:
        """The function for rates by hand, if the plan names one: what it gives at each step.

        Raises:
            PlanError: it gives no positive number at some step.
        """
        if not isinstance(self._plan.manual, str):
            return None
        length = {"epochs": facts.epochs, "steps_per_epoch": facts.steps_per_epoch}
        try:
            rates = self._ask("rates", name=self._plan.manual, **length)
        except ScheduleError as error:
            raise PlanError(f"{Manual.family} does not fit: {error}") from error
        return lambda step, steps_per_epoch: rates[step]

    def range_test(self, facts: TaskFacts) -> RangeTest:
        """Train the task for a few steps at rising rates, and read the bounds off its losses.

        The seed and the precision are the plan's.

        Raises:
            PlanError: it is a loop of the user's own, whose steps are not ours to take.
        """
        if facts.batch_size is None:
            raise PlanError(
                "a range test steps through the batches by itself, which a loop of your own does "
                "not let it: give the bounds, --set 'bounds.cyclic.max_lr=[1e-3, 1]', or write a "
                "Task"
            )
        found = self._ask(
            "ramp",
            facts=facts.model_dump(mode="json"),
            device=self._device,
            seed=self._plan.seed,
            precision=self._plan.precision,
        )
        return read_range_test(found["rates"], found["training"], found["validation"])

    def devices(self, workers: int | None, slots: int) -> list[str]:
        """A device for each of so many workers, or for as many as the machine feeds."""
        found: list[str] = self._ask("devices", device=self._device, workers=workers, slots=slots)
        return found

    def _ask(self, request: str, **arguments: Any) -> Any:
        return self._answers.ask(request, arguments)


class _Here:
    """This process answers."""

    def __init__(self) -> None:
        from clrsearch.training.requests import Requests

        self._requests = Requests()

    def ask(self, request: str, arguments: Mapping[str, Any]) -> Any:
        """The result of a request."""
        return getattr(self._requests, request)(**arguments)

    def close(self, *, kill: bool = False) -> None:
        """Nothing is left to end."""


class _Child:
    """A process of its own answers."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._process = subprocess.Popen(
            [*INTERPRETER, "-m", "clrsearch.training.requests"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._write(proposals.told("--download"))

    def ask(self, request: str, arguments: Mapping[str, Any]) -> Any:
        """The result of a request, or the error that it raised there."""
        assert self._process.stdout is not None
        self._write([request, arguments])
        line = self._process.stdout.readline()
        if not line:
            how = how_it_ended(self._process.wait())
            raise TaskError(f"{self._task}: the process that tries it out {how}")
        answer = json.loads(line)
        if "error" in answer:
            kind: type[ClrsearchError] = getattr(errors, answer["error"])
            raise kind(*answer["arguments"])
        return answer["result"]

    def close(self, *, kill: bool = False) -> None:
        """Let the process end, and wait until it has."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if kill:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _write(self, content: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: so has what it answers
            print(json.dumps(content), file=self._process.stdin, flush=True)
