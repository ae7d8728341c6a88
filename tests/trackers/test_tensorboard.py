"""TensorBoard's HPARAMS tab, by the code that answers for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

from clrsearch import service


def test_all_families_have_their_parameters_in_the_hparams_tab(stored, tmp_path) -> None:
    stored("compared")
    service.mirror("compared", "tensorboard", str(tmp_path / "runs"))
    records = service.show("compared").snapshot.records
    columns, metrics, rows = hparams_tab(tmp_path / "runs")
    assert {"constant", "cyclic", "linear", "step"} == {each.family for each in records}
    assert columns >= {"family"} | {name for each in records for name in each.params}
    assert metrics >= {"error", "lr", "training seconds"}
    for each in records:
        shown = rows[f"trial-{each.number:04d}"]
        assert shown["family"] == each.family
        assert {name: shown[name] for name in each.params} == each.params


def hparams_tab(folder: Path) -> tuple[set[str], set[str], dict[str, dict[str, Any]]]:
    """The columns of parameters and of metrics, and each run's parameters."""
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(folder))
    asked = RequestContext(), Context(TBContext(data_provider=provider)), ""
    shown = get_experiment.Handler(*asked, api_pb2.GetExperimentRequest()).run()
    query = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=1000, allowed_statuses=api_pb2.Status.values()
    )
    groups = list_session_groups.Handler(*asked, query).run().session_groups
    rows = {
        Path(session.name).name: {
            name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()
        }
        for group in groups
        for session in group.sessions
    }
    columns = {each.name for each in shown.hparam_infos}
    return columns, {each.name.tag for each in shown.metric_infos}, rows
