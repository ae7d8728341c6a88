"""Nothing that a row holds commands a terminal."""

from __future__ import annotations

import json

from rich.text import Text

from clrsearch.reports import Terminal, one_line, say
from clrsearch.reports.tables import plain_table

EVIL = "a\x1b[31m\x1b]0;title\x07\x9b2J\u202eb\r"
SHOWN = r"a\x1b[31m\x1b]0;title\x07\x9b2J\u202eb\r"


def test_a_line_stays_a_line() -> None:
    assert one_line(f"{EVIL}\nnext") == rf"{SHOWN}\nnext"
    assert one_line("na\u00efve \u6a21\u578b\t1") == "na\u00efve \u6a21\u578b\t1"


def test_what_is_said(capsys) -> None:
    say(EVIL, "next")
    say("x\ny\x1b[2J", error=True)
    said = capsys.readouterr()
    assert said.out == f"{SHOWN}\nnext\n"
    assert said.err == "x\\ny\\x1b[2J\n"


def test_what_is_drawn_and_what_looks_like_markup(capsys) -> None:
    console = Terminal(width=120)
    table = plain_table("study\x1b[1m")
    table.add_row(f"[/bold]{EVIL}\n:smile:")
    console.print(table)
    console.print(Text(f"{EVIL}\nnext", style="red"))
    console.print(json.dumps({"name": EVIL}), soft_wrap=True)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [r"study\x1b[1m", rf"[/bold]{SHOWN}\n:smile:"]
    quiet = SHOWN.replace(r"\x07", "").replace(r"\r", "")  # rich leaves these out by itself
    assert lines[2:4] == [quiet, "next"]
    assert json.loads(lines[4]) == {"name": EVIL}
