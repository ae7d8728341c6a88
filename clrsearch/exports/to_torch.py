"""For a custom training loop: torch's scheduler."""

from __future__ import annotations

from clrsearch.exports.found import Found
from clrsearch.schedules import ScheduleFree, check, check_optimizer, render, render_optimizer


def write(found: Found) -> str:
    """A file with ``make_scheduler(optimizer, steps_per_epoch)``, executed and compared.

    For a length in steps it is ``make_scheduler(optimizer, total_steps)``.
    Parameter groups keep the ratios of their rates. For Schedule-Free it is ``make_optimizer``.

    Raises:
        ScheduleError: the code does not reproduce the schedule.
    """
    if isinstance(found.schedule, ScheduleFree):
        code = render_optimizer(found.schedule, found.file)
        check_optimizer(code, found.trace, file=found.file, ratios=found.own_ratios)
        return code
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
