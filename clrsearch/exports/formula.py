"""The closed form of a schedule as source code: functions that NumPy, JAX and Keras share."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np

from clrsearch.errors import ScheduleError
from clrsearch.exports.found import Found
from clrsearch.schedules import Curve, Curves, Cycles, Piece, Scale
from clrsearch.schedules.code import GATHERED, TOLERANCE
from clrsearch.schedules.expressions import expression, total

SIXTEENTHS = 16  # multiples of 1/16 are exact in single precision up to a million steps


def curves_of(found: Found, format: str) -> Curves:
    """A schedule as plain data, after its source has been executed and compared.

    Raises:
        PlanError: its rates come from a user's function; names the ``format``.
        ScheduleError: the source does not reproduce the schedule.
    """
    curves = found.schedule.curves(found.horizon)
    if curves is None:
        raise found.cannot(format, "its rates come from your own function")
    steps, expected = np.arange(found.horizon, dtype=np.float64), found.trace
    _check(curves.rate, steps, expected.rates[0])
    if curves.momentum is not None:
        assert expected.momenta is not None
        _check(curves.momentum, steps, expected.momenta[0])
    return curves


def _check(curve: Curve, steps: np.ndarray, expected: np.ndarray) -> None:
    namespace: dict[str, Any] = {"np": np, "math": math}
    exec(function("value", "Checked.", curve, "np"), namespace)
    gaps = np.abs(namespace["value"](steps) - expected)
    if not gaps.max() <= TOLERANCE * expected.max() * max(1.0, len(steps) / GATHERED):
        step = int(np.argmax(gaps))
        raise ScheduleError(
            f"the formula deviates from the schedule at step {step} by {gaps[step]:.3g}"
        )


def function(name: str, says: str, curve: Curve, library: str) -> str:
    """The source of a function of ``step`` (a number or an array) that calls the ``library``.

    It needs ``math`` if :func:`uses_math` says so.
    """
    lines = _cycles(curve, library) if isinstance(curve, Cycles) else _pieces(curve, library)
    return f'def {name}(step):\n    """{says}"""\n' + textwrap.indent("\n".join(lines), "    ")


def uses_math(source: str) -> bool:
    """Whether source code needs ``import math``."""
    return "math." in source


def _pieces(pieces: tuple[Piece, ...], library: str) -> list[str]:
    lines: list[str] = []
    for piece in pieces:
        place, value = expression(piece, library)
        if lines:
            value = f"{library}.where(step < {float(piece.begin)!r}, value, {value})"
        lines += [*place, f"value = {value}"]
    *before, last = lines
    return [*before, last.replace("value =", "return", 1)]


def _cycles(cycles: Cycles, library: str) -> list[str]:
    up, down, period = float(cycles.up), float(cycles.down), float(cycles.up + cycles.down)
    rising, falling = f"place / {up!r}", f"({period!r} - place) / {down!r}"
    # short * cycle is exact in single precision, and the rest is small
    short = math.floor(period * SIXTEENTHS) / SIXTEENTHS
    rest = f" - {period - short!r} * (cycle - 1.0)" if period > short else ""
    scale = [] if cycles.scale is None else [f"height = height * {_scale(cycles.scale, library)}"]
    return [
        f"cycle = 1.0 + {library}.floor(step / {period!r})",
        f"place = step - {short!r} * (cycle - 1.0){rest}",
        f"height = {library}.where(place <= {up!r}, {rising}, {falling})",
        *scale,
        f"return {total(cycles.foot, cycles.top - cycles.foot, 'height')}",
    ]


def _scale(scale: Scale, library: str) -> str:
    if scale.gamma is None:
        return f"(1.0 + {library}.sin(math.pi / 2.0 * {scale.of})) / 2.0"
    if scale.of == "step":
        # a power of a gamma close to 1 would lose single precision
        return f"{library}.exp({math.log(scale.gamma)!r} * step)"
    return f"{scale.gamma!r} ** {f'(cycle - {float(scale.since)!r})' if scale.since else 'cycle'}"
