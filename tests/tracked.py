"""What trackers hold, as their own readers find it; for the files of wandb we have one here."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Curves = dict[str, list[tuple[int, float]]]
BLOCK, HEADER, PREFIX = 32768, struct.Struct("<IHB"), 7


@dataclass
class Seen:
    """One run, as a tracker has it; a point that is there twice is in its curve twice."""

    name: str = ""
    state: str = ""
    params: dict[str, str] = field(default_factory=dict)
    curves: Curves = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, str] = field(default_factory=dict)

    def last(self, name: str) -> float:
        """The last value of a curve."""
        return self.curves[name][-1][1]


def in_tensorboard(folder: Path, into: str) -> dict[str, Seen]:
    """The runs in the event files of the one study there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    (study,) = (folder / into).iterdir()
    found = {}
    for run in study.iterdir():
        events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        seen = found[run.name] = Seen()
        for tag in events.Tags()["scalars"]:
            seen.curves[tag] = [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["tensors"]:
            last = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
            seen.texts[tag.removesuffix("/text_summary")] = last
        seen.state = seen.texts.pop("state", "running")
        start = events.summary_metadata.get("_hparams_/session_start_info")
        if start is not None:
            data = plugin_data_pb2.HParamsPluginData.FromString(start.plugin_data.content)
            values = data.session_start_info.hparams.items()
            seen.params = {
                name: str(value.string_value or value.number_value) for name, value in values
            }
    return found


def in_mlflow(folder: Path, into: str) -> dict[str, Seen]:
    """The runs of an experiment."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(into)
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        key, number = run.data.tags["clrsearch.key"], run.info.run_id
        assert key not in found
        seen = found[key] = Seen(name=run.info.run_name, params=run.data.params)
        ended = run.info.status != "RUNNING"
        seen.state = run.data.tags["clrsearch.state"] if ended else "running"
        for name in run.data.metrics:
            history = client.get_metric_history(number, name)
            seen.curves[name] = [(each.step, each.value) for each in history]
        for file in client.list_artifacts(number):
            path = Path(run.info.artifact_uri) / file.path
            seen.texts[file.path] = path.read_text()
    return found


def in_trackio(folder: Path, into: str) -> dict[str, Seen]:
    """The runs of a project."""
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for run in trackio.Api().runs(into):
        key = run.id.partition("-")[2]
        assert key not in found
        seen = found[key] = Seen(name=run.name, params={k: str(v) for k, v in run.config.items()})
        seen.state = run.config["state"]
        for row in SQLiteStorage.get_logs(into, run.name, run_id=run.id):
            for name, value in row.items():
                if isinstance(value, float | int) and name != "step":
                    seen.curves[name].append((row["step"], value))
        seen.texts = {k: v for k, v in run.config.items() if "." in k}
    return found


def in_wandb(folder: Path, into: str) -> dict[str, Seen]:
    """The runs in the folders for ``wandb sync``."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        key = re.fullmatch(r"run-\w{8}-(.*)", file.stem)[1]
        assert key not in found
        records = [Record.FromString(data) for data in records_of(file.read_bytes())]
        begun, *_ = (each.run for each in records if each.HasField("run"))
        assert begun.project == into
        params = {name: str(value) for name, value in _values(begun.config.update).items()}
        seen = found[key] = Seen(name=begun.display_name, params=params)
        for record in records:
            for name, value in _values(record.history.item).items():
                seen.curves[name].append((record.history.step.num, value))
        (summary,) = (
            _values(each.summary.update) for each in records if "state" in str(each.summary)
        )
        seen.state = summary.pop("state")
        step = max((each for curve in seen.curves.values() for each, _ in curve), default=0)
        for name in summary.keys() - seen.curves.keys():
            seen.curves[name] = [(step, summary[name])]
        for text in (file.parent / "files").iterdir():
            seen.texts[text.name] = text.read_text()
    return found


def _values(items: Any) -> dict[str, Any]:
    """The values in a record, without those that wandb itself adds."""
    named = {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def records_of(content: bytes) -> Iterator[bytes]:
    """The records of a file in the log format of LevelDB, with a prefix of seven bytes."""
    parts, at = b"", PREFIX
    while at + HEADER.size <= len(content):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size
        parts += content[at : at + length]
        at += length
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


READERS = {
    "mlflow": in_mlflow,
    "wandb": in_wandb,
    "trackio": in_trackio,
    "tensorboard": in_tensorboard,
}


@dataclass
class Expected:
    """A trial, by what its database says in SQL: its end, values by epoch, and stored rates."""

    state: str
    metric: list[tuple[int, float]]
    rates: list[float]
    momenta: list[float] | None
    end: dict[str, Any]


def stored_trials(file: Path) -> dict[str, Expected]:
    """The trials in a database, by the key of their run."""
    found = {}
    with sqlite3.connect(file) as connection:
        query = (
            "SELECT trial_id, number, study_name, state FROM trials JOIN studies USING (study_id)"
        )
        diverged = connection.execute(
            "SELECT trial_id FROM trial_system_attributes "
            "WHERE key = 'constraints:diverged' AND value_json = '1.0'"
        ).fetchall()
        for trial, number, study, state in connection.execute(query).fetchall():
            values = connection.execute(
                "SELECT step, intermediate_value FROM trial_intermediate_values "
                "WHERE trial_id = ? ORDER BY step",
                (trial,),
            ).fetchall()
            attributes = {
                key: json.loads(text)
                for key, text in connection.execute(
                    "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?", (trial,)
                )
            }
            kind = "confirm" if study.endswith(".confirm") else "trial"
            momenta = attributes.get("momenta")
            found[f"{kind}-{number:04d}"] = Expected(
                state="diverged" if (trial,) in diverged else state.lower(),
                metric=values,
                rates=attributes["rates"][0],
                momenta=momenta and momenta[0],
                end=attributes.get("end", {}),
            )
    connection.close()
    return found
