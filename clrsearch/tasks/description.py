"""Describes a value in words, for error messages."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, MethodType

SHOWN = 5  # keys of a dict
LONGEST = 40  # characters of a value


def describe(value: object) -> str:
    """What a value is, with an article: "the float 0.5", "a dict with the keys a, b"."""
    name = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, (FunctionType, MethodType)):
        return f"the function {value.__name__}"
    if isinstance(value, (str, bytes, bool, int, float)):
        shown = repr(value)
        return f"the {name} {shown if len(shown) <= LONGEST else shown[:LONGEST] + '...'}"
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, [*value][:SHOWN])) + ", ..." * (len(value) > SHOWN)
        return f"{_with_article(name)} with the keys {keys}" if value else f"an empty {name}"
    if isinstance(value, (tuple, list)):
        return f"{_with_article(name)} of {len(value)}" if value else f"an empty {name}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:  # a tensor or an array
        kind = str(dtype).removeprefix("torch.")
        return f"{_with_article(kind)} {name.lower()} of shape {tuple(shape)}"
    return _with_article(name)


def _with_article(word: str) -> str:
    an = word[:1] in "aeioAEIO" or word.startswith("LBFGS")  # not uint8, not UNet
    return f"{'an' if an else 'a'} {word}"
