"""The values of curves as source code, for ``math`` or for a library of arrays."""

from __future__ import annotations

from clrsearch.schedules.pieces import Geometric, Piece, Shares

SCALAR = "math"


def expression(
    piece: Piece, library: str = SCALAR, *, held: bool = True
) -> tuple[tuple[str, ...], str]:
    """The value of a piece as an expression of ``step``, after the lines that prepare it.

    ``library`` is the name of a library of arrays, in which steps outside the piece give its nearer
    end, or ``math``, where ``step`` is a number in it, or after its end if that is ``held``.
    """
    number = _plain if library == SCALAR else float
    start, end = float(piece.start), float(piece.end)
    if piece.constant:
        return (), repr(start)
    length = number(piece.until - piece.begin)
    progress = f"{since(number(piece.begin))} / {length!r}"
    if library != SCALAR:
        progress = f"{library}.clip({progress}, 0.0, 1.0)"
    elif held:
        progress = f"min({progress}, 1.0)"
    elif piece.shape == "linear":
        return (), total(start, end - start, f"({progress})" if start else progress)
    prepared: tuple[str, ...] = (f"progress = {progress}",)
    match piece.shape:
        case "linear":
            value = total(start, end - start, "progress")
        case "cosine":
            prepared += (f"wave = (1.0 + {library}.cos(math.pi * progress)) / 2.0",)
            value = total(end, start - end, "wave")
        case "exponential":
            value = product(start, f"{end / start!r} ** progress")
        case "polynomial":
            # 1 - progress would lose single precision near the end
            left = f"({number(piece.until)!r} - step) / {length!r}"
            clipped = (
                f"max({left}, 0.0)" if library == SCALAR else f"{library}.clip({left}, 0.0, 1.0)"
            )
            prepared = (f"left = {clipped}",)
            value = total(end, start - end, f"left ** {piece.power!r}")
        case "1-sqrt":
            value = total(end, start - end, f"(1.0 - {library}.sqrt(progress))")
    return prepared, value


def source(shares: Shares) -> tuple[str, ...]:
    """The source of ``shapes.values`` for a number ``step``: lines that end with a return."""
    if isinstance(shares, Geometric):
        steps = since(_plain(shares.begin))
        power = steps if shares.every is None else f"({steps} // {_plain(shares.every)!r})"
        return (f"return {shares.gamma!r} ** {power}",)
    *earlier, last = shares
    prepared, value = expression(last)
    return (*(line for piece in earlier for line in branch(piece)), *prepared, f"return {value}")


def branch(piece: Piece) -> tuple[str, ...]:
    """The source that returns the value of a piece for a number ``step`` before its end."""
    prepared, value = expression(piece, held=False)
    lines = (*prepared, f"return {value}")
    return (f"if step < {_plain(piece.until)!r}:", *(f"    {line}" for line in lines))


def since(begin: float) -> str:
    """The source of the number of steps since ``begin``."""
    if not begin:
        return "step"
    return f"(step - {begin!r})" if begin > 0 else f"(step + {-begin!r})"


def total(base: float, change: float, factor: str) -> str:
    """The source of base + change * factor."""
    changed = product(abs(change), factor)
    if change < 0:
        return f"{base!r} - {changed}"
    return f"{base!r} + {changed}" if base else changed


def product(number: float, factor: str) -> str:
    """The source of number * factor."""
    return factor if number == 1.0 else f"{number!r} * {factor}"


def _plain(number: float) -> float:
    """A whole number as an int, which reads better."""
    return int(number) if number == int(number) else number
