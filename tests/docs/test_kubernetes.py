"""The Job on the page about Kubernetes: valid, and its command does what the page says."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import kubernetes_validate
import pytest
import yaml
from pages import ROOT, blocks

from clrsearch.errors import ExitCode

PAGE = (ROOT / "docs/how-to/kubernetes.md").read_text()
(JOB,) = (yaml.safe_load(each.text) for each in blocks(PAGE) if each.language == "yaml")
(CONTAINER,) = JOB["spec"]["template"]["spec"]["containers"]


def test_the_job_is_valid() -> None:
    kubernetes_validate.validate(JOB, kubernetes_validate.latest_version(), strict=True)


def test_what_is_mounted_is_there() -> None:
    volumes = {each["name"] for each in JOB["spec"]["template"]["spec"]["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert set(mounts) == volumes
    environment = {each["name"]: each["value"] for each in CONTAINER["env"]}
    assert environment["CLRSEARCH_STORAGE_FILE"].startswith(mounts["storage"])
    assert environment["CLRSEARCH_CHECKPOINT_DIR"] == mounts["checkpoints"]
    assert f"--task-dir {mounts['tasks']} " in CONTAINER["args"][0]


def test_codes_that_no_other_worker_would_escape_fail_the_job() -> None:
    fail, ignore = JOB["spec"]["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"]["values"] == [ExitCode.ERROR, ExitCode.STOPPED]
    assert ignore["action"] == "Ignore"


WORKER = """#!/bin/sh
echo "$@" > told
trap 'echo saved > saved; exit 0' TERM
touch began
while [ ! -e end ]; do sleep 0.05; done
exit $(cat end)
"""


@pytest.mark.parametrize("ending", ["0", "3", "preempted"])
def test_a_preempted_worker_saves_and_its_pod_does_not_count_as_complete(tmp_path, ending) -> None:
    worker = tmp_path / "clrsearch"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = [*CONTAINER["command"], *CONTAINER["args"]]
    pod = subprocess.Popen(command, cwd=tmp_path, env={"PATH": path})
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if ending == "preempted":
            pod.send_signal(signal.SIGTERM)
            assert pod.wait(60) == 143
            assert (tmp_path / "saved").exists()
        else:
            (tmp_path / "end").write_text(ending)
            assert pod.wait(60) == int(ending)
    finally:
        (tmp_path / "end").write_text("0")
        pod.kill()
        pod.wait()
    assert (tmp_path / "told").read_text() == "worker mine --task-dir /tasks\n"
