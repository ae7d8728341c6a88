"""The comparison with peers: mistakes are made as mistakes.toml says, answers told apart."""

import json
import tomllib

import pytest
from newcomer import mistakes

LISTED = tomllib.loads((mistakes.HERE / "mistakes.toml").read_text())


@pytest.mark.parametrize("mistake", LISTED["mistakes"], ids=lambda each: each["title"])
@pytest.mark.parametrize("tool", LISTED["tools"])
def test_each_mistake_fits_the_script_of_each_tool(mistake, tool) -> None:
    of, how = LISTED["tools"][tool], mistake[tool]
    script = mistakes.replaced((mistakes.HERE / of["script"]).read_text(), of.get("replace", []))
    wrong = mistakes.replaced(script, how.get("replace", []))
    command = mistakes.replaced(of["command"], how.get("replace_command", []))
    changes = (wrong != script, command != of["command"], "add" in how, "second_add" in how)
    assert any(changes) or "impossible" in how or "second_replace" in how
    compile(mistakes.replaced(wrong, how.get("second_replace", [])), tool, "exec")


def test_what_is_answered_covers_what_is_listed() -> None:
    answers = json.loads(mistakes.ANSWERS.read_text())
    assert [*answers] == [each["title"] for each in LISTED["mistakes"]]
    assert all([*of] == [*LISTED["tools"]] for of in answers.values())


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (None, "no such file", "hang"),
        (0, "best: 0.9", "silent"),
        (0, "on the way\nsuggested: None", "unnamed"),
        (0, "warning: no such file", "goes on"),
        (2, "it failed", "unnamed"),
        (2, "error: no such file", "line"),
        (1, "Traceback (most recent call last):\nOSError: no such file", "traceback"),
    ],
)
def test_the_kind_of_an_answer(status, said, kind) -> None:
    assert mistakes.kind_of(status, said, "no such file") == kind
