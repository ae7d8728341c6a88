"""What docs/generate.py writes is on the disk, and the schema of study files finds mistakes."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

import clrsearch
from clrsearch.schedules import FAMILIES
from clrsearch.search import StudyPlan, load_plan

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SCHEMA = json.loads((DOCS / "reference/study.schema.json").read_text())
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
HEADINGS = [
    *("What it is", "When to use it", "Formula", "Searched values", "Picture", "Rivals", "Paper"),
]


def test_what_is_generated_is_on_the_disk() -> None:
    # after a change: python docs/generate.py
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.written().items():
        assert path.read_text() == text, path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_page_that_tells_the_same(family) -> None:
    page = (DOCS / f"families/{family}.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADINGS
    assert "![" in page and f"../images/families/{family}.svg" in page
    assert f"({family}.md)" in (DOCS / "families/index.md").read_text()


def test_every_exit_code_is_in_the_reference() -> None:
    from clrsearch.errors import ExitCode

    page = (DOCS / "reference/exit-codes.md").read_text()
    assert [int(each) for each in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == list(ExitCode)


def test_the_command_prints_the_schema(clrsearch) -> None:
    code, out, errors = clrsearch("schema")
    assert (code, json.loads(out), errors) == (0, SCHEMA, "")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_study_files_are_valid(path) -> None:
    text = path.read_text()
    jsonschema.validate(tomllib.loads(text), SCHEMA)
    named = re.match(r"#:schema (.*)\n", text)[1]
    assert (path.parent / named).resolve() == DOCS / "reference/study.schema.json"


def test_every_key_that_is_commented_out_is_valid() -> None:
    lines = (ROOT / "studies/digits.toml").read_text().splitlines()
    for line in lines:
        if match := re.match(r"# ((\w+) = .*?)( #.*)?$", line):
            jsonschema.validate(tomllib.loads(match[1]), {**SCHEMA, "additionalProperties": True})


EVERYTHING = """
trials = "auto"
like = "OLD"
families = ["manual", "cyclic"]
manual = [[10, 0.1], [[10, 20], 0.01]]
weight_decay = "0.3x"
minutes = 0.5
[options]
width = 3
[bounds]
cyclic.mode = ["triangular", "exp_range"]
cyclic.cycle_momentum = true
cyclic.max_lr = [1e-3, 1]
[groups]
head = [1, 30.0]
body = 2
[start]
cyclic = 1
[confirm]
share = 0.5
"""


def test_what_the_plan_takes_the_schema_takes(tmp_path) -> None:
    (tmp_path / "all.toml").write_text(EVERYTHING)
    assert load_plan(tmp_path / "all.toml").until_settled
    jsonschema.validate(tomllib.loads(EVERYTHING), SCHEMA)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ("trails = 100", ()),
        ('trials = "many"', ("trials",)),
        ("trials = 1.5", ("trials",)),
        ("epochs = 0", ("epochs",)),
        ("minutes = 0", ("minutes",)),
        ("range_test = 1", ("range_test",)),
        ('sampler = "cma"', ("sampler",)),
        ('families = ["cylic"]', ("families", 0)),
        ("families = []", ("families",)),
        ("bounds.cylic.max_lr = 1", ("bounds",)),
        ("bounds.cyclic = 1", ("bounds", "cyclic")),
        ("groups.head = [1]", ("groups", "head")),
        ("confirm.sed = 3", ("confirm",)),
        ("confirm.share = 1", ("confirm", "share")),
        ("horizon.epochs = [1, 2]", ()),
        ("manual = [[10]]", ("manual", 0)),
    ],
)
def test_a_mistake_is_found_by_the_schema_as_by_the_plan(tmp_path, wrong, where) -> None:
    with pytest.raises(jsonschema.ValidationError) as found:
        jsonschema.validate(tomllib.loads(wrong), SCHEMA)
    assert tuple(found.value.absolute_path) == where
    (tmp_path / "wrong.toml").write_text(wrong)
    with pytest.raises(clrsearch.PlanError):
        load_plan(tmp_path / "wrong.toml")


def test_every_key_says_what_it_is() -> None:
    keys = SCHEMA["properties"] | SCHEMA["properties"]["confirm"]["properties"]
    assert all(key["description"].endswith(".") for key in keys.values())
    assert set(SCHEMA["properties"]) == set(StudyPlan.model_fields) - {"horizon"}
    jsonschema.Draft7Validator.check_schema(SCHEMA)
