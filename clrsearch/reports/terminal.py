"""Terminal output that is safe whatever text the database contains.

Terminals interpret some characters as commands: control characters such as ESC, and those that
reverse the text direction. They are printed as escape sequences, ESC as ``\\x1b``.
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
    """Escape control characters in text of one or more lines."""
    return _COMMANDS.sub(_written_out, text)


def one_line(text: str) -> str:
    """Escape control characters and line breaks, for text that must stay on one line."""
    return shown(text.replace("\n", "\\n"))


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class Terminal(Console):
    """A console for text from a database: control characters are escaped, markup is off."""

    def __init__(self, *, width: int | None = None) -> None:
        super().__init__(width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Escape a string in a table or line before it is measured."""
        return super().render_str(one_line(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape all output, except control sequences from the console itself."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)


def say(*lines: str, error: bool = False) -> None:
    """Print lines to stdout, or with ``error`` to stderr, which is also for progress messages.

    Raises:
        StorageError: the output cannot be written, for example because the disk is full.
    """
    file = sys.stderr if error else sys.stdout
    try:
        print("\n".join(map(one_line, lines)), file=file, flush=True)
    except BrokenPipeError:
        raise  # the reader has closed the pipe
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # discard what is still buffered
        raise StorageError(f"the output cannot be written: {problem.strerror}") from problem
