"""Trials per hour, by the number of them that train at once: one at a time, in lanes, in processes.

For each number K of trials at once: K lanes, whose steps torch takes as they are or compiled, on a
GPU also captured as a CUDA graph; and K processes on the same device that train one trial each.
Each of these ways has processes of its own, and takes turns with one that trains one trial at a
time; of several turns the fastest counts. The data are random numbers of the job's shape, and each
trial has its own batches, as if it had a seed of its own. A trial is its optimizer steps: starting
it and validating it are left out.

    python benchmarks/lanes.py
    python benchmarks/lanes.py --jobs mlp --lanes 1 4 16 --processes 2 --output FOLDER

``--output`` names a folder for the tables (lanes.md) and a picture of them (lanes.svg).
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from plain_loop import Job, ResNet, numbers
from torch import nn

from clrsearch.tasks import Splits
from clrsearch.training import TaskData, computing, find_device, usable_cores
from clrsearch.training.feed import Feed
from clrsearch.training.lane_learner import LaneLearner
from clrsearch.training.learner import Learner
from clrsearch.training.stream import Stream, drawn_by

TURNS = 5
WARM = 4  # steps before the first turn, a CUDA graph is captured at the fourth; one before each
HELD = 2048  # samples in memory, read over and over
RATE = 0.01
LOOK = 0.2  # seconds between two looks at how busy a GPU is
PAUSE = 0.01  # seconds that a process waits for word before each step beyond its turn
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of the peak resident set
NO_MEMORY = re.compile("out of memory|allocate memory|ALLOC_FAILED")
NO_COMPILER = re.compile("InvalidCxxCompiler|working triton")
SPAWN = multiprocessing.get_context("spawn")

Step = Callable[[], object]


class Trial(Job):
    """A job of 20 epochs of so many ``samples``, each of one ``shape``."""

    epochs = 20
    samples = 12_800
    batch_size = 64
    shape: ClassVar[tuple[int, ...]]

    def data(self) -> Splits:
        return Splits(*(numbers(size, self.shape, size) for size in (HELD, 128, 128)))

    @classmethod
    def steps(cls) -> int:
        """The steps of a trial."""
        return cls.epochs * (cls.samples // cls.batch_size)


class Perceptron(Trial):
    """A multilayer perceptron: 64-64-64-10."""

    shape = (64,)

    def model(self) -> nn.Module:
        hidden = (nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        return nn.Sequential(*hidden, nn.Linear(64, 10))


class Convolutional(Trial):
    """Three convolutions with batch norm on images of 32 x 32: 16, 32 and 64 channels."""

    samples, batch_size, shape = 50_000, 128, (3, 32, 32)

    def model(self) -> nn.Module:
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 16, 1), (16, 32, 2), (32, 64, 2)):
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64 * 4, 10))


class ResNet18(Trial, ResNet):
    """ResNet-18 whose first layers are those for CIFAR."""

    samples, batch_size, shape = 50_000, 128, (3, 32, 32)
    model = ResNet.model


class Transformer(Trial):
    """A transformer encoder of 2 layers, 64 wide, on sequences of 32 vectors."""

    shape = (32, 64)

    def model(self) -> nn.Module:
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, 10))
        return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), head)


JOBS: Mapping[str, type[Trial]] = {
    "mlp": Perceptron,
    "cnn": Convolutional,
    "resnet18": ResNet18,
    "transformer": Transformer,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to train: in so many processes, each with so many lanes; 0 for a trial without."""

    processes: int = 1
    lanes: int = 0
    compiled: bool = False
    captured: bool = False


ALONE = "one at a time"


def ways_for(count: int, *, lanes: bool, processes: bool, captures: bool) -> dict[str, Way]:
    """The ways to train ``count`` trials at once, by name."""
    found: dict[str, Way] = {}
    if lanes:
        found["K lanes"] = Way(lanes=count)
        found["K lanes, compiled"] = Way(lanes=count, compiled=True)
    if lanes and captures:
        found["K lanes, CUDA graph"] = Way(lanes=count, captured=True)
        found["K lanes, compiled, CUDA graph"] = Way(lanes=count, compiled=True, captured=True)
    if processes:
        found["K processes"] = Way(processes=count)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was measured in a turn.

    Attributes:
        speed: steps per second, those of all trials added up.
        memory: bytes; the peak of what torch has allocated on a GPU, on a CPU of the resident set.
        busy: the number of busy cores, or the share of the time in which the GPU was.
        gain: the speed by that of one trial at a time in turns with it.
    """

    speed: float
    memory: int
    busy: float | None
    gain: float | None = None


Found = Reading | str
"""A reading, or why there is none."""


def alone(task: Trial, data: TaskData, device: torch.device) -> Step:
    """Takes a step of one trial."""
    feed = Feed(data.train, task.accumulate, (0, 0))
    learner = Learner(task, device)
    learner.model.train()
    return lambda: learner.step(feed.draw())


def together(task: Trial, data: TaskData, device: torch.device, way: Way) -> Step:
    """Takes a step in each lane."""
    size = way.lanes
    reader = data.train.apart(size)
    assert reader is not None  # as the data are tensors
    streams = [Stream(task, reader, (seed, 0), device) for seed in range(size)]
    learner = LaneLearner(task, size, device, plays_momentum=False)
    for lane in range(size):
        learner.put(lane, Learner(task, device))
    learner.speed_up(compiled=way.compiled, captured=way.captured)
    rates = torch.full((size, 1), RATE, dtype=torch.float64, device=device)
    return lambda: learner.step(drawn_by(streams), rates, None, shared=False)


def wait(device: torch.device) -> None:
    """Wait for all that a GPU has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(step: Step, way: Way, seconds: float, device: torch.device) -> Reading:
    """Take steps for so many seconds, one at least."""
    wait(device)
    began, worked, steps = time.perf_counter(), time.process_time(), 0
    while not steps or time.perf_counter() - began < seconds:
        step()
        steps += 1
    wait(device)
    took = time.perf_counter() - began
    if device.type == "cuda":
        memory, busy = torch.cuda.max_memory_allocated(device), None
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MEMORY_UNIT
        busy = (time.process_time() - worked) / took
    return Reading(speed=max(way.lanes, 1) * steps / took, memory=memory, busy=busy)


