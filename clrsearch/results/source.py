"""A trial's schedule as a source file, with a header on how it was found."""

from __future__ import annotations

from clrsearch import proposals
from clrsearch.exports import Found, write
from clrsearch.results import formatting
from clrsearch.results.formatting import number
from clrsearch.results.horizon import read_horizon
from clrsearch.schedules import ScheduleFree, SourceFile
from clrsearch.search import Record, Rescaled, Study, Verdict


def source_code(
    study: Study,
    record: Record,
    verdict: Verdict | None = None,
    format: str = "torch",
    *,
    leads: bool = True,
    rescaled: Rescaled | None = None,
) -> str:
    """Write a trial's schedule in one of the ``clrsearch.exports.FORMATS``.

    Args:
        study: the study.
        record: the trial.
        verdict: the verdict of the study's confirmation, if the trial was a finalist in it.
        format: the format.
        leads: without a verdict, whether the trial is the expected best of the search.
        rescaled: the trial's schedule for another batch size or length, in place of its own.

    Raises:
        PlanError: there is no such format, or it cannot express the schedule.
        ScheduleError: the generated code does not reproduce the trial's trace.
    """
    plan, facts = study.plan, study.facts_of(record.params)
    if rescaled is None:
        schedule, length = study.space.build(record.family, record.params), facts
    else:
        schedule, length = rescaled.schedule, rescaled.facts
    options = [f"{name}={value}" for name, value in plan.options.items()]
    options += plan.arguments
    scores = {} if record.value is None else {facts.metric: record.value, **record.metrics}
    standing = None if verdict is None else verdict.standing(record.number)
    multipliers = study.space.multipliers_of(record.params)
    seeds = len(standing.scores) if standing else 0
    proof = f"chosen on {formatting.seeds(seeds)}" if standing else "on one seed"
    at = read_horizon(study).at(facts.epochs) if plan.horizon is not None else None
    if at is not None and at.trial.number == record.number:
        proof = f"the best for {formatting.epochs(facts.epochs)} on {len(at.scores)} seeds"
        means = {"mean": f"{facts.metric} {number(at.mean)}"}
    elif standing:
        means = {"fresh seeds": f"{facts.metric} {number(standing.mean)}"}
    else:
        means = {}
        if leads:
            proof = f"{proof}, expected to be the best of the search"
    kind = "optimizer" if isinstance(schedule, ScheduleFree) else "learning-rate schedule"
    file = SourceFile(
        title=f"The {schedule.family} {kind} that clrsearch found.",
        found={
            "study": f"{study.name}, trial {record.number} of {plan.trials}, {proof}",
            "task": " ".join([plan.task, *options]),
            "trained": formatting.length(facts, facts.batch_size),
            "validation": ", ".join(f"{name} {number(value)}" for name, value in scores.items()),
            **means,
            **({} if rescaled is None else _unconfirmed(study, rescaled)),
            "versions": ", ".join(
                f"{name} {study.record.versions[name]}" for name in ("clrsearch", "torch")
            ),
        },
        optimizer=facts.optimizer,
        epochs=length.epochs,
        steps_per_epoch=length.steps_per_epoch,
        total_steps=length.horizon if length.in_steps else None,
        multipliers=[multipliers.get(name, 1.0) for name in facts.groups],
    )
    found = Found(
        schedule=schedule,
        file=file,
        momentum=facts.momentum,
        groups=facts.groups,
        own_ratios=facts.ratios,
    )
    return write(format, found)


def _unconfirmed(study: Study, rescaled: Rescaled) -> dict[str, str]:
    """Lines of the header on how a schedule was rescaled, and how to confirm it."""
    old, new, rule = rescaled.found, rescaled.facts, rescaled.rule
    sizes = [] if rule is None else [f"batch size {old.batch_size}"]
    longer = new.epochs != old.epochs
    epochs = [formatting.epochs(old.epochs)] if longer else []
    rates = "rates unchanged"
    if rule is not None:
        rates = f"rates x {number(rescaled.factor)}, the {rule.name} rule ({rule.source})"
    limits = "a schedule tuned for one number of epochs may not suit another" if longer else ""
    said = "; ".join(filter(None, (rates, limits, rescaled.beyond)))
    told = {
        "rescaled to": formatting.length(new, new.batch_size),
        "not confirmed": f"rescaled from {' and '.join([*sizes, *epochs])}: {said}",
    }
    if study.stage == "search" and study.plan.horizon is None:  # confirm takes no others
        asked = {} if rule is None else {"batch_size": new.batch_size}
        asked |= {"epochs": new.epochs} if longer else {}
        told["to confirm"] = proposals.command("confirm", study.name, **asked)
    return told
