"""What was written to a database: when, from which address, and what the row is now.

Triggers note it, so that nothing a host writes stays unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import harness
from harness import Place
from network import ask

AUDIT = """
CREATE TABLE audit (
    at double precision DEFAULT extract(epoch FROM clock_timestamp()),
    host text DEFAULT host(inet_client_addr()), place text, entry jsonb
);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (place, entry)
    VALUES (TG_TABLE_NAME, CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END);
    RETURN NULL;
END $$;
"""
NOTED = (
    *("clrsearch_slots", "trials", "trial_values", "trial_params", "trial_intermediate_values"),
    *("trial_user_attributes", "trial_system_attributes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A row that was changed: when by the database's clock, from which address, what it is now."""

    at: float
    host: str
    place: str
    entry: Mapping[str, Any]


def audit(place: Place) -> None:
    """Note from now on what is changed."""
    triggers = [
        f"CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION note()"
        for table in NOTED
    ]
    harness.execute(place.url, AUDIT.strip(), *triggers)


def writes(place: Place) -> list[Write]:
    """What was changed, in order."""
    return [Write(**row) for row in ask(place.url, "SELECT * FROM audit ORDER BY at")]
