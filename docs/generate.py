"""Write what the documentation takes from the package: ``python docs/generate.py``.

A test compares it with the disk.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import clrsearch
from clrsearch.plots.svg import draw_figure
from clrsearch.schedules import FAMILIES, Choice, Parameter, Value
from clrsearch.search import StudyPlan, build_space, study_schema
from clrsearch.service import preview
from clrsearch.tasks import TaskFacts

DOCS = Path(__file__).parent
EPOCHS, STEPS_PER_EPOCH, RATE = 20, 10, 0.1
"""The task that the tables and pictures of the families are for."""
MANUAL = [[10, 0.1], [6, 0.03], [4, 0.01]]

KEYS = {
    "The task": (
        *("task", "options", "args", "batch_size", "metric", "direction", "weight_decay"),
        *("precision", "deterministic"),
    ),
    "The length of a run": ("epochs", "steps", "validate_every"),
    "When the search ends": ("trials", "minutes", "gpu_hours", "epochs_total", "until_settled"),
    "What is searched": (
        *("families", "baseline", "bounds", "groups", "start", "manual", "stepsize"),
        *("range_test", "like"),
    ),
    "How it is searched": (
        *("sampler", "allocation", "pruner", "seed", "seeds", "retries", "trunks"),
    ),
}
"""The sections of the page on study files."""
INTRODUCTION = """\
# Study files

<!-- Written by docs/generate.py from clrsearch/search/plan.py. -->

A study file is TOML. Every key has a default, so a file holds only what you change:

```toml title="mine.toml"
task = "digits"
trials = 40
families = ["cyclic", "onecycle"]

[bounds]
cyclic.max_lr = [1e-3, 1.0]
```

`clrsearch run mine.toml` runs it, and the study is called `mine`. The same keys can be set on the
command line, such as `--set trials=40` or `--set 'bounds.cyclic.max_lr=[1e-3, 1.0]'`.
`studies/digits.toml` has every key with a comment.

An editor with a TOML extension (Taplo, Even Better TOML) completes and checks the keys by a
[JSON Schema](study.schema.json). Write it beside your study files, and name it in their first line:

```sh
clrsearch schema > study.schema.json
```

```toml
#:schema study.schema.json
trials = 40
```

The schema knows keys, types and families. What depends on the task, and which keys go together, is
checked when the study begins.
"""
PYTHON = """\
# Python

<!-- Written by docs/generate.py from clrsearch.__all__. -->

`import clrsearch` costs neither torch nor Optuna; each name is imported when it is first used.

## Studies

::: clrsearch.run

::: clrsearch.open

::: clrsearch.lr_find

::: clrsearch.Study

::: clrsearch.StudyPlan
    options: {members: false}

Its fields are the keys of a [study file](study-file.md).

## Tasks

::: clrsearch.Task

::: clrsearch.Splits

::: clrsearch.Loaders

::: clrsearch.dry_run

## Other libraries' Trainers

::: clrsearch.frameworks.lightning

::: clrsearch.frameworks.transformers

## Schedules

`clrsearch.FAMILIES` maps each family's name to its class. The [families](../families/index.md) have
a page each. `clrsearch.__version__` is the version.

