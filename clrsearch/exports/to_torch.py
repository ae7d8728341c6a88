"""For a custom training loop: torch's scheduler."""

from __future__ import annotations

from clrsearch.exports.found import Found
from clrsearch.schedules import check, render


def write(found: Found) -> str:
    """A file with ``make_scheduler(optimizer, steps_per_epoch)``, executed and compared.

    For a length in steps it is ``make_scheduler(optimizer, total_steps)``.
    Parameter groups keep the ratios of their rates.

    Raises:
        ScheduleError: the code does not reproduce the schedule.
    """
    code = render(found.schedule, found.file)
    check(
        code,
        found.trace,
        length=found.file.argument_found,
        momentum=found.momentum,
        ratios=found.own_ratios,
        own=found.schedule.code(len(found.own_ratios)).own,
    )
    return code
