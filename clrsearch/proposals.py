"""The commands that messages propose: whole, quoted, fit to be pasted into a shell.

Whoever writes ``clrsearch ...`` into a message gets it from here: :func:`command` for a command of
its own, :func:`again` for the command line of this process. What was given to this process, such as
``--storage`` or ``--task-dir``, is given to every command that it proposes and that has the option;
what it found in its environment is found there again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

PROGRAM = "clrsearch"
Takes = Callable[[Sequence[str], str], bool]
"""Whether the command that some words begin with has an option."""


@dataclass(frozen=True, slots=True)
class _CommandLine:
    words: Sequence[str]
    takes: Takes
    carried: dict[str, object] = field(default_factory=dict)


_here: _CommandLine | None = None  # of the whole process: servers answer in other threads


@contextmanager
def command_line(words: Sequence[str], takes: Takes) -> Iterator[None]:
    """While the block lasts, these words after the program's name are what this process does."""
    global _here
    before, _here = _here, _CommandLine(words, takes)
    try:
        yield
    finally:
        _here = before


def told(*options: str) -> tuple[list[str], list[str]] | None:
    """The words of this process's command line, if any, and which of some options it takes.

    That is what a process needs that speaks in this one's place.
    """
    if _here is None:
        return None
    words = list(_here.words)
    return words, [option for option in options if _here.takes(words, option)]


def carry(option: str, value: object) -> None:
    """Give an option of this process, ``--storage``, to the commands that it proposes.

    Never one that holds a password.
    """
    if _here is not None:
        _here.carried[option] = value


def command(name: str, /, *arguments: object, **options: object) -> str:
    """A command line: ``command("show", study, 3)``, ``command("run", trials=150)``.

    ``True`` stands for an option without a value, a list for one that is given several times.
    ``name`` may be of two words, ``db upgrade``.
    """
    words = name.split()
    given = _named(options)
    if _here is not None:
        carried = {key: each for key, each in _here.carried.items() if _here.takes(words, key)}
        given = {**given, **carried}
    texts = [str(each) for each in arguments]
    if any(each.startswith("-") for each in texts):
        return _line([*words, *_words(given), "--", *texts])
    return _line([*words, *texts, *_words(given)])


def again(**options: object) -> str | None:
    """The command line of this process with other ``options``; None where it does not take them.

    Without a command line, as in a notebook, it is the same call.
    """
    if _here is None:
        changes = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"the same call with {changes}" if changes else "the same call"
    given = _named(options)
    if not all(_here.takes(_here.words, option) for option in given):
        return None
    words = list(_here.words)
    rest = words.index("--") if "--" in words else len(words)
    kept, before = [], ""
    for word in words[:rest]:
        replaced = word.partition("=")[0] in given
        if not replaced and given.get(before, True) is True:
            kept.append(word)
        before = word
    return _line([*kept, *_words(given), *words[rest:]])


def _named(options: Mapping[str, object]) -> dict[str, object]:
    return {f"--{name.replace('_', '-')}": value for name, value in options.items()}


def _words(options: Mapping[str, object]) -> list[str]:
    """Options as words; True stands for one without a value, a list for several."""
    words: list[str] = []
    for option, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            words += [option] if each is True else [option, str(each)]
    return words


def _line(words: Sequence[str]) -> str:
    return " ".join([PROGRAM, *map(quoted, words)])


def quoted(word: str) -> str:
    """A word as a shell takes it; what cannot be shown is written as bash and zsh read it."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    code = ord(character)
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text, as Python reads it from a command line
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"
