"""A study as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import tomli_w

from clrsearch import plots, proposals
from clrsearch.causes import shortened
from clrsearch.errors import StudyError
from clrsearch.plots.overview import parallel
from clrsearch.plots.svg import Drawn, draw_figure, draw_parallel
from clrsearch.results import formatting
from clrsearch.results.sentence import verdict_sentence
from clrsearch.results.snapshots import Snapshot, snapshot
from clrsearch.results.source import source_code
from clrsearch.results.status import Failure, failures
from clrsearch.search import (
    LEAST_FOR_IMPORTANCES,
    Record,
    Study,
    StudyPlan,
    Verdict,
    importances,
)

FOLDER = Path(__file__).parent
PROGRESS_OVER: tuple[Literal["time", "trials"], ...] = ("time", "trials")
LONGEST_ERROR = 4000  # characters of a traceback
MOST_FAILURES = 10  # causes listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """Importances of a family's parameters.

    Attributes:
        family: the family.
        complete: number of its complete trials, shown if there are too few for ``shares``.
        shares: importance of each parameter.
    """

    family: str
    complete: int
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The contents of a page.

    ``recommended`` is None until a trial is complete, ``verdict`` without a verdict on fresh seeds.
    The page reloads itself after ``renewed`` seconds; None for a final page.
    """

    now: Snapshot
    recommended: Record | None
    verdict: Verdict | None
    sentence: str
    code: str
    schedule: Drawn | None
    curves: Drawn
    progress: tuple[Drawn, ...]
    parallels: tuple[Drawn, ...]
    importances: tuple[Importances, ...]
    scores: Drawn | None
    fresh_curves: Drawn | None
    range_test: Drawn | None
    horizon: Drawn | None
    failures: Sequence[Failure]
    errors: Mapping[int, str]
    study_file: str
    seed: int
    versions: Mapping[str, str]
    devices: tuple[str, ...]
    created: datetime
    made: datetime
    renewed: int | None


def read_page(study: Study, *, made: datetime, renewed: int | None = None) -> Page:
    """Collect the page's contents from a study; a custom rate function must already be bound.

    Raises:
        StudyError: the code of the recommended schedule does not reproduce its trial.
    """
    now = snapshot(study)
    facts = study.facts
    verdict, use = now.verdict, now.recommended
    said: dict[str, Any] = {"metric": facts.metric, "direction": facts.direction}
    families = _families(now, use)
    found = failures(now.records)[:MOST_FAILURES]
    return Page(
        now=now,
        recommended=use,
        verdict=verdict,
        sentence=verdict_sentence(now),
        code="" if use is None else source_code(study, use, verdict),
        schedule=None if use is None else draw_figure(plots.picture_of_schedules(study, [use])),
        curves=draw_figure(plots.picture_of_search(now)),
        progress=tuple(draw_figure(plots.picture_of_progress(now, by=by)) for by in PROGRESS_OVER),
        parallels=tuple(
            draw_parallel(
                parallel(
                    now.records,
                    study.space.families[family],
                    family=family,
                    **said,
                    recommended=None if use is None else use.number,
                )
            )
            for family in families
        ),
        importances=tuple(_importances(study, now.records, family) for family in families),
        scores=None if verdict is None else draw_figure(plots.picture_of_scores(study, verdict)),
        fresh_curves=_fresh_curves(study, now),
        range_test=None
        if study.range_test is None
        else draw_figure(plots.picture_of_range_test(study.range_test)),
        horizon=draw_figure(plots.picture_of_horizon(now.horizon))
        if now.horizon is not None and now.horizon.lengths
        else None,
        failures=found,
        errors={each.trials[0]: _error(now.records, each.trials[0]) for each in found},
        study_file=study_file(study.plan),
        seed=study.plan.seed,
        versions=study.record.versions,
        devices=tuple(sorted({record.device for record in now.records if record.device})),
        created=study.record.created,
        made=made,
        renewed=renewed,
    )


def render_page(page: Page) -> str:
    """Render the page as HTML; all text from the study is escaped."""
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        _template().render(
            page=page,
            now=page.now,
            formatting=formatting,
            script=script,
            script_digest=digest,
            style=(FOLDER / "page.css").read_text(encoding="utf-8"),
            least=LEAST_FOR_IMPORTANCES,
            command=proposals.command,
        )
    )


def study_file(plan: StudyPlan) -> str:
    """Convert a plan to a study file (TOML)."""
    return tomli_w.dumps(plan.model_dump(mode="json", exclude_none=True, exclude_defaults=True))


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markup"] = Markup  # for SVG drawn by this package
    return environment.get_template("page.html")


def _families(now: Snapshot, recommended: Record | None) -> list[str]:
    """The families with at least two complete trials, the recommended trial's first."""
    complete = [record.family for record in now.records if record.state == "complete"]
    several = [family for family in dict.fromkeys(complete) if complete.count(family) > 1]
    return sorted(several, key=lambda family: recommended is None or family != recommended.family)


def _fresh_curves(study: Study, now: Snapshot) -> Drawn | None:
    if now.confirmed is None:
        return None
    try:
        return draw_figure(plots.picture_of_curves(study, now.confirmed.runs))
    except StudyError:  # no run has finished an epoch
        return None


def _importances(study: Study, records: Sequence[Record], family: str) -> Importances:
    of_family = [record for record in records if record.family == family]
    return Importances(
        family=family,
        complete=sum(record.state == "complete" for record in of_family),
        shares=importances(
            of_family, study.space.families[family], direction=study.facts.direction
        ),
    )


def _error(records: Sequence[Record], number: int) -> str:
    error = next(record.error for record in records if record.number == number)
    return shortened(error, LONGEST_ERROR)
