"""For anything else: the rate and the momentum at every step, as comma-separated values."""

from __future__ import annotations

import csv
import io

from clrsearch.exports.found import Found


def write(found: Found) -> str:
    """One row per optimizer step, from 0 over the whole horizon, in full precision.

    The columns are step, rate and, if the schedule sets it, momentum; with several parameter groups
    there is a rate and a momentum per group, named as in rate.NAME.
    """
    played = found.trace
    several = len(found.groups) > 1
    columns = {"rate": played.rates}
    if played.momenta is not None:
        columns["momentum"] = played.momenta
    names = [f"{what}.{group}" if several else what for what in columns for group in found.groups]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", *names])
    values = zip(*(group.tolist() for array in columns.values() for group in array), strict=True)
    rows.writerows([step, *row] for step, row in enumerate(values))
    return text.getvalue()
