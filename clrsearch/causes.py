"""Summarize in one line why something failed, from a traceback or a worker's stderr."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_SAID = 200  # characters of an exception's type and message
CUT = "[...]"

_HEADER = r"(?:  \+ )?(?:Exception Group )?Traceback \(most recent call last\):$"
_LAST_RAISED = re.compile(  # torch puts the traceback of a DataLoader worker into a message
    r"^(?:The above exception was the direct cause of the following exception:\n\n"
    r"|During handling of the above exception, another exception occurred:\n\n"
    rf"|Original )(?={_HEADER})",
    re.MULTILINE,
)
_EXCEPTION = re.compile(rf"^(?!{_HEADER})(?:  \| )?\S", re.MULTILINE)
_SUB_EXCEPTIONS = re.compile(r"^ *(\+-\+?)-+.*\n?", re.MULTILINE)
_BRANCH = re.compile(r"^ *[|+] ?", re.MULTILINE)  # line prefix in an exception group
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)
_PACKAGE = re.escape(str(Path(__file__).parent))
_FOREIGN = re.compile(rf"[/\\](?:site|dist)-packages[/\\]|/lib/python3\.\d+/|^<|^{_PACKAGE}/")
_COMPLAINT = re.compile(rf"^(?:clrsearch: (.*)|{_HEADER})", re.MULTILINE)


def cause(error: str) -> str:
    """Type and first message line of the last exception, with its location: ``(mine.py:41)``.

    The location is the last frame in the user's code, or else the first frame. ``error`` is a
    traceback, or a message without one, whose first line is used.
    """
    said, place = _told(error)
    if len(said) > LONGEST_SAID:
        said = f"{said[:LONGEST_SAID].rstrip()}..."
    return (f"{said} ({place})" if place else said) or "no reason recorded"


def complaint(errors: str) -> str:
    """The last error in a process's stderr; without one the last line, empty if there is none."""
    told = list(_COMPLAINT.finditer(errors))
    if not told:
        return "".join(_lines(errors)[-1:])
    return told[-1][1] or cause(errors[told[-1].start() :])


def shortened(error: str, longest: int) -> str:
    """Shorten a traceback to about ``longest`` characters around the line of the exception."""
    if len(error) <= longest:
        return error
    header, stack, message = _parted(error)
    half = longest // 2
    if len(stack) > half:
        stack = f"  {CUT}\n{stack[-half:].partition(chr(10))[2]}"
    room = longest - len(stack)
    return header + stack + (message if len(message) <= room else f"{message[:room]}\n{CUT}")


def _told(error: str) -> tuple[str, str]:
    """The exception's text and its location; either may be empty."""
    header, stack, message = _parted(error)
    if header.startswith("  + "):
        return _told_by_group(header + stack + message)
    line, *more = _lines(message) or [""]
    if line.endswith(":"):  # the message starts on the next line, or is empty
        line = f"{line} {more[0]}" if more else line[:-1]
    return line, _place(stack + message) or _place(error)


def _told_by_group(error: str) -> tuple[str, str]:
    """As :func:`_told`, for a group: its message only counts exceptions, so the first is added."""
    head, *branches = _SUB_EXCEPTIONS.split(error)
    first = ""
    for branch, text in zip(branches[::2], branches[1::2], strict=True):
        if branch == "+-":
            break
        first = text  # "+-+": continue with its nested exceptions
    outer, place = _told(_BRANCH.sub("", head))
    inner, nearer = _told(_BRANCH.sub("", first))
    return f"{outer}, the first: {inner}", nearer or place


def _parted(error: str) -> tuple[str, str, str]:
    """Split the traceback of the last exception into its header, its frames, and the rest.

    For a message without a traceback, everything is in the rest.
    """
    start = max((match.end() for match in _LAST_RAISED.finditer(error)), default=0)
    header = re.match(_HEADER, error[start:], re.MULTILINE)
    if header is None:
        return "", "", error
    begin = start + header.end() + 1
    found = _EXCEPTION.search(error, begin)
    end = found.start() if found else len(error)
    return error[start:begin], error[begin:end], error[end:]


def _place(text: str) -> str:
    """File and line of the last frame in the user's code, or else of the first frame."""
    frames = _FRAME.findall(text)
    own = [frame for frame in frames if not _FOREIGN.search(frame[0])]
    if not frames:
        return ""
    file, line = own[-1] if own else frames[0]
    return f"{Path(file).name}:{line}"


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
