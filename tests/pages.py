"""The blocks of the documentation's pages, and a place where they are executed.

A page's blocks run one after the other in one folder, with a database of their own:

- ``sh`` and ``console`` (its lines behind ``$``) in bash, one environment for the whole page;
- ``python`` in one Jupyter kernel, as in a notebook;
- a block with a title, as in ``python title="mine.py"``, is written to that file;
- ``toml`` has to be a study file, ``json`` and ``yaml`` have to parse; ``text`` is output.

Commands that train do it in their own process (``--workers 0``), unless they name a number.
``pip`` installs nothing, for everything is there already, and ``pytest`` is what runs the pages.
The extras that ``pip`` is told must exist.

``<!-- skip: next "the reason" -->`` before a block leaves it out, and ``<!-- run with: --trials 4
"the reason" -->`` appends options to its commands that train.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from markdown_it import MarkdownIt

from clrsearch.search import load_plan

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PATIENCE = 240  # seconds, for a block
MARK = re.compile(r'<!--\s*(skip: next|run with:\s*(?P<options>[^"]*?))\s*(?:"(?P<why>.*)")?\s*-->')
SHELL = """\
set -euo pipefail
if [ -e .environment ]; then source .environment; fi
pip() { :; }
pytest() { :; }
clrsearch() {
    case $1 in
        run|compare|confirm|horizon)
            case " $* " in *" --workers "*) ;; *) set -- "$@" --workers 0 ;; esac
            command clrsearch "$@" %s ;;
        *) command clrsearch "$@" ;;
    esac
}
%s
export -p > .environment
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block, and what the mark in front of it says."""

    line: int
    language: str
    title: str
    text: str
    skipped: bool = False
    options: str = ""


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page in Markdown.

    Raises:
        ValueError: a mark has no reason, or no block behind it.
    """
    mark: re.Match[str] | None = None
    for token in MarkdownIt("commonmark").parse(page):
        line = 1 + (token.map[0] if token.map else 0)
        if token.type == "fence":
            language, _, rest = token.info.partition(" ")
            title = re.search(r'title="([^"]+)"', rest)
            yield Block(
                line=line,
                language=language,
                title=title[1] if title else "",
                text=token.content,
                skipped=mark is not None and mark["options"] is None,
                options=(mark and mark["options"]) or "",
            )
            mark = None
        elif mark is not None and token.nesting == 0:
            raise ValueError(f"line {line}: a mark without a block behind it")
        elif token.type == "html_block" and re.match(r"<!--\s*(skip|run with)", token.content):
            mark = MARK.fullmatch(token.content.strip())
            if mark is None or len(mark["why"] or "") < 10:
                raise ValueError(f"line {line}: {token.content.strip()} gives no reason")
    if mark is not None:
        raise ValueError("a mark without a block behind it")


@dataclass(slots=True)
class Place:
    """A folder in which the blocks of a page are executed."""

    folder: Path
    environment: dict[str, str]
    _kernel: KernelManager | None = field(default=None, init=False)
    _client: BlockingKernelClient = field(init=False)

    def run(self, block: Block) -> None:
        """Execute a block.

        Raises:
            AssertionError: it failed; with what it has printed.
        """
        if block.title:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        match block.language:
            case "sh":
                self._shell(block.text, block.options)
            case "console":
                lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
                assert lines, "no line begins with $"
                self._shell("\n".join(lines), block.options)
            case "python" if not block.title:
                self._python(block.text)
            case "python":
                compile(block.text, block.title, "exec")
            case "toml" if block.title in ("", *(p.name for p in self.folder.glob("*.toml"))):
                self._study(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "json":
                json.loads(block.text)
            case "yaml":
                assert list(yaml.safe_load_all(block.text))
            case language:
                assert language == "text", f"nobody knows how to run {language!r}"

    def _shell(self, text: str, options: str) -> None:
        for extras in re.findall(r"pip install .*(?:clrsearch|\.)\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= set(EXTRAS), extras
        done = subprocess.run(
            ["bash", "-c", SHELL % (options, text)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}"

    def _python(self, text: str) -> None:
        if self._kernel is None:
            self._kernel, self._client = start_new_kernel(
                kernel_name="python3", cwd=str(self.folder), env=self.environment
            )
        reply = self._client.execute_interactive(
            text, timeout=PATIENCE, allow_stdin=False, output_hook=lambda _: None
        )["content"]
        trace = "\n".join(reply.get("traceback", ()))
        assert reply["status"] == "ok", f"{text}\n{trace}"

    def _study(self, text: str) -> None:
        path = self.folder / ".study.toml"
        path.write_text(text, encoding="utf-8")
        load_plan(path)

    def close(self) -> None:
        """End what the blocks have started."""
        if self._kernel is not None:
            self._client.stop_channels()
            self._kernel.shutdown_kernel(now=True)
