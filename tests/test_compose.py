"""docker-compose.yml: valid, closed, and its commands do what they say, natively.

No Docker engine is needed. The commands, their environments and the steps of the file's head are
read from the file, and run against a PostgreSQL server of the tests' own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from private_postgres import PASSWORD, binaries, private_postgres
from tables import everything

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"
HEAD = re.match(r"(#.*\n)+", FILE.read_text())[0]
STEPS = re.findall(r"^#      (.*)$", HEAD, re.MULTILINE)
PATIENCE = 120
STUDY = 'task = "tiny.py:Paced"\ntrials = 4\nconfirm.enabled = false\n'


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """``${NAME:-default}`` and ``${NAME:?message}`` as Compose replaces them."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if given.get(name):
            return given[name]
        if kind == "?":
            raise LookupError(f"{name}: {rest}")
        return rest

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


def compose(**given: str) -> dict[str, Any]:
    return yaml.safe_load(interpolated(FILE.read_text(), given))


SERVICES = compose(CLRSEARCH_SECRETS="./secrets")["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


def test_it_is_valid_by_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*check, FILE], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_says_that_it_was_never_started() -> None:
    assert "images have not been built" in HEAD


def test_it_has_the_services_that_its_head_names() -> None:
    assert set(SERVICES) == {"postgres", "init", "worker", "worker-cpu", "owner", "dashboard"}
    for line in STEPS:
        if "--rm " in line:
            assert line.split("--rm ")[1].split()[0] in SERVICES


@each_service
def test_a_service_may_do_nothing_that_it_need_not(name) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "1000:1000"
    forbidden = {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode", "devices"}
    assert not forbidden & set(service)
    for volume in service.get("volumes", []):
        assert "docker.sock" not in volume
        assert not volume.startswith("/")


@each_service
def test_a_service_is_reached_from_this_machine_or_not_at_all(name) -> None:
    service = SERVICES[name]
    published = service.get("ports", [])
    assert published == (["127.0.0.1:8080:8080"] if name == "dashboard" else [])
    assert service["networks"] == (["database", "loopback"] if published else ["database"])


def test_the_database_is_on_an_internal_network() -> None:
    networks = compose(CLRSEARCH_SECRETS="./secrets")["networks"]
    assert networks == {"database": {"internal": True}, "loopback": None}
    assert SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"] == (
        "--auth-host=scram-sha-256"
    )


def test_no_password_stands_in_it_and_none_is_the_default() -> None:
    text = FILE.read_text().removeprefix(HEAD)
    assert "://" not in text.replace("http://127.0.0.1:8080", "")
    assert not re.search(r"PASSWORD:|POSTGRES_HOST_AUTH_METHOD|PGPASSWORD|trust", text)
    with pytest.raises(LookupError, match=r"CLRSEARCH_SECRETS: see the head"):
        compose()
    secrets = compose(CLRSEARCH_SECRETS="/place")["secrets"]
    assert secrets == {name: {"file": f"/place/{name}"} for name in secrets}


@each_service
def test_a_service_sees_its_own_secret_and_no_other(name) -> None:
    own = {"worker-cpu": ["worker"], "dashboard": ["viewer"]}
    own |= {"init": ["admin", "owner", "worker", "viewer"]}
    assert SERVICES[name]["secrets"] == own.get(name, [name])


def test_the_worker_has_the_gpus_and_its_substitute_none() -> None:
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    worker, substitute = dict(SERVICES["worker"]), dict(SERVICES["worker-cpu"])
    del worker["deploy"]
    assert substitute.pop("profiles") == ["cpu"]
    assert worker == substitute


@pytest.mark.parametrize("line", ["FROM python:3.12-slim", "USER 1000:1000", "WORKDIR /tasks"])
def test_the_image_is_what_the_services_rely_on(line) -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert line in lines
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"  # no secrets in the build's context
    sources = [word for each in lines if each.startswith("COPY ") for word in each.split()[1:-1]]
    assert {each.removeprefix("!") for each in ignored if each.startswith("!")} == set(sources)


