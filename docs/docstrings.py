"""Docstrings as the site shows them: Sphinx's roles and literal blocks in Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Markdown(griffe.Extension):
    """Rewrites every docstring that griffe has read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """A role becomes code; the two colons before an indented block become one."""
        if obj.docstring is not None:
            text = re.sub(
                r":(?:class|func|meth|data|mod|attr):`~?([^`]+)`", r"`\1`", obj.docstring.value
            )
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
