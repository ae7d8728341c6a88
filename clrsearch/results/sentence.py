"""The current verdict in words, during and after a study."""

from __future__ import annotations

from clrsearch import proposals
from clrsearch.results import formatting
from clrsearch.results.horizon_words import horizon_sentences
from clrsearch.results.snapshots import Snapshot


def verdict_sentence(now: Snapshot) -> str:
    """Summarize in a few sentences which schedule is best so far."""
    if now.confirmed is not None and now.verdict is not None:
        left = now.confirmed.left
        more = f"{left} of {now.confirmed.total} runs are left." if left else ""
        command = settling(now)
        runs = f"{command} runs that many seeds." if command else ""
        return " ".join(filter(None, (now.verdict.sentence, formatting.worth(now), runs, more)))
    if now.horizon is not None and now.horizon.lengths:
        return " ".join(horizon_sentences(now.horizon))
    found = now.search_best
    if found is None:
        return "No trial is complete yet, so there is no schedule to use."
    said = (
        f"Search best: {found.family} (trial {found.number}), {now.metric} "
        f"{formatting.number(found.value)} on one seed. The best of many trials owes part of its "
        "score to luck."
    )
    if now.confirmed is not None:
        done = now.confirmed.total - now.confirmed.left
        return f"{said} {done} of {now.confirmed.total} runs on fresh seeds are done."
    use = now.expected_best
    if use is not None and use.number != found.number:
        said += (
            f" {use.family} (trial {use.number}) is recommended: it is expected to do better on "
            "other seeds."
        )
    command = proposals.command("confirm", now.name)
    return f"{said} {command} compares the best trials on fresh seeds."


def settling(now: Snapshot) -> str | None:
    """The command that runs enough seeds to settle the verdict.

    None if there is no verdict yet, it is settled, or the number of seeds it needs is unknown.
    """
    verdict = now.verdict
    if verdict is None or verdict.winner is not None or verdict.seeds_needed is None:
        return None
    return proposals.command("confirm", now.name, seeds=verdict.seeds_needed)
