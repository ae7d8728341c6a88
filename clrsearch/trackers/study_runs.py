"""A study at one moment as runs for a tracker: one per trial, and one for the whole study."""

from __future__ import annotations

import math
from collections.abc import Mapping

from clrsearch.results import formatting
from clrsearch.results.markdown_note import note
from clrsearch.results.sentence import verdict_sentence
from clrsearch.results.snapshots import Snapshot
from clrsearch.results.source import source_code
from clrsearch.search import Record, Study
from clrsearch.trackers.tracker import STUDY, Point, Run

LONGEST_PLACE = 4  # digits of a trial's number in a key, so that keys sort by it


def key_of(stage: Study, record: Record) -> str:
    """What identifies a trial's run: ``trial-0007``, or ``confirm-0007`` in a confirmation."""
    kind = "trial" if stage.stage == "search" else "confirm"
    return f"{kind}-{record.number:0{LONGEST_PLACE}d}"


def trial_run(stage: Study, record: Record) -> Run:
    """The run of a trial; a custom rate function must already be bound.

    Each point has the searched metric, and the learning rate and momentum of the epoch's last step,
    by parameter group if there are several.
    """
    metric = stage.facts.metric
    curves = _schedule_curves(stage, record)
    points = [
        Point(step=step, values={metric: value, **{name: each[step - 1] for name, each in curves}})
        for step, value in record.values.items()
    ]
    return Run(
        key=key_of(stage, record),
        name=formatting.trial_name(record),
        state=record.end,
        params={"family": record.family, **record.params},
        tags=_tags(stage, record),
        points=tuple(points),
        final=_final(record, metric) if record.ended else {},
        texts={"error.txt": record.error} if record.error else {},
        started=record.started,
        ended=record.ended,
    )


def study_run(study: Study, now: Snapshot, *, ended: bool) -> Run:
    """The run of the whole study: its verdict, its leaderboard, and the schedule as code.

    Its step is the number of trials that have ended, the confirmation's too, which grows with
    every result. ``ended`` says that nothing more will be run in it.
    """
    facts, plan, use = study.facts, study.plan, now.recommended
    trials = (*now.records, *(now.confirmed.runs if now.confirmed else ()))
    ends = [each.ended for each in trials if each.ended]
    code = "" if use is None else source_code(study, use, now.verdict)
    values: dict[str, float] = {"trials done": now.done}
    if now.search_best is not None and now.search_best.value is not None:
        values[f"best {facts.metric}"] = now.search_best.value
    texts = {"verdict.txt": f"{verdict_sentence(now)}\n", "study.md": note(now, code)}
    return Run(
        key=STUDY,
        name=study.name,
        state="complete" if ended else "running",
        params={
            "task": plan.task,
            "metric": facts.metric,
            "direction": facts.direction,
            "epochs": facts.epochs,
            "batch size": str(facts.batch_size),
            "optimizer": facts.optimizer,
            "families": ", ".join(plan.families),
            "seed": plan.seed,
        },
        tags={} if use is None else {"recommended": f"trial {use.number}"},
        points=(Point(step=len(ends), values=values),),
        final=_means(now) if ended else {},
        texts=texts | ({"schedule.py": code} if code else {}),
        started=study.record.created,
        ended=max(ends, default=study.record.created) if ended else None,
    )


def _schedule_curves(stage: Study, record: Record) -> list[tuple[str, list[float]]]:
    """The rates and momenta at the end of each epoch, by the names of their curves."""
    played = stage.trace(record.family, record.params).before(stage.ends(record.params))
    groups = stage.facts.groups
    suffixes = [""] if len(groups) == 1 else [f"/{group}" for group in groups]
    found = [(f"lr{end}", each) for end, each in zip(suffixes, played.rates.tolist(), strict=True)]
    if played.momenta is not None:  # the same in all groups
        found.append(("momentum", played.momenta[0].tolist()))
    return found


def _tags(stage: Study, record: Record) -> dict[str, str]:
    told = {"stage": stage.stage, "seed index": str(record.seed_index), "device": record.device}
    return told if record.finalist is None else {**told, "confirms": f"trial {record.finalist}"}


def _final(record: Record, metric: str) -> dict[str, float]:
    """Its other metrics at the last epoch, those on the test split, and its training time."""
    others = {name: value for name, value in record.metrics.items() if name != metric}
    test = {f"test/{name}": value for name, value in record.test.items()}
    found = {**others, **test, "training seconds": record.seconds}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _means(now: Snapshot) -> Mapping[str, float]:
    """The mean over fresh seeds of each finalist, if there is a verdict."""
    return {
        f"mean {now.metric} on fresh seeds/trial {each.trial}": each.mean
        for each in (now.verdict.standings if now.verdict else ())
        if math.isfinite(each.mean)
    }
