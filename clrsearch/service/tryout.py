"""Load and probe a plan's task before its study starts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from clrsearch import errors, proposals, training
from clrsearch.errors import ClrsearchError, PlanError, ScheduleError, TaskError
from clrsearch.launch import INTERPRETER, how_it_ended
from clrsearch.schedules import Manual, RateFunction, ScheduleFree
from clrsearch.search import (
    RangeTest,
    StudyPlan,
    build_space,
    misfit_reason,
    read_range_test,
    require_size,
    setting_of,
)
from clrsearch.service.paths import data_folder, task_folder
from clrsearch.service.provenance import Sources
from clrsearch.tasks import TaskFacts, is_kept_here

EXIT_SECONDS = 10.0  # for the process to exit once it has answered everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Training steps per second of a process, and GPU memory ``taken`` and ``free``, in bytes."""

    pace: float
    taken: float
    free: float


class Tryout:
    """A plan's task, loaded for probing inside a ``with`` block.

    The task runs in a separate process, which leaves no side effects in this one; a task that
    exists only in this process runs here. Errors raised there are raised again here, and a
    :class:`TaskError` if the process itself has ended.

    Attributes:
        sources: hashes of the source files loaded.
        epochs: the task's default number of epochs; None for a custom training loop.
        defaults: the default values of the task's options.
        loading: seconds that loading it took, the start of the process included.
    """

    def __init__(
        self,
        plan: StudyPlan,
        *,
        device: str | None,
        task_dir: Path | None,
        data_dir: Path | None,
        download: bool = False,
        here: bool = False,
    ) -> None:
        """Load the plan's code from ``task_dir`` or the current folder.

        The task reads its data from ``data_dir``, or from the default data folder; with
        ``download`` missing data is fetched. With ``here`` it is probed in this process.
        """
        began = time.monotonic()
        self._plan = plan
        self._device = device
        here = here or is_kept_here(plan.task)
        self._answers: _Here | _Child = _Here() if here else _Child(plan.task)
        try:
            loaded = self._ask(
                "load",
                task=plan.task,
                options=plan.model_dump(mode="json")["options"],
                arguments=plan.arguments,
                rate=plan.manual if isinstance(plan.manual, str) else None,
                folder=str(task_folder(task_dir)),
                data_dir=str(data_folder(data_dir)),
                weight_decay=plan.weight_decay,
                download=download,
            )
        except BaseException:
            self._answers.close(kill=True)
            raise
        self.sources = Sources(task=loaded["source"], rate=loaded["rate_source"])
        self.epochs: int | None = loaded["epochs"]
        self.defaults: dict[str, Any] = loaded["defaults"]
        self.loading = time.monotonic() - began

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
        """The task's facts under the plan, obtained by probing the task.

        Raises:
            PlanError: the schedules' traces would not fit into memory.
        """
        length = {"epochs", "steps", "validate_every"}
        keys = {*length, "batch_size", "metric", "direction", "precision", "seed"}
        given = self._plan.model_dump(mode="json", include=keys)
        facts = TaskFacts.model_validate(self._ask("facts", device=self._device, **given))
        require_size(facts)
        return facts

    def weight_decays(self, *plans: float | str | None) -> list[list[float]]:
        """The weight decay of each group of the optimizer, by a plan's ``weight_decay``.

        The last of them is that of the plan which is tried out.
        """
        found: list[list[float]] = self._ask("weight_decays", device=self._device, plans=plans)
        return found

    def require_space(
        self, plan: StudyPlan, facts: TaskFacts, range_test: RangeTest | None = None
    ) -> None:
        """Check that the plan has a valid search space for a task with these facts.

        Raises:
            PlanError: it has not; the message names the key.
            TaskError: Schedule-Free is searched, and cannot train the task.
            ScheduleError: its package is not installed.
        """
        build_space(plan, facts, self.rate_function(facts), range_test)
        if ScheduleFree.family in plan.searched:
            self._ask("require_averaging", device=self._device, precision=plan.precision)

    def rate_function(self, facts: TaskFacts) -> RateFunction | None:
        """The plan's custom rate function if any, as a lookup of its values at each step.

        Raises:
            PlanError: it does not return a positive number at some step.
        """
        if not isinstance(self._plan.manual, str):
            return None
        if reason := misfit_reason(Manual.family, setting_of(self._plan, facts)):
            raise PlanError(f"{Manual.family} does not fit: {reason}")
        length = {"epochs": facts.epochs, "steps_per_epoch": facts.steps_per_epoch}
        try:
            rates = self._ask("rates", name=self._plan.manual, **length)
        except ScheduleError as error:
            raise PlanError(f"{Manual.family} does not fit: {error}") from error
        return lambda step, steps_per_epoch: rates[step]

    def range_test(self, facts: TaskFacts) -> RangeTest:
        """Train for a few steps at increasing learning rates, and derive bounds from the losses.

        Uses the plan's seed and precision.

        Raises:
            PlanError: the task is a custom training loop, which cannot be run step by step.
        """
        if facts.batch_size is None:
            raise PlanError(
                "a range test trains batch by batch, which custom training loops do not support: "
                "set the bounds, as in --set 'bounds.cyclic.max_lr=[1e-3, 1]', or write a Task"
            )
        found = self._ask(
            "ramp",
            facts=facts.model_dump(mode="json"),
            device=self._device,
            seed=self._plan.seed,
            precision=self._plan.precision,
        )
        return read_range_test(found["rates"], found["training"], found["validation"])

    def require_lanes(self, facts: TaskFacts, lanes: int) -> None:
        """Refuse lanes for a task that is not fit for them.

        Raises:
            PlanError: with the reason.
        """
        self._ask(
            "require_lanes",
            facts=facts.model_dump(mode="json"),
            device=self._device,
            seed=self._plan.seed,
            precision=self._plan.precision,
            deterministic=self._plan.deterministic,
            averages=ScheduleFree.family in self._plan.searched,
            lanes=lanes,
        )

    def interval_seconds(self, facts: TaskFacts) -> float:
        """What training and validating an interval takes in the process."""
        found: float = self._ask(
            "interval_seconds",
            facts=facts.model_dump(mode="json"),
            device=self._device,
            seed=self._plan.seed,
            precision=self._plan.precision,
        )
        return found

    def pace(self, facts: TaskFacts, seconds: float) -> Pace:
        """How fast the task trains in the process, timed for so many seconds."""
        found = self._ask(
            "pace",
            facts=facts.model_dump(mode="json"),
            device=self._device,
            seed=self._plan.seed,
            precision=self._plan.precision,
            seconds=seconds,
        )
        return Pace(**found)

    def devices(self, workers: int | None, slots: int, *, gpus_per_trial: int = 1) -> list[str]:
        """A device per worker; by default for as many workers as the machine can keep busy."""
        how = {"workers": workers, "slots": slots, "gpus_per_trial": gpus_per_trial}
        found: list[str] = self._ask("devices", device=self._device, **how)
        return found

    def _ask(self, request: str, **arguments: Any) -> Any:
        return self._answers.ask(request, arguments)


class _Here:
    """Answers requests in this process."""

    def __init__(self) -> None:
        self._requests = training.Requests()

    def ask(self, request: str, arguments: Mapping[str, Any]) -> Any:
        """Return the result of a request."""
        return getattr(self._requests, request)(**arguments)

    def close(self, *, kill: bool = False) -> None:
        """Do nothing: there is no process to end."""


class _Child:
    """Answers requests in a child process."""

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
        """Return the result of a request, or raise the error that it raised in the child."""
        assert self._process.stdout is not None
        self._write([request, arguments])
        line = self._process.stdout.readline()
        if not line:
            how = how_it_ended(self._process.wait())
            raise TaskError(f"{self._task}: the process that loads the task {how}")
        answer = json.loads(line)
        if "error" in answer:
            kind: type[ClrsearchError] = getattr(errors, answer["error"])
            raise kind(*answer["arguments"])
        return answer["result"]

    def close(self, *, kill: bool = False) -> None:
        """Close the process's stdin, or kill it, and wait until it has ended."""
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
        with suppress(BrokenPipeError):  # it has ended: reading its answer will notice
            print(json.dumps(content), file=self._process.stdin, flush=True)
