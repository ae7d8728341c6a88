"""What the pages name exists: files, sections of them, commands and their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pages import ROOT

from clrsearch.cli.app import app

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PLACES = ("docs/", "studies/", "tests/", "benchmarks/", "clrsearch/", ".ci/")
each_page = pytest.mark.parametrize(
    "page", sorted(PAGES), ids=lambda path: str(path.relative_to(ROOT))
)


def tokens(page: Path) -> Iterator[Token]:
    """The inline parts of a page."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        yield from token.children or ()


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


@each_page
def test_every_link_leads_somewhere(page) -> None:
    for token in tokens(page):
        link = token.attrGet("href") or token.attrGet("src")
        if link is None or re.match(r"https?://|mailto:", str(link)):
            continue
        path, _, section = str(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if section:
            assert section in sections(target), link
        assert target.resolve().is_relative_to(ROOT), link


@each_page
def test_every_file_that_is_named_exists(page) -> None:
    for token in tokens(page):
        name = token.content if token.type == "code_inline" else ""
        if name.startswith(PLACES) and re.fullmatch(r"[\w./-]+", name) and "NAME" not in name:
            assert (ROOT / name).exists(), name


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that is named, if any, and the words behind its name."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-") or words[0].isupper() or words[0] == "...":
            return None, words
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@each_page
def test_every_command_in_the_text_has_the_options_it_is_shown_with(page) -> None:
    for token in tokens(page):
        if token.type != "code_inline" or not token.content.startswith("clrsearch "):
            continue
        command, words = command_of(shlex.split(token.content, comments=True)[1:])
        if command is not None:
            known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            known |= {"--help", "-h"}
            for word in words:
                if word.startswith("-") and word != "-":
                    assert word.partition("=")[0] in known, token.content
