"""Output of the commands."""

from __future__ import annotations

import dataclasses
import json as json_format
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import tomli_w
from rich.console import RenderableType

from clrsearch import proposals
from clrsearch.errors import ClrsearchError, ExitCode
from clrsearch.plots import Figure, picture_of_range_test, save
from clrsearch.reports import (
    Page,
    Terminal,
    confirmed_table,
    horizon_table,
    list_table,
    preview_table,
    result_table,
    say,
    status_advice,
    status_table,
    study_table,
    trial_table,
    variation_table,
)
from clrsearch.results import (
    Horizon,
    Snapshot,
    Status,
    Variation,
    duration,
    ends,
    horizon_json,
    horizon_sentences,
    schedule_line,
    schedule_values,
    settling,
    status_json,
    trial_json,
    trial_line,
    variation_json,
)
from clrsearch.search import RangeTest, Record, Rescaled, Study
from clrsearch.service import (
    Best,
    Dashboard,
    Finding,
    Mirroring,
    Preview,
    Pruned,
    Replayed,
    Result,
    Shown,
    Tested,
    WorkerLog,
    best,
)
from clrsearch.storage import MadeRole, Upgraded
from clrsearch.tasks import Spacing

UNBOUND = 250  # width of tables written to a file or a pipe, in characters


def print_error(error: ClrsearchError) -> None:
    """Print an error as one line on stderr, after the task's traceback if its code raised."""
    traceback = getattr(error, "traceback", "")
    lines = str(error).split("\n")
    if traceback:
        say(*traceback.rstrip().split("\n"), error=True)
        del lines[1:]  # already shown by the traceback
    say(f"clrsearch: {' '.join(lines)}", error=True)


def print_result(result: Result, *, json: bool) -> None:
    """Print the result of ``run``: table, verdict, code, storage location and next steps."""
    now = result.snapshot
    if json:
        say(json_format.dumps(_summary(now, _best_of(result))))
        return
    if result.began_finished:
        head = f"{now.name} is finished: {now.done} trials, {ends(now)}."
    else:
        head = (
            f"{now.name}: {now.done} of {now.total} trials done, {ends(now)}. "
            f"This run took {duration(result.seconds)}."
        )
    say(head)
    inherited, epochs = now.shared
    if inherited:
        unit = now.spacing.progress
        say(f"{inherited} of {epochs} {unit}s saved by training shared beginnings once.")
    say("")
    _print_table(result_table(now))
    say("")
    if now.confirmed is not None:
        _print_table(confirmed_table(now.confirmed, now))
        say("")
    found = _best_of(result)
    if found is not None:
        say(*found.code.split("\n"))
    _print_next_steps(result)


def _best_of(result: Result) -> Best | None:
    """The recommended schedule, whose code is run before it is printed, which takes a moment."""
    now = result.snapshot
    if now.recommended is None:
        return None
    return best(now.name, storage=result.storage, task_dir=result.task_dir)


def _print_next_steps(result: Result) -> None:
    now = result.snapshot
    say(f"Saved in {result.storage}")
    if result.interrupted:
        say(f"Interrupted. To resume: {proposals.again()}")
        return
    if result.ran_out is not None:
        say(f"{result.ran_out[0].upper()}{result.ran_out[1:]}.")
    if now.recommended is not None:
        steps = {
            "Save this code": f"{proposals.command('best', now.name)} > schedule.py",
            "Replay that trial": proposals.command("replay", now.name, now.recommended.number),
            "Settle which is best": settling(now),
            "Search further": result.further,
            "Start another study": proposals.again(name=f"{now.name}-2"),
            "See all trials": proposals.command("dashboard", now.name),
        }
        for step, line in steps.items():
            if line is not None:
                say(f"{step + ':':<25} {line}")


def print_horizon(found: Horizon, result: Result, *, json: bool) -> None:
    """Print the best schedule of each length, what a length costs, and the next steps."""
    name = result.snapshot.name
    if json:
        say(json_format.dumps({"name": name, **horizon_json(found)}))
        return
    say(f"{name}: {result.snapshot.done} of {result.snapshot.total} trials done.")
    say("")
    if found.lengths:
        _print_table(horizon_table(found))
        say("", *horizon_sentences(found), "")
    say(f"Saved in {result.storage}")
    if result.interrupted:
        say(f"Interrupted. To resume: {proposals.again()}")
    elif found.lengths:
        for each in found.lengths:
            label = f"Code for {each.epochs} epochs:"
            say(f"{label:<25} {proposals.command('best', name, epochs=each.epochs)}")
        drawn = proposals.command("plot", name, "horizon", output=f"{name}.png")
        say(f"{'Draw it:':<25} {drawn}")