@dataclass
class Native:
    """The services as processes of this machine, and a PostgreSQL server that runs already."""

    folder: Path
    port: int

    def __post_init__(self) -> None:
        secrets = "\n".join(STEPS[: STEPS.index("done") + 2])
        variables = '; printf "%s %s %s" $CLRSEARCH_SECRETS $CLRSEARCH_UID $CLRSEARCH_GID'
        made = subprocess.run(
            ["bash", "-euc", secrets + variables],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
        )
        self.secrets = self.folder / made.stdout.split()[0]
        assert made.stdout.split()[1:] == [str(os.getuid()), str(os.getgid())]
        for path in self.secrets.glob("[a-z]*"):
            assert path.stat().st_mode & 0o077 == 0
            path.write_text(path.read_text().replace("@postgres/", f"@127.0.0.1:{self.port}/"))
        (self.folder / "tasks").mkdir()
        (self.folder / "tasks" / "digits.toml").write_text(STUDY)
        shutil.copy(ROOT / "tests" / "tasks_for_tests" / "tiny.py", self.folder / "tasks")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.dashboard = free.getsockname()[1]

    def command(self, service: str, *arguments: str) -> dict[str, Any]:
        """What starts a service's command, or another one in its place."""
        places = {
            "/run/secrets": str(self.secrets),
            "/checkpoints": str(self.folder / "checkpoints"),
            "8080": str(self.dashboard),
        }

        def here(text: str) -> str:
            for there, place in places.items():
                text = text.replace(there, place)
            return text

        environment = {key: value for key, value in os.environ.items() if "CLRSEARCH" not in key}
        environment["PATH"] = f"{Path(sys.executable).parent}:{binaries()}:{environment['PATH']}"
        environment["PGPORT"] = str(self.port)
        own = SERVICES[service]["environment"]
        return {
            "args": [here(each) for each in arguments or SERVICES[service]["command"]],
            "env": environment | {key: here(value) for key, value in own.items()},
            "cwd": self.folder / "tasks",
            "text": True,
        }

    def run(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            **self.command(service, *arguments), capture_output=True, check=False, input="y\n"
        )

    def start(self, service: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            **self.command(service, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def is_healthy(self, service: str) -> bool:
        kind, *test = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(service, *test).returncode == 0

    def url(self, role: str) -> str:
        return (self.secrets / role).read_text().strip()

    def ask(self, role: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(role)) as connection:
            return connection.execute(query).fetchall()

    def everything(self) -> dict[str, list[str]]:
        """Every row of every table."""
        return everything(self.url("owner").replace("://", "+psycopg://"))

    def open_page(self, path: str, method: str = "GET", body: object = None) -> tuple[int, str]:
        """The status and the text with which the dashboard answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.dashboard}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def step(*words: str) -> tuple[str, ...]:
    """The command of ``docker compose run`` in the file's head that has these words."""
    (found,) = (line for line in STEPS if "--rm" in line and set(words) <= set(line.split()))
    return tuple(shlex.split(found.split("--rm ")[1])[1:])


def test_the_commands_run_a_study_that_the_dashboard_shows_and_cannot_change(tmp_path) -> None:
    with private_postgres() as port:
        native = Native(tmp_path, port)
        set_up_database(native)
        made = native.run("init")
        assert (made.returncode, made.stderr) == (0, "")
        roles = [f"clrsearch_{role}, the {role}, is" for role in ("owner", "worker", "viewer")]
        assert made.stdout.splitlines() == [f"{each} created" for each in roles]
        again = native.run("init")
        assert again.stdout.splitlines() == [f"{each} up to date" for each in roles]

        begin_and_leave(native)
        refuse_the_viewer(native)
        worked = native.run("worker")
        assert worked.returncode == 0, worked.stderr
        states = native.ask("viewer", "SELECT state, count(*) FROM clrsearch_slots GROUP BY 1")
        assert sum(count for _, count in states) == 4
        assert {state for state, _ in states} <= {"complete", "pruned", "diverged"}

        code = native.run("worker", *step("worker", "best")[:-2])
        assert "def make_scheduler" in code.stdout, code.stderr
        look_at_it(native)
        remove_it(native)


def set_up_database(native) -> None:
    """What the image of PostgreSQL does with the variables of its service."""
    environment = SERVICES["postgres"]["environment"]
    assert environment["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres"
    password = (native.secrets / "postgres").read_text().strip()
    options = {"host": "127.0.0.1", "port": native.port, "user": "me", "dbname": "postgres"}
    with psycopg.connect(**options, password=PASSWORD, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '{password}'")
        connection.execute(f"CREATE DATABASE {environment['POSTGRES_DB']}")
    assert native.is_healthy("postgres")


def begin_and_leave(native) -> None:
    """Begin a study as the file's head says, and interrupt it while a trial runs."""
    running = native.start("worker", *step("worker", "digits.toml"))

    def has_begun() -> bool:
        assert running.poll() is None, running.communicate()[0]
        return native.ask("viewer", "SELECT count(*) FROM trials") > [(0,)]

    wait_for(has_begun)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, out
    assert native.ask("viewer", "SELECT count(*) FROM clrsearch_slots WHERE state = 'open'")[0][0]


def refuse_the_viewer(native) -> None:
    """A worker with the viewer's secret is told in one line, and the database as well."""
    before = native.everything()
    worker = native.command("worker")
    worker["env"]["CLRSEARCH_STORAGE_FILE"] = str(native.secrets / "viewer")
    refused = subprocess.run(**worker, capture_output=True, check=False)
    assert refused.returncode == 2
    assert "the role clrsearch_viewer is not allowed to do that" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    for table in before:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            native.ask("viewer", f"INSERT INTO {table} DEFAULT VALUES")
    assert native.everything() == before


def look_at_it(native) -> None:
    """Every page of the dashboard, and everything by which it would change the database."""
    dashboard = native.start("dashboard")
    try:
        wait_for(lambda: native.is_healthy("dashboard"))
        studies = json.loads(native.open_page("/api/studies")[1])["study_summaries"]
        assert [each["study_name"] for each in studies] == ["digits"]
        study = f"/api/studies/{studies[0]['study_id']}"
        detail = json.loads(native.open_page(study)[1])
        assert len(detail["trials"]) >= 4
        trial = detail["trials"][0]["trial_id"]
        plots = "contour", "slice", "parallel_coordinate", "rank", "edf", "timeline"
        pages = ["/", "/dashboard", "/dashboard/studies/1", "/api/meta", "/csv/1", "/favicon.ico"]
        pages += ["/static/bundle.js", f"{study}?after=1", f"{study}/param_importances"]
        for page in pages + [f"{study}/plot/{plot}" for plot in plots]:
            status, text = native.open_page(page)
            assert (status, bool(text)) == (200, True), page

        before = native.everything()
        note = {"version": 1, "body": "changed"}
        for method, path, body in (
            ("POST", "/api/studies", {"study_name": "new", "directions": ["minimize"]}),
            ("POST", f"{study}/rename", {"study_name": "new"}),
            ("DELETE", study, {}),
            ("PUT", f"{study}/note", note),
            ("PUT", f"{study}/{trial}/note", note),
            ("POST", f"{study}/{trial}/skip", {}),
            (
                "POST",
                f"{study}/preference",
                {"mode": "ChooseWorst", "candidates": [], "clicked": 0},
            ),
            ("POST", f"/api/trials/{trial}/tell", {"state": "Fail"}),
            ("POST", f"/api/trials/{trial}/user-attrs", {"user_attrs": {"mine": 1}}),
        ):
            assert native.open_page(path, method, body)[0] == 403, (method, path)
        native.open_page("/incompatible-rdb-schema", "POST")  # its own upgrade
        assert native.everything() == before
    finally:
        dashboard.terminate()
        log, _ = dashboard.communicate()
    assert "read-only" in log
    assert native.url("viewer").split(":")[2].split("@")[0] not in log


def remove_it(native) -> None:
    """Only the owner removes studies."""
    remove = step("owner", "delete")
    refused = native.run("worker", *remove)
    assert refused.returncode == 2
    assert "the role clrsearch_worker is not allowed to do that" in refused.stderr
    assert native.run("owner", *step("owner", "upgrade")).returncode == 0
    assert "digits" in native.run("owner").stdout
    assert native.run("owner", *remove).returncode == 0
    assert native.ask("viewer", "SELECT count(*) FROM studies") == [(0,)]
