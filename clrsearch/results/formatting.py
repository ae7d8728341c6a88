"""Format values, durations, trials and schedules as one line."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

from clrsearch.results.confirmation import Confirmed
from clrsearch.results.snapshots import ENDS, Snapshot
from clrsearch.schedules import Schedule, ScheduleFree, Value
from clrsearch.search import EPOCHS, GROUPS, Record, Standing, Verdict
from clrsearch.tasks import Spacing


def number(value: Value | None) -> str:
    """A value with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def params(record: Record) -> str:
    """A trial's searched parameters."""
    words = [f"{name} {number(value)}" for name, value in record.params.items()]
    return f"{record.family}: {', '.join(words)}"


def length(spacing: Spacing, batch_size: int | None = None) -> str:
    """How long a run is, in batches if their size is given, and how often it is validated."""
    every = (
        ""
        if spacing.validate_every is None
        else f", validated every {spacing.validate_every} steps"
    )
    if spacing.steps is not None:
        batches = "" if batch_size is None else f" in batches of {batch_size}"
        return f"{spacing.steps} steps{batches}, validated every {spacing.validate_every}"
    if spacing.in_steps:
        return f"{epochs(spacing.epochs)}, {spacing.horizon} steps in all{every}"
    steps = "steps" if batch_size is None else f"batches of {batch_size}"
    return f"{epochs(spacing.epochs)} of {spacing.steps_per_epoch} {steps}{every}"


def intervals_of(record: Record, spacing: Spacing) -> int:
    """The number of validations of a trial, which may be shorter than others of its study."""
    return int(record.params.get(EPOCHS, spacing.intervals))


def done_of(spacing: Spacing, done: int) -> str:
    """How far a run is after so many of its intervals: in epochs, or in steps between them."""
    if spacing.validate_every is None:
        return f"{done} of {spacing.epochs} epochs"
    return f"{spacing.ends[done - 1]} of {spacing.horizon} steps"


def one(word: str) -> str:
    """A noun with its indefinite article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def metrics(record: Record, metric: str, spacing: Spacing) -> str:
    """A trial's last metrics, the searched one first."""
    if record.value is None:
        return f"no {spacing.progress} finished"
    others = {name: value for name, value in record.metrics.items() if name != metric}
    return ", ".join(
        f"{name} {number(value)}" for name, value in {metric: record.value, **others}.items()
    )


def schedule_line(found: Schedule) -> str:
    """A schedule's family and values."""
    values = schedule_values(found)
    return f"{found.family}: " + ", ".join(
        f"{name} {number(value)}" for name, value in values.items()
    )


def schedule_values(found: Schedule) -> dict[str, Value]:
    """A schedule's fields by name, except those hidden from its repr and those that are None."""
    assert dataclasses.is_dataclass(found) and not isinstance(found, type)
    shown = {
        each.name: getattr(found, each.name) for each in dataclasses.fields(found) if each.repr
    }
    return {name: value for name, value in shown.items() if value is not None}


def ends(counted: Snapshot | Confirmed) -> str:
    """Number of ended slots by outcome."""
    return ", ".join(f"{counted.slots.get(end, 0)} {end}" for end in ENDS)


def duration(seconds: float) -> str:
    """A duration in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")


def epochs(count: int) -> str:
    """A number of epochs."""
    return "1 epoch" if count == 1 else f"{count} epochs"


def seeds(count: int) -> str:
    """A number of fresh seeds."""
    return "1 fresh seed" if count == 1 else f"{count} fresh seeds"


def marks(standing: Standing, found: Confirmed, *, before: str = "") -> str:
    """A finalist's labels, prefixed with ``before``: top finalist, recommended, baseline."""
    assert found.verdict is not None
    verdict, trial = found.verdict, standing.trial
    said = {
        "top finalist": trial == verdict.standings[0].trial,
        "recommended": trial == verdict.chosen,
        "baseline": trial == found.baseline,
    }
    words = [word for word, applies in said.items() if applies]
    return before + ", ".join(words) if words else ""


