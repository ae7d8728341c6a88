"""What all formats share: how they are named, what they refuse, and what a file says."""

from __future__ import annotations

import typing

import pytest
from exported import CYCLIC, FORMULAS, HORIZON, SCHEDULES, found

from clrsearch.cli.inspecting import best
from clrsearch.errors import PlanError
from clrsearch.exports import FORMATS, write
from clrsearch.schedules import Cosine, Manual


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(PlanError, match=r"'jax'.*torch, lightning, transformers, keras, optax"):
        write("jax", found(CYCLIC))


def test_the_command_offers_every_format() -> None:
    offered, *_ = typing.get_args(typing.get_type_hints(best, include_extras=True)["format"])
    assert set(typing.get_args(offered)) == {*FORMATS, "json", "toml"}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_but_the_table_says_how_it_was_found(format) -> None:
    text = write(format, found(Cosine(lr=0.3, horizon=HORIZON)))
    said = ("A test.\n\nstudy  none\n", "\nEPOCHS = 12\nSTEPS_PER_EPOCH = 7\n", "SGD(momentum=0.9)")
    assert all((words in text) == (format != "table") for words in said)


@pytest.mark.parametrize("format", ["keras", "optax", "timm"])
def test_a_function_of_the_users_is_refused(format) -> None:
    own = next(each for each in SCHEDULES if isinstance(each, Manual) and each not in FORMULAS)
    with pytest.raises(PlanError, match=f"{format} cannot .* manual schedule.*--format torch can"):
        write(format, found(own))


@pytest.mark.parametrize("format", ["torch", "lightning", "transformers", "table"])
def test_a_function_of_the_users_is_written(format) -> None:
    own = next(each for each in SCHEDULES if isinstance(each, Manual) and each not in FORMULAS)
    assert write(format, found(own))
