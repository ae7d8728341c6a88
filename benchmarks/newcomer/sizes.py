"""What a tool installs, as it lies in this environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TOOLS: Mapping[str, list[str]] = {
    "clrsearch": ["clrsearch"],
    "Optuna": ["optuna", "optuna-dashboard"],
    "Ray Tune": ["ray[tune]"],
    "lr_find": ["lightning", "matplotlib"],  # which draws its picture
}


def required(requirement: str) -> Distribution:
    """The installed package that meets a requirement."""
    return distribution(Requirement(requirement).name)


def needed(wanted: Iterable[str]) -> set[str]:
    """The names of some requirements and of all that they require in turn."""
    found: set[tuple[str, str]] = set()  # with an extra, or none
    left = [Requirement(each) for each in wanted]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for of, extra in found if of == name}:
            found.add((name, extra))
            further = [Requirement(each) for each in distribution(name).requires or ()]
            left += [
                each
                for each in further
                if each.marker is None or each.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in found}


def megabytes(name: str) -> float:
    """What a package takes on the disk, without compiled copies of its modules."""
    if name == "clrsearch":  # of this checkout
        files: list[Path] = [*(ROOT / "clrsearch").rglob("*")]
    else:
        files = [Path(str(each.locate())) for each in distribution(name).files or ()]
    kept = [each for each in files if each.suffix != ".pyc" and each.is_file()]
    return sum(each.stat().st_size for each in kept) / 1e6
