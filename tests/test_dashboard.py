"""The dashboard: what it adds, what it refuses, and that it leaves studies alone."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message

import pytest
import sqlalchemy as sa
from tables import everything

from clrsearch import service
from clrsearch.errors import PlanError, StudyError
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.training.device import find_device
from clrsearch.worker import WorkerSettings

PLAN = {
    "families": ("cyclic",),
    "task": "tiny.py:Noisy",
    "trials": 6,
    "confirm": ConfirmPlan(enabled=False),
}


@dataclass
class Client:
    """Speaks HTTP with a dashboard."""

    root: str

    def open(self, path: str, method: str = "GET", body: object = None, **headers: str):
        request = urllib.request.Request(
            self.root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def headers(self, path: str, **headers: str) -> Message:
        request = urllib.request.Request(self.root + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.headers

    def detail(self, study: int) -> dict:
        status, content = self.open(f"/api/studies/{study}")
        assert status == 200, content
        return json.loads(content)


@contextmanager
def serving(name: str | None = None, **options) -> Iterator[Client]:
    with service.dashboard(name, port=0, **options) as opened:
        thread = threading.Thread(target=opened.serve)
        thread.start()
        try:
            yield Client("/".join(opened.url.split("/")[:3]))
        finally:
            opened.server.shutdown()
            thread.join()


def begin(task_dir, name="mine", **keys) -> int:
    plan = StudyPlan(**(PLAN | keys))
    facts = probe(load_task(plan.task, folder=task_dir), device=find_device("cpu"))
    with open_database(service.storage_url(None), create=True) as database:
        return Study.create(database, name, plan, facts, service.versions(task_dir)).id


def work(task_dir, name="mine", **keys) -> int:
    number = begin(task_dir, name, **keys)
    service.work(name, settings=WorkerSettings(device="cpu", task_dir=task_dir))
    return number


def test_it_adds_notes_figures_and_artifacts_and_writes_nothing(any_url, task_dir) -> None:
    number = work(task_dir, confirm=ConfirmPlan(top=1, seeds=2))
    before = everything(any_url.reveal())
    best = service.best("mine")
    with serving("mine") as client:
        detail = client.detail(number)
        note = detail["note"]["body"]
        assert best.code.rstrip() in note
        assert "on 2 fresh seeds" in note
        assert {each["id"] for each in detail["plotly_graph_objects"]} == {
            *("schedules", "learning-curves")
        }
        assert detail["objective_names"] == ["error"]
        for trial in detail["trials"]:
            picture, snippet = trial["artifacts"]
            assert (picture["filename"], picture["mimetype"]) == ("learning-rate.png", "image/png")
            assert snippet["filename"] == "schedule.py"
            assert "rates" not in {each["key"] for each in trial["user_attrs"]}
        place = f"/artifacts/{number}/{detail['trials'][0]['trial_id']}/"
        artifacts = [each["artifact_id"] for each in detail["trials"][0]["artifacts"]]
        assert client.open(place + artifacts[0])[1].startswith(b"\x89PNG\r\n")
        code = client.open(place + artifacts[1])[1].decode()
        assert "mine, trial 0 of 6, on one seed" in code
        assert "def make_scheduler" in code
        sibling = client.detail(number + 1)
        assert sibling["name"] == "mine.confirm"
        assert sibling["note"]["body"].startswith("# Confirmation of mine")
        assert sibling["trials"][0]["artifacts"]
    assert everything(any_url.reveal()) == before


def test_a_trial_is_found_by_its_artifact_alone(url, task_dir) -> None:
    number = work(task_dir)
    with serving() as client:
        assert client.open(f"/artifacts/{number}/1/1-2")[0] == 200
        for missing in ("1-3", "1", "ff-2"):
            assert client.open(f"/artifacts/{number}/1/{missing}")[0] >= 400


def plant(study: int, trial: int, artifact: str) -> None:
    """Store an artifact of a type that browsers run, at each place where one may be."""
    meta = {"artifact_id": artifact, "filename": "x.html", "mimetype": "text/html"}
    stored = json.dumps({**meta, "encoding": None})
    with open_database(service.storage_url(None)) as database:
        for key in (f"artifacts:{artifact}", f"dashboard:artifacts:{trial}:{artifact}"):
            database.optuna.set_study_system_attr(study, key, stored)
        with database.engine.begin() as connection:  # a trial that has ended takes none
            connection.execute(
                sa.text(
                    "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
                    "VALUES (:trial, :key, :value)"
                ),
                {"trial": trial, "key": f"artifacts:{artifact}", "value": json.dumps(stored)},
            )


@pytest.mark.parametrize("artifact", ["1-1", "1-2", "01-2", "ABC"])
def test_an_artifact_that_somebody_has_planted_is_not_served(url, task_dir, artifact) -> None:
    number = work(task_dir, trials=2)
    plant(number, 1, artifact)
    with serving() as client:
        trial, *_ = client.detail(number)["trials"]
        assert [each["filename"] for each in trial["artifacts"]] == [
            "learning-rate.png",
            "schedule.py",
        ]
        assert client.detail(number)["artifacts"] == []
        assert client.open(f"/artifacts/{number}/{artifact}")[0] == 404
        ours = artifact in ("1-1", "1-2")
        assert client.open(f"/artifacts/{number}/1/{artifact}")[0] == (200 if ours else 404)
        assert client.headers(f"/artifacts/{number}/1/1-1")["Content-Type"] == "image/png"
        assert client.headers(f"/artifacts/{number}/1/1-2")["Content-Type"] == "text/x-python"


def test_every_answer_tells_the_browser_what_it_may_do(url, task_dir) -> None:
    number = work(task_dir, trials=2)
    picture, code = (f"/artifacts/{number}/1/1-{end}" for end in (1, 2))
    pages = ("/dashboard", "/static/bundle.js", f"/api/studies/{number}", "/none", "/artifacts/1/f")
    with serving() as client:
        for path in (picture, code, *pages):
            headers = client.headers(path)
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert not [each for each in headers if each.startswith("Access-Control")]
            (policy,) = headers.get_all("Content-Security-Policy")
            assert "frame-ancestors 'none'" in policy
            assert ("sandbox" in policy) == path.startswith("/artifacts/")
            assert ("script-src 'self' 'unsafe-eval';" in policy) != ("sandbox" in policy)
        assert client.headers(code)["Content-Disposition"] == "attachment"
        assert client.headers(picture)["Content-Disposition"] is None
        assert client.headers("/", Host="evil.example")["X-Content-Type-Options"] == "nosniff"


def test_the_page_of_a_study_is_its_own(url, task_dir) -> None:
    begin(task_dir)
    number = begin(task_dir, "other")
    with service.dashboard("other", port=0) as opened:
        assert opened.url.startswith("http://127.0.0.1:")
        assert opened.url.endswith(f"/dashboard/studies/{number}")
    with service.dashboard(port=0) as opened:
        assert opened.url.endswith("/dashboard")
    with pytest.raises(StudyError, match="no study oter; did you mean other"):
        service.dashboard("oter", port=0).__enter__()


def test_a_study_that_has_not_begun_and_one_of_optunas_own(url, task_dir) -> None:
    import optuna

    number = begin(task_dir)
    optuna.create_study(storage=url.reveal(), study_name="foreign")
    with serving() as client:
        detail = client.detail(number)
        assert "No trial is complete yet" in detail["note"]["body"]
        assert detail["plotly_graph_objects"] == []
        assert client.detail(number + 1)["note"]["body"] == ""
        assert client.open("/api/studies/99")[0] == 404


def test_what_it_shows_is_renewed(url, task_dir, monkeypatch) -> None:
    monkeypatch.setattr("clrsearch.reports.overlay.RENEW_SECONDS", 0.0)
    number = begin(task_dir)
    with serving() as client:
        first = client.detail(number)["note"]
        assert client.detail(number)["note"] == first
        service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
        second = client.detail(number)["note"]
        assert "6 of 6 trials done" in second["body"]
        assert second["version"] == first["version"] + 1


def test_a_study_that_took_the_place_of_another(url, task_dir, monkeypatch) -> None:
    monkeypatch.setattr("clrsearch.reports.overlay.RENEW_SECONDS", 0.0)
    monkeypatch.setattr("optuna_dashboard._storage.timedelta", lambda seconds: 0 * _second())
    number = work(task_dir, trials=6)
    with serving() as client:
        assert len(client.detail(number)["trials"]) == 6
        service.delete("mine")
        assert work(task_dir, trials=4) == number
        detail = client.detail(number)
        assert len(detail["trials"]) == 4
        assert "4 of 4 trials done" in detail["note"]["body"]


def test_the_artifact_of_a_deleted_trial_is_not_shown_for_another(url, task_dir) -> None:
    number = work(task_dir, "first", trials=2)
    with serving() as client:
        assert b"first, trial 0" in client.open(f"/artifacts/{number}/1/1-2")[1]
        service.delete("first")
        assert work(task_dir, "second", trials=2) == number
        assert b"second, trial 0" in client.open(f"/artifacts/{number}/1/1-2")[1]


def test_rates_by_hand_whose_file_is_not_at_hand(url, task_dir, tmp_path) -> None:
    (tmp_path / "rates.py").write_text("def rate(step, steps_per_epoch):\n    return 0.01\n")
    for each in ("tiny.py", "loops.py"):
        (tmp_path / each).write_text((task_dir / each).read_text())
    run = StudyPlan(**PLAN | {"families": ["manual"], "manual": "rates.py:rate", "trials": 2})
    service.run(
        run, name="mine", settings=WorkerSettings(task_dir=tmp_path, device="cpu"), workers=0
    )
    with serving("mine", task_dir=task_dir) as client:
        assert "2 of 2 trials done" in client.detail(1)["note"]["body"]
        assert client.open("/artifacts/1/1/1-2")[0] >= 400
    with serving("mine", task_dir=tmp_path) as client:
        assert "from rates import rate" in client.detail(1)["note"]["body"]


def _second():
    from datetime import timedelta

    return timedelta(seconds=1)


def test_a_note_of_somebodys_own_goes_before_ours(url, task_dir) -> None:
    number = work(task_dir)
    with serving() as client:
        shown = client.detail(number)["note"]
        own = {"version": shown["version"] + 1, "body": "try longer warm-ups"}
        assert client.open(f"/api/studies/{number}/note", "PUT", own)[0] == 204
        assert client.detail(number)["note"] == own
    with serving() as client:
        assert client.detail(number)["note"] == own


CHANGES = (
    ("POST", "/api/studies", {"study_name": "new", "directions": ["minimize"]}),
    ("POST", "/api/studies/1/rename", {"study_name": "new"}),
    ("DELETE", "/api/studies/1", {}),
    ("POST", "/api/studies/1/1/skip", {}),
    ("POST", "/api/trials/1/tell", {"state": "Fail"}),
    ("POST", "/api/trials/1/user-attrs", {"user_attrs": {"mine": 1}}),
    ("POST", "/api/artifacts/1", {"file": "data:,x", "filename": "x"}),
    ("DELETE", "/api/artifacts/1/1/1-1", {}),
    ("POST", "/incompatible-rdb-schema", {}),
)


def test_it_changes_nothing_but_notes(url, task_dir) -> None:
    work(task_dir)
    before = everything(url.reveal())
    with serving() as client:
        for method, path, body in CHANGES:
            status, content = client.open(path, method, body)
            assert status == 403, (method, path)
            assert "only notes can be edited here" in json.loads(content)["reason"]
    with serving(read_only=True) as client:
        for path in ("/api/studies/1/note", "/api/studies/1/1/note"):
            status, content = client.open(path, "PUT", {"version": 2, "body": "mine"})
            assert (status, json.loads(content)) == (
                403,
                {"reason": "this dashboard is read-only"},
            )
        assert client.detail(1)["note"]["body"].startswith("# mine")
    assert everything(url.reveal()) == before


def test_a_role_that_only_reads_sees_the_same(postgresql, task_dir, monkeypatch) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    number = work(task_dir)
    owner = sa.make_url(postgresql.reveal())
    viewer = f"viewer_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(owner, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {viewer} LOGIN")
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {viewer}")
        monkeypatch.setenv(
            "CLRSEARCH_STORAGE", owner.set(username=viewer).render_as_string(hide_password=False)
        )
        with serving("mine") as client:
            detail = client.detail(number)
            assert detail["note"]["body"].startswith("# mine")
            assert detail["trials"][0]["artifacts"]
            body = {"version": 2, "body": "mine"}
            assert client.open(f"/api/studies/{number}/note", "PUT", body)[0] == 403
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {viewer}")
            connection.exec_driver_sql(f"DROP ROLE {viewer}")
        engine.dispose()


def test_a_site_that_points_its_name_here_is_not_answered(url, task_dir) -> None:
    begin(task_dir)
    with serving() as client:
        assert client.open("/api/studies", Host="evil.example")[0] == 403
        assert client.open("/api/studies", Host="localhost:1")[0] == 200
    with serving(host="127.0.0.2") as client:
        assert client.open("/api/studies", Host="evil.example")[0] == 403
        assert client.open("/api/studies")[0] == 200


def test_the_last_port_in_use_has_none_behind_it(url, task_dir, clrsearch) -> None:
    begin(task_dir)
    with socket.create_server(("127.0.0.3", 65535)):
        code, _, err = clrsearch("dashboard", "--host", "127.0.0.3", "--port", "65535")
    assert (code, err) == (2, "clrsearch: port 65535 on 127.0.0.3 is in use\n")


def test_a_port_in_use_is_named_with_the_next_free_one(url, task_dir, clrsearch) -> None:
    begin(task_dir)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = clrsearch("dashboard", "--port", str(port))
        assert (code, out) == (2, "")
        assert err.startswith(f"clrsearch: port {port} on 127.0.0.1 is in use: --port ")
        assert err.count("\n") == 1
        free = int(err.split("--port ")[1].split()[0])
        assert free > port
        with socket.create_server(("127.0.0.1", free)):
            pass


def test_an_address_of_another_machine(url, task_dir) -> None:
    begin(task_dir)
    with pytest.raises(PlanError, match=r"--host 192\.0\.2\.1"):
        service.dashboard(host="192.0.2.1", port=0).__enter__()


@pytest.mark.filterwarnings("ignore:Some regimes")
def test_a_study_runs_to_its_end_while_it_is_looked_at(url, task_dir) -> None:
    number = begin(task_dir, trials=16)
    answers: list[int] = []
    done = threading.Event()

    def poll(client: Client) -> None:
        while not done.is_set():
            for path in (
                *("/api/studies", f"/api/studies/{number}", f"/artifacts/{number}/1/1-2"),
                f"/api/studies/{number}/param_importances",
            ):
                answers.append(client.open(path)[0])

    with serving("mine") as client:
        pollers = [threading.Thread(target=poll, args=(client,)) for _ in range(2)]
        for each in pollers:
            each.start()
        try:
            plan = StudyPlan(**(PLAN | {"trials": 16}))
            result = service.run(
                plan,
                name="mine",
                settings=WorkerSettings(device="cpu", task_dir=task_dir),
                workers=1,
            )
        finally:
            done.set()
            for each in pollers:
                each.join()
    now = result.snapshot
    assert (now.done, now.total, len(now.records)) == (16, 16, 16)
    assert not now.slots.get(SlotState.FAILED, 0)
    assert len(answers) > 20
    assert max(answers) < 500
    assert all(each.state != "wrong" for each in service.check_database())


def test_its_terminal_shows_an_address_and_nothing_of_other_packages(url, task_dir) -> None:
    number = work(task_dir)  # 6 trials, which Optuna warns are few for importances
    arguments = (sys.executable, "-m", "clrsearch", "dashboard", "mine", "--port", "0")
    shown = subprocess.Popen(
        arguments, cwd=task_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert shown.stdout is not None
        root, page = shown.stdout.readline().strip().split("/dashboard")
        client = Client(root)
        assert client.open(f"/dashboard{page}")[0] == 200
        client.detail(number)
        evaluators = "?evaluator=ped-anova"
        assert client.open(f"/api/studies/{number}/param_importances{evaluators}")[0] == 200
        address = ("127.0.0.1", int(root.rpartition(":")[2]))
        with socket.create_connection(address, timeout=60) as typed_https:
            typed_https.sendall(b"\x16\x03\x01\x02\x00\n\n")
            typed_https.recv(1000)
        with socket.create_connection(address, timeout=60) as bare:
            bare.sendall(b"GET /static/bundle.js HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert bare.recv(1000).startswith(b"HTTP/1.0 200")
        with socket.create_connection(address, timeout=60) as hangs_up:
            hangs_up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.detail(number)
    finally:
        shown.send_signal(signal.SIGINT)
        _, errors = shown.communicate(timeout=60)
    assert errors == "only notes can be changed; press Ctrl-C to stop\n"
    assert shown.returncode == 0
