"""The optimizers of the built-in tasks on digits: each is an option."""

from __future__ import annotations

import pytest

from clrsearch.tasks.denoise import Denoise
from clrsearch.tasks.digits import Digits


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("nesterov", "SGD"),
        ("sgd", "SGD"),
        ("adam", "Adam"),
        ("adamw", "AdamW"),
        ("rmsprop", "RMSprop"),
    ],
)
@pytest.mark.parametrize("kind_of_task", [Denoise, Digits])
def test_the_optimizer_is_an_option(kind_of_task, option, kind) -> None:
    task = kind_of_task({"optimizer": option})
    optimizer = task.optimizer(task.model())
    assert type(optimizer).__name__ == kind
    assert optimizer.defaults.get("nesterov", False) == (option == "nesterov")
