"""Texts in generated code are somebody's: none of them becomes code."""

from __future__ import annotations

import ast

import pytest

from clrsearch.exports import FORMATS, Found, write
from clrsearch.schedules import Cyclic, SourceFile

HOSTILE = [
    'x"""\nprint("executed")\n"""',
    'ends with "',
    "C:\\user\\xpath \\N{DASH}",
    "\\",
    "a line\u2028and\x00another\r\nraise SystemExit",
]
SCHEDULE = Cyclic(
    mode="triangular", base_lr=0.01, max_lr=0.1, step_size_up=5.0, cycle_momentum=False
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", [name for name in FORMATS if name not in ("table", "timm")])
def test_no_text_ends_its_docstring(text, form) -> None:
    def written(some: str) -> str:
        file = SourceFile(
            title=some,
            found={some: some},
            optimizer=some,
            epochs=2,
            steps_per_epoch=10,
        )
        found = Found(
            schedule=SCHEDULE, file=file, momentum="none", groups=("0",), own_ratios=(1.0,)
        )
        return write(form, found)

    def without_texts(code: str) -> str:
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value = ""
        return ast.dump(tree)

    assert without_texts(written(text)) == without_texts(written("harmless"))


def test_what_is_shown_is_what_was_given() -> None:
    said = 'a "name" and a \\ back'
    file = SourceFile(title=said, found={}, optimizer="SGD()", epochs=2, steps_per_epoch=10)
    found = Found(schedule=SCHEDULE, file=file, momentum="none", groups=("0",), own_ratios=(1.0,))
    assert ast.get_docstring(ast.parse(write("torch", found))) == said
