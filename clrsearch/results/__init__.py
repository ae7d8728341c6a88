"""The results of a study at one moment: as plain data, as values and in words."""

from clrsearch.results.allowance import (
    FEWEST_TRIALS,
    forecast,
    spent,
    too_little,
    what_is_left,
)
from clrsearch.results.conditioned import Conditioned, Variation, variation, variation_json
from clrsearch.results.confirmation import Confirmed
from clrsearch.results.formatting import (
    duration,
    ends,
    number,
    schedule_line,
    schedule_values,
    trial_json,
    trial_line,
    worth,
)
from clrsearch.results.horizon import AtLength, Horizon, read_horizon
from clrsearch.results.horizon_words import horizon_json, horizon_sentences
from clrsearch.results.sentence import settling, verdict_sentence
from clrsearch.results.shortfalls import shortfall
from clrsearch.results.snapshots import Snapshot, snapshot
from clrsearch.results.source import source_code
from clrsearch.results.status import Status, read_status, status_json

__all__ = [
    "FEWEST_TRIALS",
    "AtLength",
    "Conditioned",
    "Confirmed",
    "Horizon",
    "Snapshot",
    "Status",
    "Variation",
    "duration",
    "ends",
    "forecast",
    "horizon_json",
    "horizon_sentences",
    "number",
    "read_horizon",
    "read_status",
    "schedule_line",
    "schedule_values",
    "settling",
    "shortfall",
    "snapshot",
    "source_code",
    "spent",
    "status_json",
    "too_little",
    "trial_json",
    "trial_line",
    "variation",
    "variation_json",
    "verdict_sentence",
    "what_is_left",
    "worth",
]
