"""Links on the site: what only the repository has is named in place of the link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """``[text](../../benchmarks/README.md#place)`` becomes ``text (`benchmarks/README.md`)``."""
    folder = (DOCS / page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        text, target = link[1], (folder / link[2].partition("#")[0]).resolve()
        if target.is_relative_to(DOCS) or not target.exists():
            return link[0]
        path = f"`{target.relative_to(DOCS.parent)}`"
        return path if text.strip("`") in path else f"{text} ({path})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)", named, markdown)
