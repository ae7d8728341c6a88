"""For Optax: a function of the update count, made of Optax's own schedules where equivalent."""

from __future__ import annotations

import itertools
import json

from clrsearch.exports.formula import curves_of, function, uses_math
from clrsearch.exports.found import Found
from clrsearch.schedules import Curve, Cycles, Piece, ScheduleFree, opening

SAYS = "The {value} after so many updates of the search."


def write(found: Found) -> str:
    """A file with ``make_schedule``, and ``make_optimizer`` if the schedule has momenta.

    If parameter groups have different rates, ``RATIOS`` lists their ratios, to be passed as an
    argument.

    Raises:
        PlanError: the rates come from a user's function.
        ScheduleError: the formula does not reproduce the schedule.
    """
    curves, file = curves_of(found, "optax"), found.file
    values = [_value("rate", "learning rate", curves.rate)]
    if curves.momentum is not None:
        values.append(_value("momentum", "momentum", curves.momentum))
    body = "\n\n\n".join(values)
    imports = [
        *(("import math", "") if uses_math(body) else ()),
        *(("import jax.numpy as jnp",) if "jnp." in body else ()),
        "import optax",
        *(["import optax.contrib"] if isinstance(found.schedule, ScheduleFree) else []),
    ]
    lines = [*opening(file, imports), *_ratios(found), "", "", body, "", ""]
    ratio = "" if found.one_rate else ", ratio=1.0"
    times = "" if found.one_rate else "ratio * "
    named = f"{file.argument}={file.argument.upper()}"
    length = "updates_per_epoch" if file.total_steps is None else "total_steps"
    free = isinstance(found.schedule, ScheduleFree)
    schedule = f"make_schedule({length}{'' if found.one_rate else ', RATIOS[group]'})"
    adam = found.momentum == "betas"
    momentum = ", momentum=0.9" if found.momentum == "momentum" else ""
    example = f"optax.adam({schedule})" if adam else f"optax.sgd({schedule}{momentum})"
    if curves.momentum is not None or free:
        group = "" if found.one_rate else ", ratio=RATIOS[group]"
        example = f"make_optimizer({file.argument}={length}{group})"
    lines += [
        f"def make_schedule({named}{ratio}):",
        f'    """The learning rate by the number of the update, from 0, over {file.span}.',
        "",
        f"    Found with {file.optimizer}.",
        "",
        f"        optimizer = {example}",
        '    """',
        f"    stretch = {file.stretch}",
        f"    return lambda step: {times}rate(step / stretch)",
        "",
    ]
    if curves.momentum is not None:
        name, factory = ("b1", "adam") if adam else ("momentum", "sgd")
        passed = "" if found.one_rate else ", ratio"
        lines += [
            "",
            f"def make_optimizer(factory=optax.{factory}, {named}{ratio}, **others):",
            '    """An optimizer that follows the rates and the momenta of the schedule."""',
            f"    stretch = {file.argument} / {file.argument.upper()}",
            "    return optax.inject_hyperparams(factory)(",
            f"        learning_rate=make_schedule({file.argument}{passed}),",
            f"        {name}=lambda step: momentum(step / stretch),",
            "        **others,",
            "    )",
            "",
        ]
    if isinstance(found.schedule, ScheduleFree):
        lines += _schedule_free(found.schedule, named + ratio, found)
    return "\n".join(lines)


_RMS = "optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True),"


def _schedule_free(schedule: ScheduleFree, arguments: str, found: Found) -> list[str]:
    """The source of ``make_optimizer``, with Optax's own wrapper."""
    adam = found.momentum == "betas"
    scale = [_RMS] if adam else []
    own = ", b2=0.999, eps=1e-8" if adam else ""
    passed = found.file.argument if found.one_rate else f"{found.file.argument}, ratio"
    return [
        "",
        f"def make_optimizer({arguments}{own}, weight_decay=0.0):",
        '    """Schedule-Free; contrib.schedule_free_eval_params gives the averaged weights."""',
        f"    schedule = make_schedule({passed})",
        "    base = optax.chain(",
        *(f"        {line}" for line in scale),
        "        optax.add_decayed_weights(weight_decay),",
        "        optax.scale_by_learning_rate(schedule),",
        "    )",
        "    from_1 = lambda count: schedule(count - 1)  # the wrapper counts updates from 1",
        f"    return optax.contrib.schedule_free(base, from_1, b1={schedule.beta!r})",
        "",
    ]


def _ratios(found: Found) -> list[str]:
    if found.one_rate:
        return []
    return [
        "# The groups' rates over the first one's; optax.partition gives each group an optimizer",
        f"RATIOS = {json.dumps(dict(zip(found.groups, found.ratios, strict=True)))}",
    ]


def _value(name: str, called: str, curve: Curve) -> str:
    """The source of a function of the step: joined Optax schedules, or a closed form."""
    says = SAYS.format(value=called)
    native = None if isinstance(curve, Cycles) else _native(curve)
    if native is None:
        return function(name, says, curve, "jnp")
    return f"# {says}\n{name} = {native}"


def _native(pieces: tuple[Piece, ...]) -> str | None:
    """The source of the Optax schedule equivalent to the pieces, or None if there is none."""
    if any(step != int(step) for piece in pieces for step in (piece.begin, piece.until)):
        return None  # Optax's schedules take whole steps
    schedules = [_schedule(piece) for piece in pieces]
    if any(each is None for each in schedules):
        return None
    if len(schedules) == 1:
        return schedules[0]
    if all(piece.constant for piece in pieces):
        ratios = {
            int(later.begin): later.start / earlier.start
            for earlier, later in itertools.pairwise(pieces)
        }
        return f"optax.piecewise_constant_schedule({pieces[0].start!r}, {ratios!r})"
    listed = "".join(f"        {each},\n" for each in schedules)
    boundaries = [int(piece.begin) for piece in pieces[1:]]
    return f"optax.join_schedules(\n    [\n{listed}    ],\n    boundaries={boundaries!r},\n)"


def _schedule(piece: Piece) -> str | None:
    start, end, length = float(piece.start), float(piece.end), int(piece.until - piece.begin)
    if piece.constant:
        return f"optax.constant_schedule({start!r})"
    match piece.shape:
        case "linear":
            return f"optax.linear_schedule({start!r}, {end!r}, {length})"
        case "polynomial":
            return f"optax.polynomial_schedule({start!r}, {end!r}, {piece.power!r}, {length})"
        case "cosine" if start > end:
            return f"optax.cosine_decay_schedule({start!r}, {length}, alpha={end / start!r})"
        case "exponential":
            return f"optax.exponential_decay({start!r}, {length}, {end / start!r})"
    return None
