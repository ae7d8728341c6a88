"""Study names: listing, validation and suggestions."""

from __future__ import annotations

import difflib
import json

from optuna.storages import get_storage

from clrsearch import proposals
from clrsearch.errors import PlanError
from clrsearch.search.stored import ATTRIBUTE
from clrsearch.storage import Database, study_rows

LONGEST = 200  # characters; Optuna stores 512, and a confirmation's name adds a suffix


def searches(database: Database) -> list[str]:
    """Names of the searches clrsearch created, oldest first; confirmations are excluded.

    Includes studies that cannot be read.
    """
    rows = study_rows(database.engine, ATTRIBUTE)
    return [row.name for row in rows if row.text is not None and not _is_confirmation(row.text)]


def study_names(database: Database) -> tuple[list[str], list[str]]:
    """Names of all studies, oldest first: those created by clrsearch, and the others."""
    rows = study_rows(database.engine, ATTRIBUTE)
    ours = [row.name for row in rows if row.text is not None]
    return ours, [row.name for row in rows if row.text is None]


def exists(database: Database, name: str) -> bool:
    """Whether clrsearch has created a search of this name."""
    return name in searches(database)


def remove_unreadable(database: Database, name: str) -> None:
    """Delete a study that cannot be opened, with its trials.

    Its slots and checkpoints are kept, because the stored id that identifies them cannot be
    trusted.
    """
    storage = get_storage(database.optuna)
    storage.delete_study(storage.get_study_id_from_name(name))


def require_name(name: str) -> None:
    """Reject names for new studies that are hard to type or to tell apart.

    Raises:
        PlanError: with the reason.
    """
    if not name:
        raise PlanError("the name of a study is empty: give another with --name")
    if len(name) > LONGEST:
        why = f"is longer than {LONGEST} characters"
    elif not name.isprintable():
        why = "holds characters that cannot be shown"
    elif name != name.strip():
        why = "begins or ends with a space"
    elif name.startswith("-"):
        why = "begins with a dash, as options do"
    elif not any(character.isalnum() for character in name):
        why = "has neither a letter nor a digit"
    else:
        return
    shown = name if len(name) <= LONGEST else f"{name[:20]}..."
    raise PlanError(f"the name of a study, {shown!r}, {why}: give another with --name")


def unknown(name: str, names: list[str]) -> str:
    """Error message for an unknown study name, with suggestions from ``names``."""
    if not names:
        return f"no study {name}: there are none yet; {proposals.command('run')} begins one"
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; there is {', '.join(names[-10:])}"
    return f"no study {name}{hint}"


def _is_confirmation(text: str) -> bool:
    try:
        stored = json.loads(text)
    except ValueError:
        return False
    return isinstance(stored, dict) and stored.get("stage") == "confirm"
