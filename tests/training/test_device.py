"""Devices: the one that was named, or the best there is; and how many workers it feeds."""

from __future__ import annotations

import pytest
import torch

from clrsearch.errors import PlanError
from clrsearch.training.device import find_device, one_thread, usable_cores, worker_devices


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
    with one_thread(torch.device("cpu")):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
