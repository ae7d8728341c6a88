"""What holds of all parameters of a schedule, however they were found."""

from __future__ import annotations

from collections.abc import Mapping

from clrsearch.schedules import Choice, Space, Value


def require_inside(params: Mapping[str, Value], space: Space) -> None:
    """What applies is given, and nothing else; each value is one that the space allows."""
    assert set(params) == {name for name, each in space.items() if each.applies(params)}
    for name, value in params.items():
        domain = space[name].domain
        if isinstance(domain, Choice):
            assert value in domain.options
        else:
            assert domain.low <= value <= domain.high
            assert isinstance(value, int) == domain.integer
