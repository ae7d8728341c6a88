"""Devices: the one that was named, or the best there is; and how many workers it feeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from clrsearch.errors import PlanError
from clrsearch.training.device import computing, find_device, usable_cores, worker_devices


def test_workers_are_as_many_as_cores_or_slots_or_asked_for() -> None:
    assert worker_devices("cpu", 3, slots=9) == ["cpu"] * 3
    assert worker_devices("cpu", None, slots=1) == ["cpu"]
    assert worker_devices("cpu", None, slots=999) == ["cpu"] * usable_cores()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_workers_are_as_many_as_gpus() -> None:
    places = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    assert worker_devices(None, None, slots=999) == places
    assert worker_devices("cuda:0", 2, slots=999) == ["cuda:0"] * 2


def test_a_device_that_is_not_here_is_refused() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(PlanError, match="the device 'tpu9' cannot be used"):
        find_device("tpu9")


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with computing(torch.device("cpu")):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


SEE = (
    "import json, os, sys; from clrsearch.training import place, see_only\n"
    "import torch; seen = lambda: os.environ.get('CUDA_VISIBLE_DEVICES', '0,1,2,3')\n"
    "torch.cuda.device_count = lambda: len(seen().split(','))\n"
    "called = see_only(sys.argv[1] or None, int(sys.argv[2]))\n"
    "print(json.dumps([called, os.environ.get('CUDA_VISIBLE_DEVICES'),"
    " os.environ.get('HIP_VISIBLE_DEVICES'), place(torch.device(called or 'cpu'))]))\n"
)


@pytest.mark.parametrize(
    ("name", "there", "seen"),
    [
        *((f"cuda:{index}", {}, ["cuda", str(index), None, f"cuda:{index}"]) for index in range(4)),
        ("cuda", {}, ["cuda", "0", None, "cuda:0"]),
        ("", {}, ["cuda", "0", None, "cuda:0"]),
        ("cuda:2", {"CUDA_VISIBLE_DEVICES": "7,5,3,1"}, ["cuda", "3", None, "cuda:3"]),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}, ["cuda", "GPU-b", None, "cuda:GPU-b"]),
        ("cuda:1", {"HIP_VISIBLE_DEVICES": "4,6"}, ["cuda", "1", "4,6", "cuda:1"]),  # not AMD's
        ("cuda:4", {}, ["cuda:4", None, None, "cuda:4"]),  # there is none, which is told later
        ("cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}, ["cpu", "", None, "cpu"]),
    ],
)
def test_a_worker_process_sees_its_own_gpu_alone(name, there, seen) -> None:
    """On a machine with four GPUs, which is pretended: the environment is what counts."""
    require_seen(name, 1, there, seen)


@pytest.mark.parametrize(
    ("name", "there", "seen"),
    [
        ("cuda", {}, ["cuda", "0,1", None, "cuda:0"]),
        ("cuda:2", {}, ["cuda", "2,3", None, "cuda:2"]),
        ("cuda:2", {"CUDA_VISIBLE_DEVICES": "7,5,3,1"}, ["cuda", "3,1", None, "cuda:3"]),
        ("cuda:3", {}, ["cuda:3", None, None, "cuda:3"]),  # there are too few, which is told
        ("cpu", {}, ["cpu", "", None, "cpu"]),
    ],
)
def test_the_processes_of_a_group_see_its_gpus_alone(name, there, seen) -> None:
    require_seen(name, 2, there, seen)


def require_seen(name, count, there, seen) -> None:
    hidden = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    told = subprocess.run(
        [sys.executable, "-c", SEE, name, str(count)],
        env=environment | there,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout) == seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_not_here_is_refused() -> None:
    with pytest.raises(PlanError, match="there is no GPU 99"):
        find_device("cuda:99")
