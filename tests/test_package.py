"""The package as a whole: its names, its documents, its study files, its floors."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from image_files import write_cifar10, write_image_folder
from torchvision import models

import clrsearch
from clrsearch.search import build_space, load_plan
from clrsearch.tasks import load_task
from clrsearch.training import probe

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text()


def test_the_public_names_are_there() -> None:
    assert all(hasattr(clrsearch, name) for name in clrsearch.__all__)
    assert len(set(clrsearch.__all__)) == len(clrsearch.__all__)


def test_the_tree_of_the_docs_is_the_one_on_the_disk() -> None:
    block = re.search(r"```text\n(clrsearch/\n.*?)```", ARCHITECTURE, re.DOTALL)
    assert block is not None
    named, folder = set(), Path()
    for line in block[1].splitlines():
        indent = len(line) - len(line.lstrip())
        for name in itertools.takewhile(lambda word: word.endswith((".py", "/")), line.split()):
            path = Path(*("clrsearch",) * (indent > 0), *(folder.parts if indent > 2 else ()), name)
            if name.endswith("/") and indent == 2:
                folder = Path(name)
            named.add(path)
    on_disk = {
        path.relative_to(ROOT)
        for path in (ROOT / "clrsearch").rglob("*.py")
        if path.name != "__init__.py" or path.parent.name == "clrsearch"
    }
    assert {path for path in named if path.suffix == ".py"} == on_disk
    assert all((ROOT / path).exists() for path in named)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda p: p.name)
def test_every_study_file_can_be_run(path, tmp_path, monkeypatch) -> None:
    plan = load_plan(path)
    if plan.task == "cifar10":
        write_cifar10(tmp_path, monkeypatch)
    if plan.task == "image-folder":
        write_image_folder(tmp_path / "images", each=40)
        torch.save(models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    loaded = load_task(plan.task, options=plan.options, folder=path.parent, data_dir=tmp_path)
    facts = probe(
        loaded, epochs=plan.epochs, batch_size=plan.batch_size, device=torch.device("cpu")
    )
    assert set(build_space(plan, facts).families) == set(plan.searched)


def test_the_citation_is_valid_and_of_this_version() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    checked = subprocess.run(
        [*check, "vendor.citation-file-format", ROOT / "CITATION.cff"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == clrsearch.__version__
    assert f"## [{cited['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_module_has_a_name_of_its_own_and_defines_no_function_of_that_name() -> None:
    modules = [path for path in (ROOT / "clrsearch").rglob("*.py") if path.stem[0] != "_"]
    assert len({path.stem for path in modules}) == len(modules)
    for path in modules:
        names = [getattr(each, "name", "") for each in ast.parse(path.read_text()).body]
        assert path.stem not in names, path


def test_our_own_modules_are_imported_inside_functions_by_the_command_line_alone() -> None:
    for path in (ROOT / "clrsearch").rglob("*.py"):
        if path.parent.name == "cli" or path.name == "__init__.py":
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                found = [each for each in ast.walk(function) if isinstance(each, ast.ImportFrom)]
                assert not any((each.module or "").startswith("clrsearch") for each in found), path
