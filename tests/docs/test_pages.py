"""Every code block of every page is executed, or says why not; what pages name exists."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from pages import ROOT, Block, Place, blocks

GENERATED = {"docs/reference/cli.md", "docs/tutorials/notebook.md"}
"""Usage lines that the command line writes itself; a notebook that test_api.py executes."""
PAGES = sorted(
    name
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if (name := str(path.relative_to(ROOT))) not in GENERATED
)
OWN = ("mine.py", "mine.toml")
"""Files that pages write or, where they do not, find."""
PREPARED = """
clrsearch new mine.py
cat > mine.toml <<END
task = "mine.py:Mine"
epochs = 4
trials = 6
confirm = {top = 1, seeds = 2}
END
clrsearch run mine.toml --workers 1
few="--trials 6 --epochs 4 --set confirm.top=1 --set confirm.seeds=2"
clrsearch run --task digits $few --workers 0
clrsearch run --trials 6 --set confirm.top=1 --set confirm.seeds=2 --workers 0
"""
"""A task, and the studies that pages may name."""
WITH_BLOCKS = [page for page in PAGES if "```" in (ROOT / page).read_text()]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained study of each name, the same for all processes of the tests."""
    shared = tmp_path_factory.getbasetemp().parent / "pages"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            new = Path(f"{shared}.new")
            shutil.copytree(ROOT / "studies", new / "studies")
            shutil.copytree(ROOT / "docs/examples", new / "docs/examples")
            Place(new, environment(new)).run(shell(PREPARED))
            (new / ".environment").unlink()
            new.rename(shared)
    return shared


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Iterator[Place]:
    """A copy of the prepared folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    made = Place(tmp_path, environment(tmp_path))
    yield made
    made.close()


def shell(text: str) -> Block:
    """A block of commands."""
    return Block(line=0, language="sh", title="", text=text)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a new user's shell, whose home is the folder."""
    return {
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}",
        "TERM": "dumb",
        "USER": "me",
    }


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_every_block_runs(page, place) -> None:
    found = list(blocks((ROOT / page).read_text()))
    if any(block.title in OWN or "clrsearch new mine.py" in block.text for block in found):
        place.run(shell(f"clrsearch delete mine --yes && rm {' '.join(OWN)}"))
    for block in found:
        if not block.skipped:
            try:
                place.run(block)
            except Exception as error:
                raise AssertionError(f"{page}:{block.line}: {error}") from error
