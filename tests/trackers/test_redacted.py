"""No part of a password in a URL is shown."""

from __future__ import annotations

import pytest

from clrsearch.trackers.tracker import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@h/d", "postgresql://***@h/d"),
        ("postgresql://u:p@ss@h/d", "postgresql://***@h/d"),
        ("http://u:a/b@h is not there", "http://***@h is not there"),
        ("http://h:5000/a, ask me@h", "http://h:5000/a, ask me@h"),
    ],
)
def test_redacted(text, shown) -> None:
    assert redacted(text) == shown
