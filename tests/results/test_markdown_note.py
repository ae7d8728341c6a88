"""A study as a note: what it says, and that nothing in it is Markdown that is not ours."""

from __future__ import annotations

from records import make_record, make_snapshot

from clrsearch.results import Snapshot
from clrsearch.results.markdown_note import escaped, note

NASTY = "[x](http://evil.example) <img src=x> | `a` *b*\n# c"


def snapshot(*records, name="mine") -> Snapshot:
    return make_snapshot(records, name=name)


def test_the_leaders_are_listed_the_best_first() -> None:
    records = [
        make_record(0.1 * (11 - number), number=number, params={"max_lr": 0.01 * number})
        for number in range(12)
    ]
    text = note(snapshot(*records), "code = 1\n")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[2:]] == [str(number) for number in range(11, 1, -1)]
    assert "```python\ncode = 1\n```" in text
    assert "Search best: cyclic \\(trial 11\\)" in text


def test_before_a_trial_is_complete_there_is_no_code() -> None:
    text = note(snapshot(), "")
    assert "No trial is complete yet" in text
    assert "```" not in text
    assert "|" not in text


def test_a_name_is_text() -> None:
    text = note(snapshot(name=NASTY), "")
    assert text.splitlines()[0] == f"# {escaped(NASTY)}"
    assert escaped(NASTY) == (r"\[x\]\(http://evil\.example\) \<img src=x\> \| \`a\` \*b\* \# c")