def print_variation(found: Variation, *, json: bool) -> None:
    """Print a recommended schedule and its rivals under changed conditions: a table, or JSON."""
    if json:
        say(variation_json(found))
        return
    _print_table(variation_table(found))
    if found.interrupted:
        say(f"Interrupted. To resume: {proposals.again()}")


def print_trial(record: Record, study: Study) -> None:
    """Print a worker's line for a finished trial."""
    say(trial_line(record, study.facts.metric, study.facts))


def print_wait(cause: str) -> None:
    """Print a worker's line when it starts to wait out a database outage."""
    say(f"clrsearch: waiting for the database: {cause}", error=True)


def print_note(text: str) -> None:
    """Print a warning on stderr."""
    say(f"clrsearch: {text}", error=True)


def end_hung(reason: str) -> NoReturn:
    """Print the last line of a worker whose task hangs, and end the process at once."""
    print_note(f"{reason}: its process was ended; another worker will resume the trial")
    os._exit(ExitCode.HUNG)


def end_rank(error: ClrsearchError | None, code: int) -> NoReturn:
    """Print the error of one process of a group, if any, and end the process at once."""
    if error is not None:
        print_error(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def print_retried(name: str, opened: int) -> None:
    """Print what ``clrsearch retry`` did."""
    if opened:
        worker = proposals.command("worker", name)
        say(f"{opened} failed trials of {name} are queued again: {worker} resumes them")
    else:
        say(f"{name} has no failed trials")


def print_cancelled(name: str, cancelled: int) -> None:
    """Print what ``clrsearch cancel`` did."""
    done = (
        f"{cancelled} trials of {name} cancelled before they started"
        if cancelled
        else f"every trial of {name} has already started"
    )
    say(f"{done}. No confirmation starts until you run {proposals.command('confirm', name)}")


def print_upgraded(done: Upgraded) -> None:
    """Print what ``clrsearch db upgrade`` did."""
    if not done.changed:
        say(f"nothing to do: Optuna's schema {done.after} is up to date")
        return
    if done.before != done.after:
        say(f"Optuna's schema is now {done.after} (was {done.before})")
    for column in done.columns:
        say(f"the slot table has a new column {column}")


def print_roles(made: Sequence[MadeRole]) -> None:
    """Print what ``clrsearch db roles`` did."""
    for each in made:
        say(f"{each.name}, the {each.role}, is {'created' if each.created else 'up to date'}")


def print_best(found: Best, format: str) -> None:
    """Print the recommended schedule as JSON, as TOML, or as its code in the requested format."""
    text = found.code
    if format == "json":
        text = json_format.dumps(_best_values(found), indent=2)
    elif format == "toml":  # TOML has no null
        text = tomli_w.dumps({k: v for k, v in _best_values(found).items() if v is not None})
    say(*text.removesuffix("\n").split("\n"))


def print_list(snapshots: Sequence[Snapshot], unreadable: Sequence[str], *, json: bool) -> None:
    """Print the table of ``clrsearch list``, and on stderr a line per unreadable study."""
    if json:
        for each in snapshots:
            say(json_format.dumps(_summary(each, None)))
    elif snapshots:
        _print_table(list_table(snapshots))
    elif not unreadable:
        say(f"no studies yet: {proposals.command('run')} starts one")
    for why in unreadable:
        print_note(why)


def print_status(status: Status, *, json: bool) -> None:
    """Print the output of ``clrsearch status``: tables, or one line of JSON."""
    if json:
        say(status_json(status))
    else:
        _print_table(status_table(status))
        if advice := status_advice(status):
            say("", *advice)


def print_logs(logs: Sequence[WorkerLog], *, whole: bool) -> None:
    """Print the output of ``clrsearch logs``: the logs, or a line for each of them."""
    for log in logs:
        if not whole:
            say(f"{log.written.astimezone():%Y-%m-%d %H:%M:%S}  {log.bytes:>9,} bytes  {log.path}")
            continue
        if len(logs) > 1:
            say(f"==> {log.worker} <==")
        say(*log.text().splitlines())


def print_preview(preview: Preview, *, to: Path | None, json: bool) -> None:
    """Print the output of ``clrsearch preview`` as a table or JSON, or save it as a figure."""
    if to is not None:
        draw(preview.figure, to)
    if json:
        say(json_format.dumps(_previewed(preview)))
    elif to is None:
        for each in preview.schedules:
            say(schedule_line(each.schedule))
        say("")
        bars = not Terminal().options.ascii_only
        _print_table(preview_table(preview.curves, preview.spacing, bars=bars))


def print_tested(tested: Tested, *, to: Path | None, json: bool) -> None:
    """Print the result of ``clrsearch range-test``, and how to use it."""
    if to is not None:
        draw(picture_of_range_test(tested.test), to)
    if json:
        say(json_format.dumps(_tested(tested)))
        return
    test = tested.test
    say(
        f"{tested.study or tested.task}: {tested.facts.optimizer}, rates of {test.rates[0]:.2g} to "
        f"{test.rates[-1]:.2g} on {len(test.training)} seeds, {tested.seconds:.1f} s"
    )
    say(test.sentence)
    bounds = test.bounds(tested.facts.base_lr)
    if bounds is None:
        say("With --range-test a search would use the task's own rate x [1/30, 30].")
    else:
        say(f"With --range-test a search uses {bounds.low:.2g} to {bounds.high:.2g}.")
    if tested.study is not None:
        plot = proposals.command("range-test", tested.study, output="range-test.png")
        say(f"Saved in {tested.study}: {plot} plots it")


def print_range_test(test: RangeTest | None) -> None:
    """Print progress of the range test before a search; ``test`` is None when it starts."""
    said = "running the range test ..." if test is None else test.sentence
    say(f"range test: {said}", error=True)


def draw(figure: Figure, to: Path) -> None:
    """Save a figure, and print its path."""
    save(figure, to)
    say(f"wrote {to}", error=True)


def print_report(page: Page, to: Path) -> None:
    """Print the path of a report, and the progress of its study."""
    when = page.made.strftime("%H:%M:%S")
    now = page.now
    say(f"wrote {to} at {when}: {now.done} of {now.total} trials done", error=True)


def print_mirroring(done: Mirroring) -> None:
    """Print how many trials a tracker has, and where."""
    updated = f", {done.updated} of them new or further on" if done.updated else ", none new"
    trials = "1 trial" if done.trials == 1 else f"{done.trials} trials"
    say(f"{done.tracker} has {trials} of {done.study}{updated}: {done.place}", error=True)


def print_dashboard(opened: Dashboard) -> None:
    """Print the URL of the dashboard, and whether notes can be changed."""
    say(opened.url)
    notes = "read-only" if opened.read_only else "only notes can be changed"
    say(f"{notes}; press Ctrl-C to stop", error=True)


def print_pruned(pruned: Pruned) -> None:
    """Print what ``clrsearch db prune-checkpoints`` removed, and the folders it left alone."""
    say(f"{pruned.root}: {pruned.files} files removed, {pruned.size / 1e6:.1f} MB")
    if pruned.foreign:
        say("left alone, as they belong to no study in this database:")
        for folder in pruned.foreign:
            say(f"  {folder}")


def print_findings(findings: Sequence[Finding], *, json: bool) -> None:
    """Print one line per finding, followed by its remedy if any."""
    if json:
        values = [dataclasses.asdict(each) for each in findings]
        say(*json_format.dumps(values, indent=2).split("\n"))
        return
    width = max(len(each.what) for each in findings)
    for each in findings:
        say(f"{each.state:<5}  {each.what:<{width}}  {each.says}")
        if each.remedy:
            say(f"{'':<{width + 7}}  -> {each.remedy}")


def print_shown(shown: Shown, *, json: bool) -> None:
    """Print the output of ``clrsearch show``: a table or JSON."""
    if json:
        records = [shown.trial] if shown.trial else shown.snapshot.records
        for record in records:
            say(trial_json(record, shown.snapshot.metric))
    elif shown.trial:
        _print_table(trial_table(shown.snapshot, shown.trial, shown.rates))
    else:
        _print_table(study_table(shown.snapshot))


def print_replayed(again: Replayed) -> None:
    """Print whether a replay matches, and if not, by how much it differs."""
    number, done = again.trial.number, f"{len(again.trial.values)} {again.progress}s"
    if again.matches:
        say(f"trial {number} matches: all {done} are identical to the last bit")
        return
    trained, apart = "", ""
    if again.trial.ranks > 1:
        trained = f"{again.trial.ranks} processes trained it, and in one the"
        apart = f"; {again.trial.ranks} processes trained it, which draw other random numbers"
    elif again.trial.lanes > 1:
        trained = f"it was trained in one of {again.trial.lanes} lanes, and alone the"
        apart = f"; it was trained in one of {again.trial.lanes} lanes, whose dropout is another"
    if again.agrees:
        say(
            f"trial {number} agrees: {trained} metric is off by up to "
            f"{again.largest_difference:.3g}, as sums in another order are"
        )
        return
    elsewhere = "" if again.device == again.trial.device else f" (it ran on {again.trial.device})"
    say(
        f"trial {number} differs on {again.device}{elsewhere}: {len(again.values)} of {done} "
        f"were completed, with the metric off by up to {again.largest_difference:.3g}{apart}"
    )


def _print_table(table: RenderableType) -> None:
    """Print a table as wide as the terminal, or ``UNBOUND`` if stdout is not a terminal."""
    console = Terminal()
    if console.is_terminal:
        console.print(table)
        return
    unbound = Terminal(width=UNBOUND)
    with unbound.capture() as captured:
        unbound.print(table)
    say(*(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def _best_values(found: Best) -> dict[str, Any]:
    return {
        "family": found.schedule.family,
        "trial": found.trial.number,
        **_length(found.facts),
        "batch_size": found.facts.batch_size,
        "optimizer": found.facts.optimizer,
        "values": dict(found.values),
        **({"groups": dict(found.multipliers)} if found.multipliers else {}),
        **({"metrics": dict(found.trial.metrics)} if found.rescaled is None else {}),
        **({} if found.rescaled is None else _rescaled(found.rescaled)),
    }


def _rescaled(rescaled: Rescaled) -> dict[str, Any]:
    """How a schedule was rescaled; what it was found with, in the keys of its new length."""
    rule, size = rescaled.rule, rescaled.found.batch_size
    return {
        "confirmed": False,
        "factor": rescaled.factor,
        "rule": None if rule is None else f"{rule.name} ({rule.source})",
        "beyond": rescaled.beyond or None,
        "rescaled_from": {
            **_length(rescaled.found),
            **({} if size is None else {"batch_size": size}),
        },
    }


def _length(spacing: Spacing) -> dict[str, Any]:
    """The keys that say how long a run is."""
    told = {
        "epochs": None if spacing.steps is not None else spacing.epochs,
        "steps_per_epoch": None if spacing.in_steps else spacing.steps_per_epoch,
        "steps": spacing.horizon if spacing.in_steps else None,
        "validate_every": spacing.validate_every,
    }
    return {key: value for key, value in told.items() if value is not None}


def _previewed(preview: Preview) -> dict[str, Any]:
    return {
        **_length(preview.spacing),
        "schedules": [
            {
                "label": curve.label,
                "rates": curve.rates.tolist(),
                "momenta": None if curve.momenta is None else curve.momenta.tolist(),
            }
            for curve in preview.curves
        ],
    }


def _tested(tested: Tested) -> dict[str, Any]:
    bounds = tested.test.bounds(tested.facts.base_lr)
    return {
        "study": tested.study,
        "task": tested.task,
        **tested.test.model_dump(mode="json"),
        "bounds": None if bounds is None else [bounds.low, bounds.high],
    }


def _summary(now: Snapshot, found: Best | None) -> dict[str, Any]:
    best = now.search_best
    return {
        "study": now.name,
        "task": now.task,
        "metric": now.metric,
        "direction": now.direction,
        "trials": now.total,
        "done": now.done,
        "ends": {str(state): count for state, count in now.slots.items()},
        "search_best": None
        if best is None
        else {
            "trial": best.number,
            "value": best.value,
            "metrics": dict(best.metrics),
            "family": best.family,
            "values": schedule_values(now.schedules[best.number]),
            "params": dict(best.params),
        },
        "recommended": None if now.recommended is None else now.recommended.number,
        **({"confirmation": _confirmation(now)} if now.confirmed else {}),
        **({"code": found.code} if found else {}),
    }


def _confirmation(now: Snapshot) -> dict[str, Any]:
    assert now.confirmed is not None
    verdict = now.confirmed.verdict
    told = {} if verdict is None else dataclasses.asdict(verdict)
    for standing in told.get("standings", ()):
        if math.isnan(standing["mean"]):  # it diverged on every seed; JSON has no NaN
            standing["mean"] = None
    return {
        "runs": now.confirmed.total,
        "left": now.confirmed.left,
        "absent": list(now.confirmed.absent),
        **told,
        **({} if verdict is None else {"sentence": verdict.sentence}),
        "baseline": now.confirmed.baseline,
        "reached": now.confirmed.reached,
        "test": dict(now.confirmed.test),
    }
