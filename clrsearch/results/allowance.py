"""A study's budget in words: how it will be spent, what is left of it, that it is too small."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clrsearch.search import Purse, StudyPlan, fewest_runs, further_runs, further_trials
from clrsearch.tasks import Spacing

FEWEST_TRIALS = 2  # of a search worth confirming
_NAMES = {"minutes": "minute", "gpu_hours": "GPU hour", "epochs_total": "epoch"}
_UNITS = {"minutes": 60.0, "gpu_hours": 3600.0, "epochs_total": 1.0}
_SETTLED = "fewer if another is expected to gain less than a tenth of the deviation between seeds"


def forecast(
    purses: Sequence[Purse], plan: StudyPlan, spacing: Spacing, *, workers: int, trials: int
) -> str:
    """How a budget will be spent: so many further ``trials``, and the confirmation."""
    settled = f", {_SETTLED}" if plan.until_settled else ""
    if not purses:
        return f"up to {_count(trials, 'trial')}{settled}"
    tightest = _tightest(purses, plan)
    unit = _UNITS[tightest.key]
    head = _amount(tightest.key, tightest.granted)
    if tightest.key == "minutes":
        head += f" on {_count(workers, 'worker')}"
    about = "at most" if plan.until_settled else "about"
    run = _run(tightest, spacing)
    spent = math.ceil(trials / tightest.together) * tightest.run
    rest = tightest.left - spent
    said = f"{head}: {about} {_count(trials, 'trial')} of {run} ({_size(spent, unit)})"
    if plan.confirm.enabled:
        said += " and a confirmation"
    if plan.confirm.enabled and not plan.until_settled:
        up_to = "" if trials == further_trials(purses, plan) else "up to "
        said += f" ({up_to}{_size(rest, unit)})"
    return f"{said}{settled}"


def too_little(purses: Sequence[Purse], plan: StudyPlan, spacing: Spacing, *, workers: int) -> str:
    """That a budget does not last for a few trials and a confirmation, and what would."""
    purse = _tightest(purses, plan)
    fewest = fewest_runs(plan)
    trials, runs = (math.ceil(each / purse.together) for each in (FEWEST_TRIALS, fewest))
    share = float(plan.confirm.share) if fewest else 0.0
    lost = purse.granted - purse.left
    needed = lost + max(trials * purse.run / (1 - share), (trials + runs) * purse.run)
    unit = _UNITS[purse.key]
    digits = 0 if purse.key == "epochs_total" else 1
    least = math.ceil(needed / unit * 10**digits) / 10**digits
    where = f" on {_count(workers, 'worker')}" if purse.key == "minutes" else ""
    are = "is" if purse.granted == unit else "are"
    confirmed = f" and a confirmation of {fewest}" if fewest else ""
    return (
        f"{_amount(purse.key, purse.granted)}{where} {are} about "
        f"{_count(purse.runs(), 'run')} of {_run(purse, spacing)}, too few for {FEWEST_TRIALS} "
        f"trials{confirmed}: give at least --{purse.key.replace('_', '-')} {least:g}, or fewer "
        "--epochs"
    )


def what_is_left(purses: Sequence[Purse], plan: StudyPlan) -> str:
    """What is left of a study's budget, in a few words; empty without one."""
    parts = [_left(each) for each in purses]
    if plan.until_settled:
        parts.append(f"at most {_count(plan.trials, 'trial')}")
    return ", ".join(parts)


def spent(purses: Sequence[Purse]) -> str:
    """Which limit of an ended study has ended it: "the 30 minutes were over"."""
    tightest = min(purses, key=lambda each: (each.runs(), each.left / each.granted))
    words = f"the {_amount(tightest.key, tightest.granted)}"
    if tightest.granted == _UNITS[tightest.key]:
        return f"{words} was {'over' if tightest.key == 'minutes' else 'spent'}"
    return f"{words} were {'over' if tightest.key == 'minutes' else 'spent'}"


def _tightest(purses: Sequence[Purse], plan: StudyPlan) -> Purse:
    return min(purses, key=lambda each: (further_trials([each], plan), further_runs([each])))


def _left(purse: Purse) -> str:
    whole, left = _amount(purse.key, purse.granted), max(purse.left, 0.0)
    if purse.key == "epochs_total":
        return f"{math.floor(left)} of {whole} left"
    return f"{_about(left)} of {whole} left"


def _amount(key: str, size: float) -> str:
    return _count(size / _UNITS[key], _NAMES[key])


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{round(number, 4):.10g} {noun}s"


def _run(purse: Purse, spacing: Spacing) -> str:
    if purse.key == "epochs_total":
        return f"{spacing.epochs} {spacing.unit}s"
    return _about(purse.run)


def _size(amount: float, unit: float) -> str:
    return f"{amount:.0f}" if unit == 1 else _about(amount)


def _about(seconds: float) -> str:
    """A rough duration, in the unit that suits it."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
