"""A trial's schedule as a source file, with a header on how it was found."""

from __future__ import annotations

from clrsearch.exports import Found, write
from clrsearch.results import formatting
from clrsearch.results.formatting import number
from clrsearch.results.horizon import read_horizon
from clrsearch.schedules import SourceFile
from clrsearch.search import Record, Study, Verdict


def source_code(
    study: Study,
    record: Record,
    verdict: Verdict | None = None,
    format: str = "torch",
    *,
    leads: bool = True,
) -> str:
    """Write a trial's schedule in one of the ``clrsearch.exports.FORMATS``.

    Args:
        study: the study.
        record: the trial.
        verdict: the verdict of the study's confirmation, if the trial was a finalist in it.
        format: the format.
        leads: without a verdict, whether the trial is the expected best of the search.

    Raises:
        PlanError: there is no such format, or it cannot express the schedule.
        ScheduleError: the generated code does not reproduce the trial's trace.
    """
    plan, facts = study.plan, study.facts_of(record.params)
    schedule = study.space.build(record.family, record.params)
    options = [f"{name}={value}" for name, value in plan.options.items()]
    options += plan.arguments
    scores = {} if record.value is None else {facts.metric: record.value, **record.metrics}
    standing = None if verdict is None else verdict.standing(record.number)
    multipliers = study.space.multipliers_of(record.params)
    seeds = len(standing.scores) if standing else 0
    proof = f"chosen on {formatting.seeds(seeds)}" if standing else "on one seed"
    at = read_horizon(study).at(facts.epochs) if plan.horizon is not None else None
    if at is not None and at.trial.number == record.number:
        proof = f"the best for {facts.epochs} epochs on {len(at.scores)} seeds"
        means = {"mean": f"{facts.metric} {number(at.mean)}"}
    elif standing:
        means = {"fresh seeds": f"{facts.metric} {number(standing.mean)}"}
    else:
        means = {}
        if leads:
            proof = f"{proof}, expected to be the best of the search"
    file = SourceFile(
        title=f"The {schedule.family} learning-rate schedule that clrsearch found.",
        found={
            "study": f"{study.name}, trial {record.number} of {plan.trials}, {proof}",
            "task": " ".join([plan.task, *options]),
            "trained": formatting.length(facts, facts.batch_size),
            "validation": ", ".join(f"{name} {number(value)}" for name, value in scores.items()),
            **means,
            "versions": ", ".join(
                f"{name} {study.record.versions[name]}" for name in ("clrsearch", "torch")
            ),
        },
        optimizer=facts.optimizer,
        epochs=facts.epochs,
        steps_per_epoch=facts.steps_per_epoch,
        total_steps=facts.horizon if facts.in_steps else None,
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
