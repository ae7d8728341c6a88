"""Commands proposed in messages: complete, and quoted so that they can be pasted into a shell.

Every ``clrsearch ...`` in a message is made here: by :func:`command` for a separate command, by
:func:`again` for a variant of this process's command line. Options given to this process, such as
``--storage`` or ``--task-dir``, are added to every proposed command that accepts them. Environment
variables are not, since the proposed command will find them too.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

PROGRAM = "clrsearch"
Takes = Callable[[Sequence[str], str], bool]
"""Whether the command at the start of some words accepts an option."""


@dataclass(frozen=True, slots=True)
class _CommandLine:
    words: Sequence[str]
    takes: Takes
    carried: dict[str, object] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)


_here: _CommandLine | None = None  # global, not per thread: servers answer in other threads


@contextmanager
def command_line(words: Sequence[str], takes: Takes) -> Iterator[None]:
    """Set this process's command line inside a ``with`` block: ``words`` after the program name."""
    global _here
    before, _here = _here, _CommandLine(words, takes)
    try:
        yield
    finally:
        _here = before


def told(*options: str) -> tuple[list[str], list[str]] | None:
    """The words of this process's command line, if any, and which of ``options`` it accepts.

    A child process needs these to write messages on behalf of this one.
    """
    if _here is None:
        return None
    words = list(_here.words)
    return words, [option for option in options if _here.takes(words, option)]


def carry(option: str, value: object) -> None:
    """Add an option, such as ``--storage``, to all proposed commands that accept it.

    The value must not contain a password.
    """
    if _here is not None:
        _here.carried[option] = value


def exclude(*options: str) -> None:
    """Never propose this process's command line with these options, which its others exclude."""
    if _here is not None:
        _here.excluded.update(options)


def forget(option: str) -> None:
    """Take an option and its values, which may be secrets, out of this process's command line."""
    global _here
    if _here is None:
        return
    kept: list[str] = []
    for before, word in zip(["", *_here.words], _here.words, strict=False):
        if option not in (before, word.partition("=")[0]):
            kept.append(word)
    _here = replace(_here, words=kept)


def command(name: str, /, *arguments: object, **options: object) -> str:
    """A command line: ``command("show", study, 3)``, ``command("run", trials=150)``.

    ``True`` gives an option without a value, a list a repeated option. ``name`` may have two words,
    as in ``db upgrade``.
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
    """This process's command line with changed ``options``; None if it does not accept them.

    Without a command line, as in a notebook, it is "the same call with ...".
    """
    if _here is None:
        changes = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"the same call with {changes}" if changes else "the same call"
    given = _named(options)
    here = _here
    if any(each in here.excluded or not here.takes(here.words, each) for each in given):
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
    """Options as words; True gives an option without a value, a list a repeated option."""
    words: list[str] = []
    for option, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            words += [option] if each is True else [option, str(each)]
    return words


def _line(words: Sequence[str]) -> str:
    return " ".join([PROGRAM, *map(quoted, words)])


def quoted(word: str) -> str:
    """Quote a word for a shell; unprintable characters are escaped by ``$'...'`` (bash and zsh)."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    code = ord(character)
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:  # undecodable byte (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"