::: clrsearch.trace
"""
PICTURE = """\
<style>
svg { font: 13px sans-serif; } text { fill: #808080; } path { fill: none; }
.grid { stroke: #808080; stroke-opacity: 0.25; } .axis { stroke: #808080; }
.curve { stroke: #3b82f6; stroke-width: 2; stroke-linejoin: round; }
</style>"""
"""Colours that can be read on white and on black."""
COLUMNS, WIDE, HIGH, GAP = 3, 150, 70, 34
"""Of the picture of all families."""


def written() -> dict[Path, str]:
    """The text of each generated file."""
    return {
        DOCS / "reference/cli.md": commands(),
        DOCS / "reference/api.md": python_names(),
        DOCS / "reference/study-file.md": study_file(),
        DOCS / "reference/study.schema.json": json.dumps(study_schema(), indent=2) + "\n",
        DOCS / "tutorials/notebook.md": notebook(DOCS / "tutorials/notebook.ipynb"),
        DOCS / "images/families/all.svg": all_families(),
        **{DOCS / f"images/families/{family}.svg": picture(family) for family in FAMILIES},
        **{page: with_table(page) for page in family_pages()},
    }


def family_pages() -> list[Path]:
    """The pages of families that are there."""
    return [page for each in FAMILIES if (page := DOCS / f"families/{each}.md").exists()]


def commands() -> str:
    """The page on the command line, as Typer writes it."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "cli.md"
        typer = [sys.executable, "-m", "typer", "clrsearch.cli.app", "utils", "docs"]
        subprocess.run(
            [*typer, "--name", "clrsearch", "--title", "Commands", "--output", page],
            check=True,
            capture_output=True,
            env=os.environ | {"COLUMNS": "80", "TERM": "dumb"},
        )
        return page.read_text(encoding="utf-8")


def study_file() -> str:
    """The page on study files."""
    keys = study_schema()["properties"]
    confirm = keys.pop("confirm")
    parts = [INTRODUCTION]
    for title, names in KEYS.items():
        parts.append(f"## {title}\n\n{table({name: keys.pop(name) for name in names})}\n")
    if keys:
        raise LookupError(f"docs/generate.py: KEYS lacks {', '.join(keys)}")
    parts.append(f"## The table `[confirm]`\n\n{confirm['description']}\n")
    parts.append(f"{table(confirm['properties'])}\n")
    return "\n".join(parts)


def python_names() -> str:
    """The page on the public names, which mkdocstrings fills in."""
    parts = [PYTHON]
    names = [name for name in clrsearch.__all__ if f"clrsearch.{name}" not in PYTHON]
    errors = [name for name in names if issubclass(getattr(clrsearch, name), Exception)]
    families = [each.__name__ for each in FAMILIES.values()]
    if unknown := {*names} - {*errors, *families}:
        raise LookupError(f"docs/generate.py: PYTHON lacks {', '.join(sorted(unknown))}")
    for name in families:
        parts.append(f"::: clrsearch.{name}\n    options: {{members: false}}\n")
    parts.append("## Errors\n")
    for name in errors:
        parts.append(f"::: clrsearch.{name}\n    options: {{members: false}}\n")
    return "\n".join(parts)


def table(keys: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of keys."""
    rows = [
        (f"`{name}`", kind(key), default(key), key["description"]) for name, key in keys.items()
    ]
    return rows_of("key", "value", "default", "what it says", rows=rows)


def rows_of(*titles: str, rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def kind(schema: Mapping[str, Any]) -> str:
    """The values that a key takes, in words."""
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        names = [f"`{json.dumps(each)}`" for each in schema["enum"]]
        return "a family" if schema["enum"] == list(FAMILIES) else ", ".join(names)
    items = schema.get("items")
    if isinstance(items, list):
        return "a pair"
    if items:
        return "a list of families" if "enum" in items else "a list"
    words = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    return words.get(schema["type"], "table" if schema["type"] == "object" else schema["type"])


def default(schema: Mapping[str, Any]) -> str:
    """A key's default as it is written in TOML; nothing if the description tells it."""
    value = schema.get("default")
    return "" if value is None or isinstance(value, list) else f"`{json.dumps(value)}`"


def notebook(path: Path) -> str:
    """A notebook as a page."""
    parts = [f"<!-- Written by docs/generate.py from {path.name}. -->"]
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    parts.insert(2, f"The notebook itself is [{path.name}]({path.name}).")
    return "\n\n".join(parts) + "\n"


def settings(family: str) -> dict[str, Any]:
    """What a preview of a family needs to be told."""
    return {"manual": MANUAL} if family == "manual" else {}


def picture(family: str) -> str:
    """A family's schedule with its usual values."""
    shown = preview([family], settings(family), epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH)
    svg = re.sub(r' style="min-width:\d+px"', "", draw_figure(shown.figure).svg, count=1)
    return as_file(svg)


def as_file(svg: str) -> str:
    """Inline SVG as a file of its own."""
    start, rest = svg.split(">", 1)
    return f'{start} xmlns="http://www.w3.org/2000/svg">{PICTURE}{rest}\n'


def all_families() -> str:
    """The rates of all families beside each other, each over its own peak."""
    parts = []
    for place, family in enumerate(FAMILIES):
        (shown,) = preview(
            [family], settings(family), epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH
        ).schedules
        rates = shown.trace.rates[0]
        left = place % COLUMNS * (WIDE + 16) + 8
        top = place // COLUMNS * (HIGH + GAP) + 8
        points = " ".join(
            f"{left + WIDE * step / (len(rates) - 1):.1f},{top + HIGH * (1 - rate):.1f}"
            for step, rate in enumerate(rates / rates.max())
        )
        bottom = top + HIGH
        parts.append(f'<path class="axis" d="M{left},{top}V{bottom}h{WIDE}"/>')
        parts.append(f'<path class="curve" d="M{points}"/>')
        parts.append(f'<text x="{left}" y="{bottom + 17}">{family}</text>')
    width = COLUMNS * (WIDE + 16)
    height = -(-len(FAMILIES) // COLUMNS) * (HIGH + GAP) + 8
    view = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="All families">'
    return as_file(f"{view}{''.join(parts)}</svg>")


def with_table(page: Path) -> str:
    """A family's page with the table of its searched values."""
    text = page.read_text(encoding="utf-8")
    pattern = r"(?s)(?<=\n## Searched values\n)(.*?)\n\|.*?\|\n(?!\|)"
    made = f"\n{searched(page.stem)}\n"
    found, count = re.subn(pattern, lambda match: match[1] + made, text, count=1)
    if not count:
        raise LookupError(f"{page}: no table of searched values")
    return found


def searched(family: str) -> str:
    """A table of what is searched of a family."""
    plan = StudyPlan(families=(family,), baseline=family, **settings(family))
    facts = TaskFacts(
        metric="loss",
        direction="minimize",
        epochs=EPOCHS,
        batch_size=32,
        steps_per_epoch=STEPS_PER_EPOCH,
        groups=("all",),
        ratios=(1.0,),
        base_lr=RATE,
        momentum="momentum",
        optimizer="SGD",
        source="",
    )
    space = build_space(plan, facts)
    first = space.seed_points(family)
    rows = []
    for name, parameter in space.families[family].items():
        tried = dict.fromkeys(shown(each[name]) for each in first if name in each)
        rows.append((f"`{name}`", *described(parameter), ", ".join(tried)))
    ranges = f"range ({EPOCHS} epochs, own rate {RATE})"
    return rows_of("value", ranges, "how it is searched", "first trials", rows=rows)


def shown(value: Value) -> str:
    """A value as it is written in TOML, with at most four digits."""
    return f"`{json.dumps(value)}`" if isinstance(value, str | bool) else f"{value:.4g}"


def described(parameter: Parameter) -> Iterator[str]:
    """The values of a parameter; how it is searched."""
    domain = parameter.domain
    if isinstance(domain, Choice):
        yield ", ".join(map(shown, domain.options))
        how = "a choice"
    else:
        yield f"{shown(domain.low)} to {shown(domain.high)}"
        how = "whole numbers" if domain.integer else "on a log scale" if domain.log else "evenly"
    if parameter.when is not None:
        name, *values = parameter.when
        how += f", if `{name}` is {' or '.join(map(shown, values))}"
    yield how


def main() -> None:
    """Write every generated file whose text has changed."""
    for path, text in written().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(DOCS))


if __name__ == "__main__":
    main()
