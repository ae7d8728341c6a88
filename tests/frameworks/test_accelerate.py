"""The loops on the page about Accelerate, as they are there."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from frameworks.test_frameworks import CYCLE

from clrsearch.schedules import trace
from clrsearch.tasks import load_task
from clrsearch.training import probe, run_maker

CPU = torch.device("cpu")
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "accelerate.md").read_text()
MINE = re.search(r'```python title="mine.py"\n(.*?)```', PAGE, re.DOTALL)[1]
DEEP = 16 * " "
CLIPPED = f"""{DEEP}if accelerator.sync_gradients:
{DEEP}    accelerator.clip_grad_norm_(model.parameters(), 0.1)
"""


@pytest.mark.parametrize(
    ("name", "precision", "length", "intervals"),
    [
        ("train", "no", {"epochs": 4}, 4),  # of 5 batches in 3 steps
        ("train", "bf16", {"epochs": 4}, 4),
        ("train_in_steps", "no", {"steps": 11, "validate_every": 4}, 3),
    ],
)
def test_the_loops_of_the_page_go_on_as_they_would_have(
    tmp_path, name, precision, length, intervals
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    text = "\n".join(re.findall(r'```python(?: title="loop.py")?\n(.*?)```', PAGE, re.DOTALL))
    made = f'    accelerator = Accelerator(\n        mixed_precision="{precision}",\n'
    text = text.replace("    accelerator = Accelerator(\n", made)
    if precision == "bf16":
        text = text.replace(f"{DEEP}optimizer.step()\n", f"{CLIPPED}{DEEP}optimizer.step()\n")
        assert CLIPPED in text
    (tmp_path / "loop.py").write_text(text)
    AcceleratorState._reset_state()  # its precision is the process's
    loaded = load_task(f"loop.py:{name}", folder=tmp_path)
    facts = probe(loaded, device=CPU, metric="error", direction="minimize", **length)
    maker = run_maker(loaded.task, facts, CPU)
    played = trace(CYCLE, facts.horizon)
    one = maker(played, seed=0, seed_index=0)
    values, states = {}, []

    def save(epoch):
        values[epoch.number] = epoch.metrics["error"]
        states.append(io.BytesIO())
        torch.save(one.state(), states[-1])
        return True

    one.train(save)
    assert list(values) == list(range(1, intervals + 1))
    for done in range(1, intervals):
        states[done - 1].seek(0)
        again, rest = maker(played, seed=0, seed_index=0), {}
        again.restore(torch.load(states[done - 1], weights_only=True))
        again.train(
            lambda epoch, rest=rest: rest.update({epoch.number: epoch.metrics["error"]}) or 1
        )
        assert rest == {number: value for number, value in values.items() if number > done}
