"""Messages to chat services, mail and web hooks, by URLs that never show their secrets."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from clrsearch.errors import PlanError

if TYPE_CHECKING:
    from apprise import NotifyBase

VARIABLE = "CLRSEARCH_NOTIFY"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")


class Notices:
    """Where messages go. ``str`` and ``repr`` show none of the URLs' secrets; it is not pickled.

    Raises:
        PlanError: apprise is not installed, or does not understand a URL.
    """

    def __init__(self, urls: Sequence[str] = ()) -> None:
        self._services = [_service(url) for url in urls]

    def send(self, title: str, body: str) -> list[str]:
        """Send a message to all; returns those that did not get it, without their secrets."""
        return [_shown(each) for each in self._services if not _delivered(each, title, body)]

    def __str__(self) -> str:
        return ", ".join(map(_shown, self._services)) or "nobody"

    def __repr__(self) -> str:
        return f"Notices({str(self)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("notices may contain passwords and cannot be pickled")


def _service(url: str) -> NotifyBase:
    if find_spec("apprise") is None:
        raise PlanError("notifications need apprise: pip install 'clrsearch[notify]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its many services, loaded here
        from apprise import Apprise

        logging.getLogger("apprise").disabled = True  # it logs what we report, and parts of URLs
        found = Apprise.instantiate(url, suppress_exceptions=True)
    if found is None:
        scheme = _SCHEME.match(url)
        shown = f"{scheme[0]}://***" if scheme else "***"
        raise PlanError(
            f"not a URL that apprise can send to: {shown} (the rest is not shown, as it may "
            "contain a password); see https://appriseit.com/services"
        )
    return found


def _shown(service: NotifyBase) -> str:
    """A service's scheme alone: hosts and paths are secrets of some, such as the topic of ntfy."""
    return f"{str(service.url(privacy=True)).partition('://')[0]}://***"


def _delivered(service: NotifyBase, title: str, body: str) -> bool:
    try:
        return bool(service.notify(body=body, title=title))
    except Exception:  # whatever one of its many services raises must not end a study
        return False