def rest(device: torch.device) -> None:
    """Leave the device, and its memory as far as it is not in use, to others."""
    wait(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def told(error: Exception) -> str:
    """An error in the words of a table."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return "out of memory"
    if NO_COMPILER.search(str(error)):
        return "no compiler"
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    return said[:80].replace("|", "/")


def serve(connection: Connection, job: str, way: Way, device: torch.device) -> None:
    """The life of a process: a turn whenever it is told how long, until the connection ends.

    After its time it goes on until it is told to stop, so that others of its team are not timed
    beside an idle process.
    """
    try:
        with computing(device):
            task = JOBS[job]()
            data = TaskData(task, task.batch_size, device)
            step = together(task, data, device, way) if way.lanes else alone(task, data, device)
            for _ in range(WARM):
                step()
            while True:
                rest(device)
                connection.send(None)
                seconds = connection.recv()
                step()
                connection.send(timed(step, way, seconds, device))
                while not connection.poll(PAUSE):
                    step()
                connection.recv()
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        connection.send(told(error))


class Team:
    """The processes that train in one way, and rest between their turns.

    Attributes:
        failure: why they do not train; None if they do.
    """

    def __init__(self, job: str, way: Way, device: torch.device) -> None:
        self.failure: str | None = None
        self._device = device
        self._members: list[tuple[Connection, BaseProcess]] = []
        for _ in range(way.processes):
            ours, theirs = SPAWN.Pipe()
            process = SPAWN.Process(target=serve, args=(theirs, job, way, device))
            process.start()
            theirs.close()
            self._members.append((ours, process))
        self._answers()

    def turn(self, seconds: float) -> Found:
        """Train for so many seconds."""
        self._tell(seconds)
        samples = []
        while not (self.failure or self._members[0][0].poll(LOOK)):
            samples.append(gpu_use(self._device))
        readings = self._answers()
        self._tell("rest")
        self._answers()
        if self.failure:
            return self.failure
        busy = [each.busy for each in readings if each.busy is not None]
        seen = [each for each in samples if each is not None]
        return Reading(
            speed=sum(each.speed for each in readings),
            memory=sum(each.memory for each in readings),
            busy=sum(busy) if busy else statistics.mean(seen) if seen else None,
        )

    def _tell(self, what: float | str) -> None:
        for connection, _ in () if self.failure else self._members:
            with suppress(OSError):  # it has ended, and may have said why
                connection.send(what)

    def _answers(self) -> list[Any]:
        """What each process has to say next; a text is the reason why it has failed."""
        found: list[Any] = []
        for connection, process in () if self.failure else self._members:
            try:
                found.append(connection.recv())
            except (EOFError, OSError):
                process.join()
                killed = process.exitcode == -signal.SIGKILL
                found.append("killed" if killed else "process ended")
        self.failure = self.failure or next((each for each in found if isinstance(each, str)), None)
        if self.failure:
            self.close()
        return found

    def close(self) -> None:
        """End the processes."""
        for connection, _ in self._members:
            connection.close()
        for _, process in self._members:
            process.join()


def gpu_use(device: torch.device) -> float | None:
    """The share of the last moments in which the GPU was busy; None if that cannot be told."""
    if device.type != "cuda":
        return None
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
    try:
        said = subprocess.run(["nvidia-smi", "-i", name, *query], capture_output=True, check=True)
        return float(said.stdout) / 100
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def compared(
    job: str, ways: Mapping[str, Way], reference: Team, seconds: float, device: torch.device
) -> dict[str, Found]:
    """Each way's fastest turn, and the fastest one of the ``reference`` in turns with them."""
    found: dict[str, Found] = {}
    for name, way in ways.items():
        own: list[Found] = []
        its: list[Found] = []
        with closing(Team(job, way, device)) as team:
            while len(own) < TURNS and not team.failure:
                own.append(team.turn(seconds))
                its.append(reference.turn(seconds))
        best, one = team.failure or fastest(own), fastest(its)
        if isinstance(best, Reading) and isinstance(one, Reading):
            best = replace(best, gain=best.speed / one.speed)
        found[name] = best
        found[ALONE] = fastest([one, found[ALONE]] if ALONE in found else [one])
    return found


def fastest(turns: list[Found]) -> Found:
    """The fastest turn, with the most memory of any; why there is none if there is none."""
    readings = [each for each in turns if isinstance(each, Reading)]
    if not readings:
        return turns[0] if turns else ""
    best = max(readings, key=lambda each: each.speed)
    return replace(best, memory=max(each.memory for each in readings))


Rows = dict[int, dict[str, Found]]
"""What was found by the number of trials at once, and by the way."""


def names_in(rows: Rows) -> list[str]:
    """The ways that occur, one at a time first."""
    return [*dict.fromkeys([ALONE, *(name for found in rows.values() for name in found)])]


def per_hour(job: str, reading: Reading) -> float:
    """Trials per hour."""
    return reading.speed / JOBS[job].steps() * 3600


def tables(job: str, rows: Rows) -> str:
    """A job's results in Markdown: the trials per hour, then memory and how busy the device was."""

    def speed(reading: Reading) -> str:
        value = per_hour(job, reading)
        gain = "" if reading.gain is None else f" ({reading.gain:.2f})"
        return (f"{value:,.0f}" if value >= 100 else f"{value:.2f}") + gain

    def cost(reading: Reading) -> str:
        busy = "-" if reading.busy is None else f"{reading.busy:.2f}"
        return f"{reading.memory / 2**20:,.0f} MiB, {busy}"

    names = names_in(rows)
    lines = []
    for title, show in (("trials per hour", speed), ("peak memory, busy", cost)):
        lines += [f"| {job}, K: {title} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for count, found in rows.items():
            cells = [found.get(name, "") for name in names]
            texts = [each if isinstance(each, str) else show(each) for each in cells]
            lines.append(f"| {count} | {' | '.join(texts)} |")
        lines.append("")
    return "\n".join(lines)


def picture(results: Mapping[str, Rows]) -> Figure:
    """The trials per hour, a panel per job."""
    figure = Figure(figsize=(4.2 * len(results), 3.6), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, (job, rows) in zip(panels, results.items(), strict=True):
        for way in names_in(rows):
            points = [
                (count, per_hour(job, reading))
                for count, found in rows.items()
                if isinstance(reading := found.get(way), Reading)
            ]
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", markersize=4, label=way)
        panel.set(xscale="log", yscale="log", title=job, xlabel="K", ylabel="trials per hour")
        panel.set_xticks([*rows], map(str, rows), minor=False)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend()
    return figure


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    try:
        model = re.search("model name\\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    found = f"{usable_cores()} cores of {model[1] if model else platform.processor()}"
    if device.type == "cuda":
        found = f"{torch.cuda.get_device_name(device)}, {found}"
    else:
        found += ", one thread per process"
    return f"{found}, torch {torch.__version__}"


def heading(device: torch.device, seconds: float, jobs: list[str]) -> str:
    """The lines above the tables."""
    lengths = ", ".join(f"{job} {JOBS[job].steps():,}" for job in jobs)
    unit = "cores that were busy" if device.type == "cpu" else "share of time the GPU was busy"
    peak = "resident sets" if device.type == "cpu" else "torch's allocations on the GPU"
    return (
        f"{machine(device)}; the fastest of {TURNS} turns of {seconds:g} s.\n\n"
        f"Trials per hour = 3600 x steps per second of all trials / steps of a trial ({lengths}: "
        f"{Trial.epochs} epochs); in brackets: by that of one at a time in turns with them. "
        f"Memory: peak of {peak}, all processes added up. Busy: {unit}.\n"
    )


def main() -> None:
    """Print the tables of each job, and write them with their picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=[*JOBS])
    parser.add_argument("--lanes", nargs="*", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--processes", nargs="*", type=int, default=[2, 4, 8])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    device = find_device(given.device)
    parts = [heading(device, given.seconds, given.jobs)]
    print(parts[0], flush=True)
    results: dict[str, Rows] = {}
    for job in given.jobs:
        rows = results[job] = {}
        with closing(Team(job, Way(), device)) as reference:
            for count in sorted({*given.lanes, *given.processes}):
                ways = ways_for(
                    count,
                    lanes=count in given.lanes,
                    processes=count in given.processes,
                    captures=device.type == "cuda",
                )
                rows[count] = compared(job, ways, reference, given.seconds, device)
        parts.append(tables(job, rows))
        print(parts[-1], flush=True)
        if given.output:
            given.output.mkdir(parents=True, exist_ok=True)
            (given.output / "lanes.md").write_text("\n".join(parts))
            picture(results).savefig(given.output / "lanes.svg")


if __name__ == "__main__":
    main()
