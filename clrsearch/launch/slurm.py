"""Workers as SLURM jobs, through submitit: an array that is requeued at its time limit.

Inside a job, :func:`attend` starts the workers' command lines. Shortly before the time limit, SLURM
sends SIGUSR2; submitit then calls :func:`leave`, which lets the workers save and release their
trials, and requeues the job. Workers of a requeued job are like any others: they claim a slot.
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

REQUEUES = 1000  # after a time limit; a study may outlast many of them
BINARIES = ("sbatch", "srun")
PYTHON = shlex.join(INTERPRETER)
NOTICE_SECONDS = 90
"""How long before a job's time limit SLURM sends its signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """What each job of the array requests from SLURM.

    Attributes:
        name: the job's name.
        folder: for scripts and logs; all machines must see it.
        minutes: the time limit.
        workers: the number of workers per job; they share its GPU.
        gpus: the GPUs of each job's worker, for a trial on several; 0 for none.
        partition: the partition to run in.
        gres: other resources, such as ``gpu:1``.
        options: further sbatch options by their long names.
    """

    name: str
    folder: Path
    minutes: int
    workers: int = 1
    gpus: int = 0
    partition: str | None = None
    gres: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """The request as submitit's parameters."""
        asked = {
            "job_name": self.name,
            "time": self.minutes,
            "cpus_per_task": max(self.workers, self.gpus),
            "gpus_per_task": self.gpus or None,
            "partition": self.partition,
            "gres": self.gres,
            "signal_delay_s": NOTICE_SECONDS,
            "additional_parameters": {"requeue": True, **self.options},
        }
        return {key: value for key, value in asked.items() if value is not None}


class SlurmSubmitter:
    """Hands workers over to SLURM as a job array; see :class:`Submitter`.

    Raises:
        PlanError: submitit is not installed.
    """

    def __init__(self, job: SlurmJob) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise PlanError("SLURM support needs submitit: pip install 'clrsearch[slurm]'")
        self._job = job

    def render(self, commands: Sequence[Command]) -> str:
        """The sbatch script, and the commands of each job."""
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
            PlanError: SLURM is not available here, or rejects the job; with its own message.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        for binary in BINARIES:
            if shutil.which(binary) is None:
                raise PlanError(
                    f"{binary} not found: submit jobs from a machine of the SLURM cluster; "
                    "--dry-run shows what would be submitted"
                )
        executor = SlurmExecutor(self._job.folder, max_num_timeout=REQUEUES, python=PYTHON)
        executor.update_parameters(**self._job.parameters())
        try:
            handed_over = hand_over(executor, commands, self._job.workers)
        except FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PlanError(f"SLURM rejected the job: {reason}") from error
        array = handed_over[0].job_id.partition("_")[0]
        jobs = "1 job" if len(handed_over) == 1 else f"{len(handed_over)} jobs"
        return (
            f"submitted {jobs} to SLURM as {array}, with logs in {self._job.folder}. "
            f"squeue -j {array} shows them, scancel {array} cancels them"
        )


def grouped(commands: Sequence[Command], workers: int) -> list[list[list[str]]]:
    """The command lines of each job, ``workers`` per job."""
    lines = [list(command.arguments) for command in commands]
    return [lines[first : first + workers] for first in range(0, len(lines), workers)]


def hand_over(
    executor: PicklingExecutor, commands: Sequence[Command], workers: int
) -> list[Job[None]]:
    """Submit the commands through a submitit executor, ``workers`` per job.

    The jobs inherit this process's environment, which is written to no file. Dropped are the
    variables of a SLURM job that this process may itself run in, but not SLURM_CONF and the user's
    SBATCH_ defaults.
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
    """Inside a job: run the commands in parallel until all have ended.

    submitit pickles this function's name and the command lines, nothing else. On SIGTERM (a
    preemption, or scancel) the workers leave, but this process waits for SLURM to end it: a job
    that ends by itself within the grace period would not be requeued.

    Raises:
        CalledProcessError: a worker ended with a non-zero exit code.
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
    if terminated:  # while they were being started
        _tell(signal.SIGTERM)
    codes = [each.wait() for each in _attended]
    while terminated:
        signal.pause()
    for code, arguments in zip(codes, commands, strict=True):
        if code:
            raise subprocess.CalledProcessError(code, arguments)


def leave(commands: Sequence[Sequence[str]]) -> DelayedSubmission:
    """At a job's time limit: let the workers leave; returns what submitit is to requeue."""
    from submitit.helpers import DelayedSubmission

    _tell(signal.SIGUSR2)
    for each in _attended:
        with suppress(ChildProcessError):  # attend() has reaped it
            # each.wait() would deadlock: attend(), which this signal interrupted, holds its lock
            os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
    return DelayedSubmission(attend, commands)


attend.checkpoint = leave  # type: ignore[attr-defined]  # submitit looks for it here


def _tell(number: int) -> None:
    for each in _attended:
        each.send_signal(number)