def worth(now: Snapshot) -> str:
    """How the recommended schedule compares with the baseline and with no schedule at all, and why
    the search best is not among the finalists.

    Empty if unknown.
    """
    without = "" if now.verdict is None else _without_schedule(now.verdict)
    return " ".join(filter(None, (_against_baseline(now), without, _left_out(now))))


def _left_out(now: Snapshot) -> str:
    """Why the search best was not re-run; empty if it was."""
    found, verdict = now.search_best, now.verdict
    if found is None or verdict is None:
        return ""
    if any(each.trial == found.number for each in verdict.standings):
        return ""
    return (
        f"The search best (trial {found.number}) was not re-run: without the luck of its seed, "
        "others are expected to score better."
    )


def _without_schedule(verdict: Verdict) -> str:
    """Whether a schedule is needed at all; empty unless Schedule-Free is among the finalists."""
    free = next((each for each in verdict.standings if each.family == ScheduleFree.family), None)
    if free is None or max(len(each.scores) for each in verdict.standings) < 2:
        return ""
    named = f"{free.family} (trial {free.trial})"
    if verdict.standing(verdict.chosen).family == free.family:
        unsettled = verdict.winner is None and len(verdict.undecided) > 1
        return "So you may need no schedule here." if unsettled else "So you need no schedule here."
    if free.diverged:
        return f"You do need a schedule here: {named} diverged."
    if free.trial in (*verdict.undecided, *verdict.behind):
        return f"Whether you need a schedule at all stays open: {named} has not been beaten."
    return f"You do need a schedule here: {named} is beaten."


def _against_baseline(now: Snapshot) -> str:
    """How the recommended schedule compares with the baseline; empty if unknown."""
    found, verdict = now.confirmed, now.verdict
    if found is None or found.reached is None or found.baseline is None or verdict is None:
        return ""
    p = verdict.standing(found.baseline).p
    baseline = f"{now.baseline_family} (trial {found.baseline}"
    after = f"after {done_of(now.spacing, found.reached)}"
    if p is None or found.baseline in (*verdict.undecided, *verdict.behind):
        return f"It reaches the final score of {baseline}) {after}."
    return f"It beats {baseline}; p = {p:.2g}) and reaches its final score {after}."


def groups(record: Record) -> str:
    """A trial's learning-rate factors per parameter group, each after a comma; empty if none."""
    found = {name: value for name, value in record.params.items() if name.startswith(GROUPS)}
    return "".join(f", {name} {number(value)}" for name, value in found.items())


def trial_name(record: Record, width: int = 0) -> str:
    """A trial by its number; in a confirmation by that of the finalist it repeats, and its seed."""
    if record.finalist is not None:
        return f"trial {record.finalist:>{width}} again, seed {record.seed_index}"
    return f"trial {record.number:>{width}}"


def trial_line(record: Record, metric: str, spacing: Spacing) -> str:
    """A finished trial as one line."""
    return (
        f"{trial_name(record, 3)}  {record.end:<8}  {spacing.progress} {record.epoch:>2}/"
        f"{intervals_of(record, spacing)}  "
        f"{metrics(record, metric, spacing)}  {params(record)}"
    )


def trial_json(record: Record, metric: str) -> str:
    """A trial as one line of JSON."""
    content: dict[str, Any] = {
        "trial": record.number,
        "slot": record.slot,
        "family": record.family,
        "end": record.end,
        "epoch": record.epoch,
        "value": record.value,
        "metric": metric,
        "metrics": dict(record.metrics),
        "params": dict(record.params),
        "values": {str(epoch): value for epoch, value in sorted(record.values.items())},
        "seconds": record.seconds,
        **_fresh(record),
        "drift": record.drift,
        "worker": record.worker,
        "device": record.device,
        "started": record.started.isoformat(),
        "ended": record.ended.isoformat() if record.ended else None,
    }
    if record.error:
        content["error"] = record.error
    return json.dumps(content)


def _fresh(record: Record) -> dict[str, Any]:
    if record.finalist is None:
        return {}
    return {
        "finalist": record.finalist,
        "seed_index": record.seed_index,
        "test": dict(record.test),
    }
