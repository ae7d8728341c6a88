"""What reaches a terminal: text that can be shown, whatever the rows of a database hold.

A terminal takes some characters for commands: ESC and its like, and those that reverse the order of
what follows. They are written out, ESC as ``\\x1b``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from clrsearch.errors import StorageError

_COMMANDS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    "\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff\\U000e0000-\\U000e007f]"
)


def shown(text: str) -> str:
    """Text of several lines without what a terminal would obey."""
    return _COMMANDS.sub(_written_out, text)


def one_line(text: str) -> str:
    """The same for what must stay one line, such as a name."""
    return shown(text.replace("\n", "\\n"))


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class Terminal(Console):
    """A console for what comes from a database: no text in it is a command, nor markup."""

    def __init__(self, *, width: int | None = None) -> None:
        super().__init__(width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text that a table or a line holds, before it is measured."""
        return super().render_str(one_line(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """All that is drawn passes here; what the console itself adds is left as it is."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)


def say(*lines: str, error: bool = False) -> None:
    """Print lines, to stderr if they are of an ``error`` or beside the point.

    Raises:
        StorageError: the disk behind it is full, or something alike.
    """
    file = sys.stderr if error else sys.stdout
    try:
        print("\n".join(map(one_line, lines)), file=file, flush=True)
    except BrokenPipeError:
        raise  # whoever read it has seen enough
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # what is left is not tried again
        raise StorageError(f"the output cannot be written: {problem.strerror}") from problem
