"""For the Transformers Trainer: its own scheduler, or torch's passed to it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from clrsearch.exports import to_torch
from clrsearch.exports.found import Found
from clrsearch.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Linear,
    Polynomial,
    Schedule,
    ScheduleFree,
    Value,
    WarmupStableDecay,
    opening,
)

BY_EPOCHS = '''

def make_optimizers(optimizer, steps_per_epoch):
    """What the Trainer takes as optimizers=, for a run with num_train_epochs=EPOCHS.

    steps_per_epoch counts optimizer steps: batches over gradient_accumulation_steps.
    """
    return optimizer, make_scheduler(optimizer, steps_per_epoch)
'''
BY_STEPS = '''

def make_optimizers(optimizer, total_steps=TOTAL_STEPS):
    """What the Trainer takes as optimizers=, for a run with max_steps=total_steps.

    total_steps counts optimizer steps: batches over gradient_accumulation_steps.
    """
    return optimizer, make_scheduler(optimizer, total_steps)
'''
FREE = '''

def make_optimizers(optimizer, {argument}):
    """What the Trainer takes as optimizers=, for a run with {length}.

    {argument} counts optimizer steps: batches over gradient_accumulation_steps. The Trainer
    switches the weights between training and evaluation, but leaves them in training at the end:
    call trainer.optimizer.eval() before you save the model.
    """
    free = make_optimizer(optimizer, {argument})
    return free, torch.optim.lr_scheduler.LambdaLR(free, lambda step: 1.0)
'''


def write(found: Found) -> str:
    """A file with ``make_arguments`` for TrainingArguments, or with ``make_optimizers``.

    ``make_arguments`` is used if Transformers has an equivalent scheduler (only without a warm-up:
    theirs starts at 0, ours one step above) and all parameter groups have the same rate;
    ``make_optimizers`` keeps the ratios.

    Raises:
        ScheduleError: the code does not reproduce the schedule.
    """
    native = own_scheduler(found.schedule) if found.one_rate else None
    file, by_epochs = found.file, found.file.total_steps is None
    if isinstance(found.schedule, ScheduleFree):
        length = "num_train_epochs=EPOCHS" if by_epochs else "max_steps=TOTAL_STEPS"
        text = to_torch.write(found).replace("from schedulefree", "import torch\nfrom schedulefree")
        return text + FREE.format(argument=file.argument, length=length)
    if native is None:
        return to_torch.write(found) + (BY_EPOCHS if by_epochs else BY_STEPS)
    name, lr, arguments = native
    per = f"{file.steps_per_epoch} optimizer steps per epoch" if by_epochs else file.span
    lines = [
        *opening(file, ["from transformers import TrainingArguments"]),
        "",
        "",
        "def make_arguments(**others):",
        '    """The arguments that say the schedule, beside your own.',
        "",
        f"    Found with {file.optimizer},",
        f"    over {per}.",
        '    """',
        "    return TrainingArguments(",
        f"        {'num_train_epochs=EPOCHS' if by_epochs else 'max_steps=TOTAL_STEPS'},",
        f"        learning_rate={lr!r},",
        f'        lr_scheduler_type="{name}",',
        f"        lr_scheduler_kwargs={json.dumps(arguments)},",
        "        warmup_steps=0,",
        "        **others,",
        "    )",
        "",
    ]
    return "\n".join(lines)


def own_scheduler(schedule: Schedule) -> tuple[str, float, Mapping[str, Value]] | None:
    """The ``lr_scheduler_type``, ``learning_rate`` and ``lr_scheduler_kwargs``, if equivalent."""
    match schedule:
        case Constant(lr=lr):
            return "constant", lr, {}
        case Linear(lr=lr, warmup=0):
            return "linear", lr, {}
        case Polynomial(lr=lr, warmup=0, power=power):
            return "polynomial", lr, {"power": power, "lr_end": 0.0}
        case Cosine(lr=lr, warmup=0, eta_min=0.0):
            return "cosine", lr, {}
        case Cosine(lr=lr, warmup=0, eta_min=floor):
            return "cosine_with_min_lr", lr, {"min_lr_rate": floor / lr}
        case CosineRestarts(lr=lr, warmup=0, T_mult=1, eta_min=0.0, cycles=cycles):
            if _restarts_in_time(schedule):
                return "cosine_with_restarts", lr, {"num_cycles": cycles}
        case WarmupStableDecay(lr=lr, warmup=0, decay=decay, power=None) if decay == int(decay):
            decaying = {"num_decay_steps": int(decay), "decay_type": schedule.shape}
            return "warmup_stable_decay", lr, {**decaying, "min_lr_ratio": schedule.min_lr / lr}
    return None


def _restarts_in_time(schedule: CosineRestarts) -> bool:
    """Whether the rounding in Transformers shifts none of the restarts by a step."""
    _, *restarts, end = schedule.restarts
    whole = [step for step in restarts if step == int(step)]
    return all(schedule.cycles * (step / end) % 1.0 == 0.0 for step in whole)
