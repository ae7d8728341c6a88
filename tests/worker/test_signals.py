"""Signals interrupt training, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from clrsearch.worker.signals import Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_breaks_off_an_allowed_block(number) -> None:
    interruption = Interruption()
    with interruption.listening():
        with pytest.raises(Interrupted), interruption.allowed():
            os.kill(os.getpid(), number)
            for _ in range(10_000_000):
                pass
        assert interruption.asked


def test_elsewhere_it_waits_for_the_next_allowed_block() -> None:
    interruption = Interruption()
    with interruption.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        written = sum(range(1000))
        assert written == 499_500
        assert interruption.asked
        with pytest.raises(Interrupted), interruption.allowed():
            raise AssertionError("an interrupted worker began to train")


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption().listening():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_task_cannot_swallow_it() -> None:
    assert not issubclass(Interrupted, Exception)


def test_off_the_main_thread_it_listens_to_nothing() -> None:
    seen = []

    def listen() -> None:
        with Interruption().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_second_ctrl_c_exits_at_once() -> None:
    program = (
        "import os, signal, time\n"
        "from clrsearch.worker.signals import Interruption\n"
        "with Interruption().listening():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 130
