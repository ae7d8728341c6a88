"""What each tool answers to a newcomer's mistakes: makes those of mistakes.toml, one by one.

Each runs in an empty folder. What was said goes into answers.json, with the kind of the answer:

    line       it ends with an error, in a line that names the cause
    traceback  it ends with a traceback that names the cause
    unnamed    it ends with an error that does not name the cause, or with None for a result
    goes on    it goes on or ends as if all were well, and names the cause on the way
    silent     it goes on or ends as if all were well, and says nothing of it
    harmless   so it does, and rightly: mistakes.toml says why, judged by hand
    hang       it did not end
    impossible the mistake cannot be made

From `benchmarks/`:

    python -m newcomer.mistakes                          # all of them, 15 minutes
    python -m newcomer.mistakes --only Optuna --like Ctrl-C
    python -m newcomer.mistakes --table                  # of what answers.json has
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ANSWERS = HERE / "answers.json"
PATIENCE = 240.0  # seconds until it counts as a hang
LAST = 12  # lines of what was said that are kept
WORDS = {
    "line": "one line",
    "traceback": "traceback",
    "unnamed": "**no result, cause not named**",
    "goes on": "says so, continues",
    "silent": "**silent**",
    "harmless": "harmless",
    "hang": "**hang**",
    "impossible": "cannot happen",
}
NO_RESULT = re.compile("^(best|suggested): (None|nan)", re.MULTILINE)
PLAIN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(folder: Path, command: Sequence[str], interrupt_at: str | None) -> tuple[Any, str]:
    """The exit status (None: it hung; 0: interrupted, it ended), and all that was printed."""
    own = {"HOME": str(folder), "CLRSEARCH_STORAGE": f"sqlite:///{folder}/studies.db"}
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1", **own},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline, interrupted = time.monotonic() + PATIENCE, False
    while process.poll() is None and time.monotonic() < deadline:
        if interrupt_at and not interrupted and re.search(interrupt_at, said_in(folder)):
            os.killpg(process.pid, signal.SIGINT)  # as the terminal does
            interrupted = True
        time.sleep(0.2)
    status = process.poll()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return 0 if interrupted and status is not None else status, said_in(folder)


def said_in(folder: Path) -> str:
    """What was printed, as a terminal would show it."""
    said = PLAIN.sub("", (folder / "output.txt").read_text(errors="replace"))
    for path, name in ((str(folder), "FOLDER"), (sys.prefix, "VENV"), (sys.base_prefix, "PYTHON")):
        said = said.replace(path, name)
    lines = said.splitlines()
    return "\n".join(line.rsplit("\r", 1)[-1].rstrip() for line in lines)


def kind_of(status: int | None, said: str, names: str) -> str:
    """The kind of an answer."""
    if status is None:
        return "hang"
    named = re.search(names, said) is not None
    if status == 0 and named:
        return "goes on"
    if status == 0 and not NO_RESULT.search(said):
        return "silent"
    if not named:
        return "unnamed"
    return "traceback" if "Traceback (most recent call last)" in said else "line"


def replaced(text: str, pairs: Sequence[Sequence[str]]) -> str:
    for old, new in pairs:
        if old not in text:
            raise SystemExit(f"mistakes.toml replaces {old!r}, which is not there")
        text = text.replace(old, new)
    return text


def make(mistake: Mapping[str, Any], tool: Mapping[str, Any], how: Mapping[str, Any]) -> Any:
    """Make one mistake with one tool; what came of it."""
    if "impossible" in how:
        return {"kind": "impossible", "said": how["impossible"]}
    script = replaced((HERE / tool["script"]).read_text(), tool.get("replace", []))
    script = replaced(script, how.get("replace", []))
    words = replaced(tool["command"], how.get("replace_command", []))
    command = shlex.split(f"{words} {how.get('add', '')}")
    again = [*command, *shlex.split(how.get("second_add", ""))]
    interrupt = mistake.get("interrupt_at")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "script.py").write_text(script)
        status, said = run(folder, command, interrupt)
        first = ""
        if again != command or "second_replace" in how:
            (folder / "script.py").write_text(replaced(script, how.get("second_replace", [])))
            status, said = run(folder, again, None)
        elif interrupt is not None:
            first = said
            status, said = run(folder, again, interrupt)
    kind = kind_of(status, f"{first}\n{said}", mistake["names"])
    if kind == "silent" and "harmless" in how:
        kind = "harmless"
    answer = {"kind": kind, "exit": status}
    if first:
        answer["said at Ctrl-C"] = kept(first, mistake["names"])
    return answer | {"said": kept(said, mistake["names"])}


def kept(said: str, names: str) -> list[str]:
    """The lines that name the cause, three at most, those with a result, and the last ones."""
    lines = [line for line in said.splitlines() if line.strip() and "Tip:" not in line]
    naming = [line for line in lines[:-LAST] if re.search(names, line)][:3]
    naming += [line for line in lines[:-LAST] if re.match("best: |suggested: |Failed ", line)]
    return [line[:300] for line in [*naming, *lines[-LAST:]]]


def table(answers: Mapping[str, Mapping[str, Any]], tools: Sequence[str]) -> str:
    rows = [["", *tools], ["---"] * (len(tools) + 1)]
    for title, of in answers.items():
        rows.append([title, *(WORDS[of[tool]["kind"]] if tool in of else "" for tool in tools)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="this tool")
    parser.add_argument("--like", default="", help="mistakes with this in the title")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    listed = tomllib.loads((HERE / "mistakes.toml").read_text())
    answers = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    for mistake in () if asked.table else listed["mistakes"]:
        if asked.like not in mistake["title"]:
            continue
        for name, tool in listed["tools"].items():
            if asked.only in (None, name):
                answer = make(mistake, tool, mistake[name])
                of = answers.setdefault(mistake["title"], {}) | {name: answer}
                answers[mistake["title"]] = {
                    each: of[each] for each in listed["tools"] if each in of
                }
                print(mistake["title"], "|", name, "|", answer["kind"], flush=True)
                ANSWERS.write_text(json.dumps(answers, indent=1) + "\n")
    print(table(answers, [*listed["tools"]]))


if __name__ == "__main__":
    main()
