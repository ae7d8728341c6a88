"""MLflow: an experiment with one run per trial, nested in the run of the study."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from clrsearch.errors import TrackerError
from clrsearch.trackers.tracker import STUDY, Mirrored, Point, Run, redacted, told

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

STUDY_TAG, KEY_TAG, STATE_TAG = "clrsearch.study", "clrsearch.key", "clrsearch.state"
MOST_METRICS = 1000  # that MLflow takes at once
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # its own seven take minutes without a server
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # else it tells how it makes its tables
}
"""What we ask of MLflow, unless the environment asks for something else."""
_UNSAFE = re.compile(r"[^\w\-. /]")


def connect(study: Mirrored, into: str | None) -> MLflow:
    """Open the experiment ``into`` of the server or database that MLflow's environment names.

    Raises:
        TrackerError: it cannot be reached or written.
    """
    for variable, value in DEFAULTS.items():
        os.environ.setdefault(variable, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own code, at its import and the first use
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        with told("mlflow", MlflowException, SQLAlchemyError, OSError):
            client = MlflowClient()
            name = into or os.environ.get("MLFLOW_EXPERIMENT_NAME") or study.name
            found = client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage != "active":
                raise TrackerError(
                    f"mlflow: the experiment {name} has been deleted: restore it, or name another "
                    "with --into"
                )
            experiment = client.create_experiment(name) if found is None else found.experiment_id
            return MLflow(client, experiment, name, study)


class MLflow:
    """An experiment; the tags of its runs say which trials of which study they are."""

    def __init__(self, client: MlflowClient, experiment: str, name: str, study: Mirrored) -> None:
        self._client = client
        self._experiment = experiment
        self._name = name
        self._study = study
        self._ids: dict[str, str] = {}  # of the runs that are there, by key
        self._ended: set[str] = set()
        self._steps: dict[str, dict[str, int]] = {}  # the last one written, by key and metric
        self._texts: dict[str, dict[str, str]] = {}
        self._find()

    @property
    def place(self) -> str:
        """The server or database, and the experiment."""
        return f"{redacted(self._client.tracking_uri)}, experiment {self._name}"

    def _find(self) -> None:
        """Find the study's runs."""
        page = None
        while page != "":
            found = self._client.search_runs(
                [self._experiment],
                f"tags.`{STUDY_TAG}` = '{self._study.uuid}'",
                page_token=page,
            )
            for run in found:
                key = run.data.tags[KEY_TAG]
                self._ids[key] = run.info.run_id
                if run.info.end_time is not None:
                    self._ended.add(key)
            page = found.token or ""

    def ended(self) -> Collection[str]:
        """The keys of the runs that are there whole."""
        return frozenset(self._ended)

    def update(self, run: Run) -> None:
        """Log what is new of a run; its end comes last, so a run that has ended is whole."""
        from mlflow.entities import RunTag
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        with told("mlflow", MlflowException, SQLAlchemyError, OSError):
            if run.key not in self._steps:
                self._steps[run.key] = self._begun(run)
            number, tags = self._ids[run.key], {**run.tags, STATE_TAG: run.state}
            if run.ended is None and run.key in self._ended:  # a study that has grown
                self._client.update_run(number, "RUNNING")
                self._ended.remove(run.key)
            missing = self._missing(run)
            for first in range(0, len(missing), MOST_METRICS):
                self._client.log_batch(number, metrics=missing[first : first + MOST_METRICS])
            self._client.log_batch(number, tags=[RunTag(*each) for each in tags.items()])
            for name, text in run.texts.items():
                if self._texts.setdefault(run.key, {}).get(name) != text:
                    self._client.log_text(number, text, name)
                    self._texts[run.key][name] = text
            if run.ended is not None:
                status = "FAILED" if run.failed else "FINISHED"
                self._client.set_terminated(number, status, _milliseconds(run.ended))
                self._ended.add(run.key)

    def close(self) -> None:
        """Nothing is left to be done."""

    def _begun(self, run: Run) -> dict[str, int]:
        """Create a run if it is not there; the last step that it has of each metric."""
        from mlflow.entities import Param

        steps = {}
        if run.key in self._ids:
            number = self._ids[run.key]
            for name in {metric.key for metric in _metrics(run)}:
                logged = self._client.get_metric_history(number, name)
                steps[name] = max((each.step for each in logged), default=-1)
        else:
            tags = {STUDY_TAG: self._study.uuid, KEY_TAG: run.key}
            if not run.is_study and STUDY in self._ids:
                tags["mlflow.parentRunId"] = self._ids[STUDY]
            start = _milliseconds(run.started)
            made = self._client.create_run(self._experiment, start, tags, run.name)
            number = self._ids[run.key] = made.info.run_id
        params = [Param(_UNSAFE.sub("_", name), str(each)) for name, each in run.params.items()]
        self._client.log_batch(number, params=params)  # the same ones again change nothing
        return steps

    def _missing(self, run: Run) -> list[Metric]:
        """The metrics to log; they count as logged from now on."""
        steps, found = self._steps[run.key], []
        for metric in _metrics(run):
            if metric.step > steps.get(metric.key, -1):
                found.append(metric)
                steps[metric.key] = metric.step
        return found


def _metrics(run: Run) -> list[Metric]:
    """All metrics of a run; MLflow allows fewer characters in their names than we do."""
    from mlflow.entities import Metric

    time = _milliseconds(run.started)
    return [
        Metric(_UNSAFE.sub("_", name), value, time, point.step)
        for point in (*run.points, Point(step=run.step, values=run.final))
        for name, value in point.values.items()
    ]


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
