"""Studies that are run while nobody looks: messages when one ends, or a worker is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clrsearch import proposals
from clrsearch.errors import ClrsearchError
from clrsearch.notices import Notices
from clrsearch.results import Snapshot, verdict_sentence
from clrsearch.search import StudyPlan
from clrsearch.service.running import Result, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent: a line on what has happened, and more on it."""

    title: str
    body: str


def run_notifying(
    plan: StudyPlan,
    notices: Notices,
    *,
    on_change: Callable[[Snapshot], None] = lambda snapshot: None,
    on_note: Callable[[str], None] = lambda text: None,
    **how: Any,
) -> Result:
    """:func:`run` a study, and send messages on what becomes of it; ``how`` is for ``run``.

    One is sent when it has ended or was interrupted, one when it has failed, and one when a worker
    was lost, which happens too if its task has finished no step for too long. Nothing is sent of an
    error before the first trial, nor of a study that had ended before. A message that cannot be
    delivered is a note, and changes nothing.

    Raises:
        ClrsearchError: as ``run``.
    """
    latest: list[Snapshot] = []

    def changed(now: Snapshot) -> None:
        latest[:] = [now]
        on_change(now)

    def send(message: Message | None) -> None:
        if message is None:
            return
        for receiver in notices.send(message.title, message.body):
            on_note(f"a notification could not be delivered to {receiver}: {message.title}")

    def lost(text: str) -> None:
        send(after_loss(latest[0], text) if latest else None)

    try:
        result = run(plan, on_change=changed, on_note=on_note, on_loss=lost, **how)
    except ClrsearchError as error:
        send(after_error(latest[0], error) if latest else None)
        raise
    send(at_end(result))
    return result


def at_end(result: Result) -> Message | None:
    """The message of a study that has ended or was interrupted; None if it had ended before."""
    if result.began_finished:
        return None
    now = result.snapshot
    code = proposals.command("best", now.name)
    body = [verdict_sentence(now)]
    if now.recommended is not None:
        body.append(f"The code: {code}")
    if result.interrupted:
        title = f"was interrupted, {_progress(now)}"
        body.append(f"To resume: {proposals.again()}")
    elif result.ran_out is not None:
        title = f"has ended without a settled verdict: {result.ran_out}"
    elif result.shortfall is not None:
        title = "has ended, but not with all that was asked for"
        body.append(result.shortfall)
    else:
        title = "has ended" if now.verdict is None else "has a verdict"
    return Message(title=f"{now.name} {title}", body="\n".join(body))


def after_error(now: Snapshot, error: ClrsearchError) -> Message:
    """The message of a study that an error has stopped, such as a task that fails repeatedly."""
    return Message(title=f"{now.name} was stopped, {_progress(now)}", body=str(error))


def after_loss(now: Snapshot, text: str) -> Message:
    """The message of a study that has lost a worker, which ``text`` tells of."""
    body = f"{text[0].upper()}{text[1:]}\nSee {proposals.command('status', now.name)}"
    return Message(title=f"{now.name} has lost a worker, {_progress(now)}", body=body)


def _progress(now: Snapshot) -> str:
    return f"{now.done} of {now.total} trials done"
