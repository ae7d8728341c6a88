"""A study as a Markdown note: verdict, leaderboard, code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clrsearch.results import formatting
from clrsearch.results.sentence import verdict_sentence
from clrsearch.results.snapshots import Snapshot
from clrsearch.search import Record, best_first

LEADERS = 10
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|$~&])")


def note(now: Snapshot, code: str) -> str:
    """The note of a search; ``code`` is the recommended schedule's, or empty."""
    parts = [
        f"# {escaped(now.name)}",
        escaped(verdict_sentence(now)),
        f"{now.done} of {now.total} trials done: {formatting.ends(now)}.",
    ]
    best = best_first(now.records, now.direction)[:LEADERS]
    if best:
        table = _leaderboard(best, now.metric)
        parts.append(f"## Leaders of the search, on one seed each\n\n{table}")
    if now.verdict is not None:
        parts.append(f"## On fresh seeds\n\n{_standings(now)}")
    if code:
        parts.append(f"## The schedule as code\n\n```python\n{code.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def note_of_confirmation(search: str) -> str:
    """The note of a confirmation study."""
    return (
        f"# Confirmation of {escaped(search)}\n\nEach trial reruns one of its best schedules "
        f"on a fresh seed. The verdict is shown with the study {escaped(search)}.\n"
    )


def escaped(text: str) -> str:
    """Escape text for Markdown, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _leaderboard(best: Sequence[Record], metric: str) -> str:
    rows = [
        (str(each.number), formatting.number(each.value), formatting.params(each)) for each in best
    ]
    return _table(("trial", escaped(metric), "schedule"), rows)


def _standings(now: Snapshot) -> str:
    assert now.confirmed is not None and now.verdict is not None
    found, test = now.confirmed, now.confirmed.test
    rows = [
        (
            ", ".join(
                filter(None, (f"{each.family} (trial {each.trial})", formatting.marks(each, found)))
            ),
            formatting.number(each.mean),
            ""
            if each.low is None
            else f"{formatting.number(each.low)} to {formatting.number(each.high)}",
            "" if each.p is None else f"{each.p:.2g}",
            formatting.number(test[each.trial]) if each.trial in test else "",
        )
        for each in now.verdict.standings
    ]
    return _table(
        ("schedule", f"mean {escaped(now.metric)}", "95 % interval", "p", "test split"), rows
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    texts = [header, ["---"] * len(header), *([escaped(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)
