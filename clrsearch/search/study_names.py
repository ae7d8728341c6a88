"""Study names: validation and suggestions."""

from __future__ import annotations

import difflib

from clrsearch import proposals
from clrsearch.errors import PlanError

LONGEST = 200  # characters; Optuna stores 512, and a confirmation's name adds a suffix


def require_name(name: str) -> None:
    """Reject names for new studies that are hard to type or to tell apart.

    Raises:
        PlanError: with the reason.
    """
    if not name:
        raise PlanError("the study name is empty: choose another with --name")
    if len(name) > LONGEST:
        why = f"is longer than {LONGEST} characters"
    elif not name.isprintable():
        why = "contains unprintable characters"
    elif name != name.strip():
        why = "starts or ends with a space"
    elif name.startswith("-"):
        why = "starts with a dash, like an option"
    elif not any(character.isalnum() for character in name):
        why = "contains no letter or digit"
    else:
        return
    shown = name if len(name) <= LONGEST else f"{name[:20]}..."
    raise PlanError(f"the study name {shown!r} {why}: choose another with --name")


def unknown(name: str, names: list[str]) -> str:
    """Error message for an unknown study name, with suggestions from ``names``."""
    if not names:
        return f"no study {name}: there are none yet; {proposals.command('run')} starts one"
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = (
        f"; did you mean {', '.join(near)}?" if near else f"; available: {', '.join(names[-10:])}"
    )
    return f"no study {name}{hint}"
