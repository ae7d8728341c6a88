"""Workers as jobs of SLURM, through submitit: an array that is requeued when its time is up.

In a job, :func:`attend` starts the workers' command lines. When the time limit comes near, SLURM
sends SIGUSR2; submitit then calls :func:`leave`, which lets the workers save and hand their trials
back, and has the job requeued. What starts then is a worker like any other: it claims a slot.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from clrsearch.errors import PlanError
from clrsearch.launch.launcher import INTERPRETER, Command

if TYPE_CHECKING:
    from submitit.core.core import Job, PicklingExecutor
    from submitit.helpers import DelayedSubmission

REQUEUES = 1000  # after a time limit; a study may be longer than many of them
BINARIES = ("sbatch", "srun")
PYTHON = shlex.join(INTERPRETER)
NOTICE_SECONDS = 90
"""So long before a job's time is up SLURM is to say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """What each job of the array asks SLURM for.

    ``folder``, which all machines must see, gets the scripts and logs. ``workers`` of them share
    one job, and its GPU. ``minutes`` is the time limit, ``gres`` what else it needs, such as
    ``gpu:1``; ``options`` are further options of sbatch by their long names.
    """

    name: str
    folder: Path
    minutes: int
    workers: int = 1
    partition: str | None = None
    gres: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """The same in submitit's words."""
        asked = {
            "job_name": self.name,
            "time": self.minutes,
            "cpus_per_task": self.workers,
            "partition": self.partition,
            "gres": self.gres,
            "signal_delay_s": NOTICE_SECONDS,
            "additional_parameters": {"requeue": True, **self.options},
        }
        return {key: value for key, value in asked.items() if value is not None}


class SlurmSubmitter:
    """Hands workers to SLURM as an array of jobs; see :class:`Submitter`.

    Raises:
        PlanError: submitit is not installed.
    """

    def __init__(self, job: SlurmJob) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise PlanError("SLURM is reached through submitit: pip install 'clrsearch[slurm]'")
        self._job = job

    def render(self, commands: Sequence[Command]) -> str:
        """The script that sbatch gets, and the commands of each job."""
        from submitit.slurm.slurm import _make_sbatch_string

        folder = self._job.folder
        jobs = grouped(commands, self._job.workers)
        script = _make_sbatch_string(
            command=f"{PYTHON} -u -m submitit.core._submit {shlex.quote(str(folder))}",
            folder=folder,
            map_count=len(jobs) if len(jobs) > 1 else None,
            **self._job.parameters(),
        )
        lines = []
        for index, job in enumerate(jobs):
            lines += [f"# job {index}", *map(shlex.join, job)]
        return "\n".join([script, *lines])

    def submit(self, commands: Sequence[Command]) -> str:
        """Submit the array.

        Raises:
            PlanError: there is no SLURM here, or it refuses the job; with its own words.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        for binary in BINARIES:
            if shutil.which(binary) is None:
                raise PlanError(
                    f"{binary} is not found: jobs are submitted on a machine of the SLURM cluster; "
                    "--dry-run shows what would be submitted"
                )
        executor = SlurmExecutor(self._job.folder, max_num_timeout=REQUEUES, python=PYTHON)
        executor.update_parameters(**self._job.parameters())
        try:
            handed_over = hand_over(executor, commands, self._job.workers)
        except FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PlanError(f"SLURM refuses the job: {reason}") from error
        array = handed_over[0].job_id.partition("_")[0]
        jobs = "1 job" if len(handed_over) == 1 else f"{len(handed_over)} jobs"
        return (
            f"SLURM has {jobs} as {array}, with logs in {self._job.folder}. "
            f"squeue -j {array} shows them, scancel {array} ends them"
        )


def grouped(commands: Sequence[Command], workers: int) -> list[list[list[str]]]:
    """The command lines of each job, ``workers`` in each."""
    lines = [list(command.arguments) for command in commands]
    return [lines[first : first + workers] for first in range(0, len(lines), workers)]


def hand_over(
    executor: PicklingExecutor, commands: Sequence[Command], workers: int
) -> list[Job[None]]:
    """Submit the commands to one of submitit's executors, ``workers`` of them in each job.

    The jobs inherit the environment of this process; it is in no file of theirs. Left out is what
    SLURM tells of a job that this process may run in, but not which SLURM there is, nor the user's
    own defaults for sbatch.
    """
    from submitit import helpers

    own = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or name.startswith("SBATCH_")
    }
    variables = helpers.environment_variables(**own, **commands[0].environment)
    with helpers.clean_env(), variables, executor.batch():
        return [executor.submit(attend, each) for each in grouped(commands, workers)]


_attended: list[subprocess.Popen[bytes]] = []


def attend(commands: Sequence[Sequence[str]]) -> None:
    """In a job: run the commands side by side until all have ended.

    submitit pickles its name and the command lines, nothing else. At SIGTERM (a preemption, or
    scancel) the workers leave, and it stays until SLURM ends it: a job that ended by itself in the
    time of grace would not be requeued.

    Raises:
        CalledProcessError: a worker ended with another code than 0.
    """
    terminated = False

    def terminate(number: int, _frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        _tell(number)

    signal.signal(signal.SIGTERM, terminate)
    _attended.clear()
    for arguments in commands:
        _attended.append(subprocess.Popen(arguments))
    if terminated:  # while they were started
        _tell(signal.SIGTERM)
    codes = [each.wait() for each in _attended]
    while terminated:
        signal.pause()
    for code, arguments in zip(codes, commands, strict=True):
        if code:
            raise subprocess.CalledProcessError(code, arguments)


def leave(commands: Sequence[Sequence[str]]) -> DelayedSubmission:
    """In a job whose time is up: let the workers leave; what submitit requeues when they have."""
    from submitit.helpers import DelayedSubmission

    _tell(signal.SIGUSR2)
    for each in _attended:
        with suppress(ChildProcessError):  # attend() has seen it leave
            # not each.wait(), whose lock is held by attend(), which this signal has interrupted
            os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
    return DelayedSubmission(attend, commands)


attend.checkpoint = leave  # type: ignore[attr-defined]  # where submitit looks for it


def _tell(number: int) -> None:
    for each in _attended:
        each.send_signal(number)
