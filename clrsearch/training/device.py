"""Device selection: the requested or best available device, and how many workers to put on it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from clrsearch.errors import PlanError

DEVICES = ("cuda", "mps", "cpu")
VISIBLE = "CUDA_VISIBLE_DEVICES"
ROCM = "HIP_VISIBLE_DEVICES"
"""What AMD's runtime reads as well; torch calls its GPUs cuda, too."""
CONTEXT = 600 << 20
"""What CUDA and its libraries take of a GPU's memory in each process, in bytes, roughly."""
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""Without it, cuBLAS is not deterministic, and torch refuses to use it if it has to be."""


def find_device(name: str | None) -> torch.device:
    """The requested device; without a ``name`` cuda, mps or cpu, in order of preference.

    Raises:
        PlanError: the requested device is not available here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name.partition(":")[0] not in DEVICES:
        raise PlanError(f"the device {name!r} cannot be used: choose cuda, cuda:1, mps or cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and torch.cuda.is_available():
            _require_gpu(device)  # an empty tensor would take the memory of a context
        else:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise PlanError(f"the device {name!r} cannot be used: {reason}") from error
    return device


def _require_gpu(device: torch.device) -> None:
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise RuntimeError(f"there is no GPU {device.index}: the first is 0, the last {count - 1}")


def see_only(name: str | None, count: int = 1) -> str | None:
    """Hide all GPUs but one from this process, by environment; returns what to call that one.

    Whatever takes all GPUs that it sees then takes the right one. Numbers count those that were
    visible so far. No GPU is visible to a process that trains on the CPU. Call this before anything
    uses a GPU. ``count`` GPUs in a row stay visible, for a group of processes.
    """
    kind, _, index = ("cuda" if name is None else name).partition(":")
    if kind == "cpu":
        os.environ[VISIBLE] = ""
    if kind != "cuda" or not (index or "0").isdecimal():
        return name
    number = int(index or "0")
    if number + count > torch.cuda.device_count():
        return name
    amd = torch.version.hip is not None and bool(os.environ.get(ROCM))
    variable = ROCM if amd else VISIBLE  # numbers count what the first of them leaves
    before = os.environ.get(variable)
    listed = before.split(",") if before else list(map(str, range(number + count)))
    os.environ[variable] = ",".join(each.strip() for each in listed[number : number + count])
    if torch.cuda.device_count() != count:  # too late: this process goes on seeing what it saw
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
        return name
    return "cuda"


def place(device: torch.device) -> str:
    """The device as its machine numbers it, whichever of them this process sees."""
    if device.type != "cuda":
        return str(device)
    listed = os.environ.get(VISIBLE, "").split(",")
    index = device.index or 0
    return f"cuda:{listed[index].strip() if index < len(listed) and listed[index] else index}"


def model_of(device: torch.device) -> str:
    """What computes: the model of a GPU, or the type of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def worker_devices(
    name: str | None, workers: int | None, *, slots: int, gpus_per_trial: int = 1
) -> list[str]:
    """A device for each worker: one worker per GPU, or per core on a CPU; at most one per slot.

    ``workers`` overrides their number; workers beyond the number of GPUs share them. A worker that
    trains on several GPUs gets the first of them, and takes those after it.

    Raises:
        PlanError: there are not so many GPUs.
    """
    require_gpus(name, gpus_per_trial)
    return spread(devices_for(name), workers, slots=slots, gpus_per_trial=gpus_per_trial)


def devices_for(name: str | None) -> list[str]:
    """The devices that a name stands for: all GPUs, if it numbers none of them."""
    device = find_device(name)
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(device)]


def require_gpus(name: str | None, per_trial: int) -> None:
    """Refuse a number of GPUs per trial that there are not from the named one on.

    On a CPU, as many processes train there.

    Raises:
        PlanError: naming how many there are.
    """
    device = find_device(name)
    if per_trial == 1 or device.type == "cpu":
        return
    there = torch.cuda.device_count() - (device.index or 0) if device.type == "cuda" else 1
    if per_trial > there:
        found = "is 1 GPU" if there == 1 else f"are {there} GPUs"
        onward = "" if device.index is None else f" from {device} on"
        raise PlanError(
            f"--gpus-per-trial {per_trial}, but there {found}{onward}: give a smaller number"
        )


def spread(
    devices: Sequence[str], workers: int | None, *, slots: int, gpus_per_trial: int = 1
) -> list[str]:
    """A device of those for each worker, with ``gpus_per_trial`` the first of as many in a row.

    See :func:`worker_devices`.
    """
    cores = max(usable_cores() // gpus_per_trial, 1)
    if len(devices) > 1:  # the last ones may be too few
        devices = devices[: len(devices) // gpus_per_trial * gpus_per_trial : gpus_per_trial]
    count = workers or (cores if devices[0] == "cpu" else len(devices))
    return [devices[index % len(devices)] for index in range(min(count, max(slots, 1)))]


def per_gpu_devices(per_gpu: int, workers: int, *, gpus: int) -> list[str]:
    """A device for each worker, with ``per_gpu`` workers on each of the machine's GPUs.

    Raises:
        PlanError: there are too few GPUs.
    """
    needed = -(-workers // per_gpu)
    if needed > gpus:
        there = {0: "is no GPU", 1: "is one"}.get(gpus, f"are {gpus}")
        raise PlanError(
            f"{workers} workers with {per_gpu} per GPU need {needed} of them, but there {there}"
        )
    return [f"cuda:{index // per_gpu}" for index in range(workers)]


def memory(device: torch.device) -> tuple[float, float]:
    """What this process has taken at most of a GPU's memory, and what is free, in bytes.

    Both are 0 for other devices.
    """
    if device.type != "cuda":
        return 0.0, 0.0
    free, _ = torch.cuda.mem_get_info(device)
    return float(torch.cuda.max_memory_reserved(device) + CONTEXT), float(free)


def free_memory(device: torch.device) -> None:
    """Free a GPU's memory that nothing holds any more, for the next trial and for others."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def usable_cores() -> int:
    """The number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def computing(device: torch.device, *, deterministic: bool = False) -> Iterator[None]:
    """Set how torch computes on a device in the block.

    On a CPU, it does so in one thread: results are bit-identical only at equal thread counts. On a
    GPU, cuDNN tries out which algorithms are fastest, so that results repeat up to rounding only;
    with ``deterministic``, torch takes none but algorithms whose results repeat exactly, and raises
    a RuntimeError where it has none.
    """
    threads = torch.get_num_threads()
    benchmark = torch.backends.cudnn.benchmark
    strict = torch.are_deterministic_algorithms_enabled()
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if deterministic:
        os.environ.setdefault(CUBLAS, ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(strict)
