"""What was raised, in one line: literals of what Python, torch and a worker print."""

from __future__ import annotations

import traceback

import pytest
import torch

from clrsearch.causes import cause, complaint, shortened

CUDA = """\
Traceback (most recent call last):
  File "/home/me/mine.py", line 41, in loss
    return cross_entropy(output, target)
  File "/opt/venv/lib/python3.12/site-packages/torch/nn/functional.py", line 3458, in cross_entropy
    return torch._C._nn.cross_entropy_loss(
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
torch.AcceleratorError: CUDA error: device-side assert triggered
CUDA kernel errors might be asynchronously reported at some other API call.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

"""

CHAINED = """\
Traceback (most recent call last):
  File "/home/me/data.py", line 7, in find
    return table[key]
           ~~~~~^^^^^
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/home/me/mine.py", line 30, in data
    find("x")
  File "/home/me/data.py", line 9, in find
    raise LookupError(f"{key} is missing")
LookupError: x is missing
"""

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/home/me/mine.py", line 12, in data
  |     load_all()
  | ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/home/me/data.py", line 5, in read
    |     return int(text)
    | ValueError: invalid literal
    | in its second line
    +---------------- 2 ----------------
    | TypeError: not this one
    +------------------------------------
"""

NESTED_GROUP = """\
Traceback (most recent call last):
  File "/home/me/mine.py", line 3, in data
KeyError: 'first'

The above exception was the direct cause of the following exception:

  + Exception Group Traceback (most recent call last):
  |   File "/home/me/mine.py", line 12, in data
  |     raise errors
  | ExceptionGroup: outer (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ExceptionGroup: inner (1 sub-exception)
    +-+---------------- 1 ----------------
      | KeyError: 'k'
      +------------------------------------
    +---------------- 2 ----------------
    | TypeError: not this one
    +------------------------------------
"""

SYNTAX = """\
Traceback (most recent call last):
  File "/home/me/mine.py", line 3, in train
    import helper
  File "/home/me/helper.py", line 8
    x = = 3
        ^
SyntaxError: invalid syntax
"""

LOADER = """\
Traceback (most recent call last):
  File "/home/me/mine.py", line 20, in train
    for batch in loader:
  File "/opt/venv/lib/python3.12/site-packages/torch/_utils.py", line 750, in reraise
    raise exception
KeyError: Caught KeyError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/opt/venv/lib/python3.12/site-packages/torch/utils/data/_utils/fetch.py", line 52, in fetch
    data = [self.dataset[idx] for idx in possibly_batched_index]
  File "/home/me/data.py", line 9, in __getitem__
    return self.table[index]
KeyError: 3

"""

LIBRARY = """\
Traceback (most recent call last):
  File "/opt/venv/lib/python3.12/site-packages/torch/_tensor.py", line 625, in backward
    torch.autograd.backward(
  File "/opt/venv/lib/python3.12/site-packages/torch/autograd/graph.py", line 841, in run
    return Variable._execution_engine.run_backward(
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CUDA, "torch.AcceleratorError: CUDA error: device-side assert triggered (mine.py:41)"),
        (CHAINED, "LookupError: x is missing (data.py:9)"),
        (
            GROUP,
            "ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions), "
            "the first: ValueError: invalid literal (data.py:5)",
        ),
        (
            NESTED_GROUP,
            "ExceptionGroup: outer (2 sub-exceptions), the first: KeyError: 'k' (mine.py:12)",
        ),
        (SYNTAX, "SyntaxError: invalid syntax (helper.py:8)"),
        (LOADER, "KeyError: 3 (data.py:9)"),
        (
            LIBRARY,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. "
            "(_tensor.py:625)",
        ),
        ("", "no reason recorded"),
        (" \n\n", "no reason recorded"),
        ("5 workers were lost with this trial\nand more", "5 workers were lost with this trial"),
        ("KeyError while training: 'x'", "KeyError while training: 'x'"),
    ],
)
def test_a_failure_is_told_by_type_message_and_place(error, told) -> None:
    assert cause(error) == told


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError


def raised(error: BaseException) -> str:
    try:
        raise error
    except BaseException as caught:
        return "".join(traceback.format_exception(caught))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AssertionError(), "AssertionError"),
        (RuntimeError("   "), "RuntimeError"),
        (RuntimeError("\n\n  sizes\tdiffer \nby one"), "RuntimeError: sizes differ"),
        (RuntimeError("Missing keys:\n\tweight\n\tbias"), "RuntimeError: Missing keys: weight"),
        (SystemExit(2), "SystemExit: 2"),
        (Silent(), "tests.test_causes.Silent: <exception str() failed>"),
        (RuntimeError("x" * 30_000), "RuntimeError: " + "x" * 186 + "..."),
    ],
)
def test_what_python_prints_today_is_read(error, told) -> None:
    found = cause(raised(error))
    assert found.startswith(f"{told} (test_causes.py:")
    assert found == cause(shortened(raised(error), 400))


class Table(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        table: dict[int, int] = {}
        return table[index]


def test_a_dataset_that_raises_in_a_process_of_the_loader_is_named() -> None:
    line = Table.__getitem__.__code__.co_firstlineno + 2
    with pytest.raises(KeyError) as caught:
        list(torch.utils.data.DataLoader(Table(), num_workers=1))
    told = "".join(traceback.format_exception(caught.value))
    assert cause(told) == f"KeyError: 0 (test_causes.py:{line})"


@pytest.mark.parametrize("longest", [300, 600])
@pytest.mark.parametrize(
    "error", [CUDA, CHAINED, LOADER + "z" * 2000], ids=["CUDA", "chain", "loader"]
)
def test_a_shortened_traceback_tells_the_same(error, longest) -> None:
    short = shortened(error, longest)
    assert len(short) < longest + 60
    assert cause(short).split(" (")[0] == cause(error).split(" (")[0]


def test_of_a_deep_stack_the_frames_next_to_the_error_are_kept() -> None:
    frames = "".join(f'  File "/home/me/mine.py", line {n}, in f\n    f()\n' for n in range(900))
    error = f"Traceback (most recent call last):\n{frames}RuntimeError: deep\n{'more ' * 3000}"
    short = shortened(error, 10_000)
    assert len(short) <= 10_060
    assert short.startswith("Traceback (most recent call last):\n  [...]\n")
    assert "line 899, in f\n    f()\nRuntimeError: deep\nmore more" in short
    assert cause(short) == "RuntimeError: deep (mine.py:899)"


def test_what_is_short_enough_stays_as_it_is() -> None:
    assert shortened(CUDA, len(CUDA)) == CUDA


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ("", ""),
        ("warning: first\nno luck\n", "no luck"),
        (
            "clrsearch: waiting for the database\nclrsearch: no room\nresource_tracker: 1\n",
            "no room",
        ),
        (
            f"{CUDA}clrsearch: RuntimeError while training: CUDA error\n",
            "RuntimeError while training: CUDA error",
        ),
        (f"clrsearch: waiting\n{CHAINED}", "LookupError: x is missing (data.py:9)"),
    ],
)
def test_a_worker_is_quoted_by_what_it_complained_of_last(errors, told) -> None:
    assert complaint(errors) == told
